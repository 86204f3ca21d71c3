"""No wait is longer than its step, whatever clock it was written by."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.store.support import NOW, deferred, envelope, message
from trimta.mail.envelope import ByMode, DeliverBy
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import EnvelopeState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trimta.store.queue.values import QueuedEnvelope, StoredMessage

YEAR: Final = 365 * 86400.0
HOUR: Final = 3600.0
STEPS: Final = (60.0, 300.0)
SPARE: Final = 30.0


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Queue(tmp_path) as queue:
        yield queue


def bound(queue: Queue, now: float = NOW, **options: Any) -> int:
    def step(attempts: int) -> float:
        return STEPS[min(attempts, len(STEPS)) - 1]

    return queue.waits.bound(now, longest=lambda n: 1.2 * step(n), wait=step, spare=SPARE, **options)


def loaded(queue: Queue, envelope_id: str = "m1") -> tuple[StoredMessage, QueuedEnvelope]:
    found = queue.entries.load(envelope_id)
    assert found is not None
    return found


def tried(queue: Queue, at: float, *, attempts: int, arrived: float = NOW - 10, wait: float | None = None) -> None:
    """A message that was tried so many times, the last time at this moment."""
    queue.accept(replace(message("m1"), arrived=arrived), [envelope(next_try=arrived)])
    for number in range(1, attempts + 1):
        step = STEPS[min(number, len(STEPS)) - 1] if wait is None else wait
        queue.settle("m1", now=at, next_try=at + step, deferred={0: deferred()})


@pytest.mark.parametrize("ahead", [HOUR, YEAR, 50 * YEAR])
@pytest.mark.parametrize(("attempts", "step"), [(1, 60), (2, 300), (7, 300)])
def test_a_retry_is_no_further_than_its_step(queue: Queue, ahead: float, attempts: int, step: float) -> None:
    tried(queue, NOW + ahead, attempts=attempts)
    assert bound(queue) == 1
    _, queued = loaded(queue)
    assert (queued.due, queued.last_attempt) == (NOW + step, NOW)
    assert queue.due.destinations(NOW + step, 10) == [("far.test", NOW + step)]
    assert bound(queue) == 0


@pytest.mark.parametrize("wait", [1.0, 60.0, 72.0])
def test_a_wait_that_may_be_is_left_alone(queue: Queue, wait: float) -> None:
    tried(queue, NOW, attempts=1, wait=wait)
    assert bound(queue) == 0
    assert loaded(queue)[1].next_try == NOW + wait


@pytest.mark.parametrize("since", [0.0, 20.0, 59.0, 61.0])
def test_what_is_known_of_the_clock_keeps_what_was_waited(queue: Queue, since: float) -> None:
    """Set back by an hour, `since` seconds after the attempt: what is left of the wait is left, no more, no less."""
    tried(queue, NOW + HOUR - since, attempts=1, arrived=NOW + HOUR - since - 5)
    bound(queue, back=HOUR)
    stored, queued = loaded(queue)
    assert queued.next_try == NOW + max(0.0, 60 - since)
    assert stored.arrived == NOW - since - 5
    assert queued.last_attempt == NOW - since


@pytest.mark.parametrize("ahead", [HOUR, YEAR])
def test_what_counts_from_an_arrival_in_the_future_counts_from_now(queue: Queue, ahead: float) -> None:
    then = NOW + ahead
    by = DeliverBy(then + 50, ByMode.NOTIFY, trace=True)
    stored = replace(message("m1", deliver_by=by, hold_until=then + 40, hold_request="for;40"), arrived=then)
    queue.accept(stored, [replace(envelope(next_try=then + 40), warn_at=then + 99)])
    assert bound(queue) == 1
    found, queued = loaded(queue)
    assert (found.arrived, found.terms.hold_until, found.terms.deliver_by) == (
        NOW,
        NOW + 40,
        DeliverBy(NOW + 50, ByMode.NOTIFY, trace=True),
    )
    assert (queued.next_try, queued.warn_at, queued.deadline) == (NOW + 40, NOW + 99, NOW + 50)
    assert replace(found, arrived=then, terms=replace(found.terms, hold_until=then + 40, deliver_by=by)) == stored


@pytest.mark.parametrize("request_", ["until;2030-01-01T00:00:00Z", ""])
@pytest.mark.parametrize("arrived", [NOW - 5, NOW + YEAR])
def test_a_moment_of_the_calendar_stays(queue: Queue, request_: str, arrived: float) -> None:
    """HOLDUNTIL is a promise by the wall clock; so may be a hold of which an older database says no more."""
    until = NOW + 2 * YEAR
    stored = replace(message("m1", hold_until=until, hold_request=request_), arrived=arrived)
    queue.accept(stored, [envelope(next_try=until)])
    bound(queue)
    assert (loaded(queue)[0].terms.hold_until, loaded(queue)[1].next_try) == (until, until)


def test_a_first_try_is_at_once(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(next_try=NOW + YEAR)])
    assert bound(queue) == 1
    assert queue.due.destinations(NOW, 10) == [("far.test", NOW)]


def test_held_mail_is_left_alone_but_for_its_deadline(queue: Queue) -> None:
    then = NOW + YEAR
    stored = replace(message("m1", deliver_by=DeliverBy(then + 9, ByMode.RETURN)), arrived=then)
    queue.accept(stored, [envelope(next_try=then, state=EnvelopeState.HELD)])
    bound(queue)
    assert loaded(queue)[1].deadline == NOW + 9
    assert queue.due.next_notice(NOW) == NOW + 9
    assert queue.due.destinations(then, 10) == []


def test_what_is_in_flight_is_settled_by_who_has_it(queue: Queue) -> None:
    tried(queue, NOW + HOUR, attempts=1)
    assert bound(queue, exclude={"m1"}) == 0
    assert loaded(queue)[1].next_try == NOW + HOUR + 60


@pytest.mark.parametrize(("back", "until"), [(0.0, SPARE), (YEAR, 10.0)])
def test_a_destination_is_spared_for_no_longer_than_one_may_be(queue: Queue, back: float, until: float) -> None:
    tried(queue, NOW - 100, attempts=1)
    queue.destinations.defer("far.test", NOW + YEAR - 20, NOW + YEAR + 10)
    bound(queue, back=back)
    assert loaded(queue)[1].due == NOW + until
    queue.accept(message("m2"), [envelope(next_try=NOW + 1)])
    assert queue.due.destinations(NOW + 1, 10) == [("far.test", NOW + 1)]


def test_damaged_fields_are_no_obstacle(queue: Queue) -> None:
    queue.accept(replace(message("m1"), arrived=NOW + YEAR), [envelope(next_try=NOW + YEAR)])
    queue._connection.execute("UPDATE messages SET fields = '[1,'")
    assert bound(queue) == 1
