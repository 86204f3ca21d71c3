"""The queue's clock: wall time, plus what the operator moved it forward by.

Everything the queue stores is in seconds of this clock.  Nothing stores `trio.current_time()`, which means nothing
after a restart; waiting for a moment is `until(moment)` in Trio's clock, so that MockClock drives tests.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


SET_BACK: Final = 1.0
"""Seconds by which the wall clock falls behind Trio's before it counts as set back: less is how clocks are."""


class QueueClock:
    """Seconds since the epoch, as the queue sees them."""

    def __init__(self, *, offset: float = 0.0, wall: Callable[[], float] = time.time) -> None:
        self.offset = offset
        self._wall = wall
        self._together: tuple[float, float] | None = None
        """A moment on the wall clock and on Trio's at which they agreed."""

    def now(self) -> float:
        """Now, in seconds since the epoch."""
        return self._wall() + self.offset

    def advance_to(self, moment: float) -> None:
        """Move forward to `moment`; a moment that has passed changes nothing."""
        self.offset += max(0.0, moment - self.now())

    def set_back(self) -> float:
        """By how many seconds the wall clock was set back since the last call, or stood still; 0 if it was not.  One
        that is ahead of Trio's is not mentioned: the machine may have been asleep.
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
