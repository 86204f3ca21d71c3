"""The methods of a test's server that need no `await`: `mailbox`, `queue`, `events`, `clear`, `check` and others.

`inside` keeps the events.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from trimta.config.model import InetAddress
from trimta.runtime.events import as_text
from trimta.store.queue.queue import exists
from trimta.testing.mail import in_words
from trimta.testing.queue_entries import QueueView
from trimta.testing.scripting import Faults
from trimta.testing.thread import ServerEndedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage
    from pathlib import Path

    from trimta.runtime.event_declarations import EventName
    from trimta.runtime.events import Event
    from trimta.testing.inside import Inside
    from trimta.testing.mail import MessageQuery
    from trimta.testing.thread import ServerThread

T = TypeVar("T")

DEADLINE: Final = 5.0
"""Seconds that a test waits for a message, unless it gives another `timeout`."""

TOLD: Final = 20
"""Lines of each kind in the message of NotArrivedError, at most."""

REFUSED: Final[frozenset[EventName]] = frozenset({"rejected", "refused", "bounced"})
"""The events that tell that a recipient will not get a message."""

STARTED: Final[deque[Handle]] = deque(maxlen=16)
"""The servers that were started last: pytest's report of a failed test shows their events."""


class NotArrivedError(AssertionError):
    """The message that a test waits for has not come in time; the error's text lists the messages that did."""


class Handle:
    """A test's server, without the methods that wait."""

    def __init__(self, inside: Inside, thread: ServerThread) -> None:
        mta = inside.server.mta
        self._inside = inside
        self._thread = thread
        self._server = inside.server
        self._mailboxes = inside.mailboxes
        self.faults = Faults(mta.faults, mta.configuration.data_dir, self._in_loop)
        """The scripted faults of the server: `add` and `clear`."""
        self.addresses: list[str] = inside.server.addresses
        """The addresses on which the server listens, in the order of [[listen]]: `127.0.0.1:40123`, `unix:PATH`."""
        STARTED.append(self)

    def _in_loop(self, function: Callable[[], T]) -> T:
        """Call a function that does not block in the server's own thread."""

        async def call() -> T:
            return function()

        return self._thread.call(call)

    # The server's addresses and files.

    @property
    def address(self) -> str:
        """The address of the first listener: `HOST:PORT` or `unix:PATH`."""
        return self.addresses[0]

    @property
    def host(self) -> str:
        """The IP address of the first listener on TCP.  Raises ValueError if there is none."""
        return self._inet.host

    @property
    def port(self) -> int:
        """The port of the first listener on TCP.  Raises ValueError if there is none."""
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
        """The folder of the server's queue, on which `trimta queue` and the other commands work."""
        return self._server.mta.configuration.data_dir

    @property
    def ca(self) -> Path | None:
        """The file with the certificate of the development CA, for clients to trust.

        None without TLS, and with a certificate of the test's own.
        """
        tls = self._server.mta.server_tls
        return None if tls is None else tls.ca

    # Mail.

    def mailbox(self, name: str) -> list[EmailMessage]:
        """The messages of a mailbox, oldest first.

        `name` is a local user ("alice"), a local address ("alice@dev.test"), or an address whose mail is captured
        ("someone@example.com").  Raises ValueError for a name that can't have a mailbox here.
        """
        self._thread.must_run()
        return self._mailboxes.of(name)

    def maildir(self, name: str) -> Path:
        """The Maildir of a mailbox, with a file for each message, as delivered.  `name` as in `mailbox`."""
        self._thread.must_run()
        return self._mailboxes.folder(name)

    def captured(self, domain: str | None = None) -> list[EmailMessage]:
        """The messages that `maildir:` routes captured instead of sending them, oldest first; of `domain`, or all."""
        self._thread.must_run()
        return self._mailboxes.captured(domain)

    @property
    def queue(self) -> QueueView:
        """The envelopes that are in the queue now, with methods to change them."""
        mta = self._server.mta
        if not exists(self.data_dir):  # opening it would make a new queue
            raise ServerEndedError
        active = self._in_loop(lambda: mta.scheduler.active)
        return QueueView(self.data_dir, mta.clock, active, self._thread.must_run, self._wake)

    def _wake(self) -> None:
        self._in_loop(self._server.mta.scheduler.wake)

    @property
    def events(self) -> list[Event]:
        """The events so far, the last 10 000 at most: `name` and `fields` are those of the log."""
        return self._in_loop(lambda: list(self._inside.events))

    @property
    def now(self) -> datetime:
        """The present moment on the queue's clock: real time, plus the time by which `advance` moved it."""
        return datetime.fromtimestamp(self._in_loop(self._server.mta.clock.now), UTC)

    def clear(self) -> None:
        """Remove what earlier tests have left: messages, queued envelopes, events, and faults that were added.

        Messages and envelopes that were there before the server started stay, as do the faults of the configuration.
        The queue's clock is not moved back.
        """
        self._thread.call(self._inside.clear)

    # Errors inside the server.

    def check(self) -> None:
        """Raise the errors inside the server since the last check; leaving the block does so, too."""
        bugs = self._in_loop(self._inside.take_bugs)
        if len(bugs) == 1:
            raise bugs[0]
        if bugs:
            raise ExceptionGroup("errors inside the server", bugs)

    def recent_events(self, since: float = 0.0) -> list[str]:
        """The events since a moment (of `real_time.wall`) as lines of the log; also after the server has ended."""
        while True:
            try:
                return [as_text(event) for event in list(self._inside.events) if event.at >= since]
            except RuntimeError:  # the server's thread has added an event meanwhile
                continue

    def _must_have(self, messages: list[EmailMessage], query: MessageQuery, timeout: float) -> None:
        __tracebackhide__ = True  # pytest then shows the line of the test that waits
        if len(messages) < query.count:
            raise NotArrivedError(self._story(messages, query, timeout))

    def _story(self, messages: list[EmailMessage], query: MessageQuery, timeout: float) -> str:
        """The text of NotArrivedError: the criteria, the messages that arrived, the queue, and refusals."""
        count = "no message" if not messages else f"{len(messages)} of {query.count} messages"
        parts = [f"{count}{query} within {timeout:g} s"]
        arrived = [in_words(message) for message in self._mailboxes.everything()]
        parts.append(_listing("arrived", arrived) if arrived else "nothing arrived")
        if self._thread.forked:
            return "\n".join(parts)
        queued = [
            f"{entry.id} {entry.state} after {entry.attempts} tries, to {to.address}: {to.reply or 'not tried'}"
            for entry in self.queue
            for to in entry.recipients
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
