"""The clock watch: notices that the machine's clock was set back, and shortens waits that have become too long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.outbound.retries import spare

if TYPE_CHECKING:
    from collections.abc import Collection

    from trimta.routing.retry_schedule import RetrySchedule
    from trimta.runtime.events import Events
    from trimta.runtime.group_commit import GroupCommit
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.services import CurrentServices
    from trimta.store.queue.queue import Queue

WORTH_TELLING: Final = 60.0
"""Seconds by which a clock that is set back is mentioned in the log even if no mail was concerned."""


def bound_waits(
    queue: Queue, schedule: RetrySchedule, now: float, *, back: float = 0.0, busy: Collection[str] = ()
) -> int:
    """Make no wait in the queue longer than its step of the schedule, counted from `now`; returns how many were longer.

    `back`: seconds by which the clock was set back just now.  `busy`: ids of the envelopes that workers have.
    """
    return queue.waits.bound(
        now,
        longest=schedule.longest_wait,
        wait=lambda attempts: schedule.wait(attempts, 0.5),
        spare=spare(schedule),
        back=back,
        exclude=busy,
    )


class ClockWatch:
    """Compares the queue's clock with Trio's, which nobody sets."""

    def __init__(self, services: CurrentServices, *, clock: QueueClock, queue: GroupCommit, events: Events) -> None:
        self._services = services
        self._clock = clock
        self._queue = queue
        self._events = events
        self._behind = 0.0
        """Seconds by which the clock was set back and the queue's waits were not yet."""

    async def look(self, busy: Collection[str]) -> None:
        """Shorten the queue's waits if the clock was set back.  `busy`: ids of the envelopes that workers have.

        Raises QueueError if the queue can't be written; then the next call tries again.
        """
        self._behind += self._clock.set_back()
        back = self._behind
        if not back:
            return
        now, schedule = self._clock.now(), self._services().policy.retry
        moved = await self._queue.run(lambda queue: bound_waits(queue, schedule, now, back=back, busy=busy))
        self._behind -= back
        if moved or back >= WORTH_TELLING:
            self._events.emit("clock_set_back", seconds=round(back), envelopes=moved)
