"""What the control socket answers about a running MTA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.support.fake_mx import STALL, FakeMx
from tests.support.lab import DAY, HOUR, MINUTE, open_lab
from trimta.control import operations
from trimta.control.operations import FAREWELL_LIMIT, STEP_LIMIT
from trimta.control.requests import handlers
from trimta.store.queue.meta import CLOCK_OFFSET
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.lab import Lab

ONE = "192.0.2.1"
LATER = {"rcpt": "450 4.2.1 later"}


async def ask(lab: Lab, command: str, **request: Any) -> dict[str, Any]:
    """The one answer to a request."""
    (answer,) = [
        line
        async for line in handlers(lab.operations, lab.mta.configuration.data_dir)[command](
            {"command": command, **request}
        )
    ]
    return answer


async def test_status_counts_what_is_there(tmp_path: Path, autojump_clock: MockClock) -> None:
    config = '[routes]\n"held.test" = "hold"\n"*" = { transport = "mx", tls = "none" }'
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}, config=config) as lab:
        await lab.submit("a@x.test")
        await lab.submit("b@x.test", "c@held.test")
        await lab.idle()
        status = await ask(lab, "status")
        assert {
            key: status[key] for key in ("sessions", "deliveries", "queue", "queued", "held", "clock_offset_s")
        } == {
            "sessions": 0,
            "deliveries": 0,
            "queue": {"x.test": 2, "held.test": 1},
            "queued": 3,
            "held": 1,
            "clock_offset_s": 0,
        }
        assert status["counters"] == {"accepted": 2, "deferred": 2}


async def test_what_is_being_delivered_is_active(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx({"connect": STALL})}) as lab:
        message = await lab.submit("a@x.test")
        await trio.sleep(1)
        assert await ask(lab, "active") == {"active": [message]}
        assert (await ask(lab, "status"))["deliveries"] == 1


async def test_waking_makes_the_scheduler_see_what_another_process_did(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx(LATER)
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        message = await lab.submit("a@x.test")
        await lab.idle()
        with Queue(tmp_path / "var") as other:
            other.operator.retry(message, lab.now)
        assert await ask(lab, "wake") == {"ok": True}
        with trio.fail_after(1):
            await lab.wait_for("deferred", count=2)


async def test_flushing_makes_the_log_readable_at_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx()}) as lab:
        message = await lab.submit("a@x.test")
        await lab.idle()
        await ask(lab, "flush")
        lines = [line for _, line in await lab.mta.queue.run(lambda queue: queue.log.read(message))]
    assert lines[0].startswith("accepted sender=<me@here.test> to=a@x.test")
    assert "C: RCPT TO:<a@x.test>" in [line.partition(" NOTIFY")[0] for line in lines]
    assert lines[-1].startswith("delivered to=a@x.test")


# The clock.


async def test_advancing_tells_what_happened_on_the_way(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}) as lab:
        message = await lab.submit("a@x.test")
        await lab.idle()
        answer = await ask(lab, "advance", seconds=5 * DAY)
        names = [event["event"] for event in answer["events"] if message in (event["id"], event.get("about"))]
    assert names.count("delay_warning") == 1
    assert names[-1] == "bounced"
    assert answer["moments"] >= names.count("deferred")
    assert answer["offset_s"] == pytest.approx(5 * DAY, abs=MINUTE)


async def test_the_clock_stays_where_it_is_over_a_restart(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path) as lab:
        await ask(lab, "advance", seconds=HOUR)
        kept = await lab.mta.queue.run(lambda queue: queue.meta.get(CLOCK_OFFSET))
        assert float(kept or 0) == lab.mta.clock.offset == pytest.approx(HOUR, abs=1)


@pytest.mark.parametrize("seconds", [None, "4h", -1, float("nan"), float("inf"), 1e12, [1]])
async def test_only_a_sensible_number_of_seconds_moves_the_clock(
    seconds: object, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path) as lab:
        with pytest.raises(ValueError, match="advance wants a number of seconds"):
            await ask(lab, "advance", seconds=seconds)
        assert lab.mta.clock.offset == 0


async def test_a_delivery_that_hangs_is_waited_for_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    hosts = {ONE: FakeMx({"connect": STALL}), "192.0.2.2": FakeMx(LATER)}
    zones = {"x.test": ONE, "y.test": "192.0.2.2"}
    async with open_lab(tmp_path, hosts, zones=zones) as lab:
        await lab.submit("silent@x.test")
        await lab.submit("later@y.test")
        before = trio.current_time()
        answer = await ask(lab, "advance", seconds=DAY)
        assert trio.current_time() - before < 2 * STEP_LIMIT
        assert lab.mta.events.counters["deferred"] >= 8
        assert "delay_warning" in [event["event"] for event in answer["events"]]


async def test_two_who_move_the_clock_move_it_one_after_the_other(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}) as lab:
        await lab.submit("a@x.test")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.advance, HOUR)
            nursery.start_soon(lab.advance, HOUR)
        assert lab.mta.clock.offset == pytest.approx(2 * HOUR, abs=MINUTE)


# Following.


async def reader(lab: Lab) -> AsyncGenerator[dict[str, Any], None]:
    """`trimta tail` after its connection is made."""
    answers = handlers(lab.operations, lab.mta.configuration.data_dir)
    lines: AsyncGenerator[dict[str, Any], None] = answers["tail"]({"command": "tail"})
    assert "event" not in await anext(lines)
    return lines


async def test_a_reader_sees_what_happens_from_then_on(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx()}) as lab:
        await lab.submit("before@x.test")
        await lab.idle()
        lines = await reader(lab)
        message = await lab.submit("a@x.test")
        seen = [await anext(lines), await anext(lines)]
        await lines.aclose()
        assert [(event["event"], event["id"]) for event in seen] == [("accepted", message), ("delivered", message)]


async def test_at_the_end_a_reader_gets_the_last_events_and_then_the_end(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path) as lab:
        lines = await reader(lab)
        for name in ("stopping", "stopped"):
            lab.mta.events.emit(name)
        names: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.operations.farewell)
            async for event in lines:
                names.append(event["event"])  # noqa: PERF401
        assert names == ["stopping", "stopped"]


async def test_a_reader_that_stopped_reading_delays_neither_the_mail_nor_the_end(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "TAIL_BACKLOG", 3)
    async with open_lab(tmp_path, {ONE: FakeMx()}) as lab:
        lines = await reader(lab)
        for number in range(5):
            await lab.submit(f"a{number}@x.test")
        await lab.idle()
        assert lab.mta.events.counters["delivered"] == 5
        before = trio.current_time()
        await lab.operations.farewell()
        assert trio.current_time() - before == pytest.approx(FAREWELL_LIMIT)
        assert len([event async for event in lines]) == 3  # the oldest are lost, the reader is not
