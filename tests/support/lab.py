"""The whole sending side in one process and in virtual time: a real MTA with its queue in a temporary folder, its
resolver fed from `[dns.zones]`, and fake mail exchangers behind memory streams.

    async def test_...(tmp_path: Path, autojump_clock: MockClock) -> None:
        mx = FakeMx({"rcpt": "450 4.2.1 later"})
        async with open_lab(tmp_path, {"192.0.2.1": mx}) as lab:
            await lab.submit("a@x.test")
            await lab.idle()
            assert lab.outcomes == {"a@x.test": "deferred 4.2.1"}
            await lab.advance(5 * DAY)
            (warning, failure) = lab.dsns()

Unless it is told otherwise, x.test has one MX, mx.x.test at 192.0.2.1, and two.test has two of them, one.two.test at
192.0.2.1 and other.two.test at 192.0.2.2; here.test is local, and me@here.test is who writes.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.support.clock import mock_wall
from tests.support.fake_mx import FakeNet
from tests.support.sending import contexts, recipient
from trimta.config.load import parse
from trimta.content.header_summary import HeaderSummary
from trimta.mail.address import parse_mailbox
from trimta.mail.body import BodyForm
from trimta.mail.envelope import Envelope, Terms
from trimta.runtime.background import background
from trimta.runtime.disk import InlineDisk
from trimta.runtime.ids import new_id
from trimta.runtime.queue_clock import QueueClock
from trimta.server.wiring import Mta
from trimta.store.maildir import messages
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import StoredMessage
from trimta.store.spool import Body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from email.message import EmailMessage, MIMEPart
    from pathlib import Path

    from trimta.config.model import Configuration
    from trimta.mail.envelope import Recipient
    from trimta.outbound.transports.client_settings import TlsContexts
    from trimta.runtime.disk import Disk
    from trimta.runtime.event_declarations import EventName
    from trimta.runtime.events import Event
    from trimta.store.queue.values import ListedEnvelope

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

CONTENT: Final = b"From: me@here.test\nMessage-ID: <1@here.test>\nSubject: hi\n\nhello\n"

ZONES: Final[Mapping[str, Sequence[str] | str]] = {
    "x.test": ["10 mx.x.test"],
    "mx.x.test": "192.0.2.1",
    "two.test": ["10 one.two.test", "20 other.two.test"],
    "one.two.test": "192.0.2.1",
    "other.two.test": "192.0.2.2",
}

CLOSED: Final = 1.0
"""Seconds of virtual time for an MTA to stop."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a DSN says of one recipient."""

    address: str
    action: str
    status: str
    diagnostic: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Dsn:
    """A DSN that arrived in a mailbox."""

    told: tuple[Told, ...]
    text: str
    """Its words for people."""
    message: EmailMessage

    @property
    def verdicts(self) -> dict[str, str]:
        """`{"a@x.test": "failed 5.1.1"}`."""
        return {told.address: f"{told.action} {told.status}" for told in self.told}


def config_text(zones: Mapping[str, Sequence[str] | str], extra: str = "") -> str:
    """conf.toml: a list is the MX records of a name, text its address (or addresses, or how it fails)."""
    lines = [extra, "[dns]", 'nameservers = ["127.0.0.1:1"]']
    for name, value in zones.items():
        lines.append(f"[dns.zones.{json.dumps(name)}]")
        if isinstance(value, str) and value in ("nxdomain", "servfail", "timeout"):
            lines.append(f'fail = "{value}"')
        elif isinstance(value, str):
            lines.append(f"address = {json.dumps(value.split())}")
        else:
            lines.append(f"mx = {json.dumps(list(value))}")
    return "\n".join(lines)


class LabMta(Mta):
    """An MTA whose connections are made by somebody else."""

    def __init__(self, net: FakeNet, *arguments: Any, **options: Any) -> None:
        self._net = net
        super().__init__(*arguments, **options)

    def apply(self, config: Configuration, client_tls: TlsContexts) -> None:
        super().apply(config, client_tls)
        self.client_settings = replace(self.client_settings, dial=self._net.dial)


