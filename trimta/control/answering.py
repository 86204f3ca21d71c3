"""The server's side of the control socket: one request for each connection, answered with lines of JSON.

The socket is in data_dir; only the owner of that folder may connect.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from trimta.control.socket_path import choose
from trimta.store.queue.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from pathlib import Path

    from trimta.control.asking import Json

Lines: TypeAlias = "Callable[[Json], AsyncGenerator[Json, None]]"
Handler: TypeAlias = "Lines | Following"

MAX_REQUEST: Final = 64 * 1024
"""Octets of a request, at most."""
REQUEST_LIMIT: Final = 10.0
"""Seconds for a request to come in, and as many for the other side to take each line of the answer."""
BACKLOG: Final = 128
MAX_CONNECTIONS: Final = 64
"""Connections at the same time, at most; others wait in the kernel's backlog."""
MAX_FOLLOWERS: Final = 48
"""Connections for `trimta tail`, which have no end of their own; the others stay free for single answers."""
REFUSALS: Final = (ValueError, RecursionError, QueueError)
"""Exceptions of a handler whose text is sent to the other side as a refusal."""
HANG_UP_PAUSE: Final = 1.0
"""Seconds between two checks whether the other side still reads, once it has closed its own direction."""
ACCEPT_PAUSE: Final = 0.1
"""Seconds before the next accept after the process ran out of descriptors: a session has to end first."""


@dataclass(frozen=True, slots=True)
class Following:
    """A handler that answers with line after line, until the other side hangs up (`trimta tail`)."""

    lines: Lines

    def __call__(self, request: Json) -> AsyncGenerator[Json, None]:
        return self.lines(request)


AnswerOnce: TypeAlias = "Callable[[Json], Awaitable[Json]]"


def single(answer: AnswerOnce) -> Lines:
    """A handler that answers with one line, which `answer` returns."""

    async def handle(request: Json) -> AsyncGenerator[Json, None]:
        yield await answer(request)

    return handle


async def listen(data_dir: Path) -> trio.SocketListener:
    """Bind the control socket of a data_dir that this process has locked.  Raises OSError."""
    path = choose(data_dir)
    unbound = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await unbound.bind(str(path))
        path.chmod(0o600)
        unbound.listen(BACKLOG)
    except OSError:
        unbound.close()
        raise
    return trio.SocketListener(unbound)


async def serve(
    listener: trio.SocketListener,
    handlers: Mapping[str, Handler],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer requests until cancelled.  `handlers` maps the "command" of a request to the handler that answers it."""
    places = trio.Semaphore(MAX_CONNECTIONS)
    connections = _Connections(handlers)

    async def converse(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await connections.answer(stream)
        except (trio.BrokenResourceError, trio.TooSlowError):
            return  # the other side has closed the connection, or does not read
        finally:
            places.release()

    async with trio.open_nursery() as nursery:
        task_status.started()
        while True:
            stream = await _accept(listener)
            try:
                places.acquire_nowait()
            except trio.WouldBlock:
                connections.drop_a_silent_one()
                await places.acquire()
            nursery.start_soon(converse, stream)


async def _accept(listener: trio.SocketListener) -> trio.SocketStream:
    while True:
        try:
            return await listener.accept()
        except OSError:
            await trio.sleep(ACCEPT_PAUSE)


class _Connections:
    """The connections of the control socket, with those that have not sent a request yet in the order of their age."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._silent: dict[trio.CancelScope, None] = {}
        """The scopes of the connections without a request yet, the oldest first."""
        self._followers = 0

    def drop_a_silent_one(self) -> None:
        """Close the oldest connection without a request, to make room."""
        for scope in self._silent:
            scope.cancel()
            return

    async def answer(self, stream: trio.SocketStream) -> None:
        try:
            request = await self._request(stream)
            if request is None:
                return
            command = str(request.get("command"))
            handler = self._handlers.get(command)
            if handler is None:
                raise ValueError(f"unknown command {request.get('command')!r}")
            if isinstance(handler, Following):
                await self._follow(stream, handler, request)
            else:
                await _send_all(stream, handler(request))
        except REFUSALS as cause:
            await _send(stream, {"refused": str(cause)})

    async def _request(self, stream: trio.SocketStream) -> Json | None:
        """The request of a connection; None if the connection was dropped before its request came."""
        with trio.CancelScope() as scope:
            self._silent[scope] = None
            try:
                with trio.fail_after(REQUEST_LIMIT):
                    return await _read_request(stream)
            finally:
                del self._silent[scope]
        return None

    async def _follow(self, stream: trio.SocketStream, handler: Following, request: Json) -> None:
        """Answer until the handler ends or the other side hangs up.

        A hang-up is waited for: without events nothing is sent, and no write would fail.
        """
        if self._followers >= MAX_FOLLOWERS:
            raise ValueError(f"{MAX_FOLLOWERS} follow already: end one of them")
        self._followers += 1
        refused: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_wait_for_hang_up, stream, nursery.cancel_scope)
                try:
                    await _send_all(stream, handler(request))
                except REFUSALS as cause:
                    refused = cause  # raised below, since the nursery would put it into a group
                except (trio.BrokenResourceError, trio.TooSlowError):
                    pass  # the other side has hung up, or does not read
                nursery.cancel_scope.cancel()
        finally:
            self._followers -= 1
        if refused is not None:
            raise refused


async def _wait_for_hang_up(stream: trio.SocketStream, answering: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(MAX_REQUEST):
            pass  # octets behind the request have no meaning
        # The other side has closed the connection, or only its own direction and still reads.
        poll = select.poll()
        poll.register(stream.socket.fileno(), 0)
        while not poll.poll(0):  # noqa: ASYNC110 - Trio can't wait for a hang-up alone
            await trio.sleep(HANG_UP_PAUSE)
    answering.cancel()


async def _send_all(stream: trio.SocketStream, answer: AsyncGenerator[Json, None]) -> None:
    async with aclosing(answer) as lines:
        async for line in lines:
            await _send(stream, line)


async def _read_request(stream: trio.SocketStream) -> Json:
    octets = bytearray()
    while b"\n" not in octets:
        if len(octets) > MAX_REQUEST:
            raise ValueError("request too long")
        chunk = await stream.receive_some(MAX_REQUEST)
        if not chunk:
            raise trio.BrokenResourceError
        octets += chunk
    request = json.loads(octets.partition(b"\n")[0])
    if not isinstance(request, dict):
        raise ValueError("a request is a JSON object")
    return request


async def _send(stream: trio.SocketStream, line: Json) -> None:
    with trio.fail_after(REQUEST_LIMIT):
        await stream.send_all(json.dumps(line).encode() + b"\n")
