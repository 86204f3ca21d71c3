"""Requests to a running server, as the commands make them: without Trio, one connection each.

A request is a line of JSON; the answer is one or more lines of JSON, or {"refused": why}.
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
"""Octets of an answer that are read at once."""


class NotRunning(Exception):  # noqa: N818 - what was found, not what went wrong
    """No server works on this data_dir."""


class NoAnswer(Exception):  # noqa: N818
    """A server is there, and has not answered, or not what was asked; the message says how."""


def ask(data_dir: Path, request: Json, *, timeout: float | None = 10.0, reader: int | None = None) -> Iterator[Json]:
    """Send one request, yield the lines of the answer.

    NotRunning if there is no server, NoAnswer if it refuses or falls silent, PermissionError if it is another
    account's.  `timeout` is for each line, in seconds; None waits.  `reader`: a descriptor that the lines are written
    to; when its other end is closed, this is a BrokenPipeError, whether there is a line or not.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10.0 if timeout is None else timeout)
        try:
            connection.connect(str(address(data_dir)))
        except PermissionError:
            raise
        except (TimeoutError, BlockingIOError) as cause:  # it is there, and takes no connection
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
    """The other end of what the lines are written to is closed."""


def _lines(connection: socket.socket, reader: int | None) -> Iterator[bytes]:
    """Lines as they come.  The last one, which the end cuts short, is given as it is."""
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
    """Wait until there is something to read; _ReaderGone as soon as no reader would take it."""
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
