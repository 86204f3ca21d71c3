"""The scheduler: starts workers for the next hops where envelopes are due.  The queue says what is due.

The queue is read through windows: memory holds the envelopes that are being delivered, however many wait.  Destinations
take turns, the longest due first and, every other time, the latest due: a backlog in front delays new mail by no more
than one turn.  A destination has one worker, and a worker one connection, over which it sends what else is due there; a
destination gets more workers, up to `per_domain`, when one is slow or has too much to do.

Calls go down only: the scheduler hands out workers, and a delivery asks its worker for envelopes (`claim`) and tells it
when it is done with one (`done`, `give_back`) and that the host has talked (`heard`).
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from trimta.outbound.worker import Claim, Claimed, Worker
from trimta.runtime.group_commit import set_aside
from trimta.store.queue.errors import DamagedEntry, QueueError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from trimta.config.model import QueueSection
    from trimta.outbound.clock_watch import ClockWatch
    from trimta.outbound.worker import Deliverer
    from trimta.runtime.bugs import Bugs
    from trimta.runtime.events import Events
    from trimta.runtime.group_commit import GroupCommit
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.services import CurrentServices
    from trimta.store.queue.queue import Queue

GIVE_WAY_AFTER: Final = 1.0
"""Seconds a delivery may wait for the first octet of a peer while others wait for its place."""

SLOW: Final = 0.2
"""Seconds with one message after which what waits behind it gets a worker, and a connection, of its own."""

TURN: Final = 20
"""Messages that one worker is enough for, and after which it makes room if other next hops wait for a worker."""

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


@dataclass(frozen=True, slots=True)
class _Look:
    """The answer to one look at the queue."""

    notices: Sequence[tuple[str, bool]]
    """Ids of envelopes whose senders are to be told that they are late; whether they are to be tried now, too."""
    due: Sequence[tuple[str, int]]
    """Next hops where envelopes are due, and how many: counted until they are too many for the workers there."""
    next_moment: float | None
    """The next moment at which an envelope or a notice falls due, on the queue's clock; None: there is none."""


