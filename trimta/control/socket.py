"""The control socket: how `trimta queue`, `status`, `tail` and `time` talk to a running server.

One request a connection, a line of JSON; the answer is one or more lines of JSON, or {"refused": why}.  The socket
lives in data_dir, whose owner alone may connect.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
import tempfile
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from trimta.store.queue.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

Json: TypeAlias = dict[str, Any]
Lines: TypeAlias = "Callable[[Json], AsyncGenerator[Json, None]]"
Handler: TypeAlias = "Lines | Following"

NAME: Final = "control.sock"
FOLDER: Final = "trimta-"
"""How the names of temporary folders begin."""
MAX_REQUEST: Final = 64 * 1024
MAX_SOCKET_PATH: Final = 100
"""Octets: a unix socket's address has room for little more than a hundred."""
REQUEST_LIMIT: Final = 10.0
"""Seconds for a request to come in, and for one line of the answer to be taken."""
BACKLOG: Final = 128
MAX_ASKERS: Final = 64
"""Connections at once; others wait in the kernel's backlog."""
MAX_FOLLOWERS: Final = 48
"""Of these, how many may be answered without end (`trimta tail`): the rest is for those who ask one thing."""
REFUSALS: Final = (ValueError, RecursionError, QueueError)
"""What a request may fail with: the asker is told why."""
HANG_UP_PAUSE: Final = 1.0
"""Seconds between two looks at whether an asker who says nothing more still listens."""
ACCEPT_PAUSE: Final = 0.1
"""Seconds without accepting after the process ran out of descriptors: a session has to end first."""


class NotRunning(Exception):  # noqa: N818 - what was found, not what went wrong
    """No server works on this data_dir."""


class NoAnswer(Exception):  # noqa: N818
    """A server is there, and has not answered, or not what was asked; the message says how."""


def address(data_dir: Path) -> Path:
    """Where the socket really is: data_dir/control.sock, or what it links to."""
    path = data_dir / NAME
    return path.readlink() if path.is_symlink() else path


def _choose(data_dir: Path) -> Path:
    """A path short enough for a socket; a long data_dir gets a link to one in a private temporary folder."""
    path = data_dir / NAME
    remove(data_dir)
    if _fits(path):
        return path
    target = _temporary_folder() / NAME
    path.symlink_to(target)
    return target


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH


