"""A clock that was ahead and is right again, or that is set back: no wait is longer than its step."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
import trio

from tests.store.support import deferred, envelope, message
from tests.support.fake_mx import FakeMx, Late
from tests.support.lab import DAY, HOUR, MINUTE, open_lab
from trimta.config.load import parse
from trimta.mail.envelope import ByMode, DeliverBy
from trimta.outbound import scheduler
from trimta.runtime.queue_clock import QueueClock
from trimta.server.mta_server import MtaServer
from trimta.store.queue.errors import QueueUnavailable
from trimta.store.queue.meta import CLOCK_OFFSET
from trimta.store.queue.queue import Queue
from trimta.store.queue.waits import Waits

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.lab import Lab

ONE: Final = "192.0.2.1"
YEAR: Final = 365 * DAY
START: Final = 1_700_000_000.0
LATER: Final = {"rcpt": "450 4.2.1 later"}
NOTICED: Final = scheduler.LOOK_ANYWAY + 1
"""Within so many seconds the server knows that the clock was set back."""


class Wall:
    """A wall clock that can be set."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def __call__(self) -> float:
        return START + self.ahead + trio.current_time()


# The clock.


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([0.0, 0.0], [0.0, 0.0]),
        ([YEAR, -YEAR], [0.0, YEAR]),
        ([-HOUR], [HOUR]),
        ([-HOUR, 0.0, -10.0], [HOUR, 0.0, 10.0]),
        ([HOUR, HOUR, -10.0], [0.0, 0.0, 10.0]),
        ([-0.4, -0.4, -0.4], [0.0, 0.0, 1.2]),  # little by little
        ([0.1, -0.05, 0.1, -0.05], [0.0] * 4),
    ],
)
async def test_it_says_by_how_much_it_was_set_back(
    autojump_clock: MockClock, changes: list[float], told: list[float]
) -> None:
    wall = Wall()
    clock = QueueClock(wall=wall)
    assert clock.set_back() == 0.0
    for change, expected in zip(changes, told, strict=True):
        await trio.sleep(7)
        wall.ahead += change
        assert clock.set_back() == pytest.approx(expected)


async def test_moving_the_queues_clock_is_not_setting_it_back(autojump_clock: MockClock) -> None:
    wall = Wall()
    clock = QueueClock(wall=wall, offset=DAY)
    clock.set_back()
    clock.advance_to(clock.now() + YEAR)
    await trio.sleep(7)
    assert clock.set_back() == 0.0
    wall.ahead -= HOUR
    assert clock.set_back() == pytest.approx(HOUR)


async def test_one_that_stands_still_is_behind_after_a_while(autojump_clock: MockClock) -> None:
    """As a test that freezes the time has it."""
    clock = QueueClock(wall=lambda: START)
    clock.set_back()
    behind = 0.0
    for _ in range(100):
        await trio.sleep(0.3)
        behind += clock.set_back()
    assert behind == pytest.approx(30, abs=1.1)


# While it runs.


@pytest.mark.parametrize("ahead", [HOUR, YEAR])
@pytest.mark.parametrize("offset", [0.0, 30 * DAY])
async def test_deferred_mail_is_tried_at_its_time_when_the_clock_is_set_back(
    tmp_path: Path, autojump_clock: MockClock, ahead: float, offset: float
) -> None:
    wall = Wall(ahead)
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}, wall=wall) as lab:
        await lab.advance(offset)
        tries: list[float] = []
        lab.notice(("deferred",), lambda _: tries.append(trio.current_time()))
        await lab.submit()
        await lab.idle()
        await trio.sleep(20)
        wall.ahead = 0
        await lab.wait_for("clock_set_back")
        await lab.wait_for("deferred", count=3)
        for (before, after), step in zip(pairwise(tries), (MINUTE, 5 * MINUTE), strict=True):
            assert 0.8 * step <= after - before <= 1.2 * step + 1


