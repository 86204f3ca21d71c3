"""One claimed envelope: by which transport it goes, and what its outcomes mean for the queue and for the sender."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

import trio

from trimta.config.route_syntax import read_route
from trimta.inbound.incoming import read_header
from trimta.mail.envelope import ByMode
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover
from trimta.mail.status import EnhancedStatus
from trimta.outbound.notices import is_late
from trimta.outbound.reports import envelope_of
from trimta.outbound.transports import pipe
from trimta.outbound.transports.attempt import Attempt, Job, SmtpDelivery
from trimta.outbound.transports.copies import copies_of
from trimta.outbound.transports.outbound_content import Content
from trimta.routing.destination import LocalDestination, RoutedEnvelope, UnknownUser
from trimta.routing.policy import addresses
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
from trimta.store import maildir
from trimta.store.maildir import MaildirError
from trimta.store.queue.errors import QueueError
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import Recipient
    from trimta.mail.outcome import Outcome
    from trimta.outbound.reports import NewMessage
    from trimta.outbound.scheduler import Claimed, Work
    from trimta.routing.destination import Destination
    from trimta.runtime.event_names import EventName
    from trimta.server.site import Site
    from trimta.store.queue.queue import Queue
    from trimta.store.queue.values import StoredMessage

DELIVERED: Final = EnhancedStatus(2, 0, 0)
UNWRITABLE: Final = EnhancedStatus(4, 2, 0)
UNREACHABLE: Final = EnhancedStatus(4, 4, 1)
UNREADABLE: Final = EnhancedStatus(4, 3, 0)
BAD_ROUTE: Final = EnhancedStatus(4, 3, 5)
BROKEN: Final = EnhancedStatus(4, 3, 0)
TIME_IS_UP: Final = EnhancedStatus(4, 4, 7)
TOO_LATE: Final = EnhancedStatus(5, 4, 7)
NO_SUCH_USER: Final = EnhancedStatus(5, 1, 1)
LOOP: Final = EnhancedStatus(5, 4, 6)
RETURNED: Final = EnhancedStatus(5, 7, 0)
REFUSED: Final = EnhancedStatus(5, 7, 1)

DISK_LIMIT: Final = 60.0
"""Seconds for one visit to the disk, shielded from cancellation: past it the disk hangs."""

NO_ROOM_PAUSE: Final = 5.0
"""Seconds until the queue is asked again to note what was done."""


class Dispatcher:
    """Does the work that the scheduler starts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def work(self, work: Work) -> None:
        """Deliver what is due at a next hop, as far as that goes over one connection."""
        while (claimed := await self._site.scheduler.claim(work)) is not None:
            part, *others = self._parts(claimed) or (None,)
            if claimed.envelope.bounce:
                outcomes = _failed(claimed, RETURNED, "returned to the sender by the operator")
                await self._settle(claimed, outcomes, attempted=False)
            elif part is None:
                await self._settle(claimed, self._unroutable(claimed))
            elif others or part.next_hop != claimed.envelope.next_hop:
                await self._reroute(claimed, part, others)  # the configuration has changed since it was queued
            elif self._is_late(claimed):
                await self.give_up_late(claimed)
            elif isinstance(part.destination, MatchedRoute) and isinstance(part.destination.route, MxRoute | HostRoute):
                await self._send(work, claimed, part, part.destination.route)
                return
            elif isinstance(part.destination, MatchedRoute) and isinstance(part.destination.route, HoldRoute):
                await self._hold(claimed, "by its route")
            else:
                try:
                    outcomes = await self._deliver(claimed, part)
                except BodyDamagedError as damage:
                    await self._site.set_aside(claimed.message.id, str(damage))
                except OSError as error:
                    text = f"the message cannot be read: {error.strerror or error}"
                    await self._settle(claimed, [_deferred(one, UNREADABLE, text) for one in part.recipients])
                else:
                    await self._settle(claimed, outcomes)
            self._site.scheduler.release(work, claimed.envelope.id)
            work.sent += 1

    # Where to.

    def _parts(self, claimed: Claimed) -> list[RoutedEnvelope]:
        """The envelope as the configuration of this moment sees it: one part, unless what was one destination is
        several now; none if the operator's `--via` is no route.
        """
        policy, envelope = self._site.policy, claimed.envelope
        recipients = tuple(_recipients(claimed))
        if envelope.via:
            try:
                route = read_route(envelope.via, self._site.config.data_dir)
            except RouteError:
                return []
            return [
                RoutedEnvelope(
                    domain=envelope.domain, destination=MatchedRoute(envelope.via, route), recipients=recipients
                )
            ]
        groups: dict[Destination, list[Recipient]] = {}
        for one in recipients:
            groups.setdefault(policy.destination(one.address, skip_hold=envelope.released), []).append(one)
        return [
            RoutedEnvelope(domain=envelope.domain, destination=destination, recipients=tuple(members))
            for destination, members in groups.items()
        ]

    def _unroutable(self, claimed: Claimed) -> list[Outcome]:
        text = f"{claimed.envelope.via!r} is not a route"
        return [_deferred(recipient, BAD_ROUTE, text) for recipient in _recipients(claimed)]

    async def _reroute(self, claimed: Claimed, part: RoutedEnvelope, others: Sequence[RoutedEnvelope]) -> None:
        """Still due, but elsewhere: who works there will find it."""
        envelope = claimed.envelope

        def reroute(queue: Queue) -> None:
            for other in others:
                numbers = [one.number for one in envelope.recipients if one.recipient in other.recipients]
                queue.split(envelope.id, numbers, other.next_hop)
            queue.reroute(envelope.id, part.next_hop)

        await self._site.queue.run(reroute)
        self._site.scheduler.wake()

    def _is_late(self, claimed: Claimed) -> bool:
        return is_late(claimed.message, self._site.clock.now())

    # By SMTP and LMTP.

    async def _send(self, work: Work, claimed: Claimed, part: RoutedEnvelope, route: MxRoute | HostRoute) -> None:
        site = self._site
        delivery = SmtpDelivery(
            route,
            part.domain,
            site.sending,
            site.resolver,
            recipients_per_transaction=site.config.queue.recipients_per_transaction,
            now=site.clock.now,
        )
        work.peer = delivery
        taken = {claimed.envelope.id: claimed}

        async def more() -> Job | None:
            following = await site.scheduler.claim(work)
            if following is None:
                return None
            taken[following.envelope.id] = following
            same = [one.destination for one in self._parts(following)] == [part.destination]
            if not same or self._is_late(following):
                site.scheduler.release(work, following.envelope.id)  # still due: a worker of its own will look at it
                return None
            return self._job(following)

        async def report(job: Job, attempt: Attempt) -> None:
            work.sent += 1
            await self._report(taken.pop(job.id), attempt)
            site.scheduler.release(work, job.id)

        await delivery.run(self._job(claimed), more, report)

    def _job(self, claimed: Claimed) -> Job:
        message = claimed.message
        return Job(
            id=claimed.envelope.id,
            envelope=envelope_of(message, tuple(_recipients(claimed))),
            content=Content(message.trace, message.content),
        )

    async def _report(self, claimed: Claimed, attempt: Attempt) -> None:
        site = self._site
        site.history.note_dialogue(claimed.message.id, attempt.transcript)
        if attempt.damaged is not None:
            await site.set_aside(claimed.message.id, str(attempt.damaged))
            return
        if attempt.trouble is None:
            site.scheduler.trust(claimed.envelope.next_hop)
        held = None
        if attempt.held is not None:
            where = attempt.held
            held = f"egress.allow keeps it here; it would have gone to {where.host} [{where.address}]:{where.port}"
        spare = attempt.trouble is not None and not attempt.cut_short
        await self._settle(claimed, attempt.outcomes, hold=held, where=attempt.host, spare=spare)

    # By the other transports.

    async def _deliver(self, claimed: Claimed, part: RoutedEnvelope) -> list[Outcome]:
        site, message = self._site, claimed.message
        match part.destination:
            case UnknownUser():
                return [
                    Failed(recipient=one, status=NO_SUCH_USER, diagnostic=f"<{one.address}>: no such user here")
                    for one in part.recipients
                ]
            case LocalDestination(mailbox=found):
                if await self._was_there(message, found.address):
                    text = f"the message has been delivered to {found.address} before: it is in a loop"
                    return [Failed(recipient=one, status=LOOP, diagnostic=text) for one in part.recipients]
                return await self._write(message, part)
            case MatchedRoute(route=MaildirRoute() as route):
                return await self._write(message, part, Path(route.path(part.domain)))
            case MatchedRoute(route=DiscardRoute()):
                return [_done(one, "discarded") for one in part.recipients]
            case MatchedRoute(route=RejectRoute() as reject):
                return [_rejected(one, reject) for one in part.recipients]
            case MatchedRoute(route=PipeRoute() as route):
                config = site.config
                return await pipe.deliver(
                    route,
                    message,
                    part.recipients,
                    part.domain,
                    folder=config.data_dir,
                    limit=config.timeouts.delivery,
                    disk=site.disk,
                    now=site.clock.now(),
                )
            case other:
                raise AssertionError(f"{other} has a way of its own")

    async def _was_there(self, message: StoredMessage, mailbox: Mailbox) -> bool:
        header = await read_header(message.content, self._site.disk)
        return header.summary.was_delivered_to(mailbox)

    async def _write(self, message: StoredMessage, part: RoutedEnvelope, capture: Path | None = None) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for copy in copies_of(part, message, capture):
            delivery = maildir.Delivery(copy.maildir, copy.head, message.content)
            try:
                with self._site.drain.shielded(DISK_LIMIT) as shield:  # else: what is in new/ would be delivered again
                    await self._site.maildirs.deliver(delivery)
            except MaildirError as error:
                outcomes.extend(_deferred(one, UNWRITABLE, str(error)) for one in copy.recipients)
            else:
                if shield.cancelled_caught:
                    await trio.lowlevel.checkpoint_if_cancelled()  # the server ends: it is due as before
                    text = f"{copy.maildir} has not answered within {DISK_LIMIT:g} s"
                    outcomes.extend(_deferred(one, UNWRITABLE, text) for one in copy.recipients)
                else:
                    outcomes.extend(_done(one, f"delivered to {copy.maildir}") for one in copy.recipients)
        return outcomes

    # What it came to.

    async def _settle(
        self,
        claimed: Claimed,
        outcomes: Sequence[Outcome],
        *,
        hold: str | None = None,
        where: str = "",
        spare: bool = False,
        attempted: bool = True,
    ) -> None:
        """Note the outcomes in the queue, and send the DSNs that are due, in one transaction.  `spare`: the next hop
        can't be used now, so that what else waits for it waits a little longer.  `attempted`: they come from an attempt
        that was just made, not from what is known without one.
        """
        if not outcomes and hold is None:
            return
        site, message, envelope = self._site, claimed.message, claimed.envelope
        now = site.clock.now()
        expiry = site.expiry(message)
        refused, short = await self._shortened(claimed, outcomes)
        outcomes = [outcome for outcome in outcomes if outcome not in refused]
        if not envelope.bounce:  # which the operator means to be the end of it
            outcomes = [self._final(outcome, message, now=now, expiry=expiry) for outcome in outcomes]
        new = await self._reports(
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
                queue.destinations.defer(envelope.next_hop, now, site.spared_until(now))

        await self._keep(settle)
        self._log(claimed, outcomes, next_try=next_try, where=where)
        for outcome, (dsn, _) in product(refused, short):
            site.events.emit(
                "shortened", id=dsn.id, about=message.id, to=str(outcome.recipient.address), reply=outcome.diagnostic
            )
        if hold is not None:
            site.events.emit("held", id=message.id, to=addresses(_recipients(claimed)), reason=hold)
        site.scheduler.wake()

    def _next_try(self, claimed: Claimed, now: float) -> float:
        expiry = self._site.expiry(claimed.message)
        return self._site.next_try(
            attempts=claimed.envelope.attempts + 1,
            now=now,
            expiry=expiry if now < expiry else math.inf,  # kept beyond it for want of a report
        )

    async def _shortened(
        self, claimed: Claimed, outcomes: Sequence[Outcome]
    ) -> tuple[Sequence[Outcome], Sequence[NewMessage]]:
        """Outcomes of a DSN of ours that say no to its content, and what goes to their recipients in its place: nobody
        learns of a failure whose report is too much for the sender's host.  Both are empty where nothing is shorter.
        """
        refused = [outcome for outcome in outcomes if isinstance(outcome, Failed) and outcome.of_content]
        if claimed.message.report is None or claimed.envelope.bounce or not refused:
            return (), ()
        recipients = [outcome.recipient for outcome in refused]
        found: Sequence[NewMessage] = ()
        try:
            with self._site.drain.shielded(DISK_LIMIT):  # else: what was done would be done again
                found = await self._site.reporter.shortened(claimed.message, claimed.envelope, recipients)
        except Exception as bug:  # noqa: BLE001 - then it is told to postmaster
            self._site.bug(bug, id=claimed.message.id)
            found = []
        return (refused, found) if found else ((), ())

    async def _reports(
        self, message: StoredMessage, outcomes: Sequence[Outcome], *, last_attempt: float | None
    ) -> list[NewMessage] | None:
        """The DSNs about these outcomes; None if a bug is in their way: then nobody may be said to have been told."""
        found: list[NewMessage] | None = None
        try:
            with self._site.drain.shielded(DISK_LIMIT):  # else: what was done would be done again
                found = await self._site.reporter.on_outcomes(message, outcomes, last_attempt=last_attempt)
        except Exception as bug:  # noqa: BLE001 - a report that can't be made must not lose what it is about
            self._site.bug(bug, id=message.id)
            return None
        return found

    async def _keep(self, operation: Callable[[Queue], None]) -> None:
        """Commit what can't be undone.  Where the disk has no room for it, wait: else it would be done again."""
        kept = False
        while not kept:
            try:
                # Else: it is committed in any case, but who is cancelled is not told.
                with self._site.drain.shielded() as shield:
                    await self._site.queue.run(operation)
                kept = not shield.cancelled_caught
                await trio.lowlevel.checkpoint_if_cancelled()
            except QueueError as cause:
                self._site.events.emit("queue_trouble", reason=str(cause))
                await trio.sleep(NO_ROOM_PAUSE)

    async def postpone(self, claimed: Claimed) -> None:
        """Try again later what a bug keeps from being tried now."""
        now, envelope = self._site.clock.now(), claimed.envelope
        next_try = self._next_try(claimed, now)
        outcomes = [_deferred(one, BROKEN, "a bug in the server, see its log") for one in _recipients(claimed)]
        deferred = {one.number: outcome for one, outcome in zip(envelope.recipients, outcomes, strict=True)}
        await self._site.queue.run(
            lambda queue: queue.settle(envelope.id, now=now, next_try=next_try, deferred=deferred)
        )
        self._log(claimed, outcomes, next_try=next_try, where="")

    def _final(self, outcome: Outcome, message: StoredMessage, *, now: float, expiry: float) -> Outcome:
        """A deferral after which there is no other try is a failure; a report that can't reach postmaster is kept."""
        expired = now >= expiry
        if isinstance(outcome, Deferred) and expired:
            by = message.deliver_by
            late = by is not None and by.mode is ByMode.RETURN and now >= by.deadline
            return Failed(
                recipient=outcome.recipient,
                status=TOO_LATE if late else TIME_IS_UP,
                diagnostic=outcome.diagnostic,
                host=outcome.host,
                smtp=outcome.smtp,
            )
        return outcome if expired or not self._is_last_resort(outcome, message) else _kept(outcome)

    def _is_last_resort(self, outcome: Outcome, message: StoredMessage) -> bool:
        """A message from `<>` to postmaster: if it fails there is nobody left to tell."""
        return message.reverse_path is None and outcome.recipient.original == self._site.policy.postmaster

    def _is_dropped(self, outcome: Outcome, message: StoredMessage) -> bool:
        if isinstance(outcome, Failed) and self._is_last_resort(outcome, message):
            self._site.events.emit(
                "dropped", id=message.id, to=str(outcome.recipient.address), reply=outcome.diagnostic
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
            wait = None if next_try is None or name != "deferred" else max(0, round(next_try - self._site.clock.now()))
            self._site.events.emit(
                name,
                id=claimed.message.id,
                to=str(outcome.recipient.address),
                host=where or outcome.host,
                status=str(outcome.status),
                reply=outcome.diagnostic,
                next_s=wait,
            )

    async def _hold(self, claimed: Claimed, reason: str) -> None:
        await self._settle(claimed, [], hold=reason)

    async def give_up_late(self, claimed: Claimed) -> None:
        """Fail what DELIVERBY does not let be delivered any more, queued or held."""
        await self._settle(claimed, _too_late(claimed), attempted=False)


def _recipients(claimed: Claimed) -> list[Recipient]:
    return [recipient.recipient for recipient in claimed.envelope.recipients]


def _done(recipient: Recipient, text: str) -> Delivered:
    return Delivered(recipient=recipient, status=DELIVERED, diagnostic=text, handover=Handover.FINAL)


def _deferred(recipient: Recipient, status: EnhancedStatus, text: str) -> Deferred:
    return Deferred(recipient=recipient, status=status, diagnostic=text)


def _failed(claimed: Claimed, status: EnhancedStatus, text: str) -> list[Outcome]:
    return [Failed(recipient=recipient, status=status, diagnostic=text) for recipient in _recipients(claimed)]


def _too_late(claimed: Claimed) -> list[Outcome]:
    """DELIVERBY's time is over: what was said last is why."""
    text = "it could not be delivered by the time asked for"
    return [
        Failed(recipient=one.recipient, status=TOO_LATE, diagnostic=text)
        if one.last_outcome is None
        else Failed(
            recipient=one.recipient,
            status=TOO_LATE,
            diagnostic=one.last_outcome.diagnostic,
            host=one.last_outcome.host,
            smtp=one.last_outcome.smtp,
        )
        for one in claimed.envelope.recipients
    ]


def _kept(outcome: Outcome) -> Outcome:
    """A failure of which nobody could be told is none yet."""
    if not isinstance(outcome, Failed):
        return outcome
    status = EnhancedStatus(4, outcome.status.subject, outcome.status.detail)
    return _deferred(outcome.recipient, status, outcome.diagnostic)


def _rejected(recipient: Recipient, reject: RejectRoute) -> Outcome:
    if reject.code < 500:
        return _deferred(recipient, reject.status or EnhancedStatus(4, 7, 1), reject.reply)
    return Failed(recipient=recipient, status=reject.status or REFUSED, diagnostic=reject.reply)
