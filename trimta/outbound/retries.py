"""The retry schedule applied to a queued message: its next try, its expiry, its delay warning (RFC 5321 4.5.4.1).

All moments are seconds since the epoch on the queue's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.mail.envelope import ByMode

if TYPE_CHECKING:
    import random

    from trimta.routing.retry_schedule import RetrySchedule
    from trimta.runtime.services import CurrentServices
    from trimta.store.queue.values import StoredMessage

SPARE: Final = 30.0
"""Seconds, at most, for which a next hop that could not be reached is not tried with other envelopes."""


def spare(schedule: RetrySchedule) -> float:
    """Seconds for which a next hop is not tried that could not be used: too few to disturb the schedule."""
    return min(SPARE, schedule.steps[0] / 2, schedule.lifetime / 2)


def is_late(message: StoredMessage, now: float) -> bool:
    """Whether DELIVERBY in mode R forbids to deliver a message `now`: its deadline has passed (RFC 2852 4.1)."""
    by = message.terms.deliver_by
    return by is not None and by.mode is ByMode.RETURN and now >= by.deadline


class Retries:
    """The retry schedule of this moment, applied to messages."""

    def __init__(self, services: CurrentServices, random: random.Random) -> None:
        """`random` decides the jitter of each wait."""
        self._services = services
        self._random = random

    @property
    def _schedule(self) -> RetrySchedule:
        return self._services().policy.retry

    def expiry(self, message: StoredMessage) -> float:
        """When a message is given up: at the end of its lifetime, or at DELIVERBY's deadline in mode R (RFC 2852)."""
        by = message.terms.deliver_by
        deadline = by.deadline if by is not None and by.mode is ByMode.RETURN else None
        return self._schedule.expiry(_begin(message), deadline)

    def warn_at(self, message: StoredMessage) -> float | None:
        """The moment at which the sender of a message that still waits is told that it is late; None: never.

        DELIVERBY's deadline has a notice of its own (see `outbound.notices`).
        """
        if message.terms.reverse_path is None:
            return None
        return self._schedule.warning_at(_begin(message), expiry=self.expiry(message))

    def next_try(self, *, attempts: int, now: float, expiry: float) -> float:
        """The moment of the next try after so many attempts, with jitter; never later than `expiry`."""
        return self._schedule.next_try(attempts=attempts, now=now, expiry=expiry, random=self._random.random())

    def spared_until(self, now: float) -> float:
        """The moment until which a next hop is not tried that could not be used `now`."""
        return now + spare(self._schedule)


def _begin(message: StoredMessage) -> float:
    """When the message began to wait: at its arrival, or at the end of its hold (RFC 4865)."""
    return max(message.arrived, message.terms.hold_until or 0.0)
