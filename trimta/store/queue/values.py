"""Values of the queue: messages and envelopes as they are handed to it, as it holds them, and as it tells of them."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from trimta.mail.body import BodyForm

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.content.dsn.shorter import ReportForm
    from trimta.mail.envelope import Recipient, ReversePath, Terms
    from trimta.mail.outcome import Deferred
    from trimta.routing.destination import RoutedEnvelope
    from trimta.store.spool import Body


_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class EnvelopeState(enum.StrEnum):
    """Whether the server tries an envelope."""

    QUEUED = "queued"
    """The envelope is tried when it is due."""
    HELD = "held"
    """The envelope waits for the operator."""


def is_message_id(text: str) -> bool:
    """Whether a text can be the id of a message: it is also a file name, and "." sets off an envelope's number."""
    return _MESSAGE_ID.fullmatch(text) is not None


def message_id(entry_id: str) -> str:
    """The id of the message that an id, a message's or an envelope's, belongs to."""
    return entry_id.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """What all envelopes of a message share.  Times are wall-clock seconds since the epoch."""

    id: str
    """ASCII letters, digits, "-" and "_": it is a file name too."""
    arrived: float
    terms: Terms
    content: Body
    """Header and body as the client sent them, without the trace."""
    trace: bytes = b""
    """Our Received field, and what else we put on top, with LF line ends."""
    origin: str = ""
    """Where it came from, in one line for people: client address, HELO name, who authenticated."""
    helo: str = ""
    """What the client that brought it called itself; empty: it did not come by SMTP."""
    report: ReportForm | None = None
    """It is a DSN of ours, in this form."""

    def __post_init__(self) -> None:
        if self.content.form is not BodyForm.of(self.terms.body):
            raise ValueError(f"a body with {self.terms.body} is not kept as {self.content.form.value}")

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
    state: EnvelopeState = EnvelopeState.QUEUED
    hold_reason: str = ""
    via: str = ""
    attempts: int = 0
    """1 if it was tried before it was queued, as local recipients are."""
    last_attempt: float | None = None
    last_outcomes: tuple[Deferred, ...] = ()
    """The outcomes of that attempt, one for each of `recipients`, in their order; empty if there was none."""

    def __post_init__(self) -> None:
        if self.last_outcomes and len(self.last_outcomes) != len(self.recipients):
            raise ValueError(f"{len(self.last_outcomes)} outcomes for {len(self.recipients)} recipients")

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
            state=EnvelopeState.HELD if routed.is_held else EnvelopeState.QUEUED,
            hold_reason="by its route" if routed.is_held else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRecipient:
    """A recipient for whom nothing final has happened yet."""

    recipient: Recipient
    """With its number within the envelope."""
    last_outcome: Deferred | None = None
    """Why the last attempt deferred this recipient; None before the first attempt."""

    @property
    def status(self) -> str:
        """The enhanced status code of the last outcome, or ""."""
        return "" if self.last_outcome is None else str(self.last_outcome.status)

    @property
    def reply(self) -> str:
        """The last reply of the peer, or the system's last error, or ""."""
        return "" if self.last_outcome is None else self.last_outcome.cause.diagnostic


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
    state: EnvelopeState
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
    """The sender has been told of the delay."""
    deadline: float | None
    """DELIVERBY's, which holds while it is held, too; None: there is none, or it has had its consequence."""
    recipients: tuple[QueuedRecipient, ...]

    @property
    def due(self) -> float:
        """When it is tried, unless it is held."""
        return max(self.next_try, self.not_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEnvelope:
    """An envelope in a list, with what is known of its message without reading the content."""

    envelope: QueuedEnvelope
    arrived: float
    size: int
    """Octets of the content on the wire."""
    reverse_path: ReversePath


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What `repair.recover` has put in order."""

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
