"""What senders are told of mail that still waits: after `delay_warning`, and at DELIVERBY's deadline (RFC 2852 4.1.3).

The delay warning is told once.  The deadline has its own consequence, whatever was told before, and held mail has it as
well: in mode R the message fails, in mode N its sender is told, and needs no delay warning after that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from trimta.mail.envelope import ByMode
from trimta.mail.outcome import Deferred
from trimta.mail.status import EnhancedStatus
from trimta.routing.policy import addresses
from trimta.store.queue.values import EnvelopeState

if TYPE_CHECKING:
    from trimta.outbound.reports import NewMessage
    from trimta.outbound.scheduler import Claimed
    from trimta.server.site import Site
    from trimta.store.queue.values import QueuedRecipient, StoredMessage

UNREACHABLE: Final = EnhancedStatus(4, 4, 1)
TIME_IS_UP: Final = EnhancedStatus(4, 4, 7)


def is_late(message: StoredMessage, now: float) -> bool:
    """DELIVERBY in mode R: after its deadline nothing may be delivered (RFC 2852 4.1)."""
    by = message.deliver_by
    return by is not None and by.mode is ByMode.RETURN and now >= by.deadline


class Notices:
    """Tells senders, one envelope after the other; the scheduler says when."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def give(self, claimed: Claimed) -> None:
        """Tell the sender that the message is late, if that is wanted (RFC 3461 4.1), or too late."""
        site, message, envelope = self._site, claimed.message, claimed.envelope
        now = site.clock.now()
        if is_late(message, now):
            await site.dispatcher.give_up_late(claimed)
            return
        answered = envelope.deadline is not None and now >= envelope.deadline
        new = await self._delayed(claimed, now, at_deadline=answered)
        await site.queue.run(
            lambda queue: queue.settle(envelope.id, now=now, attempted=False, warned=True, answered=answered, new=new)
        )
        if new:
            to = addresses(recipient.recipient for recipient in envelope.recipients)
            site.events.emit("delay_warning", id=message.id, to=to)
        site.scheduler.wake()

    async def omit(self, envelope_id: str) -> None:
        """Never mind the notice: a bug keeps it from being written."""
        now = self._site.clock.now()
        await self._site.queue.run(
            lambda queue: queue.settle(envelope_id, now=now, attempted=False, warned=True, answered=True)
        )

    async def _delayed(self, claimed: Claimed, now: float, *, at_deadline: bool) -> list[NewMessage]:
        site, message, envelope = self._site, claimed.message, claimed.envelope
        retry_until = None if envelope.state is EnvelopeState.HELD else site.expiry(message)
        if message.reverse_path is None or (retry_until is not None and retry_until <= now):
            return []  # nobody to tell; or the next try is the last one, and says more
        reason = "it is held at this server" if retry_until is None else "it has not been tried yet"
        waiting = [_waiting(recipient, reason) for recipient in envelope.recipients]
        if at_deadline:
            waiting = [replace(outcome, status=TIME_IS_UP) for outcome in waiting]
        return await site.reporter.on_outcomes(
            message, waiting, warn=True, retry_until=retry_until, last_attempt=envelope.last_attempt
        )


def _waiting(recipient: QueuedRecipient, reason: str) -> Deferred:
    """The last that was said, or why nothing was."""
    return recipient.last_outcome or Deferred(recipient=recipient.recipient, status=UNREACHABLE, diagnostic=reason)
