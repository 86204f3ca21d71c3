"""The queue's clock, and how it is moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.clock import mock_wall
from tests.support.fake_mx import FakeMx
from tests.support.lab import DAY, HOUR, MINUTE, open_lab
from trimta.runtime.queue_clock import QueueClock
from trimta.store.queue.meta import CLOCK_OFFSET
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

ONE = "192.0.2.1"


async def test_it_is_the_wall_clock_plus_what_it_was_moved(autojump_clock: MockClock) -> None:
    clock = QueueClock(wall=mock_wall(1000.0), offset=10.0)
    assert clock.now() == 1010.0
    await trio.sleep(5)
    assert clock.now() == 1015.0
    clock.advance_to(1100.0)
    assert (clock.now(), clock.offset) == (1100.0, 95.0)
    clock.advance_to(1050.0)
    assert clock.now() == 1100.0
    assert clock.until(1107.0) == trio.current_time() + 7
    assert clock.until(1000.0) == trio.current_time()


async def test_what_falls_due_in_between_happens_in_its_order_at_its_moment(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx({"rcpt": "450 4.2.1 later"})}) as lab:
        happened: list[tuple[str, float]] = []
        lab.notice(
            ("deferred", "bounced", "delay_warning", "delivered"),
            lambda event: happened.append((event.name, lab.now)),
        )
        start = lab.now
        await lab.submit("b@x.test", hold_until=start + 2 * HOUR)
        await lab.submit("a@x.test")
        await lab.submit("bob@here.test", hold_until=start + 3 * DAY)
        before = trio.current_time()
        await lab.advance(8 * DAY)
        assert trio.current_time() - before < 1
        moments = [moment for _, moment in happened]
        assert moments == sorted(moments)
        assert [name for name, _ in happened].count("bounced") == 2
        assert [round(moment - start) for name, moment in happened if name == "delay_warning"] == [4 * HOUR, 6 * HOUR]
        assert [round(moment - start) for name, moment in happened if name == "bounced"] == [
            5 * DAY,
            5 * DAY + 2 * HOUR,
        ]
        assert lab.now == pytest.approx(start + 8 * DAY, abs=1)


async def test_a_restart_does_not_turn_it_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path) as lab:
        await lab.advance(DAY)
    with Queue(tmp_path / "var") as queue:
        assert float(queue.meta.get(CLOCK_OFFSET) or 0) == pytest.approx(DAY, abs=1)


async def test_two_may_move_it_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx({"rcpt": "450 4.2.1 later"})}) as lab:
        start = lab.now
        await lab.submit()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.advance, HOUR)
            nursery.start_soon(lab.advance, HOUR)
        assert lab.now == pytest.approx(start + 2 * HOUR, abs=1)


async def test_time_scale_makes_the_queues_times_shorter_and_no_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx({"rcpt": "450 4.2.1 later"})}, time_scale=60) as lab:
        await lab.submit("a@x.test")
        await lab.submit("b@x.test", hold_until=lab.now + 10 * MINUTE)
        await trio.sleep(5 * MINUTE)
        assert [dsn.told[0].action for dsn in lab.dsns()] == ["delayed"]
        assert (await lab.waiting())["b@x.test"] == ""
        await trio.sleep(6 * MINUTE)
        assert (await lab.waiting())["b@x.test"] == "4.2.1"
        await trio.sleep(2 * HOUR)
        assert [dsn.verdicts for dsn in lab.dsns()][-1] == {"b@x.test": "failed 4.4.7"}
        assert await lab.queue() == []
