"""The rule of [queue] for retries: when an envelope is tried again, when its sender is warned, when it is given up.

RFC 5321 4.5.4.1.  Moments are seconds since the epoch on the queue's clock, durations are seconds.  Random numbers are
arguments, so that equal arguments give equal results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

JITTER: Final = 0.2
"""The part of a wait by which it is made longer or shorter, so that messages deferred together are not retried
together.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySchedule:
    """The retry schedule of `[queue]`: the waits between tries, the lifetime, and the time of the delay warning."""

    steps: tuple[float, ...]
    """The wait after the first failed try, after the second, and so on; the last one repeats."""

    lifetime: float
    """Seconds from arrival, or from the end of a HOLDFOR, to the failure DSN."""

    delay_warning: float | None
    """Seconds from arrival to the one `delayed` DSN; None if there is none."""

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) <= 0:
            raise ValueError(f"a retry schedule needs waits longer than nothing, got {self.steps}")
        if self.lifetime < 0 or (self.delay_warning is not None and self.delay_warning < 0):
            raise ValueError("lifetime and delay_warning cannot be negative")

    def expiry(self, arrived: float, deadline: float | None = None) -> float:
        """The moment at which an envelope that arrived at `arrived` is given up.

        It is the end of the lifetime, or `deadline` if that is sooner (DELIVERBY in R mode, RFC 2852).  A deferral at
        that moment or later becomes a failure.  Compare after a try and not before it: the last try is due at expiry.
        """
        end = arrived + self.lifetime
        return end if deadline is None else min(end, deadline)

    def longest_wait(self, attempts: int) -> float:
        """The longest wait in seconds that may follow a number of tries, 1 or more."""
        return self._step(attempts) * (1 + JITTER)

    def wait(self, attempts: int, random: float) -> float:
        """The wait in seconds after a number of tries, 1 or more; `random`, in [0, 1), picks it within JITTER."""
        return self._step(attempts) * (1 - JITTER + 2 * JITTER * random)

    def _step(self, attempts: int) -> float:
        if attempts < 1:
            raise ValueError(f"the first try is at once: no wait follows {attempts} tries")
        return self.steps[min(attempts, len(self.steps)) - 1]

    def next_try(self, *, attempts: int, now: float, expiry: float, random: float) -> float:
        """The moment of the next try after `attempts` tries, 1 or more, the last of which ended at `now`.

        `random`, in [0, 1), picks the moment within JITTER.  It is never later than `expiry`.
        """
        return min(now + self.wait(attempts, random), expiry)

    def warning_at(self, arrived: float, *, expiry: float) -> float | None:
        """The moment of the delay warning; None if there is none, or if the failure would come first or with it."""
        if self.delay_warning is None:
            return None
        moment = arrived + self.delay_warning
        return moment if moment < expiry else None
