"""The commands' side of the control socket: requests to a running server, without Trio, each on a new connection.

A request is a line of JSON; the answer is one or more lines of JSON, or {"refused": REASON}.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trimta.control.socket_path import address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Json: TypeAlias = dict[str, Any]

OCTETS: Final = 64 * 1024
"""Octets of an answer that are read at once, at most."""


class NotRunning(Exception):  # noqa: N818 - a state of the server, not an error in it
    """No server runs on this data_dir."""


class NoAnswer(Exception):  # noqa: N818
    """A server runs, but has refused the request or has not answered it; the message says which."""


def ask(data_dir: Path, request: Json, *, timeout: float | None = 10.0, reader: int | None = None) -> Iterator[Json]:
    """Send a request to the server on `data_dir` and yield the lines of its answer.

    `timeout` is in seconds, for each line; with None there is no limit.  `reader` is the descriptor to which the caller
    writes the lines: BrokenPipeError is raised as soon as its other end is closed, also while no line comes.  Raises
    NotRunning without a server, NoAnswer if the server refuses or falls silent, PermissionError if it is another
    account's.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10.0 if timeout is None else timeout)
        try:
            connection.connect(str(address(data_dir)))
        except PermissionError:
            raise
        except (TimeoutError, BlockingIOError) as cause:  # a server is there, and accepts no connection
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
        except (OSError, ValueError) as cause:  # a timeout, a reset, or a server that was killed in mid-line
            raise NoAnswer(f"the server on {data_dir} does not answer") from cause


class _ReaderGone(Exception):  # noqa: N818 - a state of the reader, not an error in it
    """The other end of the descriptor to which the lines are written is closed."""


def _lines(connection: socket.socket, reader: int | None) -> Iterator[bytes]:
    """The lines of an answer, without their ends, as they come.  Octets behind the last line end are a line, too."""
    waiting = bytearray()
    while True:
        if reader is not None:
            _wait(connection, reader)
        octets = connection.recv(OCTETS)
        if not octets:
            break
        waiting += octets
        *whole, waiting = waiting.split(b"\n")
        yield from map(bytes, whole)
    if waiting:
        yield bytes(waiting)


def _wait(connection: socket.socket, reader: int) -> None:
    """Wait until the connection can be read; _ReaderGone as soon as the reader's end is closed."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(reader, 0)  # poll reports a hang-up without being asked
    while True:
        ready = dict(poll.poll())
        if ready.get(reader, 0) & (select.POLLERR | select.POLLHUP):
            raise _ReaderGone
        if connection.fileno() in ready:
            return
        if reader in ready:  # POLLNVAL: this process has closed the descriptor
            raise _ReaderGone


def ask_once(data_dir: Path, request: Json, *, timeout: float | None = 10.0) -> Json:
    """The first line of the answer to a request; parameters and errors as with `ask`."""
    for answer in ask(data_dir, request, timeout=timeout):
        return answer
    raise NoAnswer(f"the server on {data_dir} ended before it answered")


def tell(data_dir: Path, request: Json) -> bool:
    """Send a request and wait for its answer; returns whether a server has answered."""
    try:
        ask_once(data_dir, request)
    except (NotRunning, NoAnswer, PermissionError):
        return False
    return True
