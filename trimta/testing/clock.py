"""Trio's time in a server's own run: it passes, whatever a test does to Python's."""

from __future__ import annotations

import trio

from trimta import real_time


class RealClock(trio.abc.Clock):
    """Like Trio's own, which reads `time.perf_counter`, and stands still where freezegun has replaced that."""

    def start_clock(self) -> None:
        """It has always been running."""

    def current_time(self) -> float:
        return real_time.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - real_time.monotonic()
