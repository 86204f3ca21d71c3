"""The clock of a test server's Trio run, which goes on where a test has frozen Python's time."""

from __future__ import annotations

import trio

from trimta import real_time


class RealClock(trio.abc.Clock):
    """A clock for `trio.run` in seconds of real time.  Trio's own stops when freezegun replaces `time.perf_counter`."""

    def start_clock(self) -> None:
        """Nothing is to be started."""

    def current_time(self) -> float:
        return real_time.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - real_time.monotonic()
