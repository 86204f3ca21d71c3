"""DSNs as messages for the queue (RFC 3464): to the sender as `content.dsn.due` says, or to postmaster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.content.dsn.compose import compose
from trimta.content.dsn.due import dsns_due, is_due, may_be_reported
from trimta.content.dsn.report_form import ReportForm
from trimta.content.dsn.returned import RETURN_LIMIT
from trimta.content.dsn.shorter import shorter
from trimta.content.dsn.values import DsnKind, OriginalMessage, RecipientReport
from trimta.mail.envelope import BodyKind, Notify, Recipient, Terms
from trimta.mail.outcome import Delivered, Failed, Handover, LocalCause
from trimta.mail.status import EXPANDED
from trimta.runtime.ids import new_id
from trimta.store.queue.values import NewEnvelope, StoredMessage
from trimta.store.spool import Body, BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimta.mail.address import Mailbox
    from trimta.mail.outcome import Outcome
    from trimta.routing.policy import Policy
    from trimta.runtime.disk import Disk
    from trimta.runtime.events import Events
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.services import CurrentServices
    from trimta.store.queue.values import QueuedEnvelope

NewMessage: TypeAlias = tuple[StoredMessage, list[NewEnvelope]]
"""A message for the queue, with its envelopes."""

NEVER: Final = frozenset({Notify.NEVER})
"""NOTIFY of a DSN's recipient: no DSN is sent about a DSN (RFC 3461 6.1)."""


class Reports:
    """Composes DSNs; the caller puts them into the queue, in the transaction that settles what they are about."""

    def __init__(self, services: CurrentServices, *, clock: QueueClock, disk: Disk, events: Events) -> None:
        self._services = services
        self._clock = clock
        self._disk = disk
        self._events = events

    def are_due(self, message: StoredMessage, outcomes: Sequence[Outcome]) -> bool:
        """Whether `on_outcomes`, which may need the disk, has a DSN to make about these outcomes of an attempt."""
        if not may_be_reported(message.terms.reverse_path):
            return any(isinstance(outcome, Failed) for outcome in outcomes)
        return bool(dsns_due(outcomes, traced=_is_traced(message)))

    async def on_outcomes(
        self,
        message: StoredMessage,
        outcomes: Sequence[Outcome],
        *,
        last_attempt: float | None = None,
        warn: bool = False,
        retry_until: float | None = None,
    ) -> list[NewMessage]:
        """The DSNs that the sender asked for about these outcomes.

        Failures of a message from the null reverse-path are reported to postmaster, never back (RFC 5321 4.5.5, 6.1).
        `warn`: DSNs about deferrals are due, too.  `last_attempt`: when the last attempt ended, in seconds since the
        epoch; None if there was none.  `retry_until`: when the message is given up; None if it is held.
        """
        if not may_be_reported(message.terms.reverse_path):
            failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
            if not failed:
                return []
            postmaster = self._services().policy.postmaster
            return [await self._compose(message, DsnKind.FAILED, failed, postmaster, last_attempt=last_attempt)]
        assert message.terms.reverse_path is not None
        due = dsns_due(outcomes, warn=warn, traced=_is_traced(message))
        return [
            await self._compose(
                message, kind, about, message.terms.reverse_path, last_attempt=last_attempt, retry_until=retry_until
            )
            for kind, about in due.items()
        ]

    async def on_expansion(self, message: StoredMessage, recipients: Sequence[Recipient]) -> list[NewMessage]:
        """The DSN about recipients that an alias sent on to many (RFC 3461 5.2.7.3)."""
        about = expanded(recipients)
        if not about or message.terms.reverse_path is None:
            return []
        now = self._clock.now()
        return [await self._compose(message, DsnKind.EXPANDED, about, message.terms.reverse_path, last_attempt=now)]

    async def shortened(
        self, message: StoredMessage, envelope: QueuedEnvelope, recipients: Sequence[Recipient]
    ) -> list[NewMessage]:
        """The DSNs that make up the next shorter form of `message`, a DSN of this server, for those recipients of the
        envelope whose host refused its content; empty if there is no shorter form.
        """
        if message.report is None:
            return []
        content = message.content
        try:
            octets = content.read() if content.in_memory else await self._disk.run(content.read)
        except (OSError, BodyDamagedError) as cause:
            self._events.emit("disk_trouble", id=message.id, reason=str(cause))
            return []
        shorter_form = shorter(octets, message.report)
        if shorter_form is None:
            return []
        form, contents = shorter_form
        now = self._clock.now()
        new: list[NewMessage] = []
        for short in contents:
            dsn = StoredMessage(
                id=new_id(),
                arrived=now,
                terms=Terms(
                    reverse_path=None,
                    smtputf8=not short.isascii(),  # the return address is not; the rest of a short form always is
                    body=BodyKind.SEVEN_BIT if short.isascii() else BodyKind.EIGHT_BIT,
                ),
                content=Body.of(short),
                origin=message.origin,
                report=form,
            )
            new_envelope = NewEnvelope(
                domain=envelope.domain,
                next_hop=envelope.next_hop,
                recipients=tuple(recipients),
                next_try=now,
                via=envelope.via,
            )
            new.append((dsn, [new_envelope]))
        return new

    async def _compose(
        self,
        message: StoredMessage,
        kind: DsnKind,
        outcomes: Sequence[Outcome],
        addressee: Mailbox,
        *,
        last_attempt: float | None,
        retry_until: float | None = None,
    ) -> NewMessage:
        head = await self._head(message)
        dsn, envelopes = report(
            self._services().policy,
            message,
            kind,
            outcomes,
            addressee,
            head=head,
            now=self._clock.now(),
            last_attempt=last_attempt,
            retry_until=retry_until,
        )
        self._events.emit(
            "report", id=dsn.id, about=message.id, kind=str(kind), to=str(addressee),
            status=[str(outcome.status) for outcome in outcomes],
        )  # fmt: skip
        return dsn, envelopes

    async def _head(self, message: StoredMessage) -> bytes:
        """The message from its beginning, as much as a DSN may return, and one octet more to see that there is more."""
        room = RETURN_LIMIT + 1
        content = message.content
        try:
            head = content.head(room) if content.in_memory else await self._disk.run(content.head, room)
        except (OSError, BodyDamagedError) as cause:
            self._events.emit("disk_trouble", id=message.id, reason=str(cause))
            head = b""
        return message.trace + head


