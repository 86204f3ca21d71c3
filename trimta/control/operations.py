"""Operations on a running server, as methods with values in and out: status, events, the queue's clock, wake-ups.

They take and return values; `requests` presents them as JSON.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from trimta.store.queue.errors import QueueError
from trimta.store.queue.meta import CLOCK_OFFSET
from trimta.store.queue.values import EnvelopeState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence

    from trimta.inbound.connection_counts import ConnectionCounts
    from trimta.outbound.scheduler import Scheduler
    from trimta.outbound.worker import Worker
    from trimta.runtime.event_declarations import EventName
    from trimta.runtime.events import Event, Events
    from trimta.runtime.group_commit import GroupCommit
    from trimta.runtime.message_log import MessageLog
    from trimta.runtime.queue_clock import QueueClock
    from trimta.store.queue.queue import Queue

TAIL_BACKLOG: Final = 10_000
"""Events that wait for one reader of `trimta tail`, at most; a slower reader loses the oldest."""

STEP_LIMIT: Final = 20.0
"""Seconds to wait for the deliveries of one moment before the clock is moved further.

A delivery that takes longer, to a peer that hangs, is not waited for again.
"""

FAREWELL_LIMIT: Final = 1.0
"""Seconds at shutdown for readers of `trimta tail` to take the last events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """The state of one worker process."""

    pid: int
    sessions: int
    messages: int
    """Messages that it has accepted since its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """The status of a server at one moment, as `trimta status` shows it."""

    uptime: float
    """Seconds since the server's start."""
    listening: tuple[str, ...]
    sessions: int
    workers: tuple[WorkerStatus, ...]
    """The worker processes; none where the sessions are in the server's own process."""
    deliveries: int
    queued_by_domain: dict[str, int]
    """The number of queued and held envelopes for each recipient domain."""
    held: int
    clock_offset: float
    """Seconds that the queue's clock is ahead of the machine's."""
    counters: dict[EventName, int]
    """The number of times that each event has happened since the start."""


