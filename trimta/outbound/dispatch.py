"""Dispatch: each claimed envelope is given to the transport that its route names, and its outcomes to `settlement`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimta.config.route_syntax import read_route
from trimta.mail.envelope import Envelope
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover, LocalCause
from trimta.mail.status import (
    BAD_CONFIGURATION,
    DELIVERED,
    NO_SUCH_MAILBOX,
    NOT_AUTHORIZED,
    POLICY_TROUBLE,
    ROUTING_LOOP,
    SYSTEM_TROUBLE,
    EnhancedStatus,
)
from trimta.outbound.retries import is_late
from trimta.outbound.settlement import numbers_of, recipients_of
from trimta.outbound.transports import pipe
from trimta.outbound.transports.attempt import OutboundMessage
from trimta.outbound.transports.maildir_delivery import copies_of
from trimta.outbound.transports.outbound_content import OutboundContent
from trimta.outbound.transports.smtp_client import SmtpClient
from trimta.routing.destination import LocalDestination, RoutedEnvelope, UnknownUser
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import (
    DiscardRoute,
    HoldRoute,
    HostRoute,
    MaildirRoute,
    MxRoute,
    PipeRoute,
    RejectRoute,
    RouteError,
)
from trimta.runtime.group_commit import set_aside
from trimta.runtime.stored_header import read_header
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import Recipient
    from trimta.mail.outcome import Outcome
    from trimta.outbound.notices import Notices
    from trimta.outbound.resolver import Resolver
    from trimta.outbound.settlement import Settlement
    from trimta.outbound.transports.attempt import AttemptResult
    from trimta.outbound.transports.client_settings import ClientSettings
    from trimta.outbound.transports.maildir_delivery import Maildirs
    from trimta.outbound.worker import Claim, Claimed, Worker
    from trimta.routing.destination import Destination
    from trimta.runtime.disk import Disk
    from trimta.runtime.events import Events
    from trimta.runtime.group_commit import GroupCommit
    from trimta.runtime.message_log import MessageLog
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.services import CurrentServices
    from trimta.store.queue.queue import Queue
    from trimta.store.queue.values import StoredMessage


class Dispatch:
    """The deliverer of the scheduler's workers: the side that `worker.Deliverer` describes."""

    def __init__(
        self,
        services: CurrentServices,
        *,
        resolver: Callable[[], Resolver],
        client_settings: Callable[[], ClientSettings],
        clock: QueueClock,
        disk: Disk,
        queue: GroupCommit,
        events: Events,
        maildirs: Maildirs,
        message_log: MessageLog,
        settlement: Settlement,
        notices: Notices,
        wake: Callable[[], None],
    ) -> None:
        """`resolver` and `client_settings` return those of this moment.  `wake` tells the scheduler that something in
        the queue has changed.
        """
        self._services = services
        self._resolver = resolver
        self._client_settings = client_settings
        self._clock = clock
        self._disk = disk
        self._queue = queue
        self._events = events
        self._maildirs = maildirs
        self._message_log = message_log
        self._settlement = settlement
        self._wake = wake
        # What the scheduler asks for beside deliveries:
        self.postpone = settlement.postpone
        self.notify_late = notices.give
        self.omit_notice = notices.omit

    async def deliver(self, worker: Worker) -> None:
        """Deliver the envelopes that the worker claims: all that are due, or as many as go over one connection."""
        settlement = self._settlement
        while (claimed := await worker.claim()) is not None:
            routed, *others = self._routed(claimed) or (None,)
            if claimed.envelope.bounce:
                cause = LocalCause("returned to the sender by the operator")
                failures = _failed(claimed, POLICY_TROUBLE.permanent, cause)
                await settlement.fail_untried(claimed, failures)
            elif routed is None:
                await settlement.settle(claimed, _unroutable(claimed))
            elif others or routed.next_hop != claimed.envelope.next_hop:
                await self._reroute(claimed, routed, others)  # the configuration has changed since it was queued
            elif self._is_late(claimed):
                await settlement.fail_late(claimed)
            else:
                match routed.destination:
                    case MatchedRoute(route=MxRoute() | HostRoute() as route):
                        await self._send(worker, claimed, routed, route)
                        return
                    case MatchedRoute(route=HoldRoute()):
                        await settlement.hold(claimed, "by its route")
                    case _:
                        await self._deliver(claimed, routed)
            worker.done(claimed.envelope.id)

    # Destinations.

    def _routed(self, claimed: Claimed) -> list[RoutedEnvelope]:
        """The envelope, routed by the configuration of this moment: one for each destination, several if they were one
        when it was queued; none if the operator's `--via` is no route.
        """
        services, envelope = self._services(), claimed.envelope
        recipients = tuple(recipients_of(claimed))
        if envelope.via:
            try:
                route = read_route(envelope.via, services.configuration.data_dir)
            except RouteError:
                return []
            return [
                RoutedEnvelope(
                    domain=envelope.domain, destination=MatchedRoute(envelope.via, route), recipients=recipients
                )
            ]
        groups: dict[Destination, list[Recipient]] = {}
        for recipient in recipients:
            destination = services.policy.destination(recipient.address, skip_hold=envelope.released)
            groups.setdefault(destination, []).append(recipient)
        return [
            RoutedEnvelope(domain=envelope.domain, destination=destination, recipients=tuple(members))
            for destination, members in groups.items()
        ]

    async def _reroute(self, claimed: Claimed, routed: RoutedEnvelope, others: Sequence[RoutedEnvelope]) -> None:
        """Give an envelope its new next hop, and other recipients an envelope each with theirs: workers there deliver
        them.
        """
        envelope = claimed.envelope

        def reroute(queue: Queue) -> None:
            for other in others:
                queue.split(envelope.id, numbers_of(other.recipients), other.next_hop)
            queue.reroute(envelope.id, routed.next_hop)

        await self._queue.run(reroute)
        self._wake()

    def _is_late(self, claimed: Claimed) -> bool:
        return is_late(claimed.message, self._clock.now())

    # By SMTP and LMTP.

    async def _send(self, worker: Worker, claimed: Claimed, routed: RoutedEnvelope, route: MxRoute | HostRoute) -> None:
        client = SmtpClient(
            route,
            routed.domain,
            self._client_settings(),
            self._resolver(),
            recipients_per_transaction=self._services().configuration.queue.recipients_per_transaction,
            now=self._clock.now,
        )
        worker.connection = client
        under_way = {claimed.envelope.id: claimed}

        def prepared(following: Claimed | None) -> OutboundMessage | None:
            if following is None:
                return None
            under_way[following.envelope.id] = following
            destinations = [other.destination for other in self._routed(following)]
            if destinations != [routed.destination] or self._is_late(following):
                worker.give_back(following.envelope.id)  # another worker will look at it
                return None
            return self._outbound(following)

        async def report(
            message: OutboundMessage, result: AttemptResult, *, asks_for_next: bool
        ) -> OutboundMessage | None:
            claim = worker.next_claim() if asks_for_next else None
            is_claimed = await self._report(worker, under_way.pop(message.id), result, claim)
            worker.done(message.id)
            if claim is None:
                return None
            return prepared(await (worker.claimed(claim) if is_claimed else worker.claim()))

        await client.run(self._outbound(claimed), report)

    def _outbound(self, claimed: Claimed) -> OutboundMessage:
        message = claimed.message
        return OutboundMessage(
            id=claimed.envelope.id,
            envelope=Envelope(terms=message.terms, recipients=tuple(recipients_of(claimed))),
            content=OutboundContent(message.trace, message.content),
        )

    async def _report(self, worker: Worker, claimed: Claimed, result: AttemptResult, claim: Claim | None) -> bool:
        """Settle an attempt; returns whether `claim` was committed with it."""
        self._message_log.note_dialogue(claimed.message.id, result.transcript)
        if result.damaged is not None:
            await set_aside(self._queue, self._events, claimed.message.id, str(result.damaged))
            return False
        if result.unusable is None:
            worker.heard()
        await self._settlement.settle_attempt(claimed, result, claim=claim)
        return True

    # By the other transports.

    async def _deliver(self, claimed: Claimed, routed: RoutedEnvelope) -> None:
        try:
            outcomes = await self._outcomes(claimed, routed)
        except BodyDamagedError as damage:
            await set_aside(self._queue, self._events, claimed.message.id, str(damage))
        except OSError as error:
            cause = LocalCause(f"the message cannot be read: {error.strerror or error}")
            await self._settlement.settle(claimed, _deferred(claimed, SYSTEM_TROUBLE.transient, cause))
        else:
            await self._settlement.settle(claimed, outcomes)

    async def _outcomes(self, claimed: Claimed, routed: RoutedEnvelope) -> Sequence[Outcome]:
        """Carry out the delivery.  Raises BodyDamagedError, or OSError, for a message that can't be read."""
        message = claimed.message
        match routed.destination:
            case UnknownUser():
                return [_unknown(recipient) for recipient in routed.recipients]
            case LocalDestination(mailbox=mailbox):
                if await self._was_delivered_to(message, mailbox.address):
                    loop = LocalCause(f"the message has been delivered to {mailbox.address} before: it is in a loop")
                    return _failed(claimed, ROUTING_LOOP.permanent, loop)
                return await self._maildirs.deliver(copies_of(message, routed))
            case MatchedRoute(route=MaildirRoute()):
                return await self._maildirs.deliver(copies_of(message, routed))
            case MatchedRoute(route=DiscardRoute()):
                return [_discarded(recipient) for recipient in routed.recipients]
            case MatchedRoute(route=RejectRoute() as route):
                return _rejected(claimed, route)
            case MatchedRoute(route=PipeRoute() as route):
                configuration = self._services().configuration
                return await pipe.deliver(
                    route,
                    message,
                    routed.recipients,
                    routed.domain,
                    folder=configuration.data_dir,
                    limit=configuration.timeouts.delivery,
                    disk=self._disk,
                    now=self._clock.now(),
                )
            case other:
                raise AssertionError(f"{other} has a way of its own")

    async def _was_delivered_to(self, message: StoredMessage, mailbox: Mailbox) -> bool:
        header = await read_header(message.content, self._disk)
        return header.was_delivered_to(mailbox)


