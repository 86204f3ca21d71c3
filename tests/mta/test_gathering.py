"""What many want done in a thread is done for all of them in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pytest
import trio

from trimta.mta import disk
from trimta.mta.disk import Gathering

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.testing import MockClock

P = ParamSpec("P")
T = TypeVar("T")


class SlowDisk:
    """Every visit takes a second; notes how many there are at once."""

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await trio.sleep(1)
        finally:
            self.now -= 1
        return function(*args, **kwargs)

    def apart(self, threads: int) -> SlowDisk:
        return self


class Work:
    """Doubles numbers, and notes in what lists they came."""

    def __init__(self) -> None:
        self.lists: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.lists.append(list(numbers))
        if 13 in numbers:
            raise LookupError("13")
        return [2 * number for number in numbers]


async def test_each_gets_the_answer_to_its_own(autojump_clock: MockClock) -> None:
    work, slow = Work(), SlowDisk()
    gathering = Gathering(slow, work)
    answers: dict[int, int] = {}

    async def ask(number: int) -> None:
        answers[number] = await gathering.run(number)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(100, 150):
                nursery.start_soon(ask, number)
    assert answers == {number: 2 * number for number in range(100, 150)}
    assert slow.peak == disk.LANES
    assert trio.current_time() < 3
    assert len(work.lists) <= 2 * disk.LANES
    assert await gathering.run(1) == 2


async def test_one_that_comes_alone_waits_for_nobody(autojump_clock: MockClock) -> None:
    work = Work()
    assert await Gathering(SlowDisk(), work).run(1) == 2
    assert trio.current_time() == pytest.approx(1)


async def test_what_breaks_breaks_for_those_who_came_together(autojump_clock: MockClock) -> None:
    work = Work()
    gathering = Gathering(SlowDisk(), work)
    failed: list[int] = []

    async def ask(number: int) -> None:
        try:
            await gathering.run(number)
        except LookupError:
            failed.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    (unlucky,) = (numbers for numbers in work.lists if 13 in numbers)
    assert sorted(failed) == sorted(unlucky)
    assert await gathering.run(1) == 2


async def test_who_is_cancelled_keeps_nobody_waiting(autojump_clock: MockClock) -> None:
    work = Work()
    gathering = Gathering(SlowDisk(), work)
    answers: list[int] = []

    async def ask(number: int) -> None:
        answers.append(await gathering.run(number))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, trio.open_nursery() as impatient:
            for number in range(10):
                impatient.start_soon(ask, number)
            await trio.sleep(0.5)
            nursery.start_soon(ask, 100)
            impatient.cancel_scope.cancel()
    assert 200 in answers
    assert await gathering.run(1) == 2
