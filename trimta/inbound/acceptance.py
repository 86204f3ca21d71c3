"""Taking responsibility for a message: local copies in `new/`, envelopes in the queue, and only then the 250.

    the envelopes of the message, one for each destination
      -> Maildir copies written and synced in tmp/      nothing visible yet; whatever fails here is queued instead
      -> one commit: envelopes for everything else      from here on nothing is lost
      -> rename, sync of new/                           readable by everybody
      -> one commit: DSNs that say so                   only if somebody asked

A crash before the end leaves the client without a 250: it sends again, and what was done already is done twice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from trimta.mail.envelope import Notify
from trimta.mail.outcome import Deferred, Delivered, Handover, LocalCause
from trimta.mail.status import DELIVERED
from trimta.outbound.outcome_events import emit_outcome
from trimta.outbound.transports.maildir_delivery import copies_of
from trimta.routing.destination import LocalDestination, RoutedMessage
from trimta.routing.policy import addresses
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import DiscardRoute, MaildirRoute
from trimta.store.maildir import MaildirError
from trimta.store.queue.errors import QueueError, QueueUnavailable
from trimta.store.queue.values import NewEnvelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trimta.content.header_summary import HeaderSummary
    from trimta.mail.envelope import Envelope, Recipient
    from trimta.outbound.reports import Reports
    from trimta.outbound.retries import Retries
    from trimta.outbound.transports.maildir_delivery import Copy, Maildirs, WrittenCopies
    from trimta.routing.destination import Destination, ResolvedPath, RoutedEnvelope
    from trimta.runtime.disk import Disk
    from trimta.runtime.events import Events
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.queue_intake import QueueIntake
    from trimta.store.queue.values import StoredMessage


TAKE_BACK_LIMIT: Final = 1.0
"""Seconds that the reply waits until what the client is told to be refused is removed: nothing depends on it."""


class Acceptance:
    """Takes responsibility for messages."""

    def __init__(
        self,
        *,
        clock: QueueClock,
        disk: Disk,
        queue: QueueIntake,
        events: Events,
        maildirs: Maildirs,
        reports: Reports,
        retries: Retries,
    ) -> None:
        self._clock = clock
        self._disk = disk
        self._queue = queue
        self._events = events
        self._maildirs = maildirs
        self._reports = reports
        self._retries = retries

    async def accept(
        self,
        message: StoredMessage,
        envelope: Envelope,
        seen: HeaderSummary,
        resolved: Sequence[ResolvedPath],
        *,
        queue_failed_copies: bool = True,
    ) -> dict[Recipient, str]:
        """Deliver what can be delivered here and queue the rest; on return all of it is durable.

        `seen`: where the message has been before; a loop is left to the queue, which reports it.
        `resolved`: the targets of each recipient, in the envelope's order, as RCPT accepted it.
        `queue_failed_copies`: whether a copy that can't be written just now is queued; with LMTP the client keeps it.
        Returns the recipients of the envelope whose copies could not be written, with the reason.  Raises QueueError
        when there is no room; the message is not ours then.
        """
        recipients = [*zip(envelope.recipients, resolved, strict=True)]
        routed_message = RoutedMessage.of(recipients)
        copies, to_queue, discarded = _apportioned(message, routed_message.envelopes, seen)
        now = self._clock.now()
        envelopes: list[NewEnvelope] = []
        if to_queue:
            first_try = message.terms.hold_until or now
            warn_at = self._retries.warn_at(message)
            envelopes += [NewEnvelope.of(routed, next_try=first_try, warn_at=warn_at) for routed in to_queue]
        written = await self._maildirs.write(copies, at_once=not envelopes)
        outcomes = [outcome for _, outcomes in written.outcomes for outcome in outcomes]
        delivered = [outcome.recipient for outcome in outcomes if isinstance(outcome, Delivered)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, Deferred)]
        next_try = self._retries.next_try(attempts=1, now=now, expiry=self._retries.expiry(message)) if failed else now
        if failed and queue_failed_copies:
            warn_at = self._retries.warn_at(message)
            envelopes += [
                _postponed(copy.envelope, deferred, now=now, next_try=next_try, warn_at=warn_at)
                for copy, results in written.outcomes
                if (deferred := tuple(outcome for outcome in results if isinstance(outcome, Deferred)))
            ]
        await self._commit(message, envelopes, written)
        if envelopes:
            self._queue.wake()

        if envelopes or discarded or delivered:
            self._announce(message, envelope)
        for to in addresses(discarded):
            self._events.emit("discarded", id=message.id, to=to)
        for outcome in outcomes:
            if queue_failed_copies or isinstance(outcome, Delivered):
                emit_outcome(self._events, message.id, outcome, wait=next_try - now)
            else:
                to, reply = str(outcome.recipient.address), outcome.cause.diagnostic
                self._events.emit("refused", id=message.id, to=to, reply=reply)
        await self._confirm(message, [*discarded, *delivered], routed_message.expanded)
        return _unwritten(recipients, failed) if failed else {}

    async def _commit(self, message: StoredMessage, envelopes: Sequence[NewEnvelope], written: WrittenCopies) -> None:
        """Queue the envelopes and make the copies visible.  If that fails or is cancelled, both are taken back as
        far as possible, since the client is told that nothing was taken and sends the message again.
        """
        is_queued = is_complete = False
        try:
            if envelopes:
                if not message.content.in_memory:  # else the queue, for which others wait, would be busy with it
                    await self._disk.run(message.content.sync)
                await self._queue.accept(message, envelopes)
                is_queued = True
            await written.commit()
            is_complete = True
        except (MaildirError, OSError) as error:
            raise QueueUnavailable(str(error)) from error
        finally:
            if not is_complete:
                # Else: envelopes in the queue are sent, and files lie in tmp/ until a reader removes them.
                with trio.move_on_after(TAKE_BACK_LIMIT, shield=True) as limit:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(written.discard)
                        if is_queued:
                            nursery.start_soon(self._take_back, message)
                if limit.cancelled_caught and is_queued:
                    reason = f"refused, and not removed from the queue within {TAKE_BACK_LIMIT:g} s"
                    self._events.emit("queue_trouble", id=message.id, reason=reason)

    async def _take_back(self, message: StoredMessage) -> None:
        """Remove a message from the queue, also if the queue answers only after the caller has been cancelled."""
        try:
            await self._queue.remove(message.id)
        except QueueError as error:
            reason = f"refused, but still in the queue: {error}"
            self._events.emit("queue_trouble", id=message.id, reason=reason)

    def _announce(self, message: StoredMessage, envelope: Envelope) -> None:
        self._events.emit(
            "accepted",
            id=message.id,
            sender=f"<{message.terms.reverse_path or ''}>",
            to=[str(recipient.original) for recipient in envelope.recipients],
            size=message.size,
            client=message.origin,
        )

    async def _confirm(self, message: StoredMessage, done: Sequence[Recipient], expanded: Sequence[Recipient]) -> None:
        """Send the DSNs that NOTIFY=SUCCESS asked for."""
        if not any(recipient.is_notified_of(Notify.SUCCESS) for recipient in (*done, *expanded)):
            return
        cause = LocalCause("delivered")
        delivered = [
            Delivered(recipient=recipient, status=DELIVERED, cause=cause, handover=Handover.FINAL) for recipient in done
        ]
        new = await self._reports.on_outcomes(message, delivered, last_attempt=self._clock.now())
        new += await self._reports.on_expansion(message, expanded)
        if not new:
            return
        try:
            await self._queue.accept_all(new)
        except QueueError as cause:  # what it tells of is done: to refuse the message now would do it twice
            self._events.emit("queue_trouble", id=message.id, reason=f"no room for a success report: {cause}")
        else:
            self._queue.wake()


def _apportioned(
    message: StoredMessage, envelopes: Iterable[RoutedEnvelope], seen: HeaderSummary
) -> tuple[list[Copy], list[RoutedEnvelope], list[Recipient]]:
    """The copies that are written into Maildirs at once, the envelopes that are queued, and the recipients that a
    `discard` route drops.
    """
    copies: list[Copy] = []
    to_queue: list[RoutedEnvelope] = []
    discarded: list[Recipient] = []
    for envelope in envelopes:
        destination = envelope.destination
        if message.terms.hold_until is not None:
            to_queue.append(envelope)
        elif _goes_into_a_maildir(destination, seen):
            copies += copies_of(message, envelope)
        elif isinstance(destination, MatchedRoute) and isinstance(destination.route, DiscardRoute):
            discarded += envelope.recipients
        else:
            to_queue.append(envelope)
    return copies, to_queue, discarded


def _goes_into_a_maildir(destination: Destination, seen: HeaderSummary) -> bool:
    """Whether a message is written into a Maildir before the 250.  One that has been in the mailbox before is in a
    loop, which the queue reports.
    """
    match destination:
        case LocalDestination(mailbox=mailbox):
            return not seen.was_delivered_to(mailbox.address)
        case MatchedRoute(route=MaildirRoute()):
            return True
        case _:
            return False


def _unwritten(
    recipients: Sequence[tuple[Recipient, ResolvedPath]], failed: Sequence[Deferred]
) -> dict[Recipient, str]:
    """The recipients of an envelope, as they were given, one of whose copies failed, with the reason: also those that
    an alias stands for, or that were named a second time.
    """
    identities = {target.address: target.identity for _, path in recipients for target in path.targets}
    reasons = {identities[outcome.recipient.address]: outcome.cause.diagnostic for outcome in failed}
    return {
        recipient: reasons[target.identity]
        for recipient, path in recipients
        for target in path.targets
        if target.identity in reasons
    }


def _postponed(
    envelope: RoutedEnvelope, outcomes: tuple[Deferred, ...], *, now: float, next_try: float, warn_at: float | None
) -> NewEnvelope:
    """The envelope of a copy that could not be written, as it is tried again."""
    return replace(
        NewEnvelope.of(envelope, next_try=next_try, warn_at=warn_at),
        attempts=1,
        last_attempt=now,
        last_outcomes=outcomes,
    )
