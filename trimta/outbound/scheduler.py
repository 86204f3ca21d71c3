"""What is due, and who works on it: the queue says what, this says when and how many at once.

The queue is looked at through windows: what is in memory is what is being delivered, whatever waits.  Destinations take
turns, the longest due first and, every other time, the latest: a backlog in front delays new mail by no more than one
turn.  A destination has one worker, and a worker one connection, over which it sends what else is due there; it gets
more of them, up to `per_domain`, when one is slow or has too much to do.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import trio

from trimta.store.queue.errors import DamagedEntry, QueueError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from trimta.config.model import Queue as QueueConfig
    from trimta.server.site import Site
    from trimta.store.queue.queue import Queue
    from trimta.store.queue.values import QueuedEnvelope, StoredMessage

GIVE_WAY_AFTER: Final = 1.0
"""Seconds a delivery may wait for the first octet of a peer while others wait for its place."""

SLOW: Final = 0.2
"""Seconds with one message after which what waits behind it gets a worker, and a connection, of its own."""

TURN: Final = 20
"""Messages that one worker is enough for, and after which it makes place if others wait for one."""

WINDOW: Final = 16
"""Destinations looked at in one go."""

SUSPECTS: Final = 10_000
"""Destinations remembered for having been silent; the oldest are forgotten."""

QUEUE_TROUBLE_PAUSE: Final = 5.0
"""Seconds until the queue is asked again after it failed: the disk may have room by then."""

NOTICES: Final = 50
"""Notices to senders of late mail looked at, and written, at a time."""

TRY_FIRST: Final = 300.0
"""Seconds for which a notice waits for a try that is due as well, and may make it needless: the server was off, or the
message held.  Past it there is no place for the try, and the sender is told.
"""

LOOK_ANYWAY: Final = 60.0
"""Longest sleep, in seconds: a machine that was suspended, or whose clock was set, is not told so."""


class Peer(Protocol):
    """What a worker talks to, as far as it concerns others who wait."""

    silent_since: float | None
    """The Trio time since which the peer of a fresh connection has said nothing at all; None otherwise."""

    def give_way(self) -> None:
        """Leave a peer that says nothing."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An envelope that a worker has, and nobody else."""

    message: StoredMessage
    envelope: QueuedEnvelope


@dataclass(slots=True, eq=False)
class Work:
    """One worker: a delivery task, with one connection at most, for one next hop."""

    next_hop: str
    since: float
    """The Trio time at which it was started, or got the latest of its envelopes."""
    active: set[str] = field(default_factory=set)
    """Ids of the envelopes that it has."""
    peer: Peer | None = None
    sent: int = 0


@dataclass(frozen=True, slots=True)
class _Found:
    """What one look at the queue found."""

    notices: Sequence[tuple[str, bool]]
    """Ids of envelopes whose senders are to be told that they are late; whether they are to be tried now, too."""
    due: Sequence[tuple[str, int]]
    """Next hops where something is due, and how much: counted until it is too much for the workers there."""
    next_moment: float | None
    """The next one at which anything falls due."""


