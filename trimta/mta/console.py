"""What the control socket answers: the server's state, its events, and the queue's clock."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from trimta.mta import control
from trimta.mta.events import as_object
from trimta.store.queue_values import State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from trimta.mta.control import Handler, Json
    from trimta.mta.events import Event
    from trimta.mta.site import Site
    from trimta.store.queue import Queue

CLOCK_OFFSET: Final = "clock_offset"
"""The queue's meta entry for what its clock was moved forward by: after a restart nothing may be due later again."""

TAIL_BACKLOG: Final = 10_000
"""Events that wait for a reader of `trimta tail`; one that is slower loses the oldest."""

STEP_LIMIT: Final = 60.0
"""Seconds that one moment's work may take while the clock is moved; a peer that hangs must not hang the clock."""


class Console:
    """Answers requests about one server."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._started = trio.current_time()
        self._moving = trio.Lock()

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By the request's "command"."""
        return {
            "status": control.single(self._status),
            "active": control.single(self._active),
            "wake": control.single(self._wake),
            "advance": control.single(self._advance),
            "tail": self._tail,
        }

    async def _status(self, _: Json) -> Json:
        site = self._site
        counts, held = await site.queue.run(lambda queue: (queue.counts(), queue.count(State.HELD)))
        return {
            "pid": os.getpid(),
            "uptime_s": round(trio.current_time() - self._started, 1),
            "listening": [address for bound in site.bound for address in bound.addresses],
            "sessions": site.crowd.total,
            "deliveries": site.scheduler.in_flight,
            "queue": counts,
            "queued": sum(counts.values()),
            "held": held,
            "clock_offset_s": round(site.clock.offset, 3),
            "counters": dict(sorted(site.events.counters.items())),
        }

    async def _active(self, _: Json) -> Json:
        return {"active": sorted(self._site.scheduler.active)}

    async def _wake(self, _: Json) -> Json:
        self._site.scheduler.wake()
        return {"ok": True}

    async def _tail(self, _: Json) -> AsyncGenerator[Json, None]:
        waiting: deque[Event] = deque(maxlen=TAIL_BACKLOG)
        news = trio.Event()

        def take(event: Event) -> None:
            waiting.append(event)
            news.set()

        unsubscribe = self._site.events.subscribe(take)
        try:
            yield {"event": "tail"}
            while True:
                await news.wait()
                news = trio.Event()
                while waiting:
                    yield as_object(waiting.popleft())
        finally:
            unsubscribe()

    async def _advance(self, request: Json) -> Json:
        seconds = request.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < 10 * 365 * 86400:
            raise ValueError("advance wants a number of seconds, from 0 to ten years")
        moments = await self.advance(float(seconds))
        return {"now": self._site.clock.now(), "offset_s": self._site.clock.offset, "moments": moments}

    async def advance(self, seconds: float) -> int:
        """Move the queue's clock forward.  What falls due in between happens in its order, each thing at its moment;
        returns how many such moments there were.
        """
        site = self._site
        moments = 0
        async with self._moving:
            target = site.clock.now() + seconds
            while True:
                await self._settle()
                now = site.clock.now()
                upcoming = await site.queue.run(lambda queue: _next_moment(queue, now))  # noqa: B023
                if upcoming is None or upcoming > target:
                    break
                await self._move_to(upcoming)
                moments += 1
            await self._move_to(target)
            await self._settle()
        return moments

    async def _move_to(self, moment: float) -> None:
        clock = self._site.clock
        clock.advance_to(moment)
        await self._site.queue.run(lambda queue: queue.set_meta(CLOCK_OFFSET, repr(clock.offset)))
        self._site.scheduler.wake()

    async def _settle(self) -> None:
        with trio.move_on_after(STEP_LIMIT):
            await self._site.scheduler.idle()


def _next_moment(queue: Queue, now: float) -> float | None:
    moments = (queue.next_due(now), queue.next_warning(now))
    return min((moment for moment in moments if moment is not None), default=None)
