"""What is due, and who works on it: the queue says what, this says when and how many at once.

The queue is looked at through windows: what is in memory is what is being delivered, whatever waits.  Destinations take
turns, the longest due first and, every other time, the latest: a backlog in front delays new mail by no more than one
turn.  One destination has at most `per_domain` workers, and each worker one connection, over which it sends what else
is due there.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from trimta.store.queue_values import DamagedEntry, QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trimta.mta.site import Site
    from trimta.store.queue import Queue
    from trimta.store.queue_values import QueuedEnvelope, StoredMessage

GIVE_WAY_AFTER: Final = 1.0
"""Seconds a delivery may wait for the first octet of a peer while others wait for its place."""

SUSPECTS: Final = 10_000
"""Destinations remembered for having been silent; the oldest are forgotten."""

QUEUE_TROUBLE_PAUSE: Final = 5.0
"""Seconds until the queue is asked again after it failed: the disk may have room by then."""

WARNINGS: Final = 50
"""Delay warnings written at a time, so that they do not keep deliveries waiting."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An envelope that a worker has, and nobody else."""

    message: StoredMessage
    envelope: QueuedEnvelope


@dataclass(slots=True, eq=False)
class Work:
    """One worker: a delivery task, with one connection at most, for one next hop."""

    next_hop: str
    scope: trio.CancelScope
    started: float
    active: set[str] = field(default_factory=set)
    """Ids of the envelopes that it has."""
    silent_since: Callable[[], float | None] = lambda: None
    """The Trio time since which the peer of a fresh connection has said nothing at all; None otherwise."""
    gave_way: bool = False
    sent: int = 0