class Scheduler:
    """Starts a worker for everything that is due, within the limits."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._news = trio.Event()
        self._works: set[Work] = set()
        self._taken: set[str] = set()
        """Ids of the envelopes that workers have.  They are added where the queue is asked, by one question after the
        other: two that are asked at once get different answers.
        """
        self._warned: frozenset[str] = frozenset()
        """Ids of the envelopes whose senders are being warned."""
        self._tried_first: dict[str, float] = {}
        """Until when, in Trio's time, the notice about an envelope waits for its try; those of the last look."""
        self._suspects: OrderedDict[str, None] = OrderedDict()
        self._newest_first = False
        self._stopping = False
        self._settled = trio.Event()

    # What others see.

    def wake(self) -> None:
        """Something in the queue, or the clock, has changed."""
        self._news.set()

    @property
    def active(self) -> set[str]:
        """Ids of the envelopes that are being delivered now."""
        return set(self._taken)

    @property
    def in_flight(self) -> int:
        """How many delivery tasks there are."""
        return len(self._works)

    def stop(self) -> None:
        """Start nothing any more; what runs goes on."""
        self._stopping = True
        self.wake()

    @property
    def works(self) -> frozenset[Work]:
        """Who is at work now."""
        return frozenset(self._works)

    async def idle(self, *, but_for: Collection[Work] = ()) -> None:
        """Wait until nothing is due and nobody works; `but_for`: those, and what waits behind them, do not matter."""
        self.wake()
        while True:
            settled = self._settled
            now = self._site.clock.now()
            due = await self._site.queue.run(lambda queue: _has_due(queue, now, but_for))  # noqa: B023
            if not (due or self._works.difference(but_for) or self._warned):
                return
            await settled.wait()

    # The loop.

    async def run(self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        """Schedule until `stop`; then return when the last delivery has ended.  The started value is the scope of the
        deliveries, for a deadline at shutdown.
        """
        async with trio.open_nursery() as deliveries:
            task_status.started(deliveries.cancel_scope)
            while not self._stopping:
                self._news = trio.Event()  # before looking: what comes while we look is looked at again
                try:
                    look_again = await self._look(deliveries)
                except QueueError as cause:
                    self._site.events.emit("queue_trouble", reason=str(cause))
                    look_again = trio.current_time() + QUEUE_TROUBLE_PAUSE
                settled, self._settled = self._settled, trio.Event()
                settled.set()
                with trio.move_on_at(min(look_again, trio.current_time() + LOOK_ANYWAY)):
                    await self._news.wait()

    async def _look(self, deliveries: trio.Nursery) -> float:
        """Start what can be started; return when to look again unless news come, in Trio's time."""
        await self._site.heed_clock()
        now = self._site.clock.now()  # one moment for all questions: what falls due meanwhile is still to come
        look_again = math.inf
        served: set[str] = set()
        """Next hops that get no more workers now."""
        while not self._stopping:
            room = max(0, min(self._config.concurrency - len(self._works), WINDOW))
            found = await self._search(now, room, served)
            ready, patience_ends = self._without_those_tried_first(found.notices)
            look_again = min(look_again, patience_ends)
            if ready and not self._warned:
                self._warned = frozenset(ready)
                deliveries.start_soon(self._warn, ready)
            self._newest_first ^= bool(found.due)
            for next_hop, waiting in found.due:
                patience = self._patience(next_hop, waiting)
                if patience is None:
                    self._start(deliveries, next_hop)
                else:
                    served.add(next_hop)
                    look_again = min(look_again, patience)
            if not found.due:
                if found.next_moment is not None:
                    look_again = min(look_again, self._site.clock.until(found.next_moment))
                if not room:
                    look_again = min(look_again, await self._make_room(now))
                break
        return look_again

    @property
    def _config(self) -> QueueConfig:
        return self._site.config.queue

    async def _search(self, now: float, room: int, served: set[str]) -> _Found:
        """Ask the queue, which answers in a thread: what changes meanwhile is given to it as a copy."""
        newest_first = self._newest_first
        workers = Counter(work.next_hop for work in self._works)
        taken = self.active
        unwarned = taken | self._warned
        full = {next_hop for next_hop, count in workers.items() if count >= self._config.per_domain}
        exclude = full | served

        def search(queue: Queue) -> _Found:
            due = queue.due.destinations(now, room, exclude=exclude, newest_first=newest_first) if room else []
            moments = (queue.due.next_moment(now, exclude=full, busy=workers), queue.due.next_notice(now))
            return _Found(
                notices=queue.due.notices(now, NOTICES, exclude=unwarned),
                due=[(next_hop, _waiting(queue, next_hop, now, workers, taken)) for next_hop, _ in due],
                next_moment=min((moment for moment in moments if moment is not None), default=None),
            )

        return await self._site.queue.run(search)

    def _without_those_tried_first(self, notices: Sequence[tuple[str, bool]]) -> tuple[list[str], float]:
        """The envelopes whose notice waits for no try, or has waited for long enough; and until when, in Trio's time,
        the next of the others waits.
        """
        latest = trio.current_time() + TRY_FIRST
        waits = {envelope_id: self._tried_first.get(envelope_id, latest) for envelope_id, due in notices if due}
        self._tried_first = {id_: until for id_, until in waits.items() if until > trio.current_time()}
        ready = [envelope_id for envelope_id, _ in notices if envelope_id not in self._tried_first]
        return ready, min(self._tried_first.values(), default=math.inf)

    def _patience(self, next_hop: str, waiting: int) -> float | None:
        """Until when what waits at a next hop can wait for the workers there, in Trio's time; None: one more is needed
        now.
        """
        works = [work for work in self._works if work.next_hop == next_hop]
        if not waiting:
            return math.inf
        if waiting > len(works) * TURN:
            return None
        slow = min((work.since for work in works), default=-math.inf) + SLOW
        return None if slow <= trio.current_time() else slow

    # Workers.

    def _start(self, deliveries: trio.Nursery, next_hop: str) -> None:
        work = Work(next_hop, since=trio.current_time())
        self._works.add(work)
        deliveries.start_soon(self._work, work)

    async def _work(self, work: Work) -> None:
        try:
            try:
                await self._site.dispatcher.work(work)
            except QueueError:
                raise
            except Exception as bug:  # noqa: BLE001 - the one door: a bug with one envelope must not end the server
                self._site.bug(bug, id=",".join(sorted(work.active)))
                await self._postpone(work)
        except QueueError as cause:  # what was not settled is still due
            self._site.events.emit("queue_trouble", reason=str(cause))
            await trio.sleep(QUEUE_TROUBLE_PAUSE)
        finally:
            self._taken -= work.active
            self._works.discard(work)
            self.wake()

    async def _postpone(self, work: Work) -> None:
        """Nobody knows what is wrong with these: they wait like any that can't be delivered now."""
        now = self._site.clock.now()
        for envelope_id in sorted(work.active):
            try:
                found = await self._site.queue.run(lambda queue: queue.claim(envelope_id, now))  # noqa: B023
            except DamagedEntry as damage:
                await self._site.set_aside(damage.id, damage.reason)
            else:
                if found is not None:
                    await self._site.dispatcher.postpone(Claimed(*found))

    async def claim(self, work: Work) -> Claimed | None:
        """An envelope that is due at the worker's next hop; None if there is none, or it is somebody else's turn."""
        while not self._stopping and not self._others_wait(work):
            try:
                claimed = await self._claim(work.next_hop)
            except DamagedEntry as damage:
                await self._site.set_aside(damage.id, damage.reason)
                continue
            if claimed is not None:
                work.active.add(claimed.envelope.id)
                work.since = trio.current_time()
            return claimed
        return None

    async def _claim(self, next_hop: str) -> Claimed | None:
        now = self._site.clock.now()
        taken: list[str] = []

        def claim(queue: Queue) -> Claimed | None:
            found = queue.claim_next(next_hop, now, exclude=self._taken)
            if found is None:
                return None
            taken.append(found[1].id)
            self._taken.add(found[1].id)
            return Claimed(*found)

        try:
            return await self._site.queue.run(claim)
        except QueueError:
            self._taken.difference_update(taken)
            raise

    def release(self, work: Work, envelope_id: str) -> None:
        """The worker is done with an envelope, and what came of it is in the queue."""
        work.active.discard(envelope_id)
        self._taken.discard(envelope_id)

    def _others_wait(self, work: Work) -> bool:
        """Whether a worker that has sent its turn's worth keeps a place from others."""
        return work.sent >= TURN and len(self._works) >= self._config.concurrency

    # Places for those that have none.

    def suspect(self, next_hop: str) -> None:
        """The peer accepted a connection and said nothing: nobody else gives way to it."""
        self._suspects[next_hop] = None
        self._suspects.move_to_end(next_hop)
        if len(self._suspects) > SUSPECTS:
            self._suspects.popitem(last=False)

    def trust(self, next_hop: str) -> None:
        """The peer talked."""
        self._suspects.pop(next_hop, None)

    async def _make_room(self, now: float) -> float:
        """All places are taken.  Where somebody waits who was never silent, deliveries to peers that have said nothing
        yet give way.  Returns when to look again, in Trio's time.
        """
        exclude = {*(work.next_hop for work in self._works), *self._suspects}
        room = self._config.concurrency
        waiting = await self._site.queue.run(lambda queue: queue.due.destinations(now, room, exclude=exclude))
        if not waiting:
            return math.inf
        silent = sorted(
            (
                (since, work, peer)
                for work in self._works
                if (peer := work.peer) is not None and (since := peer.silent_since) is not None
            ),
            key=lambda found: found[0],
        )
        for _, (since, work, peer) in zip(waiting, silent, strict=False):
            if since + GIVE_WAY_AFTER > trio.current_time():
                return since + GIVE_WAY_AFTER
            self.suspect(work.next_hop)
            peer.give_way()
        return trio.current_time() + GIVE_WAY_AFTER  # others may fall silent, or the next address of one be so too

    # Notices of late mail.

    async def _warn(self, ids: Sequence[str]) -> None:
        try:
            for envelope_id in ids:
                await self._warn_one(envelope_id)
        except QueueError as cause:
            self._site.events.emit("queue_trouble", reason=str(cause))
            await trio.sleep(QUEUE_TROUBLE_PAUSE)
        finally:
            self._warned = frozenset()
            self.wake()

    async def _warn_one(self, envelope_id: str) -> None:
        try:
            found = await self._site.queue.run(lambda queue: queue.entries.load(envelope_id))
            if found is not None:
                await self._site.notices.give(Claimed(*found))
        except DamagedEntry as damage:
            await self._site.set_aside(damage.id, damage.reason)
        except QueueError:
            raise
        except Exception as bug:  # noqa: BLE001 - as in `_work`: this warning is not written, others are
            self._site.bug(bug, id=envelope_id)
            await self._site.notices.omit(envelope_id)


def _has_due(queue: Queue, now: float, but_for: Collection[Work]) -> bool:
    hops = {work.next_hop for work in but_for}
    envelopes = {envelope_id for work in but_for for envelope_id in work.active}
    notices = queue.due.notices(now, NOTICES, exclude=envelopes)
    return bool(queue.due.destinations(now, 1, exclude=hops) or not all(tried_first for _, tried_first in notices))


def _waiting(queue: Queue, next_hop: str, now: float, workers: Counter[str], taken: set[str]) -> int:
    """How much waits at a next hop, counted until it is too much for its workers."""
    return len(queue.due.envelopes(next_hop, now, workers[next_hop] * TURN + 1, exclude=taken))
