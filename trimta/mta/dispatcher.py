"""One claimed envelope: by which transport it goes, and what its outcomes mean for the queue and for the sender."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, assert_never

from trimta.mail.envelope import BodyKind, ByMode
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover
from trimta.mail.routing import Discard, Hold, MaildirRoute, Mx, Pipe, Reject, Relay, RouteError, parse_route
from trimta.mail.status import EnhancedStatus
from trimta.mail.trace import summarize
from trimta.mta import pipe
from trimta.mta.content import Content
from trimta.mta.copies import copies_of
from trimta.mta.delivery import Attempt, Job, SmtpDelivery
from trimta.mta.reporter import envelope_of
from trimta.policy import Local, Part, Routed, UnknownUser, addresses
from trimta.store import maildir
from trimta.store.maildir import MaildirError
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import Recipient
    from trimta.mail.outcome import Outcome
    from trimta.mta.scheduler import Claimed, Work
    from trimta.mta.site import Site
    from trimta.store.queue_values import StoredMessage

DELIVERED: Final = EnhancedStatus(2, 0, 0)
UNWRITABLE: Final = EnhancedStatus(4, 2, 0)
UNREACHABLE: Final = EnhancedStatus(4, 4, 1)
BAD_ROUTE: Final = EnhancedStatus(4, 3, 5)
TIME_IS_UP: Final = EnhancedStatus(4, 4, 7)
TOO_LATE: Final = EnhancedStatus(5, 4, 7)
NO_SUCH_USER: Final = EnhancedStatus(5, 1, 1)
LOOP: Final = EnhancedStatus(5, 4, 6)
RETURNED: Final = EnhancedStatus(5, 7, 0)
REFUSED: Final = EnhancedStatus(5, 7, 1)

HEAD: Final = 256 * 1024
"""Octets of a message that are searched for its header."""


class Dispatcher:
    """Does the work that the scheduler starts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def work(self, work: Work, envelope_id: str) -> None:
        """Deliver an envelope, and what else is due at its next hop, as far as that goes over one connection."""
        claimed = await self._site.scheduler.claim(work, envelope_id)
        while claimed is not None:
            part = self._part(claimed)
            if part is None:
                await self._settle(claimed, self._unroutable(claimed))
            elif not claimed.envelope.bounce and part.next_hop != claimed.envelope.next_hop:
                await self._reroute(claimed, part)  # the configuration has changed since it was queued
            elif self._is_late(claimed):
                await self._settle(
                    claimed, _failed(claimed, TOO_LATE, "it could not be delivered by the time asked for")
                )
            elif claimed.envelope.bounce:
                await self._settle(claimed, _failed(claimed, RETURNED, "returned to the sender by the operator"))
            elif isinstance(part.destination, Routed) and isinstance(part.destination.route, Mx | Relay):
                await self._send(work, claimed, part, part.destination.route)
                return
            elif isinstance(part.destination, Routed) and isinstance(part.destination.route, Hold):
                await self._hold(claimed, "by its route")
            else:
                try:
                    outcomes = await self._deliver(claimed, part)
                except BodyDamagedError as damage:
                    await self._site.set_aside(claimed.message.id, str(damage))
                else:
                    await self._settle(claimed, outcomes)
            work.active.discard(claimed.envelope.id)
            work.sent += 1
            claimed = await self._site.scheduler.another(work)

    async def gave_way(self, work: Work) -> None:
        """A delivery was cut short because its peer was silent while others waited."""
        for envelope_id in tuple(work.active):
            claimed = await self._site.scheduler.claim(work, envelope_id)
            if claimed is not None:
                text = "the peer accepted the connection and said nothing; it gave way to other mail"
                await self._settle(claimed, [_deferred(one, UNREACHABLE, text) for one in _recipients(claimed)])

    # Where to.

    def _part(self, claimed: Claimed) -> Part | None:
        """The envelope as the configuration of this moment sees it; None if the operator's `--via` is no route."""
        policy, envelope = self._site.policy, claimed.envelope
        recipients = tuple(_recipients(claimed))
        if envelope.via:
            try:
                route = parse_route(envelope.via, policy.config.data_dir)
            except RouteError:
                return None
            return Part(domain=envelope.domain, destination=Routed(envelope.via, route), recipients=recipients)
        destination = policy.destination(recipients[0].address, skip_hold=envelope.released)
        return Part(domain=envelope.domain, destination=destination, recipients=recipients)

    def _unroutable(self, claimed: Claimed) -> list[Outcome]:
        text = f"{claimed.envelope.via!r} is not a route"
        return [_deferred(recipient, BAD_ROUTE, text) for recipient in _recipients(claimed)]

    async def _reroute(self, claimed: Claimed, part: Part) -> None:
        await self._site.queue.run(lambda queue: queue.reroute(claimed.envelope.id, part.next_hop))

    def _is_late(self, claimed: Claimed) -> bool:
        """DELIVERBY in R mode: after its time nothing may be delivered (RFC 2852 4.1)."""
        by = claimed.message.deliver_by
        return by is not None and by.mode is ByMode.RETURN and self._site.clock.now() >= by.deadline

    # By SMTP and LMTP.

    async def _send(self, work: Work, claimed: Claimed, part: Part, route: Mx | Relay) -> None:
        site = self._site
        delivery = SmtpDelivery(
            route,
            part.domain,
            site.sending,
            site.resolver,
            recipients_per_transaction=site.policy.config.queue.recipients_per_transaction,
        )
        work.silent_since = lambda: delivery.silent_since
        taken = {claimed.envelope.id: claimed}

        async def more() -> Job | None:
            following = await site.scheduler.another(work)
            if following is None:
                return None
            taken[following.envelope.id] = following
            same = self._part(following)
            if same is None or same.destination != part.destination or self._is_late(following):
                work.active.discard(following.envelope.id)  # still due: a worker of its own will look at it
                return None
            return self._job(following)

        async def report(job: Job, attempt: Attempt) -> None:
            work.sent += 1
            await self._report(taken.pop(job.id), attempt)
            work.active.discard(job.id)

        await delivery.run(self._job(claimed), more, report)

    def _job(self, claimed: Claimed) -> Job:
        message = claimed.message
        by = message.deliver_by
        return Job(
            id=claimed.envelope.id,
            envelope=envelope_of(message, tuple(_recipients(claimed))),
            content=Content(message.trace, message.content, binary=message.body is BodyKind.BINARY),
            seconds_left=None if by is None else int(by.deadline - self._site.clock.now()),
        )

    async def _report(self, claimed: Claimed, attempt: Attempt) -> None:
        site = self._site
        site.history.note(claimed.message.id, attempt.transcript)
        if attempt.damaged is not None:
            await site.set_aside(claimed.message.id, str(attempt.damaged))
            return
        if attempt.trouble is None:
            site.scheduler.trust(claimed.envelope.next_hop)
        held = None
        if attempt.held is not None:
            where = attempt.held
            held = f"egress.allow keeps it here; it would have gone to {where.host} [{where.address}]:{where.port}"
        await self._settle(claimed, attempt.outcomes, hold=held, where=attempt.host)
        if attempt.trouble is not None:
            await site.spare(claimed.envelope.next_hop)

    # By the other transports.

    async def _deliver(self, claimed: Claimed, part: Part) -> list[Outcome]:
        site, message = self._site, claimed.message
        match part.destination:
            case UnknownUser():
                return [
                    Failed(recipient=one, status=NO_SUCH_USER, diagnostic=f"<{one.address}>: no such user here")
                    for one in part.recipients
                ]
            case Local(mailbox=found):
                if await self._was_there(message, found.address):
                    text = f"the message has been delivered to {found.address} before: it is in a loop"
                    return [Failed(recipient=one, status=LOOP, diagnostic=text) for one in part.recipients]
                return await self._write(message, part)
            case Routed(route=MaildirRoute() as route):
                return await self._write(message, part, Path(route.path(part.domain)))
            case Routed(route=Discard()):
                return [_done(one, "discarded") for one in part.recipients]
            case Routed(route=Reject() as reject):
                return [_rejected(one, reject) for one in part.recipients]
            case Routed(route=Pipe() as route):
                config = site.policy.config
                return await pipe.deliver(
                    route,
                    message,
                    part.recipients,
                    part.domain,
                    folder=config.data_dir,
                    limit=config.timeouts.delivery,
                    disk=site.disk,
                )
            case other:
                raise AssertionError(f"{other} has a way of its own")

    async def _was_there(self, message: StoredMessage, mailbox: Mailbox) -> bool:
        content = message.content
        head = content.head(HEAD) if content.in_memory else await self._site.disk.run(content.head, HEAD)
        return summarize(head).was_delivered_to(mailbox)

    async def _write(self, message: StoredMessage, part: Part, capture: Path | None = None) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for copy in copies_of(part, message, capture):
            delivery = maildir.Delivery(copy.maildir, copy.head, message.content, message.body is BodyKind.BINARY)
            try:
                await self._site.disk.run(maildir.deliver, delivery)
            except MaildirError as error:
                outcomes.extend(_deferred(one, UNWRITABLE, str(error)) for one in copy.recipients)
            else:
                outcomes.extend(_done(one, f"delivered to {copy.maildir}") for one in copy.recipients)
        return outcomes

    # What it came to.

    async def _settle(
        self, claimed: Claimed, outcomes: Sequence[Outcome], *, hold: str | None = None, where: str = ""
    ) -> None:
        """Note the outcomes in the queue, and send the DSNs that are due, in one transaction."""
        site, message, envelope = self._site, claimed.message, claimed.envelope
        now = site.clock.now()
        expiry = site.expiry(message)
        outcomes = [self._final(outcome, message, now=now, expiry=expiry) for outcome in outcomes]
        numbers = {recipient.recipient.address: recipient.number for recipient in envelope.recipients}
        deferred = {numbers[o.recipient.address]: o for o in outcomes if isinstance(o, Deferred)}
        done = [numbers[o.recipient.address] for o in outcomes if not isinstance(o, Deferred)]
        attempted = bool(outcomes)
        next_try = site.next_try(attempts=envelope.attempts + 1, now=now, expiry=expiry) if deferred else None
        reported = [outcome for outcome in outcomes if not self._is_dropped(outcome, message)]
        new = await site.reporter.on_outcomes(message, reported)
        await site.queue.run(
            lambda queue: queue.settle(
                envelope.id,
                now=now,
                next_try=next_try,
                done=done,
                deferred=deferred,
                attempted=attempted,
                hold=hold,
                new=new,
            )
        )
        self._log(claimed, outcomes, next_try=next_try, where=where)
        if hold is not None:
            site.events.emit("held", id=message.id, to=addresses(_recipients(claimed)), reason=hold)
        site.scheduler.wake()

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
        if isinstance(outcome, Failed) and not expired and self._is_last_resort(outcome, message):
            return _deferred(outcome.recipient, EnhancedStatus(4, *_detail(outcome.status)), outcome.diagnostic)
        return outcome

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
        history: list[str] = []
        for outcome in outcomes:
            match outcome:
                case Delivered():
                    name = "delivered"
                case Deferred():
                    name = "deferred"
                case Failed():
                    name = "failed"
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
            history.append(f"{name} {outcome.recipient.address} {outcome.status} {outcome.diagnostic}")
        self._site.history.note(claimed.message.id, history)

    async def _hold(self, claimed: Claimed, reason: str) -> None:
        await self._settle(claimed, [], hold=reason)

    async def warn(self, claimed: Claimed) -> None:
        """Tell the sender that the message is delayed, once, if that is wanted (RFC 3461 4.1)."""
        site, message, envelope = self._site, claimed.message, claimed.envelope
        if message.reverse_path is None:
            new = []
        else:
            waiting = [
                recipient.last or _deferred(recipient.recipient, UNREACHABLE, "it has not been tried yet")
                for recipient in envelope.recipients
            ]
            new = await site.reporter.on_outcomes(message, waiting, warn=True, retry_until=site.expiry(message))
        await site.queue.run(
            lambda queue: queue.settle(
                envelope.id,
                now=site.clock.now(),
                attempted=False,
                warned=True,
                new=new,
            )
        )
        if new:
            site.events.emit("delay_warning", id=message.id, to=addresses(_recipients(claimed)))
        site.scheduler.wake()


def _recipients(claimed: Claimed) -> list[Recipient]:
    return [recipient.recipient for recipient in claimed.envelope.recipients]


def _done(recipient: Recipient, text: str) -> Delivered:
    return Delivered(recipient=recipient, status=DELIVERED, diagnostic=text, handover=Handover.FINAL)


def _deferred(recipient: Recipient, status: EnhancedStatus, text: str) -> Deferred:
    return Deferred(recipient=recipient, status=status, diagnostic=text)


def _failed(claimed: Claimed, status: EnhancedStatus, text: str) -> list[Outcome]:
    return [Failed(recipient=recipient, status=status, diagnostic=text) for recipient in _recipients(claimed)]


def _rejected(recipient: Recipient, reject: Reject) -> Outcome:
    if reject.code < 500:
        return _deferred(recipient, reject.status or EnhancedStatus(4, 7, 1), reject.reply)
    return Failed(recipient=recipient, status=reject.status or REFUSED, diagnostic=reject.reply)


def _detail(status: EnhancedStatus) -> tuple[int, int]:
    return status.subject, status.detail
