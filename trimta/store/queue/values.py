"""What the queue holds and what it answers: values, and the ways in which it can fail."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from trimta.mail.body import BodyForm
from trimta.mail.envelope import BodyKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trimta.content.dsn_short import ReportForm
    from trimta.mail.envelope import DeliverBy, Envelope, Recipient, Ret, ReversePath
    from trimta.mail.outcome import Deferred
    from trimta.routing.destination import RoutedEnvelope
    from trimta.store.spool import Body


class State(enum.StrEnum):
    """Whether an envelope goes out by itself."""

    QUEUED = "queued"
    """It does, when it is due."""
    HELD = "held"
    """It waits for the operator."""


def message_id(entry_id: str) -> str:
    """The id of the message that an id, a message's or an envelope's, belongs to."""
    return entry_id.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """What all envelopes of a message share.  Times are wall-clock seconds since the epoch."""

    id: str
    """ASCII letters, digits, "-" and "_": it is a file name too."""
    arrived: float
    reverse_path: ReversePath
    content: Body
    """Header and body as the client sent them, without the trace."""
    trace: bytes = b""
    """Our Received field, and what else we put on top, with LF line ends."""
    body: BodyKind = BodyKind.SEVEN_BIT
    smtputf8: bool = False
    envid: str | None = None
    ret: Ret | None = None
    deliver_by: DeliverBy | None = None
    hold_until: float | None = None
    hold_request: str = ""
    """As in mail.envelope.Envelope."""
    origin: str = ""
    """Where it came from, in one line for people: client address, HELO name, who authenticated."""
    helo: str = ""
    """What the client that brought it called itself; empty: it did not come by SMTP."""
    report: ReportForm | None = None
    """It is a DSN of ours, in this form."""

    def __post_init__(self) -> None:
        if self.content.form is not BodyForm.of(self.body):
            raise ValueError(f"a body with {self.body} is not kept as {self.content.form.value}")

    @classmethod
    def of(
        cls,
        envelope: Envelope,
        content: Body,
        *,
        message_id: str,
        arrived: float,
        trace: bytes = b"",
        origin: str = "",
        helo: str = "",
    ) -> Self:
        """A message that comes with this envelope; whom it is for is no part of it."""
        return cls(
            id=message_id,
            arrived=arrived,
            reverse_path=envelope.reverse_path,
            content=content,
            trace=trace,
            body=envelope.body,
            smtputf8=envelope.smtputf8,
            envid=envelope.envid,
            ret=envelope.ret,
            deliver_by=envelope.deliver_by,
            hold_until=envelope.hold_until,
            hold_request=envelope.hold_request,
            origin=origin,
            helo=helo,
        )

    @property
    def size(self) -> int:
        """Octets of the content on the wire."""
        return self.content.wire_size


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEnvelope:
    """An envelope as it is handed to the queue: the recipients of a message that go the same way."""

    domain: str
    """The recipients' domain (Mailbox.domain_key): for lists and filters."""
    next_hop: str
    """What is limited and deferred together: a key of mail.routing.next_hop."""
    recipients: tuple[Recipient, ...]
    next_try: float
    """When it is due: now, or the end of FUTURERELEASE, or later if it was tried already."""
    warn_at: float | None = None
    """When its sender is told that it is delayed; None: never."""
    state: State = State.QUEUED
    hold_reason: str = ""
    via: str = ""
    attempts: int = 0
    """1 if it was tried before it was queued, as local recipients are."""
    last_attempt: float | None = None
    deferred: Mapping[int, Deferred] = field(default_factory=dict)
    """How that went, by the recipient's place in `recipients`, counted from 0."""

    @classmethod
    def of(cls, routed: RoutedEnvelope, *, next_try: float, warn_at: float | None = None) -> Self:
        """The envelope that the routing made, due at `next_try`, or held where its route is `hold`.

        `warn_at`: when the sender is told that the message is late; None: never.
        """
        return cls(
            domain=routed.domain,
            next_hop=routed.next_hop,
            recipients=routed.recipients,
            next_try=next_try,
            warn_at=warn_at,
            state=State.HELD if routed.is_held else State.QUEUED,
            hold_reason="by its route" if routed.is_held else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRecipient:
    """A recipient for whom nothing final has happened yet."""

    number: int
    """Its name within the envelope: it stays the same when others are done."""
    recipient: Recipient
    last: Deferred | None = None
    """How the last attempt went for it; None before the first one."""

    @property
    def status(self) -> str:
        """The last enhanced status code, or ""."""
        return "" if self.last is None else str(self.last.status)

    @property
    def reply(self) -> str:
        """What the peer or the system said last, or ""."""
        return "" if self.last is None else self.last.diagnostic


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedEnvelope:
    """An envelope in the queue."""

    id: str
    """The message's id if it was stored with one envelope, else "<message id>.<number>"."""
    message_id: str
    number: int
    """From 1."""
    domain: str
    next_hop: str
    state: State
    hold_reason: str
    """Why it is held, for people; "" if it is not."""
    via: str
    """The route that the operator chose with `release --via`, or ""."""
    released: bool
    """The operator let it go: `hold` routes are skipped."""
    bounce: bool
    """The operator wants it returned to the sender: the next attempt fails all recipients without trying."""
    attempts: int
    next_try: float
    not_before: float
    """The destination failed while it waited: it is not tried before this moment (0: nothing like that)."""
    last_attempt: float | None
    warn_at: float | None
    """When the sender is told of the delay; None: never."""
    warned: bool
    """He has been told."""
    deadline: float | None
    """DELIVERBY's, which holds while it is held, too; None: there is none, or it has had its consequence."""
    recipients: tuple[QueuedRecipient, ...]

    @property
    def due(self) -> float:
        """When it is tried, unless it is held."""
        return max(self.next_try, self.not_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of `queue list`: an envelope, and of its message what costs nothing to know."""

    envelope: QueuedEnvelope
    arrived: float
    size: int
    """Octets of the content on the wire."""
    reverse_path: ReversePath


@dataclass(frozen=True, slots=True)
class Recovered:
    """What start-up found and mended."""

    removed: tuple[Path, ...]
    """Spool files of messages that were never accepted, or had left: removed."""
    set_aside: tuple[SetAside, ...]
    rescued: tuple[Path, ...]
    """Contents that are left of a queue that is gone."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A damaged entry that was moved out of the queue."""

    id: str
    reason: str
    path: Path
    """Its JSON file in `data_dir/damaged`; its content, where there was any, lies beside it with suffix .content."""


class QueueError(Exception):
    """The queue could not do what it was asked to."""


class QueueFull(QueueError):  # noqa: N818
    """Nothing can be stored or changed now: disk full, I/O error, or another process holds the lock for too long.
    Nothing of the operation has happened; trying again later may help.
    """


class QueueUnreadable(QueueError):  # noqa: N818
    """The database can't be read.  The message names the file."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path} can't be read: {reason}")
        self.path = path


class NoSuchEntry(QueueError):  # noqa: N818
    """No message and no envelope has this id."""

    def __init__(self, entry_id: str) -> None:
        super().__init__(f"no message or envelope {entry_id!r} in the queue")
        self.id = entry_id


class DamagedEntry(QueueError):  # noqa: N818
    """An entry's row or spool file is not what the queue wrote.  Answer: `Queue.set_aside(error.id, error.reason)`."""

    def __init__(self, entry_id: str, reason: str) -> None:
        super().__init__(f"queue entry {entry_id} is damaged: {reason}")
        self.id = entry_id
        """The message's id, or the envelope's if only that one is damaged."""
        self.reason = reason