async def test_a_clock_ahead_for_a_while_leaves_nothing_behind(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is queued before, meanwhile and after is tried on, and lives as long as it should from when it is right."""
    wall = Wall()
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}, wall=wall) as lab:
        await lab.submit("before@x.test")
        await lab.idle()
        wall.ahead = YEAR
        await lab.submit("meanwhile@x.test")
        await trio.sleep(NOTICED)
        wall.ahead = 0
        await lab.submit("after@x.test")
        await trio.sleep(NOTICED)
        assert set(await lab.waiting()) == {"meanwhile@x.test", "after@x.test"}  # the first one is a year old: bounced
        now = lab.now
        for item in await lab.queue():
            assert item.envelope.due <= now + 6 * MINUTE
            assert item.arrived <= now
            assert item.envelope.warn_at is not None
            assert item.envelope.warn_at <= now + 4 * HOUR
        await lab.advance(4.1 * HOUR)
        assert [dsn.verdicts for dsn in lab.dsns()][1:] == [{f"{who}@x.test": "delayed 4.2.1"} for who in _order(lab)]
        await lab.advance(5 * DAY)
        assert await lab.queue() == []


def _order(lab: Lab) -> list[str]:
    return [next(iter(dsn.verdicts)).partition("@")[0] for dsn in lab.dsns()[1:3]]


@pytest.mark.parametrize("ahead", [HOUR, YEAR])
async def test_intervals_of_the_client_are_kept(tmp_path: Path, autojump_clock: MockClock, ahead: float) -> None:
    wall = Wall(ahead)
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}, wall=wall) as lab:
        await lab.submit("a@x.test", hold_until=lab.now + 5 * MINUTE, hold_request="for;300")
        await lab.submit("b@x.test", deliver_by=DeliverBy(lab.now + 5 * MINUTE, ByMode.NOTIFY))
        await lab.idle()
        start = trio.current_time()
        wall.ahead = 0
        await lab.wait_for("delay_warning")
        assert trio.current_time() - start == pytest.approx(5 * MINUTE, abs=2)
        await lab.wait_until(lambda: lab.outcomes.get("a@x.test") == "deferred 4.2.1")
        assert trio.current_time() - start == pytest.approx(5 * MINUTE, abs=2)


async def test_a_moment_of_the_calendar_is_awaited_by_the_clock(tmp_path: Path, autojump_clock: MockClock) -> None:
    """HOLDUNTIL: not before that moment, whatever the clock said when it came."""
    wall = Wall(HOUR)
    async with open_lab(tmp_path, {ONE: FakeMx()}, wall=wall) as lab:
        until = lab.now + 5 * MINUTE
        await lab.submit(hold_until=until, hold_request="until;2023-11-14T23:18:20Z")
        wall.ahead = 0
        await lab.wait_for("delivered")
        assert lab.now == pytest.approx(until, abs=2)


async def test_an_attempt_under_way_is_followed_by_its_wait(tmp_path: Path, autojump_clock: MockClock) -> None:
    wall = Wall(YEAR)
    mx = FakeMx({"rcpt": Late(2 * NOTICED, "450 4.2.1 later")})
    async with open_lab(tmp_path, {ONE: mx}, wall=wall) as lab:
        await lab.submit()
        await trio.sleep(1)
        wall.ahead = 0
        await lab.wait_for("clock_set_back")
        await lab.wait_for("deferred")
        (item,) = await lab.queue()
        assert 0.8 * MINUTE - 1 <= item.envelope.due - lab.now <= 1.2 * MINUTE


async def test_a_dead_destination_is_not_spared_for_longer(tmp_path: Path, autojump_clock: MockClock) -> None:
    wall = Wall(YEAR)
    async with open_lab(tmp_path, wall=wall) as lab:
        await lab.submit("a@x.test")
        await lab.idle()
        wall.ahead = 0
        await lab.wait_for("clock_set_back")
        (item,) = await lab.queue()
        assert item.envelope.not_before <= lab.now + 30
        await trio.sleep(1)
        await lab.submit("b@x.test")
        await lab.idle()
        assert await lab.waiting() == {"a@x.test": "4.4.1", "b@x.test": "4.4.1"}


async def test_a_queue_that_fails_meanwhile_is_asked_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall(YEAR)
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}, wall=wall) as lab:
        await lab.submit()
        await lab.idle()
        asked: list[float] = []

        def full(waits: Waits, now: float, **options: object) -> int:
            asked.append(now)
            raise QueueUnavailable("no room")

        with monkeypatch.context() as patch:
            patch.setattr(Waits, "bound", full)
            wall.ahead = 0
            await lab.wait_for("queue_trouble", count=2)
        assert len(asked) >= 2
        with trio.fail_after(3 * MINUTE):
            await lab.wait_for("deferred", count=2)


# At the start.


@pytest.mark.parametrize("ahead", [HOUR, YEAR])
@pytest.mark.parametrize("offset", [0.0, 30 * DAY])
async def test_a_server_that_starts_with_the_right_clock_waits_no_longer(
    tmp_path: Path, ahead: float, offset: float
) -> None:
    text = f"""
        hostname = "here.test"
        data_dir = "{tmp_path}/var"
        [[listen]]
        address = "127.0.0.1:0"
        [routes]
        "*" = "smtp:{ONE}"
        [egress]
        allow = []
    """
    config = parse(text, base=tmp_path, file="conf.toml")
    wrong = time.time() + offset + ahead
    with Queue(tmp_path / "var") as queue:
        queue.meta.set(CLOCK_OFFSET, repr(offset))
        for number in (1, 2):
            stored = replace(message(f"m{number}"), arrived=wrong)
            queue.accept(stored, [envelope(next_try=wrong)])
        queue.settle("m1", now=wrong, next_try=wrong + MINUTE, deferred={0: deferred()})
        queue.destinations.defer("far.test", wrong, wrong + 30)
    async with AsyncExitStack() as cleanup:
        server = await MtaServer.start(config, cleanup)
        now = server.mta.clock.now()
        with Queue(tmp_path / "var") as queue:
            found = {item.envelope.id: item for item in queue.entries.list_envelopes()}
        assert found["m1"].envelope.due <= now + 1.2 * MINUTE
        assert found["m2"].envelope.due <= now + 30
        assert all(item.arrived <= now for item in found.values())
