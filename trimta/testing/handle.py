"""What a test can ask of its server, whichever style it is written in."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from trimta.config.model import InetAddress
from trimta.runtime.events import as_text
from trimta.store.queue.queue import exists
from trimta.testing.mail import in_words
from trimta.testing.queue import QueueView
from trimta.testing.scripting import Faults
from trimta.testing.thread import ServerEndedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage
    from pathlib import Path

    from trimta.runtime.event_declarations import EventName
    from trimta.runtime.events import Event
    from trimta.testing.inside import Inside
    from trimta.testing.mail import Wanted
    from trimta.testing.thread import ServerThread

T = TypeVar("T")

DEADLINE: Final = 5.0
"""Seconds that a test waits for what it expects, unless it says otherwise."""

TOLD: Final = 20
"""Lines of each kind in the story of what came instead."""

REFUSED: Final[frozenset[EventName]] = frozenset({"rejected", "refused", "bounced"})
"""The events that tell of a recipient who will not get it."""

STARTED: Final[deque[Handle]] = deque(maxlen=16)
"""The latest servers: pytest's report of a failed test has their events."""


class NotArrivedError(AssertionError):
    """The message that a test waits for has not come in time; says what did come."""


class Handle:
    """The part of a handle that waits for nothing."""

    def __init__(self, inside: Inside, thread: ServerThread) -> None:
        mta = inside.server.mta
        self._inside = inside
        self._thread = thread
        self._server = inside.server
        self._mailboxes = inside.mailboxes
        self.faults = Faults(mta.faults, mta.configuration.data_dir, self._in_loop)
        """Scripted trouble: `add` and `clear`."""
        self.addresses: list[str] = inside.server.addresses
        """What it listens on, in the order of [[listen]]: `127.0.0.1:40123`, `unix:PATH`."""
        STARTED.append(self)

    def _in_loop(self, function: Callable[[], T]) -> T:
        """Call a quick function in the server's own thread."""

        async def call() -> T:
            return function()

        return self._thread.call(call)

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
        return self._server.mta.configuration.data_dir

    @property
    def ca(self) -> Path | None:
        """The certificate of the development CA, for clients to trust; None without TLS, or with a certificate of the
        test's own.
        """
        tls = self._server.mta.server_tls
        return None if tls is None else tls.ca

    # Mail.

    def mailbox(self, name: str) -> list[EmailMessage]:
        """The messages of a local user ("alice"), of a local address ("alice@dev.test") or of a captured one
        ("someone@example.com"), oldest first.  ValueError for a name that can't have a mailbox here.
        """
        self._thread.must_run()
        return self._mailboxes.of(name)

    def maildir(self, name: str) -> Path:
        """The Maildir that holds them: its files are byte for byte what was delivered."""
        self._thread.must_run()
        return self._mailboxes.folder(name)

    def captured(self, domain: str | None = None) -> list[EmailMessage]:
        """What would have left the machine and was captured instead, for one domain or for all, oldest first."""
        self._thread.must_run()
        return self._mailboxes.captured(domain)

    @property
    def queue(self) -> QueueView:
        """What waits in the queue now, and the verbs to steer it."""
        mta = self._server.mta
        if not exists(self.data_dir):  # looking would make one
            raise ServerEndedError
        active = self._in_loop(lambda: mta.scheduler.active)
        return QueueView(self.data_dir, mta.clock, active, self._thread.must_run, self._wake)

    def _wake(self) -> None:
        self._in_loop(self._server.mta.scheduler.wake)

    @property
    def events(self) -> list[Event]:
        """What has happened so far: `name` and `fields` are those of the log."""
        return self._in_loop(lambda: list(self._inside.events))

    @property
    def now(self) -> datetime:
        """The time by the queue's clock: that of the wall, and what it was advanced by."""
        return datetime.fromtimestamp(self._in_loop(self._server.mta.clock.now), UTC)

    def clear(self) -> None:
        """Begin anew: remove the messages and what is queued, both as far as they have come since the start, forget the
        events, and script no faults but those of the configuration.  The queue's clock stays where it is.
        """
        self._thread.call(self._inside.clear)

    # What went wrong.

    def check(self) -> None:
        """Raise what has gone wrong inside the server, once; leaving the block does it, too."""
        bugs = self._in_loop(self._inside.take_bugs)
        if len(bugs) == 1:
            raise bugs[0]
        if bugs:
            raise ExceptionGroup("errors inside the server", bugs)

    def recent_events(self, since: float = 0.0) -> list[str]:
        """Lines as in the log, of what happened since a moment (`real_time.wall`); also once the server has ended."""
        while True:
            try:
                return [as_text(event) for event in list(self._inside.events) if event.at >= since]
            except RuntimeError:  # the server has added one meanwhile
                continue

    def _must_have(self, found: list[EmailMessage], wanted: Wanted, timeout: float) -> None:
        __tracebackhide__ = True  # pytest: what is of interest is who waits
        if len(found) < wanted.count:
            raise NotArrivedError(self._story(found, wanted, timeout))

    def _story(self, found: list[EmailMessage], wanted: Wanted, timeout: float) -> str:
        """Why a test gave up, for people."""
        what = "no message" if not found else f"{len(found)} of {wanted.count} messages"
        parts = [f"{what}{wanted} within {timeout:g} s"]
        arrived = [in_words(message) for message in self._mailboxes.everything()]
        parts.append(_listing("arrived", arrived) if arrived else "nothing arrived")
        if self._thread.forked:
            return "\n".join(parts)
        queued = [
            f"{entry.id} {entry.state} after {entry.attempts} tries, to {one.address}: {one.reply or 'not tried'}"
            for entry in self.queue
            for one in entry.recipients
        ]
        refused = [
            " ".join(f"{key} {value}" for key, value in event.fields.items() if key in ("to", "reply"))
            for event in self.events
            if event.name in REFUSED
        ]
        parts += [_listing(name, lines) for name, lines in (("queued", queued), ("refused", refused)) if lines]
        return "\n".join(parts)


def _listing(name: str, lines: list[str]) -> str:
    return "\n  ".join([f"{name}:", *lines[-TOLD:]])
