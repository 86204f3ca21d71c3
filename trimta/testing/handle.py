"""What a test can ask of its server, whichever style it is written in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from trimta.config.model import InetAddress
from trimta.store.queue import exists
from trimta.testing.mail import Mailboxes, Wanted, in_words
from trimta.testing.queue import QueueView
from trimta.testing.scripting import Faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage
    from pathlib import Path

    from trimta.mta.events import Event
    from trimta.mta.serve import Server as MtaServer

T = TypeVar("T")

EVENTS: Final = 10_000
"""Events that are remembered: the last ones."""

TOLD: Final = 20
"""Lines of each kind in the story of what came instead."""


class NotArrivedError(AssertionError):
    """The message that a test waits for has not come in time; says what did come."""


class ServerEndedError(Exception):
    """The server is not there any more; leaving the block raises the reason."""

    def __init__(self) -> None:
        super().__init__("the server has ended; if it was not the test that ended it, leaving the block tells why")


class Handle(ABC):
    """The part of a handle that waits for nothing."""

    def __init__(self, server: MtaServer) -> None:
        site = server.site
        self._server = server
        self._mailboxes = Mailboxes(site.policy)
        self._events: deque[Event] = deque(maxlen=EVENTS)
        site.events.subscribe(self._events.append)
        self.faults = Faults(site, site.policy.config.data_dir)
        """Scripted trouble: `add` and `clear`."""
        self.addresses: list[str] = server.addresses
        """What it listens on, in the order of [[listen]]: `127.0.0.1:40123`, `unix:PATH`."""

    @abstractmethod
    def _in_loop(self, function: Callable[[], T]) -> T:
        """Call a quick function in the server's own thread."""

    # Where it is.

    @property
    def address(self) -> str:
        """`HOST:PORT` of its first listener."""
        return self.addresses[0]

    @property
    def host(self) -> str:
        """The IP address of its first listener on TCP."""
        return self._inet.host

    @property
    def port(self) -> int:
        """The port of its first listener on TCP."""
        return self._inet.port

    @property
    def _inet(self) -> InetAddress:
        for address in self.addresses:
            if not address.startswith("unix:"):
                host, _, port = address.rpartition(":")
                return InetAddress(host.strip("[]"), int(port))
        raise ValueError(f"this server listens on no port, but on {self.address}")

    @property
    def data_dir(self) -> Path:
        """Its queue: `trimta queue` and the other commands work on it."""
        return self._server.site.policy.config.data_dir

    @property
    def ca(self) -> Path | None:
        """The certificate of the development CA, for clients to trust; None without TLS, or with a certificate of the
        test's own.
        """
        tls = self._server.site.server_tls
        return None if tls is None else tls.ca

    # Mail.

    def mailbox(self, name: str) -> list[EmailMessage]:
        """The messages of a local user ("alice"), of a local address ("alice@dev.test") or of a captured one
        ("someone@example.com"), oldest first.  ValueError for a name that can't have a mailbox here.
        """
        return self._mailboxes.of(name)

    def maildir(self, name: str) -> Path:
        """The Maildir that holds them: its files are byte for byte what was delivered."""
        return self._mailboxes.folder(name)

    def captured(self, domain: str | None = None) -> list[EmailMessage]:
        """What would have left the machine and was captured instead, for one domain or for all, oldest first."""
        return self._mailboxes.captured(domain)

    @property
    def queue(self) -> QueueView:
        """What waits in the queue now, and the verbs to steer it."""
        site = self._server.site
        if not exists(self.data_dir):  # looking would make one
            raise ServerEndedError
        active = self._in_loop(lambda: site.scheduler.active)
        return QueueView(self.data_dir, site.clock, active, lambda: self._in_loop(site.scheduler.wake))

    @property
    def events(self) -> list[Event]:
        """What has happened so far: `name` and `fields` are those of the log."""
        return self._in_loop(lambda: list(self._events))

    @property
    def now(self) -> datetime:
        """The time by the queue's clock: that of the wall, and what it was advanced by."""
        return datetime.fromtimestamp(self._server.site.clock.now(), UTC)

    # What went wrong.

    def check(self) -> None:
        """Raise what has gone wrong inside the server, once; leaving the block does it, too."""
        bugs = self._in_loop(self._take_bugs)
        if len(bugs) == 1:
            raise bugs[0]
        if bugs:
            raise ExceptionGroup("errors inside the server", bugs)

    def _take_bugs(self) -> list[Exception]:
        bugs = [*self._server.bugs]
        self._server.bugs.clear()
        return bugs

    def _story(self, wanted: Wanted, timeout: float) -> str:
        """Why a test gave up, for people."""
        parts = [f"no message{wanted} within {timeout:g} s"]
        arrived = [in_words(message) for message in self._mailboxes.everything()]
        parts.append(_listing("arrived", arrived) if arrived else "nothing arrived")
        queued = [
            f"{entry.id} {entry.state} after {entry.attempts} tries, to {one.address}: {one.reply or 'not tried'}"
            for entry in self.queue
            for one in entry.recipients
        ]
        refused = [
            " ".join(f"{key} {value}" for key, value in event.fields.items() if key in ("to", "reply"))
            for event in self._events
            if event.name in ("rejected", "failed", "refused")
        ]
        parts += [_listing(name, lines) for name, lines in (("queued", queued), ("refused", refused)) if lines]
        return "\n".join(parts)


def _listing(name: str, lines: list[str]) -> str:
    return "\n  ".join([f"{name}:", *lines[-TOLD:]])
