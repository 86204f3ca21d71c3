"""Settlement: an envelope's outcomes go into the queue, with the DSNs that are due, and are announced as events."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Final

import trio

from trimta.mail.outcome import Deferred, Failed, LocalCause
from trimta.mail.status import GIVEN_UP, SYSTEM_TROUBLE, TIME_EXPIRED
from trimta.outbound.outcome_events import emit_outcome
from trimta.outbound.retries import is_late
from trimta.routing.policy import addresses
from trimta.store.queue.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trimta.mail.envelope import Recipient
    from trimta.mail.outcome import Outcome
    from trimta.outbound.reports import NewMessage, Reports
    from trimta.outbound.retries import Retries
    from trimta.outbound.transports.attempt import AttemptResult
    from trimta.outbound.worker import Claim, Claimed
    from trimta.runtime.bugs import Bugs
    from trimta.runtime.drain import Drain
    from trimta.runtime.events import Events
    from trimta.runtime.group_commit import GroupCommit
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.services import CurrentServices
    from trimta.store.queue.queue import Queue
    from trimta.store.queue.values import StoredMessage


DISK_LIMIT: Final = 60.0
"""Seconds for composing reports, shielded from cancellation: past it the disk hangs."""

NO_ROOM_PAUSE: Final = 5.0
"""Seconds until the queue is asked again to note what was done."""


class Settlement:
    """Settles envelopes that a worker has claimed.  A method waits until the queue has taken what it settles."""

    def __init__(
        self,
        services: CurrentServices,
        *,
        clock: QueueClock,
        queue: GroupCommit,
        events: Events,
        drain: Drain,
        bugs: Bugs,
        reports: Reports,
        retries: Retries,
        wake: Callable[[], None],
    ) -> None:
        """`wake` tells the scheduler that something in the queue has changed."""
        self._services = services
        self._clock = clock
        self._queue = queue
        self._events = events
        self._drain = drain
        self._bugs = bugs
        self._reports = reports
        self._retries = retries
        self._wake = wake

    async def settle(self, claimed: Claimed, outcomes: Sequence[Outcome]) -> None:
        """Settle an attempt by a transport that keeps no connection; each recipient has an outcome."""
        await self._settle(claimed, outcomes)

    async def settle_attempt(self, claimed: Claimed, result: AttemptResult, *, claim: Claim | None = None) -> None:
        """Settle an attempt over SMTP or LMTP.  Recipients without an outcome stay due, or held where `[egress] allow`
        keeps them here.  A next hop without a usable host is spared what else waits for it.

        `claim`: what the worker delivers next, claimed in the same transaction.
        """
        denied = result.denied
        hold = None
        if denied is not None:
            hold = f"egress.allow keeps it here; it would have gone to {denied.host} [{denied.address}]:{denied.port}"
        spare = result.unusable is not None and not result.cut_short
        await self._settle(claimed, result.outcomes, hold=hold, host=result.host, spare=spare, claim=claim)

    async def fail_untried(self, claimed: Claimed, failures: Sequence[Failed]) -> None:
        """Settle failures for which no attempt was needed."""
        await self._settle(claimed, failures, attempted=False)

    async def fail_late(self, claimed: Claimed) -> None:
        """Fail an envelope, queued or held, that DELIVERBY does not let be delivered any more."""
        await self.fail_untried(claimed, _too_late(claimed))

    async def hold(self, claimed: Claimed, reason: str) -> None:
        """Hold an envelope until the operator releases it."""
        await self._settle(claimed, [], hold=reason)

    async def postpone(self, claimed: Claimed) -> None:
        """Have an envelope tried again later that a bug keeps from being tried now."""
        now, envelope = self._clock.now(), claimed.envelope
        next_try = self._next_try(claimed, now)
        cause = LocalCause("a bug in the server, see its log")
        outcomes = [
            Deferred(recipient=recipient, status=SYSTEM_TROUBLE.transient, cause=cause)
            for recipient in recipients_of(claimed)
        ]
        deferred = {_number(outcome.recipient): outcome for outcome in outcomes}
        await self._queue.run(lambda queue: queue.settle(envelope.id, now=now, next_try=next_try, deferred=deferred))
        self._emit(claimed, outcomes, next_try=next_try)

    async def _settle(
        self,
        claimed: Claimed,
        outcomes: Sequence[Outcome],
        *,
        hold: str | None = None,
        host: str = "",
        spare: bool = False,
        attempted: bool = True,
        claim: Claim | None = None,
    ) -> None:
        """Write outcomes and the DSNs that are due into the queue, in one transaction.

        `hold`: the reason why the envelope is held.  `host`: the host that was tried last, with its address, for the
        log.  `spare`: what else waits for the next hop waits a little longer.  `attempted`: the outcomes come from an
        attempt that was just made.
        """
        if not outcomes and hold is None:
            return
        message, envelope = claimed.message, claimed.envelope
        now = self._clock.now()
        expiry = self._retries.expiry(message)
        refused, shorter = await self._shortened(claimed, outcomes)
        outcomes = [outcome for outcome in outcomes if outcome not in refused]
        if not envelope.bounce:  # which the operator means to be the end of it
            outcomes = [self._final(outcome, message, now=now, expiry=expiry) for outcome in outcomes]
        dsns = await self._dsns(message, outcomes, last_attempt=now if attempted else envelope.last_attempt)
        if dsns is None:
            outcomes, dsns = [_kept(outcome) for outcome in outcomes], []
        deferred = {_number(outcome.recipient): outcome for outcome in outcomes if isinstance(outcome, Deferred)}
        done = [_number(outcome.recipient) for outcome in (*outcomes, *refused) if not isinstance(outcome, Deferred)]
        next_try = self._next_try(claimed, now) if deferred else None

        def settle(queue: Queue) -> None:
            queue.settle(
                envelope.id,
                now=now,
                next_try=next_try,
                claimed=envelope.next_try,
                done=done,
                deferred=deferred,
                attempted=bool(outcomes),
                hold=hold,
                new=[*dsns, *shorter],
            )
            if spare:
                queue.destinations.defer(envelope.next_hop, now, self._retries.spared_until(now))
            if claim is not None:
                claim(queue)

        await self._commit(settle)
        if claim is not None:
            claim.keep()
        self._emit(claimed, outcomes, next_try=next_try, host=host)
        for outcome, (dsn, _) in product(refused, shorter):
            to, reply = str(outcome.recipient.address), outcome.cause.diagnostic
            self._events.emit("shortened", id=dsn.id, about=message.id, to=to, reply=reply)
        if hold is not None:
            self._events.emit("held", id=message.id, to=addresses(recipients_of(claimed)), reason=hold)
        if dsns or shorter or spare or len(done) < len(claimed.envelope.recipients):
            self._wake()  # else nothing falls due that did not before

    def _next_try(self, claimed: Claimed, now: float) -> float:
        expiry = self._retries.expiry(claimed.message)
        return self._retries.next_try(
            attempts=claimed.envelope.attempts + 1,
            now=now,
            expiry=expiry if now < expiry else math.inf,  # kept beyond it for want of a report
        )

    async def _shortened(
        self, claimed: Claimed, outcomes: Sequence[Outcome]
    ) -> tuple[Sequence[Outcome], Sequence[NewMessage]]:
        """The failures of a DSN of this server whose content a host refused, and the shorter DSNs that go to their
        recipients instead; both are empty where no form is shorter.  Without this, no sender would learn of a failure
        whose DSN the sender's host does not take.
        """
        refused = [outcome for outcome in outcomes if isinstance(outcome, Failed) and outcome.of_content]
        if claimed.message.report is None or claimed.envelope.bounce or not refused:
            return (), ()
        recipients = [outcome.recipient for outcome in refused]
        shorter: Sequence[NewMessage] = ()
        try:
            with self._drain.shielded(DISK_LIMIT):  # else: what was done would be done again
                shorter = await self._reports.shortened(claimed.message, claimed.envelope, recipients)
        except Exception as bug:  # noqa: BLE001 - then it is told to postmaster
            self._bugs.note(bug, id=claimed.message.id)
            shorter = []
        return (refused, shorter) if shorter else ((), ())

    async def _dsns(
        self, message: StoredMessage, outcomes: Sequence[Outcome], *, last_attempt: float | None
    ) -> list[NewMessage] | None:
        """The DSNs about these outcomes; None if a bug keeps them from being composed: then no failure is final.

        A failure of which nobody can be told is logged instead, as `dropped`.
        """
        told: list[Outcome] = []
        for outcome in outcomes:
            if isinstance(outcome, Failed) and self._is_last_resort(outcome, message):
                to, reply = str(outcome.recipient.address), outcome.cause.diagnostic
                self._events.emit("dropped", id=message.id, to=to, reply=reply)
            else:
                told.append(outcome)
        dsns: list[NewMessage] | None = None
        try:
            if not self._reports.are_due(message, told):
                return []
            with self._drain.shielded(DISK_LIMIT):  # else: what was done would be done again
                dsns = await self._reports.on_outcomes(message, told, last_attempt=last_attempt)
        except Exception as bug:  # noqa: BLE001 - a report that can't be made must not lose what it is about
            self._bugs.note(bug, id=message.id)
            return None
        return dsns

    async def _commit(self, operation: Callable[[Queue], None]) -> None:
        """Commit an operation that notes outcomes.  Where the disk has no room for it, wait: without the note, what was
        done would be done again.
        """
        is_committed = False
        while not is_committed:
            try:
                # Else: it is committed in any case, but a cancelled task does not learn it.
                with self._drain.shielded() as shield:
                    await self._queue.run(operation)
                is_committed = not shield.cancelled_caught
                await trio.lowlevel.checkpoint_if_cancelled()
            except QueueError as cause:
                self._events.emit("queue_trouble", reason=str(cause))
                await trio.sleep(NO_ROOM_PAUSE)

    def _final(self, outcome: Outcome, message: StoredMessage, *, now: float, expiry: float) -> Outcome:
        """The outcome that counts: a deferral after which there is no other try is a failure; a failure of a DSN that
        only postmaster could be told of is a deferral until its time is over.
        """
        expired = now >= expiry
        if isinstance(outcome, Deferred) and expired:
            return Failed(
                recipient=outcome.recipient,
                status=TIME_EXPIRED.permanent if is_late(message, now) else GIVEN_UP,
                cause=outcome.cause,
            )
        return outcome if expired or not self._is_last_resort(outcome, message) else _kept(outcome)

    def _is_last_resort(self, outcome: Outcome, message: StoredMessage) -> bool:
        """Whether a message from `<>` goes to postmaster: if it fails there is nobody left to tell."""
        return message.terms.reverse_path is None and outcome.recipient.original == self._services().policy.postmaster

    def _emit(self, claimed: Claimed, outcomes: Sequence[Outcome], *, next_try: float | None, host: str = "") -> None:
        wait = None if next_try is None else next_try - self._clock.now()
        for outcome in outcomes:
            emit_outcome(self._events, claimed.message.id, outcome, host=host, wait=wait)


def recipients_of(claimed: Claimed) -> list[Recipient]:
    """The recipients of a claimed envelope, in its order."""
    return [queued.recipient for queued in claimed.envelope.recipients]


def numbers_of(recipients: Iterable[Recipient]) -> list[int]:
    """The numbers of queued recipients within their envelope."""
    return [_number(recipient) for recipient in recipients]


def _number(recipient: Recipient) -> int:
    assert recipient.number is not None, f"{recipient.address} is not in the queue"
    return recipient.number


def _too_late(claimed: Claimed) -> list[Failed]:
    """Failures of all recipients, since DELIVERBY's deadline has passed; the cause is that of the last deferral."""
    never_tried = LocalCause("it could not be delivered by the time asked for")
    return [
        Failed(
            recipient=queued.recipient,
            status=TIME_EXPIRED.permanent,
            cause=never_tried if queued.last_outcome is None else queued.last_outcome.cause,
        )
        for queued in claimed.envelope.recipients
    ]


def _kept(outcome: Outcome) -> Outcome:
    """The same outcome, unless it is a failure: one whose DSN could not be queued stays deferred."""
    if not isinstance(outcome, Failed):
        return outcome
    return Deferred(recipient=outcome.recipient, status=outcome.status.condition.transient, cause=outcome.cause)