def _is_traced(message: StoredMessage) -> bool:
    """Whether DELIVERBY asked for a `relayed` DSN at every relay."""
    return message.terms.deliver_by is not None and message.terms.deliver_by.trace


def report(
    policy: Policy,
    message: StoredMessage,
    kind: DsnKind,
    outcomes: Sequence[Outcome],
    addressee: Mailbox,
    *,
    head: bytes,
    now: float,
    last_attempt: float | None,
    retry_until: float | None = None,
) -> NewMessage:
    """One DSN.  `head`: the message from its beginning, the trace included, as much of it as the DSN may return.
    Moments are seconds since the epoch on the queue's clock.
    """
    hostname = policy.hostname
    dsn_id = new_id()
    composed = compose(
        kind=kind,
        reports=[
            RecipientReport(
                outcome=outcome,
                last_attempt=None if last_attempt is None else _moment(last_attempt),
                retry_until=None if retry_until is None else _moment(retry_until),
            )
            for outcome in outcomes
        ],
        addressee=addressee,
        original=OriginalMessage(
            head=head,
            whole=len(head) == len(message.trace) + message.content.size,
            terms=message.terms,
            arrived=_moment(message.arrived),
            queue_id=message.id,
            received_from=message.helo,
        ),
        now=_moment(now),
        hostname=hostname,
        message_id=f"{dsn_id}@{hostname}",
    )
    dsn = StoredMessage(
        id=dsn_id,
        arrived=now,
        terms=Terms(
            reverse_path=None,
            body=BodyKind.EIGHT_BIT if composed.eight_bit else BodyKind.SEVEN_BIT,
            smtputf8=composed.smtputf8,
        ),
        content=Body.of(composed.content),
        origin=f"{kind} report about {message.id}",
        report=ReportForm.FULL,
    )
    routed = policy.route([Recipient(address=addressee, original=addressee, notify=NEVER)])
    return dsn, [NewEnvelope.of(envelope, next_try=now) for envelope in routed.envelopes]


def expanded(recipients: Sequence[Recipient]) -> list[Delivered]:
    """The outcomes of recipients whose alias has several members."""
    cause = LocalCause("sent on to its members")
    return [
        Delivered(recipient=recipient, status=EXPANDED, cause=cause, handover=Handover.FINAL)
        for recipient in recipients
        if is_due(DsnKind.EXPANDED, recipient)
    ]


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone()