class Operations:
    """The operations on one running server."""

    def __init__(
        self,
        *,
        clock: QueueClock,
        queue: GroupCommit,
        events: Events,
        message_log: MessageLog,
        counts: ConnectionCounts,
        scheduler: Scheduler,
        addresses: Callable[[], Sequence[str]],
    ) -> None:
        """`addresses` returns the addresses on which the server listens."""
        self._clock = clock
        self._queue = queue
        self._events = events
        self._message_log = message_log
        self._counts = counts
        self._scheduler = scheduler
        self._addresses = addresses
        self.workers: Callable[[], tuple[WorkerStatus, ...]] = tuple
        """Returns the state of the worker processes; set by a server that has some."""
        self.hear_workers: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Waits until the worker processes have told of what has happened so far; set by a server that has some."""
        self._started = trio.current_time()
        self._moving = trio.Lock()
        self._tails: set[Tail] = set()

    async def status(self) -> ServerStatus:
        """The status of this moment.  Raises QueueError."""
        await self.hear_workers()
        counts, held = await self._queue.run(
            lambda queue: (queue.entries.count_by_domain(), queue.entries.count(EnvelopeState.HELD))
        )
        return ServerStatus(
            uptime=trio.current_time() - self._started,
            listening=tuple(self._addresses()),
            sessions=self._counts.total,
            workers=self.workers(),
            deliveries=self._scheduler.in_flight,
            queued_by_domain=counts,
            held=held,
            clock_offset=self._clock.offset,
            counters=dict(self._events.counters),
        )

    def active(self) -> frozenset[str]:
        """The ids of the envelopes that are being delivered now."""
        return frozenset(self._scheduler.active)

    def wake(self) -> None:
        """Have the scheduler look at the queue, which another process has changed."""
        self._scheduler.wake()

    async def flush_message_log(self) -> None:
        """Store all lines of the message log; when this returns, they can be read."""
        await self.hear_workers()
        await self._message_log.flush()

    async def announce(self, message_id: str) -> None:
        """Log a message that a local program has put into the queue, as event `accepted`, and have it delivered."""
        try:
            message, envelopes = await self._queue.run(lambda queue: queue.entries.show(message_id))
        except QueueError:  # delivered meanwhile, and gone
            self._events.emit("accepted", id=message_id)
        else:
            recipients = [recipient.recipient for envelope in envelopes for recipient in envelope.recipients]
            self._events.emit(
                "accepted",
                id=message_id,
                sender=f"<{message.terms.reverse_path or ''}>",
                to=list(dict.fromkeys(str(recipient.original) for recipient in recipients)),
                size=message.size,
                client=message.origin,
            )
        self._scheduler.wake()

    @contextmanager
    def follow(self) -> Iterator[Tail]:
        """A block with a Tail, which holds the events from the block's beginning on."""
        tail = Tail()
        unsubscribe = self._events.subscribe(tail)
        self._tails.add(tail)
        try:
            yield tail
        finally:
            unsubscribe()
            self._tails.discard(tail)
            tail.done.set()

    async def farewell(self) -> None:
        """Let the readers of `trimta tail` have the last events, within FAREWELL_LIMIT seconds; called at the end."""
        with trio.move_on_after(FAREWELL_LIMIT):
            tails = tuple(self._tails)
            for tail in tails:
                tail.end()
            for tail in tails:
                await tail.done.wait()

    def now(self) -> float:
        """The present moment on the queue's clock, in seconds since the epoch."""
        return self._clock.now()

    @property
    def clock_offset(self) -> float:
        """Seconds by which the queue's clock is ahead of the machine's."""
        return self._clock.offset

    def record(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Call `subscriber` with every event from now on; calling the result ends that."""
        return self._events.subscribe(subscriber)

    async def advance(self, seconds: float) -> int:
        """Move the queue's clock forward by `seconds`, stopping at each moment at which something falls due.

        Retries, notices and expiry thus happen in their order, each at its own moment.  Returns the number of moments.
        Raises QueueError.
        """
        moments = 0
        hanging: set[Worker] = set()
        async with self._moving:
            target = self._clock.now() + seconds
            while True:
                await self._settle(hanging)
                now = self._clock.now()
                upcoming = await self._queue.run(lambda queue: _next_moment(queue, now))  # noqa: B023
                if upcoming is None or upcoming > target:
                    break
                await self._move_to(upcoming)
                moments += 1
            await self._move_to(target)
            await self._settle(hanging)
        return moments

    async def _move_to(self, moment: float) -> None:
        clock = self._clock
        clock.advance_to(moment)
        await self._queue.run(lambda queue: queue.meta.set(CLOCK_OFFSET, repr(clock.offset)))
        self._scheduler.wake()

    async def _settle(self, hanging: set[Worker]) -> None:
        scheduler = self._scheduler
        hanging &= scheduler.workers
        with trio.move_on_after(STEP_LIMIT) as scope:
            await scheduler.idle(but_for=hanging)
        if scope.cancelled_caught:
            hanging |= scheduler.workers


class Tail:
    """The events that one reader of `trimta tail` has not got yet; a reader that is too slow loses the oldest."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque(maxlen=TAIL_BACKLOG)
        self._news = trio.Event()
        self._ended = False
        self.done = trio.Event()
        """Set when the reader has ended."""

    def __call__(self, event: Event) -> None:
        self._waiting.append(event)
        self._news.set()

    def end(self) -> None:
        """Let `events` end after the events that wait."""
        self._ended = True
        self._news.set()

    async def events(self) -> AsyncGenerator[Event, None]:
        """The events, each as it happens, until `end` is called."""
        while self._waiting or not self._ended:
            await self._news.wait()
            self._news = trio.Event()
            while self._waiting:
                yield self._waiting.popleft()


def _next_moment(queue: Queue, now: float) -> float | None:
    moments = (queue.due.next_moment(now), queue.due.next_notice(now))
    return min((moment for moment in moments if moment is not None), default=None)