class Scheduler:
    """Starts a worker for everything that is due, within the limits."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._news = trio.Event()
        self._works: set[Work] = set()
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
        return set().union(*(work.active for work in self._works))

    @property
    def in_flight(self) -> int:
        """How many delivery tasks there are."""
        return len(self._works)

    def stop(self) -> None:
        """Start nothing any more; what runs goes on."""
        self._stopping = True
        self.wake()

    async def idle(self) -> None:
        """Wait until nothing is due and nobody works."""
        while True:
            settled = self._settled
            if not self._works and not await self._site.queue.run(self._has_due):
                return
            self.wake()
            await settled.wait()

    def _has_due(self, queue: Queue) -> bool:
        now = self._site.clock.now()
        return bool(queue.due_destinations(now, 1) or queue.due_warnings(now, 1))

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
                    wait_until = await self._look(deliveries)
                except QueueError as cause:
                    self._site.events.emit("queue_trouble", reason=str(cause))
                    wait_until = trio.current_time() + QUEUE_TROUBLE_PAUSE
                settled, self._settled = self._settled, trio.Event()
                settled.set()
                with trio.move_on_at(wait_until):
                    await self._news.wait()

    async def _look(self, deliveries: trio.Nursery) -> float:
        """Start what can be started; return when to look again unless news come, in Trio's time."""
        await self._warn()
        exhausted: set[str] = set()
        while (free := self._limits.concurrency - len(self._works)) > 0:
            self._newest_first = not self._newest_first
            found = await self._site.queue.run(lambda queue: self._find(queue, min(free, 16), exhausted))
            if not found:
                break
            for next_hop, envelope_id in found:
                if envelope_id is None:
                    exhausted.add(next_hop)
                else:
                    self._start(deliveries, next_hop, envelope_id)
        now = self._site.clock.now()
        next_due = await self._site.queue.run(lambda queue: self._next_moment(queue, now))
        look_again = math.inf if next_due is None else self._site.clock.until(next_due)
        if len(self._works) >= self._limits.concurrency:
            look_again = min(look_again, await self._make_room())
        return look_again

    @property
    def _limits(self) -> _Limits:
        queue = self._site.policy.config.queue
        return _Limits(queue.concurrency, queue.per_domain)

    def _find(self, queue: Queue, limit: int, exhausted: Iterable[str]) -> list[tuple[str, str | None]]:
        """Next hops that may have another worker, each with a due envelope, or None if none is left there."""
        now = self._site.clock.now()
        busy = self._workers_by_hop()
        full = {next_hop for next_hop, count in busy.items() if count >= self._limits.per_domain}
        due = queue.due_destinations(now, limit, exclude=full.union(exhausted), newest_first=self._newest_first)
        active = self.active
        found: list[tuple[str, str | None]] = []
        for next_hop, _ in due:
            ids = queue.due_envelopes(next_hop, now, 1, exclude=active if next_hop in busy else ())
            found.append((next_hop, ids[0] if ids else None))
        return found

    def _next_moment(self, queue: Queue, now: float) -> float | None:
        busy = self._workers_by_hop()
        full = {next_hop for next_hop, count in busy.items() if count >= self._limits.per_domain}
        moments = (queue.next_due(now, exclude=full, busy=busy), queue.next_warning(now))
        return min((moment for moment in moments if moment is not None), default=None)

    def _workers_by_hop(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for work in self._works:
            counts[work.next_hop] = counts.get(work.next_hop, 0) + 1
        return counts

    # Workers.

    def _start(self, deliveries: trio.Nursery, next_hop: str, envelope_id: str) -> None:
        work = Work(next_hop, trio.CancelScope(), trio.current_time(), {envelope_id})
        self._works.add(work)
        deliveries.start_soon(self._work, work, envelope_id)

    async def _work(self, work: Work, envelope_id: str) -> None:
        try:
            with work.scope:
                await self._site.dispatcher.work(work, envelope_id)
            if work.scope.cancelled_caught:
                await self._site.dispatcher.gave_way(work)
        except QueueError as cause:  # what was not settled is still due
            self._site.events.emit("queue_trouble", reason=str(cause))
            await trio.sleep(QUEUE_TROUBLE_PAUSE)
        finally:
            self._works.discard(work)
            self.wake()

    async def claim(self, work: Work, envelope_id: str) -> Claimed | None:
        """The envelope for a worker that has its id; None if that is not to be sent any more."""
        now = self._site.clock.now()
        try:
            found = await self._site.queue.run(lambda queue: queue.claim(envelope_id, now))
        except DamagedEntry as damage:
            await self._set_aside(damage)
            found = None
        if found is None:
            work.active.discard(envelope_id)
            return None
        return Claimed(*found)

    async def another(self, work: Work) -> Claimed | None:
        """Another envelope for the same next hop, for a worker that is done with the one before."""
        if self._stopping:
            return None
        while True:
            envelope_id = await self._site.queue.run(lambda queue: self._find_another(queue, work))
            if envelope_id is None or self._others_wait(work):
                return None
            work.active.add(envelope_id)
            claimed = await self.claim(work, envelope_id)
            if claimed is not None:
                return claimed

    def _find_another(self, queue: Queue, work: Work) -> str | None:
        ids = queue.due_envelopes(work.next_hop, self._site.clock.now(), 1, exclude=self.active)
        return ids[0] if ids else None

    def _others_wait(self, work: Work) -> bool:
        """Whether a worker that has sent its turn's worth keeps a place from others."""
        return work.sent >= TURN and len(self._works) >= self._limits.concurrency

    async def _set_aside(self, damage: DamagedEntry) -> None:
        aside = await self._site.queue.run(lambda queue: queue.set_aside(damage.id, damage.reason))
        if aside is not None:
            self._site.events.emit("damaged", id=aside.id, reason=aside.reason, kept=str(aside.path))

    # Places for those that have none.

    def suspect(self, next_hop: str) -> None:
        """The peer accepted a connection and said nothing: it gets a place only when nobody else wants it."""
        self._suspects[next_hop] = None
        self._suspects.move_to_end(next_hop)
        if len(self._suspects) > SUSPECTS:
            self._suspects.popitem(last=False)

    def trust(self, next_hop: str) -> None:
        """The peer talked."""
        self._suspects.pop(next_hop, None)

    async def _make_room(self) -> float:
        """All places are taken.  Where somebody waits who was never silent, deliveries to peers that have said nothing
        yet give way.  Returns when to look again, in Trio's time.
        """
        now = self._site.clock.now()
        exclude = {*self._workers_by_hop(), *self._suspects}
        room = self._limits.concurrency
        waiting = await self._site.queue.run(lambda queue: queue.due_destinations(now, room, exclude=exclude))
        if not waiting:
            return math.inf
        silent = sorted(
            ((since, work) for work in self._works if (since := work.silent_since()) is not None and not work.gave_way),
            key=lambda pair: pair[0],
        )
        look_again = math.inf
        for _, (since, work) in zip(waiting, silent, strict=False):
            patience = since + GIVE_WAY_AFTER
            if patience > trio.current_time():
                look_again = patience
                break
            work.gave_way = True
            self.suspect(work.next_hop)
            work.scope.cancel()
        else:
            if len(silent) < len(waiting):  # others may fall silent
                look_again = trio.current_time() + GIVE_WAY_AFTER
        return look_again

    async def _warn(self) -> None:
        """Tell senders whose mail is delayed (RFC 3461 5.2.5)."""
        now = self._site.clock.now()
        active = self.active
        ids = await self._site.queue.run(lambda queue: queue.due_warnings(now, WARNINGS, exclude=active))
        for envelope_id in ids:
            try:
                found = await self._site.queue.run(lambda queue: queue.load(envelope_id))  # noqa: B023
            except DamagedEntry as damage:
                await self._set_aside(damage)
                continue
            if found is not None:
                await self._site.dispatcher.warn(Claimed(*found))


TURN: Final = 20
"""Messages over one connection after which a worker makes place if others wait for one."""


@dataclass(frozen=True, slots=True)
class _Limits:
    concurrency: int
    per_domain: int