class Lab:
    """A running MTA, and what can be done to it."""

    def __init__(self, mta: LabMta, folder: Path, net: FakeNet) -> None:
        self.mta = mta
        self.net = net
        self.operations = mta.operations
        self.events: list[Event] = []
        self.bugs_expected = False
        self._folder = folder
        mta.events.subscribe(self.events.append)

    # What is done.

    async def submit(
        self,
        *to: str | Recipient,
        sender: str | None = "me@here.test",
        content: bytes | Body = CONTENT,
        **options: Any,
    ) -> str:
        """Accept a message as a session would; returns its id.  `options` are further terms."""
        message_id = options.pop("message_id", None) or new_id()
        recipients = tuple(recipient(one) if isinstance(one, str) else one for one in to or ("a@x.test",))
        reverse_path = parse_mailbox(sender) if sender else None
        addresses = [one.address for one in recipients] + ([reverse_path] if reverse_path else [])
        options.setdefault("smtputf8", not all(address.is_ascii for address in addresses))
        terms = Terms(reverse_path=reverse_path, **options)
        body = content if isinstance(content, Body) else Body.of(content, BodyForm.of(terms.body))
        trace = b"Received: from client by here.test; now\n"
        message = StoredMessage(id=message_id, arrived=self.mta.clock.now(), terms=terms, content=body, trace=trace)
        envelope = Envelope(terms=terms, recipients=recipients)
        resolved = [self.mta.policy.resolve(recipient.address) for recipient in envelope.recipients]
        await self.mta.acceptance.accept(message, envelope, HeaderSummary.of(body.head(65536)), resolved)
        return message_id

    async def idle(self) -> None:
        """Wait until nothing is due."""
        await self.mta.scheduler.idle()

    async def advance(self, seconds: float) -> None:
        """Move the queue's clock, as `trimta time advance` does."""
        await self.operations.advance(seconds)

    async def steer(self, operation: Callable[[Queue], object]) -> None:
        """Do something to the queue, as `trimta queue` does, and tell the server."""
        await self.mta.queue.run(operation)
        self.mta.scheduler.wake()

    def notice(self, names: Sequence[EventName], action: Callable[[Event], object]) -> None:
        """Do this at each event of these names."""

        def note(event: Event) -> None:
            if event.name in names:
                action(event)

        self.mta.events.subscribe(note)

    async def wait_for(self, name: EventName, *, count: int = 1) -> None:
        """Until so many events of this name have happened."""
        while self.mta.events.counters[name] < count:
            news = trio.Event()
            unsubscribe = self.mta.events.subscribe(lambda _: news.set())  # noqa: B023
            await news.wait()
            unsubscribe()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until something is so; looked at ten times a second of virtual time."""
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.1)

    def reload(self, text: str) -> None:
        """Another configuration, as after SIGHUP."""
        self.mta.apply(configuration(self._folder, text), contexts())
        self.mta.scheduler.wake()

    # What there is to see.

    @property
    def now(self) -> float:
        return self.mta.clock.now()

    @property
    def outcomes(self) -> dict[str, str]:
        """The latest that was logged of each recipient: `{"a@x.test": "deferred 4.2.1"}`."""
        return {
            str(event.fields["to"]): f"{event.name} {event.fields['status']}"
            for event in self.events
            if event.name in ("delivered", "deferred", "bounced")
        }

    async def queue(self) -> list[ListedEnvelope]:
        """What waits."""
        return await self.mta.queue.run(lambda queue: list(queue.entries.list_envelopes()))

    async def waiting(self) -> dict[str, str]:
        """Who waits, and why: `{"a@x.test": "4.2.1"}`; a held one's reason instead."""
        return {
            str(one.recipient.address): item.envelope.hold_reason or one.status
            for item in await self.queue()
            for one in item.envelope.recipients
        }

    def mailbox(self, user: str = "me") -> list[EmailMessage]:
        """What arrived for a local user, oldest first."""
        paths = sorted(messages(self._folder / "mail" / user), key=lambda path: path.stat().st_mtime_ns)
        return [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in paths]

    def dsns(self, user: str = "me") -> list[Dsn]:
        """The DSNs among it."""
        return [read_dsn(message) for message in self.mailbox(user) if message.get_content_type() == "multipart/report"]


