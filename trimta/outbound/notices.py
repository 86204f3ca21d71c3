"""Notices to senders of mail that still waits: after `delay_warning`, and at DELIVERBY's deadline (RFC 2852 4.1.3).

A message has one delay warning.  The deadline has its own consequence, whatever the sender was told before, for held
mail as well: in mode R the message fails; in mode N its sender is told, and needs no delay warning after that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trimta.mail.outcome import Deferred, LocalCause
from trimta.mail.status import GIVEN_UP, NO_ANSWER
from trimta.outbound.retries import is_late
from trimta.routing.policy import addresses
from trimta.store.queue.values import EnvelopeState

if TYPE_CHECKING:
    from collections.abc import Callable

    from trimta.outbound.reports import NewMessage, Reports
    from trimta.outbound.retries import Retries
    from trimta.outbound.settlement import Settlement
    from trimta.outbound.worker import Claimed
    from trimta.runtime.events import Events
    from trimta.runtime.group_commit import GroupCommit
    from trimta.runtime.queue_clock import QueueClock
    from trimta.store.queue.values import QueuedRecipient


class Notices:
    """Composes notices, about one envelope at a time; the scheduler says when."""

    def __init__(
        self,
        *,
        clock: QueueClock,
        queue: GroupCommit,
        events: Events,
        reports: Reports,
        retries: Retries,
        settlement: Settlement,
        wake: Callable[[], None],
    ) -> None:
        """`wake` tells the scheduler that something in the queue has changed."""
        self._clock = clock
        self._queue = queue
        self._events = events
        self._reports = reports
        self._retries = retries
        self._settlement = settlement
        self._wake = wake

    async def give(self, claimed: Claimed) -> None:
        """Tell the sender that the message is late, if NOTIFY asks for it (RFC 3461 4.1), or fail the envelope if
        DELIVERBY does not let it be delivered any more.
        """
        message, envelope = claimed.message, claimed.envelope
        now = self._clock.now()
        if is_late(message, now):
            await self._settlement.fail_late(claimed)
            return
        answered = envelope.deadline is not None and now >= envelope.deadline
        new = await self._delayed(claimed, now, at_deadline=answered)
        await self._queue.run(
            lambda queue: queue.settle(envelope.id, now=now, attempted=False, warned=True, answered=answered, new=new)
        )
        if new:
            to = addresses(queued.recipient for queued in envelope.recipients)
            self._events.emit("delay_warning", id=message.id, to=to)
        self._wake()

    async def omit(self, envelope_id: str) -> None:
        """Note the notice about an envelope as given: a bug keeps it from being written."""
        now = self._clock.now()
        await self._queue.run(
            lambda queue: queue.settle(envelope_id, now=now, attempted=False, warned=True, answered=True)
        )

    async def _delayed(self, claimed: Claimed, now: float, *, at_deadline: bool) -> list[NewMessage]:
        message, envelope = claimed.message, claimed.envelope
        retry_until = None if envelope.state is EnvelopeState.HELD else self._retries.expiry(message)
        if message.terms.reverse_path is None or (retry_until is not None and retry_until <= now):
            return []  # no sender to tell; or the next try is the last one, and its report says more
        reason = "it is held at this server" if retry_until is None else "it has not been tried yet"
        deferrals = [_last_deferral(queued, reason) for queued in envelope.recipients]
        if at_deadline:
            deferrals = [replace(deferral, status=GIVEN_UP) for deferral in deferrals]
        return await self._reports.on_outcomes(
            message, deferrals, warn=True, retry_until=retry_until, last_attempt=envelope.last_attempt
        )


def _last_deferral(queued: QueuedRecipient, reason: str) -> Deferred:
    """The last deferral of a recipient; one for `reason`, if the recipient has not been tried."""
    return queued.last_outcome or Deferred(
        recipient=queued.recipient, status=NO_ANSWER.transient, cause=LocalCause(reason)
    )
