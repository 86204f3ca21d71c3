"""An attempt to deliver an envelope to a next hop: the recipients that are still to be tried, and the outcomes so far.

A reply that says "not now" (4yz) leaves its recipient to the next host (RFC 5321 5.1).  A refusal for good is final,
and so is a deferral where the host may have taken the message over, since another host would make it two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trimta.mail.outcome import Deferred, Delivered, Failed, LocalCause
from trimta.mail.status import NO_ANSWER
from trimta.runtime.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.mail.envelope import Envelope, Recipient
    from trimta.mail.outcome import Cause, Outcome
    from trimta.mail.status import EnhancedStatus
    from trimta.outbound.egress import EgressDeniedError
    from trimta.outbound.resolver import RoutingFailure
    from trimta.outbound.transports.client_conversation import HostUnusableError
    from trimta.outbound.transports.client_settings import Endpoint
    from trimta.outbound.transports.outbound_content import OutboundContent
    from trimta.smtp.outbound import OutboundTransaction
    from trimta.store.spool import BodyDamagedError


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundMessage:
    """A message that is to be sent to one next hop."""

    id: str
    """The id of the queued envelope."""
    envelope: Envelope
    """The terms, and the recipients that are to be tried now; at least one."""
    content: OutboundContent


@dataclass(slots=True)
class AttemptResult:
    """The result of an attempt.

    Each recipient has one outcome, unless `denied`, `damaged` or `cut_short` is set: recipients without an outcome stay
    in the queue then, held or due, or are set aside with the damaged message.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    denied: EgressDeniedError | None = None
    """`[egress] allow` allowed none of the endpoints; this is the first of them."""
    damaged: BodyDamagedError | None = None
    """The error, if the body of the message can't be read any more."""
    unusable: HostUnusableError | None = None
    """The trouble with the last host, if no host could be used to the end: the next hop is spared for a while."""
    cut_short: bool = False
    """Whether the attempt was cancelled: recipients without an outcome stay due, as if they had not been tried."""
    host: str = ""
    """The last host that was tried, with its address."""
    transcript: list[tuple[float, str]] = field(default_factory=list)
    """The conversation, in bounded lines without secrets and bodies, each with its time (seconds since the epoch)."""


class Attempt:
    """An attempt while it is made."""

    def __init__(self, message: OutboundMessage, now: Callable[[], float]) -> None:
        """`now`: seconds since the epoch, as the queue sees them."""
        self.message = message
        self.result = AttemptResult()
        self.transcript = Transcript(now)
        self.undecided: list[Recipient] = list(message.envelope.recipients)
        """The recipients that the present host is to be asked about."""
        self.host = ""
        """The name of the last host that was tried."""
        self.answered: set[Endpoint] = set()
        """The endpoints that have given an answer about every recipient that was left."""
        self.delivered = 0
        """The number of recipients that have been delivered to."""
        self.room: int | None = None
        """The number of recipients that the present host takes in one transaction; None: it has not said "too many"."""
        self._put_off: dict[Recipient, Deferred] = {}
        """The recipients that the last host refused for now (4yz)."""

    @property
    def is_decided(self) -> bool:
        """Whether no recipient is left for another host."""
        return not (self.undecided or self._put_off)

    def begin_with(self, endpoint: Endpoint) -> None:
        """Note that `endpoint` is tried from now on."""
        if self.result.host != str(endpoint):
            self.room = None
        self.host = endpoint.host
        self.result.host = str(endpoint)

    def note(self, transaction: OutboundTransaction, recipients: Sequence[Recipient]) -> None:
        """Note the outcomes of a transaction for `recipients`."""
        for outcome in transaction.outcomes:
            if isinstance(outcome, Deferred) and not outcome.possibly_taken:
                self._put_off[outcome.recipient] = outcome
            else:
                self._put_off.pop(outcome.recipient, None)
                self.result.outcomes.append(outcome)
                self.delivered += isinstance(outcome, Delivered)
        self.room = transaction.room or self.room
        others: list[Recipient] = []
        if len(recipients) < len(self.undecided):  # not all of them were part of it
            tried = {*recipients}
            others = [recipient for recipient in self.undecided if recipient not in tried]
        self.undecided = [*transaction.undecided, *transaction.further, *others]

    def take_up_again(self) -> None:
        """Let the next host be asked about recipients that the last host has put off, too."""
        waiting = {*self.undecided, *self._put_off}
        self.undecided = [recipient for recipient in self.message.envelope.recipients if recipient in waiting]

    def keep_put_off(self) -> None:
        """Defer the recipients that were put off, each with the last host's reply, since there is no other host."""
        self.result.outcomes.extend(self._put_off.values())
        self.undecided = [recipient for recipient in self.undecided if recipient not in self._put_off]
        if self._put_off:
            self.result.unusable = None  # the next hop talks to us
        self._put_off = {}

    def defer(self, status: EnhancedStatus, cause: Cause) -> None:
        """Defer all recipients that are undecided."""
        self.result.outcomes.extend(
            Deferred(recipient=recipient, status=status, cause=cause) for recipient in self.undecided
        )
        self.undecided = []

    def fail(self, status: EnhancedStatus, cause: Cause, *, of_content: bool = False) -> None:
        """Fail all recipients that are undecided."""
        self.result.outcomes.extend(
            Failed(recipient=recipient, status=status, cause=cause, of_content=of_content)
            for recipient in self.undecided
        )
        self.undecided = []

    def end_without_hosts(self, failure: RoutingFailure) -> None:
        """Defer or fail all recipients, since the next hop has no host."""
        self.transcript.note(failure.text)
        if failure.status.klass == 5:
            self.fail(failure.status, LocalCause(failure.text))
        else:
            self.defer(failure.status, LocalCause(failure.text))

    def conclude(self) -> None:
        """Once all hosts were tried: give an outcome to the recipients that no host has given an answer about."""
        result = self.result
        self.keep_put_off()
        if not self.undecided:
            result.denied = None
        elif result.unusable is not None:
            # A host that may be tried was tried: it may be back next time, and nothing has to be decided by people.
            result.denied = None
            self.defer(result.unusable.status, result.unusable.cause)
        elif result.denied is None:
            self.defer(NO_ANSWER.transient, LocalCause("no host took the message"))
