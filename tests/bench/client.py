"""A plain SMTP client on blocking sockets, for the load that smtp-source can't make."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import TYPE_CHECKING, Final

from tests.bench.servers import SENDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_TIMEOUT: Final = 300.0
_LINE: Final = b"x" * 76 + b"\r\n"
_BLOCK: Final = _LINE * 840  # somewhat less than 64 KiB


def content(size: int) -> bytes:
    """A message of about this many octets."""
    return b"Subject: bench\r\n\r\n" + _LINE * (size // len(_LINE))


class Client:
    """A connection to a port of 127.0.0.1, greeted; RuntimeError for every reply that says no."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT)
        self._rest = b""
        self.reply()
        self.command(b"EHLO client.test")

    def command(self, line: bytes) -> None:
        """Send a line, and wait for its reply."""
        self.socket.sendall(line + b"\r\n")
        self.reply()

    def begin(self, recipients: Sequence[str]) -> None:
        """MAIL, RCPT and DATA."""
        self.command(b"MAIL FROM:<%b>" % SENDER.encode())
        for recipient in recipients:
            self.command(b"RCPT TO:<%b>" % recipient.encode())
        self.command(b"DATA")

    def send(self, recipients: Sequence[str], message: bytes) -> None:
        """Send a message without lines that begin with a dot, until it is acknowledged."""
        self.begin(recipients)
        self.command(message + b".")

    def close(self) -> None:
        """End the connection, without QUIT."""
        self.socket.close()

    def reply(self) -> None:
        """Wait for a reply."""
        while True:
            line, separator, rest = self._rest.partition(b"\n")
            if separator:
                self._rest = rest
                if line[3:4] != b"-":
                    break
            else:
                received = self.socket.recv(4096)
                if not received:
                    raise RuntimeError("the server closed the connection")
                self._rest += received
        if line[:1] not in b"23":
            raise RuntimeError(line.decode(errors="backslashreplace"))


@contextlib.contextmanager
def clients(port: int, count: int) -> Iterator[list[Client]]:
    """So many connections, greeted and idle."""
    with contextlib.ExitStack() as cleanup:
        yield [cleanup.enter_context(contextlib.closing(Client(port))) for _ in range(count)]


def send_unfinished(
    connections: Sequence[Client], recipient: str, size: int, look: Callable[[], object], every: float = 0.1
) -> None:
    """Send this many octets of a message on every connection at once, and not its end.

    `look` is called every so many seconds meanwhile.
    """
    left = {}
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            connection.begin([recipient])
            connection.socket.setblocking(False)
            selector.register(connection.socket, selectors.EVENT_WRITE)
            left[connection.socket] = size
        due = time.monotonic()
        while selector.get_map():
            for key, _ in selector.select(every):
                sender = key.fileobj
                assert isinstance(sender, socket.socket)
                left[sender] -= _send_some(sender, size - left[sender])
                if left[sender] <= 0:
                    selector.unregister(sender)
            if time.monotonic() >= due:
                look()
                due = time.monotonic() + every


def _send_some(sender: socket.socket, position: int) -> int:
    """Send a block from where its last part ended: lines are never torn."""
    try:
        return sender.send(_BLOCK[position % len(_BLOCK) :])
    except BlockingIOError:
        return 0