def _temporary_folder() -> Path:
    """A private folder whose path leaves room for NAME: $TMPDIR may be as long as data_dir.  OSError if none is."""
    places = dict.fromkeys(filter(None, (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp")))
    tried = []
    for place in places:
        if not _fits(Path(place, f"{FOLDER}{'x' * 8}", NAME)):
            tried.append(f"{place}: too long for a socket")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=FOLDER, dir=place))
        except OSError as cause:
            tried.append(f"{place}: {cause.strerror}")
    raise OSError(errno.ENAMETOOLONG, f"no short temporary folder ({'; '.join(tried)}): set TMPDIR to one")


def remove(data_dir: Path) -> None:
    """Take the socket away, and the folder that was made for it; a killed server may have left them behind."""
    path = data_dir / NAME
    if path.is_symlink():
        target = path.readlink()
        if _is_ours(target):  # else somebody else has put the link there
            target.unlink(missing_ok=True)
            target.parent.rmdir()
    path.unlink(missing_ok=True)


def _is_ours(target: Path) -> bool:
    """Whether a socket's path is one that `_choose` made up."""
    folder = target.parent
    if target.name != NAME or not folder.name.startswith(FOLDER):
        return False
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


async def listen(data_dir: Path) -> trio.SocketListener:
    """Bind the control socket of a data_dir that this process has locked."""
    path = _choose(data_dir)
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
    """Answer requests until cancelled; `handlers` by the request's "command"."""
    places = trio.Semaphore(MAX_ASKERS)
    askers = _Askers(handlers)

    async def converse(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await askers.answer(stream)
        except (trio.BrokenResourceError, trio.TooSlowError):
            return  # the asker went away, or does not read
        finally:
            places.release()

    async with trio.open_nursery() as nursery:
        task_status.started()
        while True:
            stream = await _accept(listener)
            try:
                places.acquire_nowait()
            except trio.WouldBlock:
                askers.drop_a_silent_one()
                await places.acquire()
            nursery.start_soon(converse, stream)


async def _accept(listener: trio.SocketListener) -> trio.SocketStream:
    while True:
        try:
            return await listener.accept()
        except OSError:
            await trio.sleep(ACCEPT_PAUSE)


class _Askers:
    """Who is connected: those who have not asked yet, those who are answered, those who follow."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._silent: dict[trio.CancelScope, None] = {}
        """Who has not asked yet, the longest connected first."""
        self._followers = 0

    def drop_a_silent_one(self) -> None:
        """Whoever has been connected the longest without asking makes room."""
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
        """What is asked; None if it did not come before the place was needed."""
        with trio.CancelScope() as scope:
            self._silent[scope] = None
            try:
                with trio.fail_after(REQUEST_LIMIT):
                    return await _read_request(stream)
            finally:
                del self._silent[scope]
        return None

    async def _follow(self, stream: trio.SocketStream, handler: Following, request: Json) -> None:
        """Answer until the handler ends or the asker hangs up, which nothing that we send would tell us in time."""
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
                    refused = cause  # told outside of the nursery, which would wrap it
                except (trio.BrokenResourceError, trio.TooSlowError):
                    pass  # as good as hung up
                nursery.cancel_scope.cancel()
        finally:
            self._followers -= 1
        if refused is not None:
            raise refused


async def _wait_for_hang_up(stream: trio.SocketStream, answering: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(MAX_REQUEST):
            pass  # nothing more is asked here
        # The asker has closed the connection; or only its own direction of it, and still reads.
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


def ask(data_dir: Path, request: Json, *, timeout: float | None = 10.0, reader: int | None = None) -> Iterator[Json]:
    """For the commands, which know no trio: send one request, yield the lines of the answer.

    NotRunning if there is no server, NoAnswer if it refuses or falls silent, PermissionError if it is another's.
    `timeout` is for each line, in seconds; None waits.  `reader`: a descriptor that the lines are written to; when
    nobody reads from it any more, this is a BrokenPipeError, whether there is a line or not.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10.0 if timeout is None else timeout)
        try:
            connection.connect(str(address(data_dir)))
        except PermissionError:
            raise
        except (TimeoutError, BlockingIOError) as cause:  # it is there, and takes nobody on
            raise NoAnswer(f"the server on {data_dir} does not answer") from cause
        except OSError as cause:
            raise NotRunning(f"no server is running on {data_dir}") from cause
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            connection.settimeout(timeout)
            for line in _lines(connection, reader):
                answer = json.loads(line)
                if "refused" in answer:
                    raise NoAnswer(f"the server refuses: {answer['refused']}")
                yield answer
        except _ReaderGone as cause:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from cause
        except (OSError, ValueError) as cause:  # too slow, reset, or killed in the middle of a line
            raise NoAnswer(f"the server on {data_dir} does not answer") from cause


class _ReaderGone(Exception):  # noqa: N818 - what was found, not what went wrong
    """Nobody reads what the lines are written to."""


def _lines(connection: socket.socket, reader: int | None) -> Iterator[bytes]:
    """Lines as they come.  The last one, which the end cuts short, is given as it is."""
    waiting = bytearray()
    while True:
        if reader is not None:
            _wait(connection, reader)
        octets = connection.recv(MAX_REQUEST)
        if not octets:
            break
        waiting += octets
        *whole, waiting = waiting.split(b"\n")
        yield from map(bytes, whole)
    if waiting:
        yield bytes(waiting)


def _wait(connection: socket.socket, reader: int) -> None:
    """Until there is something to read; _ReaderGone as soon as nobody would take it."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(reader, 0)  # its hanging up is always told
    while True:
        ready = dict(poll.poll())
        if ready.get(reader, 0) & (select.POLLERR | select.POLLHUP):
            raise _ReaderGone
        if connection.fileno() in ready:
            return
        if reader in ready:  # closed under our feet
            raise _ReaderGone


def ask_once(data_dir: Path, request: Json, *, timeout: float | None = 10.0) -> Json:
    """ask() for a command whose answer is one line."""
    for answer in ask(data_dir, request, timeout=timeout):
        return answer
    raise NoAnswer(f"the server on {data_dir} ended before it answered")


def tell(data_dir: Path, request: Json) -> bool:
    """Send one request and wait for its answer; False if no server gave one."""
    try:
        ask_once(data_dir, request)
    except (NotRunning, NoAnswer, PermissionError):
        return False
    return True


@dataclass(frozen=True, slots=True)
class Following:
    """A handler for a command that is answered line after line, until the asker hangs up."""

    lines: Lines

    def __call__(self, request: Json) -> AsyncGenerator[Json, None]:
        return self.lines(request)


Answer: TypeAlias = "Callable[[Json], Awaitable[Json]]"


def single(answer: Answer) -> Lines:
    """A handler for a command whose answer is one line."""

    async def handle(request: Json) -> AsyncGenerator[Json, None]:
        yield await answer(request)

    return handle
