"""The dataclasses of the queue: messages and envelopes, as they are handed in, stored and listed.

Moments are seconds since the epoch on the queue's clock.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from trimta.first_use.pattern import pattern
from trimta.mail.body import BodyForm

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.content.dsn.report_form import ReportForm
    from trimta.mail.envelope import Recipient, ReversePath, Terms
    from trimta.mail.outcome import Deferred
    from trimta.routing.destination import RoutedEnvelope
    from trimta.store.spool import Body


_MESSAGE_ID: Final = pattern(r"[A-Za-z0-9_-]{1,64}")


class EnvelopeState(enum.StrEnum):
    """The state of an envelope in the queue."""

    QUEUED = "queued"
    """The envelope is tried when it is due."""
    HELD = "held"
    """The envelope waits for the operator."""


def is_message_id(text: str) -> bool:
    """Whether a text can be the id of a message: it is also a file name, and "." sets off an envelope's number."""
    return _MESSAGE_ID.fullmatch(text) is not None


def message_id(entry_id: str) -> str:
    """The message's id in the id of a message or of an envelope."""
    return entry_id.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message in the queue, which all its envelopes share."""

    id: str
    """The message's id: ASCII letters, digits, "-" and "_", since it is a file name, too."""
    arrived: float
    terms: Terms
    content: Body
    """The header and body as the client sent them, without `trace`."""
    trace: bytes = b""
    """The Received field of this server, and further fields that it puts on top, with LF line ends."""
    origin: str = ""
    """The origin of the message, in one line for people: client address, HELO name, authenticated user."""
    helo: str = ""
    """The client's name for itself in HELO or EHLO; empty for a message that did not come by SMTP."""
    report: ReportForm | None = None
    """The form of a DSN that this server has made; None for any other message."""

    def __post_init__(self) -> None:
        if self.content.form is not BodyForm.of(self.terms.body):
            raise ValueError(f"a body with {self.terms.body} is not kept as {self.content.form.value}")

    @property
    def size(self) -> int:
        """Octets of the content on the wire."""
        return self.content.wire_size


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEnvelope:
    """A new envelope for the queue: recipients of a message with the same next hop."""

    domain: str
    """The recipients' domain (Mailbox.domain_key), for lists and filters."""
    next_hop: str
    """The next hop (see routing.routes.next_hop), which is limited and deferred as a whole."""
    recipients: tuple[Recipient, ...]
    next_try: float
    """The moment of the first try: now, the end of FUTURERELEASE, or later if there was a try already."""
    warn_at: float | None = None
    """The moment at which the sender is told of the delay; None for never."""
    state: EnvelopeState = EnvelopeState.QUEUED
    hold_reason: str = ""
    via: str = ""
    attempts: int = 0
    """The number of tries so far: 1 for local recipients, whose copies are tried before the message is queued."""
    last_attempt: float | None = None
    last_outcomes: tuple[Deferred, ...] = ()
    """The outcomes of that attempt, one for each of `recipients`, in their order; empty if there was none."""

    def __post_init__(self) -> None:
        if self.last_outcomes and len(self.last_outcomes) != len(self.recipients):
            raise ValueError(f"{len(self.last_outcomes)} outcomes for {len(self.recipients)} recipients")

    @classmethod
    def of(cls, routed: RoutedEnvelope, *, next_try: float, warn_at: float | None = None) -> Self:
        """The envelope that the policy has routed, due at `next_try`, or held if its route is `hold`.

        `warn_at`: the moment at which the sender is told of the delay; None for never.
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
    """A recipient in the queue, for whom no outcome is final yet."""

    recipient: Recipient
    """The recipient, with its number within the envelope."""
    last_outcome: Deferred | None = None
    """The outcome of the last attempt; None before the first."""

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
    """The envelope's id: the message's id if it was stored with one envelope, else "<message id>.<number>"."""
    message_id: str
    number: int
    """The envelope's number within the message, from 1."""
    domain: str
    next_hop: str
    state: EnvelopeState
    hold_reason: str
    """The reason of a hold, for people; "" if the envelope is not held."""
    via: str
    """The route that the operator chose with `release --via`, or ""."""
    released: bool
    """Whether the operator has released the envelope, so that `hold` routes are skipped."""
    bounce: bool
    """Whether the operator returns the envelope to its sender: the next attempt fails without a try."""
    attempts: int
    next_try: float
    not_before: float
    """The moment until which the envelope waits since its next hop has failed; 0 if it does not."""
    last_attempt: float | None
    warn_at: float | None
    """The moment at which the sender is told of the delay; None for never."""
    warned: bool
    """Whether the sender has been told of the delay."""
    deadline: float | None
    """The deadline of DELIVERBY, also while the envelope is held; None without one, and once it has had its effect."""
    recipients: tuple[QueuedRecipient, ...]

    @property
    def due(self) -> float:
        """The moment of the next try, unless the envelope is held."""
        return max(self.next_try, self.not_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEnvelope:
    """An envelope in a list, with the arrival, size and reverse-path of its message."""

    envelope: QueuedEnvelope
    arrived: float
    size: int
    """Octets of the content on the wire."""
    reverse_path: ReversePath


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """The repairs that `repair.recover` has made."""

    removed: tuple[Path, ...]
    """Spool files that were removed: of messages that were never accepted, or had left."""
    set_aside: tuple[SetAside, ...]
    rescued: tuple[Path, ...]
    """Files with contents of messages whose queue is gone."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A damaged entry that was moved out of the queue."""

    id: str
    reason: str
    path: Path
    """The entry's JSON file in `data_dir/damaged`; its content, if any, is beside it, with the suffix .content."""
