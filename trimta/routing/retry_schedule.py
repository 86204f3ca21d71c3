"""The schedule of retries: when a deferred envelope is tried again, warned about and given up (RFC 5321 4.5.4.1).

All moments are seconds since the epoch on the queue's clock, all spans are seconds.  Randomness comes in as an
argument, so that the same arguments always give the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

JITTER: Final = 0.2  # of the wait, to both sides: messages deferred together do not come back together


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySchedule:
    """`[queue]` of the configuration: the waits between tries, the lifetime, and when the sender is warned."""

    steps: tuple[float, ...]
    """The wait after the first failed try, after the second, and so on; the last one repeats."""

    lifetime: float
    """From arrival (or from the end of a HOLDFOR) to the failure DSN."""

    delay_warning: float | None
    """From arrival to the one delayed DSN; None: there is none."""

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) <= 0:
            raise ValueError(f"a retry schedule needs waits longer than nothing, got {self.steps}")
        if self.lifetime < 0 or (self.delay_warning is not None and self.delay_warning < 0):
            raise ValueError("lifetime and delay_warning cannot be negative")

    def expiry(self, arrived: float, deadline: float | None = None) -> float:
        """When an envelope that arrived at `arrived` is given up: at the end of its lifetime, or at `deadline` where
        that is sooner (DELIVERBY in R mode, RFC 2852).

        A deferral then or later is the last one.  To be compared after a try, not before it: the last try is due
        exactly at expiry.
        """
        end = arrived + self.lifetime
        return end if deadline is None else min(end, deadline)

    def longest_wait(self, attempts: int) -> float:
        """The longest wait that may follow so many tries (at least 1)."""
        return self._step(attempts) * (1 + JITTER)

    def wait(self, attempts: int, random: float) -> float:
        """The wait after so many tries (at least 1); `random` is in [0, 1) and picks it within JITTER of the step."""
        return self._step(attempts) * (1 - JITTER + 2 * JITTER * random)

    def _step(self, attempts: int) -> float:
        if attempts < 1:
            raise ValueError(f"the first try is at once: no wait follows {attempts} tries")
        return self.steps[min(attempts, len(self.steps)) - 1]

    def next_try(self, *, attempts: int, now: float, expiry: float, random: float) -> float:
        """When to try again after `attempts` (at least 1) tries, the latest of which ended at `now`.

        `random` is in [0, 1): it picks the moment within JITTER of the step.  Never later than `expiry`.
        """
        return min(now + self.wait(attempts, random), expiry)

    def warning_at(self, arrived: float, *, expiry: float) -> float | None:
        """When the sender is told of the delay; None when the failure would come first, or with it."""
        if self.delay_warning is None:
            return None
        moment = arrived + self.delay_warning
        return moment if moment < expiry else None
