"""The control socket: how `trimta queue`, `status`, `tail` and `time` talk to a running server.

One request a connection, a line of JSON; the answer is one or more lines of JSON, or {"refused": why}.  The socket
lives in data_dir, whose owner alone may connect.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from trimta.store.queue_values import QueueError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

Json: TypeAlias = dict[str, Any]
Handler: TypeAlias = "Callable[[Json], AsyncGenerator[Json, None]]"

NAME: Final = "control.sock"
FOLDER: Final = "trimta-"
"""How the names of temporary folders begin."""
MAX_REQUEST: Final = 64 * 1024
MAX_SOCKET_PATH: Final = 100
"""Octets: a unix socket's address has room for little more than a hundred."""
REQUEST_LIMIT: Final = 10.0
"""Seconds for a request to come in, and for one line of the answer to be taken."""
MAX_ASKERS: Final = 64
"""Requests answered at once; others wait in the kernel's backlog."""
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
        target.unlink(missing_ok=True)
        if target.parent.name.startswith(FOLDER) and target.parent.is_dir():
            target.parent.rmdir()
    path.unlink(missing_ok=True)


async def listen(data_dir: Path) -> trio.SocketListener:
    """Bind the control socket of a data_dir that this process has locked."""
    path = _choose(data_dir)
    unbound = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await unbound.bind(str(path))
        path.chmod(0o600)
        unbound.listen(16)
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

    async def converse(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await _answer(stream, handlers)
        except (trio.BrokenResourceError, trio.TooSlowError):
            return  # the asker went away, or does not read
        finally:
            places.release()

    async with trio.open_nursery() as nursery:
        task_status.started()
        while True:
            await places.acquire()
            nursery.start_soon(converse, await _accept(listener))


async def _accept(listener: trio.SocketListener) -> trio.SocketStream:
    while True:
        try:
            return await listener.accept()
        except OSError:
            await trio.sleep(ACCEPT_PAUSE)


async def _answer(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    try:
        with trio.fail_after(REQUEST_LIMIT):
            request = await _read_request(stream)
        handler = handlers.get(str(request.get("command")))
        if handler is None:
            raise ValueError(f"unknown command {request.get('command')!r}")
        async with aclosing(handler(request)) as lines:
            async for line in lines:
                await _send(stream, line)
    except (ValueError, RecursionError, QueueError) as cause:
        await _send(stream, {"refused": str(cause)})


async def _read_request(stream: trio.SocketStream) -> Json:
    octets = bytearray()
    while not octets.endswith(b"\n"):
        if len(octets) > MAX_REQUEST:
            raise ValueError("request too long")
        chunk = await stream.receive_some(MAX_REQUEST)
        if not chunk:
            raise trio.BrokenResourceError
        octets += chunk
    request = json.loads(octets)
    if not isinstance(request, dict):
        raise ValueError("a request is a JSON object")
    return request


async def _send(stream: trio.SocketStream, line: Json) -> None:
    with trio.fail_after(REQUEST_LIMIT):
        await stream.send_all(json.dumps(line).encode() + b"\n")


def ask(data_dir: Path, request: Json, *, timeout: float | None = 10.0) -> Iterator[Json]:
    """For the commands, which know no trio: send one request, yield the lines of the answer.

    NotRunning if there is no server, NoAnswer if it refuses or falls silent, PermissionError if it is another's.
    `timeout` is for each line, in seconds; None waits.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(address(data_dir)))
            connection.sendall(json.dumps(request).encode() + b"\n")
        except PermissionError:
            raise
        except OSError as cause:
            raise NotRunning(f"no server is running on {data_dir}") from cause
        try:
            with connection.makefile("rb") as lines:
                for line in lines:
                    answer = json.loads(line)
                    if "refused" in answer:
                        raise NoAnswer(f"the server refuses: {answer['refused']}")
                    yield answer
        except (OSError, ValueError) as cause:  # too slow, reset, or killed in the middle of a line
            raise NoAnswer(f"the server on {data_dir} does not answer") from cause


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


Answer: TypeAlias = "Callable[[Json], Awaitable[Json]]"


def single(answer: Answer) -> Handler:
    """A handler for a command whose answer is one line."""

    async def handle(request: Json) -> AsyncGenerator[Json, None]:
        yield await answer(request)

    return handle
