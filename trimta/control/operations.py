"""Operations on a running server: its state, its events, its queue's clock.  The control socket presents them."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from trimta.control import socket as control
from trimta.runtime.events import as_object, timestamp
from trimta.store.queue.errors import QueueError
from trimta.store.queue.values import EnvelopeState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from pathlib import Path

    from trimta.control.socket import Handler, Json
    from trimta.inbound.connection_counts import ConnectionCounts
    from trimta.outbound.scheduler import Scheduler
    from trimta.outbound.worker import Worker
    from trimta.runtime.clock import QueueClock
    from trimta.runtime.events import Event, Events
    from trimta.runtime.message_log import MessageLog
    from trimta.runtime.queue_door import QueueDoor
    from trimta.store.queue.queue import Queue

CLOCK_OFFSET: Final = "clock_offset"
"""The queue's meta entry for what its clock was moved forward by: after a restart nothing may be due later again."""

TIME_SCALE: Final = "time_scale"
"""The queue's meta entry for `serve --time-scale`: for those who queue mail beside the server."""

TAIL_BACKLOG: Final = 10_000
"""Events that wait for a reader of `trimta tail`; one that is slower loses the oldest."""

STEP_LIMIT: Final = 20.0
"""Seconds to wait for one moment's work before the clock is moved further.  A delivery that takes longer, to a peer
that hangs, is not waited for again.
"""

TOLD: Final = 1_000
"""Events that the answer to `trimta time` holds at most: the last ones."""

FAREWELL_LIMIT: Final = 1.0
"""Seconds at shutdown for readers of `trimta tail` to take what has happened."""


class Operations:
    """What can be done to one running server."""

    def __init__(
        self,
        *,
        data_dir: Path,
        clock: QueueClock,
        queue: QueueDoor,
        events: Events,
        message_log: MessageLog,
        counts: ConnectionCounts,
        scheduler: Scheduler,
        addresses: Callable[[], Sequence[str]],
    ) -> None:
        """`addresses` returns those that the server listens on."""
        self._data_dir = data_dir
        self._clock = clock
        self._queue = queue
        self._events = events
        self._message_log = message_log
        self._counts = counts
        self._scheduler = scheduler
        self._addresses = addresses
        self._started = trio.current_time()
        self._moving = trio.Lock()
        self._tails: set[_Tail] = set()

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By the request's "command"."""
        return {
            "status": control.single(self._status),
            "active": control.single(self._active),
            "wake": control.single(self._wake),
            "submitted": control.single(self._submitted),
            "flush": control.single(self._flush),
            "advance": control.single(self._advance),
            "tail": control.Following(self._tail),
        }

    async def _status(self, _: Json) -> Json:
        counts, held = await self._queue.run(
            lambda queue: (queue.entries.count_by_domain(), queue.entries.count(EnvelopeState.HELD))
        )
        return {
            "pid": os.getpid(),
            "uptime_s": round(trio.current_time() - self._started, 1),
            "listening": [*self._addresses()],
            "sessions": self._counts.total,
            "deliveries": self._scheduler.in_flight,
            "queue": counts,
            "queued": sum(counts.values()),
            "held": held,
            "clock_offset_s": round(self._clock.offset, 3),
            "counters": dict(sorted(self._events.counters.items())),
        }

    async def _active(self, _: Json) -> Json:
        return {"active": sorted(self._scheduler.active)}

    async def _wake(self, _: Json) -> Json:
        self._scheduler.wake()
        return {"ok": True}

    async def _flush(self, _: Json) -> Json:
        """Everything that was noted about messages can be read afterwards."""
        await self._message_log.flush()
        return {"ok": True}

    async def _submitted(self, request: Json) -> Json:
        """A local program has put a message into the queue."""
        message_id = str(request.get("id"))
        try:
            message, envelopes = await self._queue.run(lambda queue: queue.entries.show(message_id))
        except QueueError:  # it was due, and is gone already
            self._events.emit("accepted", id=message_id)
        else:
            recipients = [recipient.recipient for envelope in envelopes for recipient in envelope.recipients]
            self._events.emit(
                "accepted",
                id=message_id,
                sender=f"<{message.reverse_path or ''}>",
                to=list(dict.fromkeys(str(recipient.original) for recipient in recipients)),
                size=message.size,
                client=message.origin,
            )
        self._scheduler.wake()
        return {"ok": True}

    async def _tail(self, _: Json) -> AsyncGenerator[Json, None]:
        tail = _Tail()
        unsubscribe = self._events.subscribe(tail)
        self._tails.add(tail)
        try:
            yield {"following": str(self._data_dir)}
            while tail.waiting or not tail.ended:
                await tail.news.wait()
                tail.news = trio.Event()
                while tail.waiting:
                    yield as_object(tail.waiting.popleft())
        finally:
            unsubscribe()
            self._tails.discard(tail)
            tail.done.set()

    async def farewell(self) -> None:
        """At the end: let those who follow the events have the last ones, for a second at most."""
        with trio.move_on_after(FAREWELL_LIMIT):
            tails = tuple(self._tails)
            for tail in tails:
                tail.end()
            for tail in tails:
                await tail.done.wait()

    async def _advance(self, request: Json) -> Json:
        seconds = request.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < 10 * 365 * 86400:
            raise ValueError("advance wants a number of seconds, from 0 to ten years")
        told: deque[Event] = deque(maxlen=TOLD)
        unsubscribe = self._events.subscribe(lambda event: told.append(event) if "id" in event.fields else None)
        try:
            moments = await self.advance(float(seconds))
        finally:
            unsubscribe()
        clock = self._clock
        return {
            "now": timestamp(clock.now()),
            "offset_s": round(clock.offset, 3),
            "moments": moments,
            "events": [as_object(event) for event in told],
        }

    async def advance(self, seconds: float) -> int:
        """Move the queue's clock forward.  What falls due in between happens in its order, each thing at its moment;
        returns how many such moments there were.
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


class _Tail:
    """What one reader of `trimta tail` has still to get."""

    def __init__(self) -> None:
        self.waiting: deque[Event] = deque(maxlen=TAIL_BACKLOG)
        self.news = trio.Event()
        self.ended = False
        self.done = trio.Event()

    def __call__(self, event: Event) -> None:
        self.waiting.append(event)
        self.news.set()

    def end(self) -> None:
        self.ended = True
        self.news.set()


def _next_moment(queue: Queue, now: float) -> float | None:
    moments = (queue.due.next_moment(now), queue.due.next_notice(now))
    return min((moment for moment in moments if moment is not None), default=None)