def read_dsn(message: EmailMessage) -> Dsn:
    """Take a DSN apart, checking that it is one."""
    assert message["Return-Path"] == "<>"
    assert message["Auto-Submitted"] == "auto-replied"
    text, status, returned = message.iter_parts()
    assert status.get_content_type() in ("message/delivery-status", "message/global-delivery-status")
    assert returned.get_content_type() in (
        "message/rfc822",
        "text/rfc822-headers",
        "message/global",
        "message/global-headers",
    )
    _, *groups = _groups(status)
    told = [
        Told(
            address=str(group["Final-Recipient"]).partition(";")[2].strip(),
            action=str(group["Action"]),
            status=str(group["Status"]),
            diagnostic=str(group["Diagnostic-Code"] or "").partition(";")[2].strip(),
            host=str(group["Remote-MTA"] or "").partition(";")[2].strip(),
        )
        for group in groups
    ]
    return Dsn(tuple(told), text.get_content(), message)


def _groups(status: MIMEPart) -> list[MIMEPart]:
    """The groups of fields of a delivery status; Python knows them in ASCII only."""
    if status.get_content_type() == "message/delivery-status":
        return list(status.iter_parts())
    octets = status.as_bytes().partition(b"\n\n")[2]
    return [email.message_from_bytes(group, policy=email.policy.default) for group in octets.strip().split(b"\n\n")]


def configuration(folder: Path, text: str) -> Configuration:
    """A configuration with everything under a folder."""
    head = """
        hostname = "here.test"
        data_dir = "var"
    """
    local = '[local]\ndomains = ["here.test"]\nmaildir = "mail/{user}"\n'
    routes = "" if "[routes]" in text else '[routes]\n"*" = { transport = "mx", tls = "none" }\n'
    return parse("\n".join([head, local, routes, text]), base=folder, file="conf.toml")


@asynccontextmanager
async def open_lab(
    folder: Path,
    hosts: Mapping[str, Any] | None = None,
    *,
    zones: Mapping[str, Sequence[str] | str] = ZONES,
    config: str = "",
    disk: Disk | None = None,
    wall: Callable[[], float] | None = None,
    time_scale: float = 1.0,
    seed: int = 1,
) -> AsyncGenerator[Lab, None]:
    """An MTA that works until the block ends; then nothing may be in flight that does not end within `CLOSED`.

    `hosts`: by address, as for `FakeNet`.  `wall`: the time of day; by default it follows Trio's.  `config`: more of
    conf.toml; without `[routes]` everything goes by MX.
    """
    async with trio.open_nursery() as world:
        net = FakeNet(world, hosts or {})
        clock = QueueClock(wall=wall or mock_wall())
        with Queue(folder / "var") as queue:
            mta = LabMta(
                net,
                configuration(folder, config_text(zones, config)),
                queue,
                disk or InlineDisk(),
                clock=clock,
                client_tls=contexts(),
                time_scale=time_scale,
                rng=random.Random(seed),
            )
            lab = Lab(mta, folder, net)
            async with background(mta.serve_batches), background(mta.message_log.serve), trio.open_nursery() as nursery:
                scope = await nursery.start(mta.deliver_due)
                with contextlib.ExitStack() as cleanup:
                    cleanup.callback(mta.scheduler.stop)
                    yield lab
                scope.deadline = trio.current_time() + CLOSED
        world.cancel_scope.cancel()
    if not lab.bugs_expected and mta.bugs.latest:
        raise ExceptionGroup("bugs in the server", mta.bugs.latest)
