"""A connected socket as a Trio stream whose calls can be tried without waiting, and without a checkpoint.

`trio.SocketStream` makes a checkpoint with every call, and its caller opens a cancel scope around each.  Both cost more
than the system call, and most octets of a mail session are there, or find room, at once.
"""

from __future__ import annotations

import errno
import operator
import socket
from typing import TYPE_CHECKING, Final, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RECEIVE: Final = 64 * 1024
"""Octets taken from the kernel at once, by default."""


def prepare(listening: socket.socket) -> None:
    """Have the connections of a listening socket send replies at once, without Nagle's wait: they inherit that."""
    if listening.family != socket.AF_UNIX:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class ConnectedSocket(trio.abc.HalfCloseableStream):
    """A stream over a socket, which it closes.  One task uses it at a time.

    The methods of Trio's interface wait, are checkpoints and may be cancelled.  `receive_now` and `send_now` return at
    once and are no checkpoints: a task that calls them in a loop lets others run in between.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._eof_sent = False
        self._waits = 0
        """The number of tasks that wait for the socket."""

    @classmethod
    def of(cls, descriptor: int, family: int) -> Self:
        """The stream over a connection's descriptor, whose socket has this address family."""
        # With all three given, Python does not ask the kernel for each.
        return cls(socket.socket(family, socket.SOCK_STREAM, 0, fileno=descriptor))

    def receive_now(self, most: int) -> bytes | None:
        """At most `most` octets that have come; None if there are none yet, b"" once the peer has closed.

        Raises trio.BrokenResourceError and trio.ClosedResourceError.
        """
        try:
            return self.socket.recv(most)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _stream_error(error) from error

    def send_now(self, data: bytes | memoryview) -> int:
        """Give octets to the kernel; returns how many it took.  Raises as `receive_now`."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _stream_error(error) from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next octets, b"" once the peer has closed.  May be cancelled and called again."""
        most = RECEIVE if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError(f"{most} is no number of octets")
        while True:
            await self._check_open()
            await self._wait(trio.lowlevel.wait_readable)
            data = self.receive_now(most)
            if data is not None:
                return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all octets; if it is cancelled, it is unknown how many were sent."""
        await trio.lowlevel.checkpoint()
        await self._check_open()
        if self._eof_sent:
            raise trio.ClosedResourceError("the sending direction is closed")
        with memoryview(data) as octets:
            sent = 0
            while sent < len(octets):
                with octets[sent:] as rest:
                    taken = self.send_now(rest)
                sent += taken
                if not taken:
                    await self._wait(trio.lowlevel.wait_writable)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room."""
        await self._check_open()
        await self._wait(trio.lowlevel.wait_writable)

    async def send_eof(self) -> None:
        """Close the sending direction."""
        await trio.lowlevel.checkpoint()
        if self._eof_sent:  # macOS says ENOTCONN to a second call
            return
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _stream_error(error) from error
        self._eof_sent = True

    def close(self) -> None:
        """Close the socket, at once; a second call does nothing."""
        if self.socket.fileno() >= 0:
            if self._waits:
                trio.lowlevel.notify_closing(self.socket)
            # Else Trio knows nothing of the socket, and the kernel forgets what it was told: a system call is spared.
            self.socket.close()

    async def aclose(self) -> None:
        """Close the socket; it is closed also if the caller is cancelled."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def _wait(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        self._waits += 1
        try:
            await wait(self.socket)
        finally:
            self._waits -= 1

    async def _check_open(self) -> None:
        if self.socket.fileno() < 0:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("the socket is closed")


def _stream_error(error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError("the socket is closed")
    return trio.BrokenResourceError(f"the connection is broken: {error}")
