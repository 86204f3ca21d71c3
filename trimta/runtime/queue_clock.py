"""The queue's clock: the wall clock, plus the time by which the operator moved it forward (`trimta time advance`).

All moments in the queue are seconds of this clock.  `trio.current_time()` is never stored, since it means nothing after
a restart.  To wait for a moment, `until` converts it to Trio's clock, so that MockClock drives tests.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


SET_BACK: Final = 1.0
"""Seconds by which the wall clock falls behind Trio's before it counts as set back; a clock that is adjusted drifts."""


class QueueClock:
    """A clock that shows seconds since the epoch: `wall()` plus `offset` seconds."""

    def __init__(self, *, offset: float = 0.0, wall: Callable[[], float] = time.time) -> None:
        self.offset = offset
        self._wall = wall
        self._together: tuple[float, float] | None = None
        """A moment on the wall clock and the same moment on Trio's, from the last comparison of the two."""

    def now(self) -> float:
        """The present moment, in seconds since the epoch."""
        return self._wall() + self.offset

    def advance_to(self, moment: float) -> None:
        """Move the clock forward to `moment`, in seconds since the epoch; a moment that has passed changes nothing."""
        self.offset += max(0.0, moment - self.now())

    def set_back(self) -> float:
        """Seconds by which the wall clock was set back, or stood still, since the last call; else 0.

        A wall clock that has run ahead of Trio's gives 0, too: the machine may have been asleep.
        """
        wall, elapsed = self._wall(), trio.current_time()
        before_wall, before_elapsed = self._together or (wall, elapsed)
        behind = before_wall + (elapsed - before_elapsed) - wall
        if 0 < behind < SET_BACK:
            return 0.0
        self._together = (wall, elapsed)
        return max(0.0, behind)

    def until(self, moment: float) -> float:
        """The Trio deadline at which this clock will show `moment`, if nobody moves it."""
        return trio.current_time() + max(0.0, moment - self.now())
