"""The retry schedule: waits, jitter, expiry, delay warning."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.routing.retry_schedule import JITTER, RetrySchedule

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
DEFAULT = RetrySchedule(
    steps=(MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR), lifetime=5 * DAY, delay_warning=4 * HOUR
)

spans = st.floats(min_value=1, max_value=30 * DAY)
moments = st.floats(min_value=0, max_value=4e9)
randoms = st.floats(min_value=0, max_value=1, exclude_max=True)
schedules = st.builds(
    RetrySchedule,
    steps=st.lists(spans, min_size=1, max_size=8).map(tuple),
    lifetime=spans,
    delay_warning=st.none() | spans,
)


@pytest.mark.parametrize(
    ("attempts", "wait"),
    [(1, MINUTE), (2, 5 * MINUTE), (3, 15 * MINUTE), (4, HOUR), (5, 4 * HOUR), (6, 4 * HOUR), (1000, 4 * HOUR)],
)
def test_each_try_waits_its_step_and_the_last_step_repeats(attempts: int, wait: float) -> None:
    assert DEFAULT.next_try(attempts=attempts, now=1000, expiry=1e9, random=0.5) == pytest.approx(1000 + wait)


@settings(deadline=None, max_examples=100)
@given(schedule=schedules, attempts=st.integers(1, 50), now=moments, random=randoms)
def test_a_wait_is_within_a_fifth_of_its_step(
    schedule: RetrySchedule, attempts: int, now: float, random: float
) -> None:
    step = schedule.steps[min(attempts, len(schedule.steps)) - 1]
    wait = schedule.next_try(attempts=attempts, now=now, expiry=float("inf"), random=random) - now
    assert step * (1 - JITTER) - 1e-3 <= wait <= step * (1 + JITTER) + 1e-3


@settings(deadline=None, max_examples=100)
@given(schedule=schedules, attempts=st.integers(1, 50), arrived=moments, age=spans, random=randoms)
def test_no_try_is_later_than_expiry(
    schedule: RetrySchedule, attempts: int, arrived: float, age: float, random: float
) -> None:
    expiry = schedule.expiry(arrived)
    assert schedule.next_try(attempts=attempts, now=arrived + age, expiry=expiry, random=random) <= expiry


@settings(deadline=None, max_examples=100)
@given(schedule=schedules, arrived=moments, random=randoms)
def test_tries_reach_expiry_and_the_last_one_is_at_expiry(
    schedule: RetrySchedule, arrived: float, random: float
) -> None:
    expiry = schedule.expiry(arrived)
    now = arrived
    for attempts in range(1, 2000):
        if now >= expiry:
            assert now == expiry
            break
        now, before = schedule.next_try(attempts=attempts, now=now, expiry=expiry, random=random), now
        assert now > before
        if attempts == len(schedule.steps):  # the rest is the last step over and over
            now = max(now, expiry - 10 * schedule.steps[-1])
    else:
        pytest.fail("never expired")


def test_the_extremes_of_the_jitter_are_reached() -> None:
    assert DEFAULT.next_try(attempts=1, now=0, expiry=1e9, random=0.0) == pytest.approx(48)
    assert DEFAULT.next_try(attempts=1, now=0, expiry=1e9, random=0.999999) == pytest.approx(72, abs=1e-3)


def test_expiry_is_the_lifetime_or_an_earlier_deadline() -> None:
    assert DEFAULT.expiry(100.0) == 100 + 5 * DAY
    assert DEFAULT.expiry(100.0, 500.0) == 500
    assert DEFAULT.expiry(100.0, 100 + 6 * DAY) == 100 + 5 * DAY


def test_an_expired_envelope_is_due_at_once() -> None:
    assert DEFAULT.next_try(attempts=1, now=200, expiry=100, random=0.5) == 100


@pytest.mark.parametrize(
    ("delay_warning", "lifetime", "moment"),
    [(4 * HOUR, 5 * DAY, 4 * HOUR), (None, DAY, None), (DAY, DAY, None), (2 * DAY, DAY, None), (0.0, DAY, 0.0)],
)
def test_the_delay_warning_comes_before_the_failure_or_not_at_all(
    delay_warning: float | None, lifetime: float, moment: float | None
) -> None:
    schedule = RetrySchedule(steps=(MINUTE,), lifetime=lifetime, delay_warning=delay_warning)
    assert schedule.warning_at(0, expiry=schedule.expiry(0)) == moment


@pytest.mark.parametrize("steps", [(), (0.0,), (60.0, -1.0)])
def test_a_schedule_without_positive_waits_cannot_be_built(steps: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="waits"):
        RetrySchedule(steps=steps, lifetime=1, delay_warning=None)


def test_no_wait_comes_before_the_first_try() -> None:
    with pytest.raises(ValueError, match="first try"):
        DEFAULT.next_try(attempts=0, now=0, expiry=1, random=0)


@pytest.mark.parametrize(("lifetime", "delay_warning"), [(-1.0, None), (1.0, -1.0)])
def test_spans_are_not_negative(lifetime: float, delay_warning: float | None) -> None:
    with pytest.raises(ValueError, match="negative"):
        RetrySchedule(steps=(1.0,), lifetime=lifetime, delay_warning=delay_warning)