class Scheduler:
    """Starts workers for everything that is due, within the limits of `[queue]`."""

    def __init__(
        self,
        services: CurrentServices,
        *,
        clock: QueueClock,
        queue: GroupCommit,
        events: Events,
        bugs: Bugs,
        clock_watch: ClockWatch,
    ) -> None:
        self._services = services
        self._clock = clock
        self._queue = queue
        self._events = events
        self._bugs = bugs
        self._clock_watch = clock_watch
        self._news = trio.Event()
        self._workers: set[Worker] = set()
        self._taken: set[str] = set()
        """Ids of the envelopes that workers have (see `Claim`)."""
        self._warned: frozenset[str] = frozenset()
        """Ids of the envelopes whose senders are being warned."""
        self._tried_first: dict[str, float] = {}
        """Until when, in Trio's time, the notice about an envelope waits for its try; those of the last look."""
        self._suspects: OrderedDict[str, None] = OrderedDict()
        self._newest_first = False
        self._stopping = False
        self._settled = trio.Event()

    # For other modules.

    def wake(self) -> None:
        """Look again: something in the queue, or the clock, has changed."""
        self._news.set()

    @property
    def active(self) -> set[str]:
        """Ids of the envelopes that are being delivered now."""
        return set(self._taken)

    @property
    def in_flight(self) -> int:
        """The number of workers."""
        return len(self._workers)

    def stop(self) -> None:
        """Start no more workers; those that run go on."""
        self._stopping = True
        self.wake()

    @property
    def workers(self) -> frozenset[Worker]:
        """The workers of this moment."""
        return frozenset(self._workers)

    async def idle(self, *, but_for: Collection[Worker] = ()) -> None:
        """Wait until nothing is due and no worker is left.  `but_for`: workers that do not count, nor what waits behind
        them.
        """
        self.wake()
        while True:
            settled = self._settled
            now = self._clock.now()
            due = await self._queue.run(lambda queue: _has_due(queue, now, but_for))  # noqa: B023
            if not (due or self._workers.difference(but_for) or self._warned):
                return
            await settled.wait()

    # The loop.

    async def run(
        self, deliverer: Deliverer, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Hand out work to `deliverer` until `stop`; then return when the last delivery has ended.  The started value
        is the scope of the deliveries, for a deadline at shutdown.
        """
        self._deliverer = deliverer
        async with trio.open_nursery() as deliveries:
            task_status.started(deliveries.cancel_scope)
            while not self._stopping:
                self._news = trio.Event()  # before looking: what comes while we look is looked at again
                try:
                    look_again = await self._look(deliveries)
                except QueueError as cause:
                    self._events.emit("queue_trouble", reason=str(cause))
                    look_again = trio.current_time() + QUEUE_TROUBLE_PAUSE
                settled, self._settled = self._settled, trio.Event()
                settled.set()
                with trio.move_on_at(min(look_again, trio.current_time() + LOOK_ANYWAY)):
                    await self._news.wait()

    async def _look(self, deliveries: trio.Nursery) -> float:
        """Start what can be started; return when to look again unless news come, in Trio's time."""
        await self._clock_watch.look(self.active)
        now = self._clock.now()  # one moment for all questions: what falls due meanwhile is still to come
        look_again = math.inf
        served: set[str] = set()
        """Next hops that get no more workers now."""
        while not self._stopping:
            room = max(0, min(self._config.concurrency - len(self._workers), WINDOW))
            look = await self._search(now, room, served)
            ready, patience_ends = self._without_those_tried_first(look.notices)
            look_again = min(look_again, patience_ends)
            if ready and not self._warned:
                self._warned = frozenset(ready)
                deliveries.start_soon(self._warn, ready)
            self._newest_first ^= bool(look.due)
            for next_hop, waiting in look.due:
                patience = self._patience(next_hop, waiting)
                if patience is None:
                    self._start(deliveries, next_hop)
                else:
                    served.add(next_hop)
                    look_again = min(look_again, patience)
            if not look.due:
                if look.next_moment is not None:
                    look_again = min(look_again, self._clock.until(look.next_moment))
                if not room:
                    look_again = min(look_again, await self._make_room(now))
                break
        return look_again

    @property
    def _config(self) -> QueueSection:
        return self._services().configuration.queue

    async def _search(self, now: float, room: int, served: set[str]) -> _Look:
        """Ask the queue, in its thread, what is due.  The thread gets copies of the sets that may change meanwhile."""
        newest_first = self._newest_first
        workers = Counter(worker.next_hop for worker in self._workers)
        taken = self.active
        unwarned = taken | self._warned
        full = {next_hop for next_hop, count in workers.items() if count >= self._config.per_domain}
        exclude = full | served

        def search(queue: Queue) -> _Look:
            due = queue.due.destinations(now, room, exclude=exclude, newest_first=newest_first) if room else []
            moments = (queue.due.next_moment(now, exclude=full, busy=workers), queue.due.next_notice(now))
            return _Look(
                notices=queue.due.notices(now, NOTICES, exclude=unwarned),
                due=[(next_hop, _waiting(queue, next_hop, now, workers, taken)) for next_hop, _ in due],
                next_moment=min((moment for moment in moments if moment is not None), default=None),
            )

        return await self._queue.run(search)

    def _without_those_tried_first(self, notices: Sequence[tuple[str, bool]]) -> tuple[list[str], float]:
        """The envelopes whose notice waits for no try, or has waited long enough; and the moment, in Trio's time, at
        which the next notice has waited long enough.
        """
        latest = trio.current_time() + TRY_FIRST
        waits = {envelope_id: self._tried_first.get(envelope_id, latest) for envelope_id, due in notices if due}
        self._tried_first = {id_: until for id_, until in waits.items() if until > trio.current_time()}
        ready = [envelope_id for envelope_id, _ in notices if envelope_id not in self._tried_first]
        return ready, min(self._tried_first.values(), default=math.inf)

    def _patience(self, next_hop: str, waiting: int) -> float | None:
        """The moment until which the envelopes at a next hop can wait for the workers there, in Trio's time; None: one
        more worker is needed now.
        """
        workers = [worker for worker in self._workers if worker.next_hop == next_hop]
        if not waiting:
            return math.inf
        if waiting > len(workers) * TURN:
            return None
        slow = min((worker.since for worker in workers), default=-math.inf) + SLOW
        return None if slow <= trio.current_time() else slow

    # Workers.

    def _start(self, deliveries: trio.Nursery, next_hop: str) -> None:
        worker = Worker(next_hop, trio.current_time(), self)
        self._workers.add(worker)
        deliveries.start_soon(self._work, worker)

    async def _work(self, worker: Worker) -> None:
        try:
            try:
                await self._deliverer.deliver(worker)
            except QueueError:
                raise
            except Exception as bug:  # noqa: BLE001 - the one door: a bug with one envelope must not end the server
                self._bugs.note(bug, id=",".join(sorted(worker.active)))
                await self._postpone(worker)
        except QueueError as cause:  # what was not settled is still due
            self._events.emit("queue_trouble", reason=str(cause))
            await trio.sleep(QUEUE_TROUBLE_PAUSE)
        finally:
            self._taken -= worker.active
            self._workers.discard(worker)
            self.wake()

    async def _postpone(self, worker: Worker) -> None:
        """Have a worker's envelopes that a bug keeps from being tried wait like any that can't be delivered now."""
        now = self._clock.now()
        for envelope_id in sorted(worker.active):
            try:
                entry = await self._queue.run(lambda queue: queue.claim(envelope_id, now))  # noqa: B023
            except DamagedEntry as damage:
                await set_aside(self._queue, self._events, damage.id, damage.reason)
            else:
                if entry is not None:
                    await self._deliverer.postpone(Claimed(*entry))

    def next_claim(self, worker: Worker) -> Claim | None:
        """See Worker.next_claim."""
        return None if self._stopping or self._others_wait(worker) else Claim(worker, self._clock.now(), self._taken)

    async def claim(self, worker: Worker, claim: Claim | None = None) -> Claimed | None:
        """See Worker.claim and Worker.claimed."""
        while True:
            if claim is None:
                claim = self.next_claim(worker)
                if claim is None:
                    return None
                await self._commit(claim)
            try:
                claimed = claim.result
            except DamagedEntry as damage:
                await set_aside(self._queue, self._events, damage.id, damage.reason)
                claim = None
            else:
                worker.since = trio.current_time()
                return claimed

    async def _commit(self, claim: Claim) -> None:
        try:
            await self._queue.run(claim)
        except QueueError:
            claim.forget()
            raise
        claim.keep()

    def release(self, worker: Worker, envelope_id: str) -> None:
        """See Worker.give_back."""
        worker.active.discard(envelope_id)
        self._taken.discard(envelope_id)

    def _others_wait(self, worker: Worker) -> bool:
        """Whether a worker that has sent its turn's worth keeps a place from others."""
        turn = worker.sent + len(worker.active)
        return turn >= TURN and len(self._workers) >= self._config.concurrency

    # Places for destinations that have no worker.

    def suspect(self, next_hop: str) -> None:
        """Note that the host at a next hop accepted a connection and sent nothing: no other delivery gives way to this
        next hop.
        """
        self._suspects[next_hop] = None
        self._suspects.move_to_end(next_hop)
        if len(self._suspects) > SUSPECTS:
            self._suspects.popitem(last=False)

    def trust(self, next_hop: str) -> None:
        """Note that the host at a next hop has sent something."""
        self._suspects.pop(next_hop, None)

    async def _make_room(self, now: float) -> float:
        """When all workers are busy and a next hop waits that was never silent: have deliveries to hosts that have sent
        nothing yet give way.  Returns when to look again, in Trio's time.
        """
        exclude = {*(worker.next_hop for worker in self._workers), *self._suspects}
        room = self._config.concurrency
        waiting = await self._queue.run(lambda queue: queue.due.destinations(now, room, exclude=exclude))
        if not waiting:
            return math.inf
        silent = sorted(
            (
                (since, worker, connection)
                for worker in self._workers
                if (connection := worker.connection) is not None and (since := connection.silent_since) is not None
            ),
            key=lambda entry: entry[0],
        )
        for _, (since, worker, connection) in zip(waiting, silent, strict=False):
            if since + GIVE_WAY_AFTER > trio.current_time():
                return since + GIVE_WAY_AFTER
            self.suspect(worker.next_hop)
            connection.give_way()
        return trio.current_time() + GIVE_WAY_AFTER  # others may fall silent, or the next address of a host be so too

    # Notices of late mail.

    async def _warn(self, ids: Sequence[str]) -> None:
        try:
            for envelope_id in ids:
                await self._warn_one(envelope_id)
        except QueueError as cause:
            self._events.emit("queue_trouble", reason=str(cause))
            await trio.sleep(QUEUE_TROUBLE_PAUSE)
        finally:
            self._warned = frozenset()
            self.wake()

    async def _warn_one(self, envelope_id: str) -> None:
        try:
            entry = await self._queue.run(lambda queue: queue.entries.load(envelope_id))
            if entry is not None:
                await self._deliverer.notify_late(Claimed(*entry))
        except DamagedEntry as damage:
            await set_aside(self._queue, self._events, damage.id, damage.reason)
        except QueueError:
            raise
        except Exception as bug:  # noqa: BLE001 - as in `_work`: this warning is not written, others are
            self._bugs.note(bug, id=envelope_id)
            await self._deliverer.omit_notice(envelope_id)


def _has_due(queue: Queue, now: float, but_for: Collection[Worker]) -> bool:
    hops = {worker.next_hop for worker in but_for}
    envelopes = {envelope_id for worker in but_for for envelope_id in worker.active}
    notices = queue.due.notices(now, NOTICES, exclude=envelopes)
    return bool(queue.due.destinations(now, 1, exclude=hops) or not all(tried_first for _, tried_first in notices))


def _waiting(queue: Queue, next_hop: str, now: float, workers: Counter[str], taken: set[str]) -> int:
    """The number of envelopes that wait at a next hop, counted until they are too many for its workers."""
    return len(queue.due.envelopes(next_hop, now, workers[next_hop] * TURN + 1, exclude=taken))
