"""The queue's clock: wall time, plus what the operator moved it forward by.

Everything the queue stores is in seconds of this clock.  Nothing stores `trio.current_time()`, which means nothing
after a restart; waiting for a moment is `until(moment)` in Trio's clock, so that MockClock drives tests.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class QueueClock:
    """Seconds since the epoch, as the queue sees them."""

    def __init__(self, *, offset: float = 0.0, wall: Callable[[], float] = time.time) -> None:
        self.offset = offset
        self._wall = wall

    def now(self) -> float:
        """Now, in seconds since the epoch."""
        return self._wall() + self.offset

    def advance_to(self, moment: float) -> None:
        """Move forward to `moment`; a moment that has passed changes nothing."""
        self.offset += max(0.0, moment - self.now())

    def until(self, moment: float) -> float:
        """The Trio deadline at which this clock will show `moment`, if nobody moves it."""
        return trio.current_time() + max(0.0, moment - self.now())
