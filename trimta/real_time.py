"""Real time, also where a test has frozen or moved the time of Python's `time` and `datetime`.

freezegun replaces `time.time`, `time.monotonic` and similar functions in every module; time-machine changes the
functions themselves, and of `clock_gettime` the result for CLOCK_REALTIME.  This module uses what both leave alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from time import CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, clock_gettime_ns
from typing import Final

_LINUX_REALTIME_COARSE: Final = 5
_LINUX_TAI: Final = 11
_SECOND: Final = 1_000_000_000


def monotonic() -> float:
    """Seconds since an unknown moment, for waits and for durations."""
    return clock_gettime(CLOCK_MONOTONIC)


def wall() -> float:
    """Seconds since the epoch."""
    if not _HAS_TAI:
        return clock_gettime(CLOCK_REALTIME)
    atomic = clock_gettime(_LINUX_TAI)  # as in `wall_ns`, which is asked less often
    return atomic - round(atomic - clock_gettime(_LINUX_REALTIME_COARSE))


def wall_ns() -> int:
    """Nanoseconds since the epoch."""
    if not _HAS_TAI:
        return clock_gettime_ns(CLOCK_REALTIME)
    # Atomic time is ahead of UTC by a whole number of seconds, or by none where the kernel was not told the number.
    atomic = clock_gettime_ns(_LINUX_TAI)
    ahead = round((atomic - clock_gettime_ns(_LINUX_REALTIME_COARSE)) / _SECOND)
    return atomic - ahead * _SECOND


def now() -> datetime:
    """The present moment as a datetime in UTC."""
    return datetime.fromtimestamp(wall(), UTC)


def _has_tai() -> bool:
    """Whether Linux's own clocks can be read; elsewhere time-machine moves `wall`, but freezegun does not."""
    try:
        difference = clock_gettime_ns(_LINUX_TAI) - clock_gettime_ns(_LINUX_REALTIME_COARSE)
    except OSError:
        return False
    return -_SECOND < difference < 100 * _SECOND


_HAS_TAI: Final = _has_tai()
