"""Taking responsibility for a message: local copies in `new/`, envelopes in the queue, and only then the 250.

    the envelopes of the message, one for each destination
      -> Maildir copies written and synced in tmp/      nothing visible yet; whatever fails here is queued instead
      -> one commit: envelopes for everything else      from here on nothing is lost
      -> rename, sync of new/                           readable by everybody
      -> one commit: DSNs that say so                   only if somebody asked

A crash before the end leaves the client without a 250: it sends again, and what was done already is done twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from trimta.mail.outcome import Deferred, Delivered, Handover
from trimta.mail.status import DELIVERED, MAILBOX_TROUBLE
from trimta.outbound.transports.copies import Copy, copies_of
from trimta.routing.destination import LocalDestination
from trimta.routing.policy import addresses
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import DiscardRoute, MaildirRoute
from trimta.store.maildir import Delivery, MaildirError, Pending
from trimta.store.queue.errors import QueueError, QueueUnavailable
from trimta.store.queue.values import NewEnvelope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.content.header_summary import HeaderSummary
    from trimta.mail.envelope import Envelope, Recipient
    from trimta.outbound.reports import Reports
    from trimta.outbound.retries import Retries
    from trimta.outbound.transports.maildir import Maildirs
    from trimta.routing.policy import Policy
    from trimta.runtime.clock import QueueClock
    from trimta.runtime.events import Events
    from trimta.runtime.queue_door import QueueDoor
    from trimta.store.queue.values import StoredMessage


DISCARD_LIMIT: Final = 1.0
"""Seconds that a message waits for copies to go that are not to be seen: nothing depends on it."""


class Acceptance:
    """Takes responsibility for messages."""

    def __init__(
        self,
        *,
        clock: QueueClock,
        queue: QueueDoor,
        events: Events,
        maildirs: Maildirs,
        reports: Reports,
        retries: Retries,
        wake: Callable[[], None],
    ) -> None:
        """`wake` tells the scheduler that something in the queue has changed."""
        self._clock = clock
        self._queue = queue
        self._events = events
        self._maildirs = maildirs
        self._reports = reports
        self._retries = retries
        self._wake = wake

    async def accept(
        self,
        message: StoredMessage,
        envelope: Envelope,
        seen: HeaderSummary,
        *,
        policy: Policy,
        queue_failed_copies: bool = True,
    ) -> dict[Recipient, str]:
        """Deliver what can be delivered here and queue the rest; on return all of it is durable.

        `seen`: where the message has been before; a loop is left to the queue, which reports it.
        `policy`: the one by which its recipients were accepted.
        `queue_failed_copies`: whether a copy that can't be written just now is queued; with LMTP the client keeps it.
        Returns the recipients of the envelope whose copies could not be written, with the reason.  Raises QueueError
        when there is no room; the message is not ours then.
        """
        now = self._clock.now()
        warn_at = self._retries.warn_at(message)
        routed = policy.route(envelope)
        copies: list[Copy] = []
        envelopes: list[NewEnvelope] = []
        discarded: list[Recipient] = []
        for part in routed.envelopes:
            destination = part.destination
            if envelope.hold_until is not None:
                envelopes.append(NewEnvelope.of(part, next_try=envelope.hold_until, warn_at=warn_at))
            elif isinstance(destination, LocalDestination) and not seen.was_delivered_to(destination.mailbox.address):
                copies.extend(copies_of(part, message))
            elif isinstance(destination, MatchedRoute) and isinstance(destination.route, MaildirRoute):
                copies.extend(copies_of(part, message, Path(destination.route.path(part.domain))))
            elif isinstance(destination, MatchedRoute) and isinstance(destination.route, DiscardRoute):
                discarded.extend(part.recipients)
            else:
                envelopes.append(NewEnvelope.of(part, next_try=now, warn_at=warn_at))

        results = await self._maildirs.write([_delivery(copy, message) for copy in copies], at_once=not envelopes)
        failed = {
            copy: str(result) for copy, result in zip(copies, results, strict=True) if isinstance(result, MaildirError)
        }
        if queue_failed_copies:
            next_try = self._retries.next_try(attempts=1, now=now, expiry=self._retries.expiry(message))
            envelopes.extend(
                _postponed(copy, reason, now=now, next_try=next_try, warn_at=warn_at) for copy, reason in failed.items()
            )
        pending = [result for result in results if isinstance(result, Pending)]
        are_visible = not pending
        try:
            if envelopes:
                await self._queue.run(
                    lambda queue: queue.accept(message, envelopes), undo=lambda queue: queue.remove(message.id)
                )
            if pending:
                await self._make_visible(message, pending, queued=bool(envelopes))
            are_visible = True
        finally:
            if not are_visible:  # those that are by now stay
                # Else: files in tmp/ for a reader to remove some day.
                with trio.move_on_after(DISCARD_LIMIT, shield=True):
                    await self._maildirs.discard(pending)
        if envelopes:
            self._wake()

        if envelopes or discarded or len(failed) < len(copies):
            self._announce(message, envelope)
        done = list(discarded)
        for to in addresses(discarded):
            self._events.emit("discarded", id=message.id, to=to)
        for copy in copies:
            if copy not in failed:
                done.extend(copy.recipients)
            for to in addresses(copy.recipients):  # an outcome is of one recipient, here as in the queue
                if copy not in failed:
                    self._events.emit("delivered", id=message.id, to=to, maildir=str(copy.maildir))
                elif queue_failed_copies:
                    self._events.emit("deferred", id=message.id, to=to, reply=failed[copy])
                else:
                    self._events.emit("refused", id=message.id, to=to, reply=failed[copy])
        await self._confirm(message, done, routed.expanded)
        return _unwritten(policy, envelope, failed) if failed else {}

    async def _make_visible(self, message: StoredMessage, pending: Sequence[Pending], *, queued: bool) -> None:
        for result in await self._maildirs.commit(pending):
            if isinstance(result, MaildirError):
                if queued:  # the client is going to send all of it again
                    await self._queue.run(lambda queue: queue.remove(message.id))
                raise QueueUnavailable(str(result)) from result

    def _announce(self, message: StoredMessage, envelope: Envelope) -> None:
        self._events.emit(
            "accepted",
            id=message.id,
            sender=f"<{message.reverse_path or ''}>",
            to=[str(recipient.original) for recipient in envelope.recipients],
            size=message.size,
            client=message.origin,
        )

    async def _confirm(self, message: StoredMessage, done: Sequence[Recipient], expanded: Sequence[Recipient]) -> None:
        """Send the DSNs that NOTIFY=SUCCESS asked for."""
        delivered = [
            Delivered(recipient=recipient, status=DELIVERED, diagnostic="delivered", handover=Handover.FINAL)
            for recipient in done
        ]
        new = await self._reports.on_outcomes(message, delivered, last_attempt=self._clock.now())
        new += await self._reports.on_expansion(message, expanded)
        if not new:
            return
        try:
            await self._queue.run(lambda queue: [queue.accept(dsn, envelopes) for dsn, envelopes in new])
        except QueueError as cause:  # what it tells of is done: to refuse the message now would do it twice
            self._events.emit("queue_trouble", id=message.id, reason=f"no room for a success report: {cause}")
        else:
            self._wake()


def _unwritten(policy: Policy, envelope: Envelope, failed: dict[Copy, str]) -> dict[Recipient, str]:
    """The recipients, as they were given, one of whose copies failed: behind an alias, or named a second time, too."""
    reasons = {
        policy.identity(recipient.address): reason for copy, reason in failed.items() for recipient in copy.recipients
    }
    found: dict[Recipient, str] = {}
    for recipient in envelope.recipients:
        for target in policy.aliases.expand(recipient.address):
            if (identity := policy.identity(target)) in reasons:
                found[recipient] = reasons[identity]
    return found


def _delivery(copy: Copy, message: StoredMessage) -> Delivery:
    return Delivery(copy.maildir, copy.head, message.content)


def _postponed(copy: Copy, reason: str, *, now: float, next_try: float, warn_at: float | None) -> NewEnvelope:
    """A copy that could not be written, as an envelope that is tried again."""
    return NewEnvelope(
        domain=copy.domain,
        next_hop=copy.next_hop,
        recipients=copy.recipients,
        next_try=next_try,
        warn_at=warn_at,
        attempts=1,
        last_attempt=now,
        deferred={
            number: Deferred(recipient=recipient, status=MAILBOX_TROUBLE.transient, diagnostic=reason)
            for number, recipient in enumerate(copy.recipients)
        },
    )