def _discarded(recipient: Recipient) -> Delivered:
    cause = LocalCause("discarded")
    return Delivered(recipient=recipient, status=DELIVERED, cause=cause, handover=Handover.FINAL)


def _unknown(recipient: Recipient) -> Failed:
    cause = LocalCause(f"<{recipient.address}>: no such user here")
    return Failed(recipient=recipient, status=NO_SUCH_MAILBOX.permanent, cause=cause)


def _failed(claimed: Claimed, status: EnhancedStatus, cause: LocalCause) -> list[Failed]:
    """Failures of all recipients of an envelope, for one cause."""
    return [Failed(recipient=recipient, status=status, cause=cause) for recipient in recipients_of(claimed)]


def _deferred(claimed: Claimed, status: EnhancedStatus, cause: LocalCause) -> list[Deferred]:
    """Deferrals of all recipients of an envelope, for one cause."""
    return [Deferred(recipient=recipient, status=status, cause=cause) for recipient in recipients_of(claimed)]


def _rejected(claimed: Claimed, route: RejectRoute) -> Sequence[Outcome]:
    cause = LocalCause(route.reply)
    if route.code < 500:
        return _deferred(claimed, route.status or NOT_AUTHORIZED.transient, cause)
    return _failed(claimed, route.status or NOT_AUTHORIZED.permanent, cause)


def _unroutable(claimed: Claimed) -> list[Deferred]:
    cause = LocalCause(f"{claimed.envelope.via!r} is not a route")
    return _deferred(claimed, BAD_CONFIGURATION.transient, cause)
