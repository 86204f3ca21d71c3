"""What many want done in a thread is done for all of them in one go, and everybody is answered."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pytest
import trio
import trio.testing

from trimta.runtime.batcher import LAST_LIMIT, Batcher, NotAnsweredError, NotDoneError
from trimta.runtime.disk import InlineDisk

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from trio.testing import MockClock

P = ParamSpec("P")
T = TypeVar("T")

LANES = 3
SIZE = 8


class SlowDisk(InlineDisk):
    """Every visit takes a second, or as long as it is told; notes how many there are at once."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.now = 0
        self.peak = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.now -= 1
        return function(*args, **kwargs)


class NoThread(InlineDisk):
    """A machine that is out of threads."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("can't start new thread")


class Work:
    """Doubles numbers, and notes in what lists they came."""

    def __init__(self) -> None:
        self.lists: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.lists.append(list(numbers))
        if 13 in numbers:
            raise LookupError("13")
        return [ValueError(number) if number < 0 else 2 * number for number in numbers]


@asynccontextmanager
async def serving(batcher: Batcher[int, int]) -> AsyncGenerator[None, None]:
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            await nursery.start(batcher.serve)
            yield
            nursery.cancel_scope.cancel()


async def test_each_gets_the_answer_to_its_own(autojump_clock: MockClock) -> None:
    work, slow = Work(), SlowDisk()
    batcher = Batcher(slow, work, lanes=LANES, size=SIZE)
    answers: dict[int, int] = {}

    async def ask(number: int) -> None:
        answers[number] = await batcher.run(number)

    async with serving(batcher):
        async with trio.open_nursery() as nursery:
            for number in range(100, 148):
                nursery.start_soon(ask, number)
        assert answers == {number: 2 * number for number in range(100, 148)}
        assert slow.peak == LANES
        assert trio.current_time() == pytest.approx(2)
        assert max(map(len, work.lists)) == SIZE
        assert await batcher.run(1) == 2


@pytest.mark.parametrize("lanes", [1, 2, 3])
async def test_no_lane_is_ever_lost(lanes: int, autojump_clock: MockClock) -> None:
    # Visits that begin together end in the same tick of the clock.
    slow = SlowDisk()
    batcher = Batcher(slow, Work(), lanes=lanes, size=1)
    async with serving(batcher):
        for _ in range(20):
            slow.peak = 0
            async with trio.open_nursery() as nursery:
                for number in range(2 * lanes + 1):
                    nursery.start_soon(batcher.run, number + 100)
            assert slow.peak == lanes


@pytest.mark.parametrize("_", range(10))  # Trio runs tasks in any order
async def test_who_is_answered_hands_in_the_next_item_in_time_for_the_next_batch(
    _: int, autojump_clock: MockClock
) -> None:
    work = Work()
    batcher = Batcher(SlowDisk(), work, lanes=1, size=SIZE)

    async def ask_twice() -> None:
        await batcher.run(1)
        await batcher.run(3)

    async with serving(batcher), trio.open_nursery() as nursery:
        nursery.start_soon(ask_twice)
        await trio.sleep(0.5)
        nursery.start_soon(batcher.run, 2)
    assert work.lists == [[1], [2, 3]]


async def test_what_comes_while_a_lane_works_gathers_until_the_patience_ends(autojump_clock: MockClock) -> None:
    work = Work()
    batcher = Batcher(SlowDisk(1.0), work, lanes=LANES, size=SIZE, patience=2.0)
    async with serving(batcher), trio.open_nursery() as nursery:
        nursery.start_soon(batcher.run, 1)
        for number in (2, 3, 4):
            await trio.sleep(0.25)
            nursery.start_soon(batcher.run, number)
    assert work.lists == [[1], [2, 3, 4]]
    assert trio.current_time() == pytest.approx(2)


async def test_past_the_patience_another_lane_takes_what_has_gathered(autojump_clock: MockClock) -> None:
    slow = SlowDisk(1000)
    batcher = Batcher(slow, Work(), lanes=LANES, size=SIZE, patience=2.0)
    async with serving(batcher), trio.open_nursery() as nursery:
        for lane in range(LANES - 1):  # each hangs
            nursery.start_soon(batcher.run, lane + 1)
            await trio.sleep(2.5)
            assert slow.now == lane + 1
        slow.seconds = 1
        assert await batcher.run(9) == 18
        assert trio.current_time() == pytest.approx(2.5 * (LANES - 1) + 1)
        nursery.cancel_scope.cancel()


async def test_a_full_batch_does_not_wait_for_the_patience(autojump_clock: MockClock) -> None:
    slow = SlowDisk()
    batcher = Batcher(slow, Work(), lanes=LANES, size=SIZE, patience=10.0)
    async with serving(batcher), trio.open_nursery() as nursery:
        nursery.start_soon(batcher.run, 1)
        await trio.sleep(0.5)
        for number in range(2, SIZE + 1):
            nursery.start_soon(batcher.run, number)
        await trio.testing.wait_all_tasks_blocked()
        assert slow.now == 1
        nursery.start_soon(batcher.run, SIZE + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert slow.now == 2


async def test_a_lane_that_hangs_holds_up_only_what_it_has(autojump_clock: MockClock) -> None:
    slow = SlowDisk(1000)
    batcher = Batcher(slow, Work(), lanes=2, size=1)
    async with serving(batcher), trio.open_nursery() as nursery:
        nursery.start_soon(batcher.run, 1)
        await trio.testing.wait_all_tasks_blocked()
        slow.seconds = 1
        for number in range(2, 7):
            assert await batcher.run(number) == 2 * number
        assert trio.current_time() == pytest.approx(5)
        nursery.cancel_scope.cancel()


async def test_one_that_comes_alone_waits_for_nobody(autojump_clock: MockClock) -> None:
    batcher = Batcher(SlowDisk(), Work(), lanes=LANES, size=SIZE)
    async with serving(batcher):
        assert await batcher.run(1) == 2
        assert trio.current_time() == pytest.approx(1)


@pytest.mark.parametrize(
    ("moments", "begun"),
    [
        ((0.1, 0.2, 0.3), 0.3),  # as many as before: at once
        ((0.1, 0.2), 0.5),
        ((0.6,), 0.6),
        ((0.5, 0.5), 0.5),
    ],
)
async def test_after_a_batch_of_several_as_many_gather_until_the_pause_ends(
    moments: Sequence[float], begun: float, autojump_clock: MockClock
) -> None:
    work, slow = Work(), SlowDisk()
    batcher = Batcher(slow, work, lanes=1, size=SIZE, pause=0.5)
    async with serving(batcher):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(batcher.run, number)
        ended = trio.current_time()

        async def ask(moment: float) -> None:
            await trio.sleep_until(ended + moment)
            await batcher.run(round(moment * 10))

        async with trio.open_nursery() as nursery:
            for moment in moments:
                nursery.start_soon(ask, moment)
        assert trio.current_time() == pytest.approx(ended + begun + slow.seconds)
        assert [sorted(numbers) for numbers in work.lists] == [[0, 1, 2], [round(moment * 10) for moment in moments]]


async def test_who_comes_alone_after_one_who_was_alone_waits_for_no_pause(autojump_clock: MockClock) -> None:
    batcher = Batcher(SlowDisk(), Work(), lanes=1, size=SIZE, pause=0.5)
    async with serving(batcher):
        for number in range(1, 4):
            assert await batcher.run(number) == 2 * number
        assert trio.current_time() == pytest.approx(3)


async def test_the_end_does_not_wait_for_the_pause(autojump_clock: MockClock) -> None:
    batcher = Batcher(SlowDisk(), Work(), lanes=1, size=SIZE, pause=50.0)
    async with trio.open_nursery() as nursery:
        async with serving(batcher):
            async with trio.open_nursery() as several:
                several.start_soon(batcher.run, 1)
                several.start_soon(batcher.run, 2)
            nursery.start_soon(refused, batcher)
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() < 2
    assert trio.current_time() < 2


async def refused(batcher: Batcher[int, int]) -> None:
    with pytest.raises(NotDoneError):
        await batcher.run(1)


async def test_an_exception_that_is_a_result_is_raised_where_its_item_came_from() -> None:
    batcher = Batcher(InlineDisk(), Work(), lanes=1, size=SIZE)
    async with serving(batcher), trio.open_nursery() as nursery:

        async def bad() -> None:
            with pytest.raises(ValueError, match="-1"):
                await batcher.run(-1)

        nursery.start_soon(bad)
        assert await batcher.run(1) == 2


async def test_a_batch_that_breaks_is_told_to_all_of_it_and_the_next_goes_on(autojump_clock: MockClock) -> None:
    work = Work()
    batcher = Batcher(SlowDisk(), work, lanes=LANES, size=SIZE)
    failed: list[int] = []
    causes: list[BaseException | None] = []

    async def ask(number: int) -> None:
        try:
            await batcher.run(number)
        except NotDoneError as error:
            causes.append(error.__cause__)
            failed.append(number)

    async with serving(batcher):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
        (unlucky,) = (numbers for numbers in work.lists if 13 in numbers)
        assert sorted(failed) == sorted(unlucky)
        assert {type(cause) for cause in causes} == {LookupError}
        assert await batcher.run(1) == 2


async def test_want_of_a_thread_is_told_too() -> None:
    batcher = Batcher(NoThread(), Work(), lanes=1, size=SIZE)
    async with serving(batcher):
        for _ in range(3):
            with trio.CancelScope(shield=True), pytest.raises(NotDoneError, match="can't start new thread"):
                await batcher.run(1)


async def test_too_few_results_are_nobody_s(autojump_clock: MockClock) -> None:
    batcher: Batcher[int, int] = Batcher(InlineDisk(), lambda _: [], lanes=1, size=SIZE)
    async with serving(batcher):
        with pytest.raises(NotDoneError, match="0 results for 1 items"):
            await batcher.run(1)


async def test_who_gives_up_waiting_takes_back_what_has_not_begun(autojump_clock: MockClock) -> None:
    work = Work()
    batcher = Batcher(SlowDisk(), work, lanes=1, size=SIZE)
    async with serving(batcher), trio.open_nursery() as impatient:
        impatient.start_soon(batcher.run, 1)
        await trio.testing.wait_all_tasks_blocked()
        impatient.start_soon(batcher.run, 2)
        await trio.testing.wait_all_tasks_blocked()
        impatient.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert await batcher.run(3) == 6
    assert work.lists == [[1], [3]]


async def test_the_end_waits_a_moment_for_what_has_begun_and_answers_everybody(autojump_clock: MockClock) -> None:
    slow = SlowDisk(LAST_LIMIT / 2)
    batcher = Batcher(slow, Work(), lanes=1, size=1)
    told: list[object] = []

    async def ask(number: int) -> None:
        with trio.CancelScope(shield=True):
            try:
                told.append(await batcher.run(number))
            except NotDoneError as error:
                told.append(str(error))

    async with trio.open_nursery() as callers:
        async with serving(batcher):
            for number in range(3):
                callers.start_soon(ask, number)
                await trio.testing.wait_all_tasks_blocked()
        assert not batcher.left_alone
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(map(str, told)) == ["0", "the server has ended", "the server has ended"]
        with pytest.raises(NotDoneError, match="ended"):
            await batcher.run(1)


async def test_a_disk_that_hangs_does_not_keep_the_server_from_ending(autojump_clock: MockClock) -> None:
    batcher = Batcher(SlowDisk(1000), Work(), lanes=1, size=1)

    async def ask() -> None:
        with trio.CancelScope(shield=True), pytest.raises(NotDoneError, match="the disk has not answered"):
            await batcher.run(1)

    async with trio.open_nursery() as callers, serving(batcher):
        callers.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
    assert batcher.left_alone
    assert trio.current_time() == pytest.approx(LAST_LIMIT)


async def test_a_batch_that_is_not_answered_in_time_frees_its_lane(autojump_clock: MockClock) -> None:
    slow = SlowDisk(1000)
    batcher = Batcher(slow, Work(), lanes=1, size=1, limit=10)
    async with serving(batcher):
        with pytest.raises(NotAnsweredError, match="the disk has not answered"):
            await batcher.run(1)
        assert trio.current_time() == pytest.approx(10)
        slow.seconds = 1
        assert await batcher.run(2) == 4
    assert not batcher.left_alone


@pytest.mark.parametrize(("item", "undone"), [(7, True), (-7, False)])
async def test_what_is_done_for_nobody_is_undone_before_anything_else(
    item: int, undone: bool, autojump_clock: MockClock
) -> None:
    work = Work()
    batcher = Batcher(SlowDisk(), work, lanes=1, size=SIZE)
    async with serving(batcher), trio.open_nursery() as patient:
        with trio.move_on_after(0.5):
            await batcher.run(item, undo=1000)
        patient.start_soon(partial(batcher.run, 2, undo=2000))
        patient.start_soon(partial(batcher.run, 3))
    first, then = work.lists
    assert first == [item]
    assert sorted(then) == ([2, 3, 1000] if undone else [2, 3])
    assert (then[0] == 1000) is undone


async def test_what_has_not_begun_needs_no_undoing(autojump_clock: MockClock) -> None:
    work = Work()
    batcher = Batcher(SlowDisk(), work, lanes=1, size=SIZE)
    async with serving(batcher), trio.open_nursery() as patient:
        patient.start_soon(partial(batcher.run, 1))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5):
            await batcher.run(2, undo=1000)
    assert work.lists == [[1]]


async def test_what_is_not_to_be_withdrawn_is_done_though_its_caller_has_gone(autojump_clock: MockClock) -> None:
    work = Work()
    batcher = Batcher(SlowDisk(), work, lanes=1, size=SIZE)
    async with serving(batcher), trio.open_nursery() as patient:
        patient.start_soon(partial(batcher.run, 1))
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as scope:
            await batcher.run(2, withdraw=False)
        assert scope.cancelled_caught
        await batcher.run(3)
    assert work.lists == [[1], [2, 3]]
