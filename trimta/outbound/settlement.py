"""Settlement: what the outcomes of an attempt mean for the queue, for the sender and for the log."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Final, assert_never

import trio

from trimta.mail.outcome import Deferred, Delivered, Failed, LocalCause
from trimta.mail.status import GIVEN_UP, SYSTEM_TROUBLE, TIME_EXPIRED
from trimta.outbound.retries import is_late
from trimta.routing.policy import addresses
from trimta.store.queue.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.mail.envelope import Recipient
    from trimta.mail.outcome import Outcome
    from trimta.outbound.reports import NewMessage, Reports
    from trimta.outbound.retries import Retries
    from trimta.outbound.worker import Claimed
    from trimta.runtime.bugs import Bugs
    from trimta.runtime.drain import Drain
    from trimta.runtime.event_declarations import EventName
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
    """Settles envelopes that a worker has claimed."""

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

    async def settle(
        self,
        claimed: Claimed,
        outcomes: Sequence[Outcome],
        *,
        hold: str | None = None,
        where: str = "",
        spare: bool = False,
        attempted: bool = True,
    ) -> None:
        """Write outcomes and the DSNs that are due into the queue, in one transaction.

        `hold`: the reason why the envelope is held.  `where`: the host, for the log.  `spare`: the next hop can't be
        used now, so that what else waits for it waits a little longer.  `attempted`: the outcomes come from an attempt
        that was just made, not from what is known without one.
        """
        if not outcomes and hold is None:
            return
        message, envelope = claimed.message, claimed.envelope
        now = self._clock.now()
        expiry = self._retries.expiry(message)
        refused, short = await self._shortened(claimed, outcomes)
        outcomes = [outcome for outcome in outcomes if outcome not in refused]
        if not envelope.bounce:  # which the operator means to be the end of it
            outcomes = [self._final(outcome, message, now=now, expiry=expiry) for outcome in outcomes]
        new = await self._about(
            message,
            [outcome for outcome in outcomes if not self._is_dropped(outcome, message)],
            last_attempt=now if attempted else envelope.last_attempt,
        )
        if new is None:
            outcomes, new = [_kept(outcome) for outcome in outcomes], []
        numbers = {recipient.recipient.address: recipient.number for recipient in envelope.recipients}
        deferred = {numbers[o.recipient.address]: o for o in outcomes if isinstance(o, Deferred)}
        done = [numbers[o.recipient.address] for o in (*outcomes, *refused) if not isinstance(o, Deferred)]
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
                new=[*new, *short],
            )
            if spare:
                queue.destinations.defer(envelope.next_hop, now, self._retries.spared_until(now))

        await self._keep(settle)
        self._log(claimed, outcomes, next_try=next_try, where=where)
        for outcome, (dsn, _) in product(refused, short):
            self._events.emit(
                "shortened",
                id=dsn.id,
                about=message.id,
                to=str(outcome.recipient.address),
                reply=outcome.cause.diagnostic,
            )
        if hold is not None:
            self._events.emit("held", id=message.id, to=addresses(recipients_of(claimed)), reason=hold)
        self._wake()

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
        """The outcomes of a DSN of ours that refuse its content, and the shorter DSNs that go to their recipients
        instead: else no sender learned of a failure whose report is too much for the sender's host.  Both are empty
        where no form is shorter.
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

    async def _about(
        self, message: StoredMessage, outcomes: Sequence[Outcome], *, last_attempt: float | None
    ) -> list[NewMessage] | None:
        """The DSNs about these outcomes; None if a bug keeps them from being composed: then no failure is final."""
        new: list[NewMessage] | None = None
        try:
            with self._drain.shielded(DISK_LIMIT):  # else: what was done would be done again
                new = await self._reports.on_outcomes(message, outcomes, last_attempt=last_attempt)
        except Exception as bug:  # noqa: BLE001 - a report that can't be made must not lose what it is about
            self._bugs.note(bug, id=message.id)
            return None
        return new

    async def _keep(self, operation: Callable[[Queue], None]) -> None:
        """Commit an operation that notes what was done.  Where the disk has no room for it, wait: else what was done
        would be done again.
        """
        kept = False
        while not kept:
            try:
                # Else: it is committed in any case, but a cancelled task does not learn it.
                with self._drain.shielded() as shield:
                    await self._queue.run(operation)
                kept = not shield.cancelled_caught
                await trio.lowlevel.checkpoint_if_cancelled()
            except QueueError as cause:
                self._events.emit("queue_trouble", reason=str(cause))
                await trio.sleep(NO_ROOM_PAUSE)

    async def postpone(self, claimed: Claimed) -> None:
        """Have an envelope tried again later that a bug keeps from being tried now."""
        now, envelope = self._clock.now(), claimed.envelope
        next_try = self._next_try(claimed, now)
        cause = LocalCause("a bug in the server, see its log")
        outcomes = [
            Deferred(recipient=recipient, status=SYSTEM_TROUBLE.transient, cause=cause)
            for recipient in recipients_of(claimed)
        ]
        deferred = {one.number: outcome for one, outcome in zip(envelope.recipients, outcomes, strict=True)}
        await self._queue.run(lambda queue: queue.settle(envelope.id, now=now, next_try=next_try, deferred=deferred))
        self._log(claimed, outcomes, next_try=next_try, where="")

    def _final(self, outcome: Outcome, message: StoredMessage, *, now: float, expiry: float) -> Outcome:
        """A deferral after which there is no other try is a failure; a report that can't reach postmaster stays
        deferred.
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
        """A message from `<>` to postmaster: if it fails there is nobody left to tell."""
        return message.terms.reverse_path is None and outcome.recipient.original == self._services().policy.postmaster

    def _is_dropped(self, outcome: Outcome, message: StoredMessage) -> bool:
        if isinstance(outcome, Failed) and self._is_last_resort(outcome, message):
            self._events.emit(
                "dropped", id=message.id, to=str(outcome.recipient.address), reply=outcome.cause.diagnostic
            )
            return True
        return False

    def _log(self, claimed: Claimed, outcomes: Sequence[Outcome], *, next_try: float | None, where: str) -> None:
        name: EventName
        for outcome in outcomes:
            match outcome:
                case Delivered():
                    name = "delivered"
                case Deferred():
                    name = "deferred"
                case Failed():
                    name = "bounced"
                case _:
                    assert_never(outcome)
            wait = None if next_try is None or name != "deferred" else max(0, round(next_try - self._clock.now()))
            self._events.emit(
                name,
                id=claimed.message.id,
                to=str(outcome.recipient.address),
                host=where or outcome.cause.host,
                status=str(outcome.status),
                reply=outcome.cause.diagnostic,
                next_s=wait,
            )

    async def hold(self, claimed: Claimed, reason: str) -> None:
        """Hold an envelope until the operator releases it."""
        await self.settle(claimed, [], hold=reason)

    async def give_up_late(self, claimed: Claimed) -> None:
        """Fail an envelope, queued or held, that DELIVERBY does not let be delivered any more."""
        await self.settle(claimed, _too_late(claimed), attempted=False)


def recipients_of(claimed: Claimed) -> list[Recipient]:
    """The recipients of a claimed envelope, in its order."""
    return [recipient.recipient for recipient in claimed.envelope.recipients]


def _too_late(claimed: Claimed) -> list[Outcome]:
    """Failures since DELIVERBY's deadline has passed; the last deferral of each recipient tells why."""
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
    """A failure whose DSN could not be queued stays deferred."""
    if not isinstance(outcome, Failed):
        return outcome
    return Deferred(recipient=outcome.recipient, status=outcome.status.condition.transient, cause=outcome.cause)
