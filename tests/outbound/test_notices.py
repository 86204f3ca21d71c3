"""What the sender of late mail is told, and that a try comes first: after a time off, a hold, a move of the clock."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from tests.support.fake_mx import MODERN, PLAIN, STALL, FakeMx, Late
from tests.support.lab import DAY, HOUR, MINUTE, open_lab
from tests.support.sending import recipient
from trimta.mail.envelope import ByMode, DeliverBy, Notify
from trimta.outbound import scheduler

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.lab import Dsn, Lab

ONE: Final = "192.0.2.1"
TWO: Final = "192.0.2.2"
LATER: Final = {"rcpt": "450 4.2.1 later"}
HOLD: Final = '[routes]\n"*" = "hold"'
BY_MX: Final = '[routes]\n"*" = { transport = "mx", tls = "none" }'


def kinds(lab: Lab) -> list[str]:
    """What the sender was told, in order."""
    return [f"{dsn.told[0].action} {dsn.told[0].status}" for dsn in lab.dsns()]


def last_attempt(dsn: Dsn) -> float | None:
    """Seconds since the epoch."""
    told = fields(dsn)["Last-Attempt-Date"]
    return None if told is None else parsedate_to_datetime(str(told)).timestamp()


def fields(dsn: Dsn) -> Any:
    """The recipient's group of the one DSN."""
    _, group = list(dsn.message.iter_parts())[1].iter_parts()
    return group


async def off(lab: Lab, seconds: float) -> None:
    """What is queued sees time pass without anybody at work."""
    lab.mta.clock.advance_to(lab.now + seconds)


# A try comes first.


@pytest.mark.parametrize("seconds", [5 * HOUR, 3 * DAY, 6 * DAY])
@pytest.mark.parametrize("hold", [False, True])
async def test_mail_that_is_delivered_after_a_time_off_was_never_late(
    tmp_path: Path, autojump_clock: MockClock, seconds: float, *, hold: bool
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}) as lab:
        await lab.submit(hold_until=lab.now + HOUR if hold else None)
        await lab.idle()
        start = lab.now
    async with open_lab(tmp_path, {ONE: FakeMx()}, wall=lambda: start + seconds + trio.current_time()) as lab:
        await lab.idle()
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0"}
        assert lab.dsns() == []


@pytest.mark.parametrize(("seconds", "told"), [(5 * HOUR, ["delayed 4.2.1"]), (6 * DAY, ["failed 4.4.7"]), (HOUR, [])])
async def test_what_is_told_after_a_time_off_is_told_of_a_try(
    tmp_path: Path, autojump_clock: MockClock, seconds: float, told: list[str]
) -> None:
    async with open_lab(tmp_path) as lab:  # nobody there: the first try had another reason
        await lab.submit()
        await lab.idle()
        start = lab.now
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}, wall=lambda: start + seconds + trio.current_time()) as lab:
        await lab.idle()
        assert kinds(lab) == told
        for dsn in lab.dsns():
            assert fields(dsn)["Diagnostic-Code"] == "smtp; 450 4.2.1 later"
            assert last_attempt(dsn) == pytest.approx(lab.now, abs=5)
            if told == ["delayed 4.2.1"]:
                until = parsedate_to_datetime(str(fields(dsn)["Will-Retry-Until"]))
                assert until.timestamp() > lab.now


async def test_who_sleeps_while_the_server_runs_gets_the_same(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A machine that was suspended: the clock has moved, and nobody was told."""
    mx = FakeMx({"rcpt": ["450 4.2.1 later", "250 ok"]})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit()
        await lab.idle()
        await off(lab, DAY)
        await trio.sleep(scheduler.LOOK_ANYWAY + 1)
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0"}
        assert lab.dsns() == []


@pytest.mark.parametrize("seconds", [5 * HOUR, 6 * DAY])
async def test_held_mail_is_tried_when_it_is_released(
    tmp_path: Path, autojump_clock: MockClock, seconds: float
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx()}, config=HOLD) as lab:
        message_id = await lab.submit()
        lab.reload(BY_MX + "\n[dns]\nnameservers = []\n[dns.zones]\n" + '"x.test" = { address = ["192.0.2.1"] }')
        await lab.advance(seconds)
        assert lab.dsns() == []
        await lab.steer(lambda queue: queue.operator.release(message_id, lab.now))
        await lab.idle()
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0"}
        assert lab.dsns() == []


async def test_moving_the_clock_over_all_of_it_tells_of_each_thing_at_its_moment(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"rcpt": ["450 4.2.1 later"] * 3 + ["250 ok"]})
    async with open_lab(tmp_path, {ONE: mx}, config='[queue]\nretry = ["3h"]\ndelay_warning = "4h"') as lab:
        await lab.submit()
        await lab.advance(DAY)
        assert kinds(lab) == ["delayed 4.2.1"]
        assert lab.outcomes["a@x.test"] == "delivered 2.0.0"


async def test_a_try_and_a_warning_at_one_moment_are_a_try(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx()}, config='[queue]\ndelay_warning = "1h"') as lab:
        hold = lab.now + HOUR
        await lab.submit(deliver_by=DeliverBy(hold, ByMode.NOTIFY), hold_until=hold)
        await lab.advance(2 * HOUR)
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0"}
        assert lab.dsns() == []


async def test_a_try_for_which_there_is_no_place_is_not_waited_for_for_ever(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    slow = FakeMx({"body": Late(20 * MINUTE, "250 ok")})
    zones: Mapping[str, Any] = {"slow.test": TWO, "x.test": ONE}
    async with open_lab(
        tmp_path,
        {ONE: FakeMx(), TWO: slow},
        zones=zones,
        config='[queue]\nconcurrency = 1\n[timeouts]\ndata_done = "1h"',
    ) as lab:
        await lab.submit("a@slow.test")
        await trio.sleep(1)
        start = trio.current_time()
        await lab.submit("a@x.test", deliver_by=DeliverBy(lab.now + 1, ByMode.NOTIFY))
        await lab.wait_for("delay_warning")
        assert scheduler.TRY_FIRST <= trio.current_time() - start < scheduler.TRY_FIRST + 5
        await lab.idle()
        assert kinds(lab) == ["delayed 4.4.7"]
        assert last_attempt(lab.dsns()[0]) is None


# DELIVERBY (RFC 2852).


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        (None, ["delayed 4.2.1", "delayed 4.4.7"]),
        (frozenset({Notify.DELAY}), ["delayed 4.2.1", "delayed 4.4.7"]),
        (frozenset({Notify.FAILURE}), []),
        (frozenset({Notify.NEVER}), []),
    ],
)
async def test_mode_n_is_told_at_its_deadline_whatever_was_told_before(
    tmp_path: Path, autojump_clock: MockClock, notify: frozenset[Notify] | None, told: list[str]
) -> None:
    async with open_lab(
        tmp_path, {ONE: FakeMx(LATER, extensions=MODERN)}, config='[queue]\ndelay_warning = "1m"'
    ) as lab:
        start = lab.now
        moments: list[float] = []
        lab.notice(("delay_warning",), lambda _: moments.append(round(lab.now - start)))
        await lab.submit(recipient("a@x.test", notify=notify), deliver_by=DeliverBy(start + 120, ByMode.NOTIFY))
        await lab.advance(DAY)
        assert kinds(lab) == told
        assert moments == ([60, 120] if told else [])


async def test_after_mode_n_was_told_there_is_no_delay_warning(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}) as lab:
        await lab.submit(deliver_by=DeliverBy(lab.now + 120, ByMode.NOTIFY))
        await lab.advance(DAY)
        (dsn,) = lab.dsns()
        assert kinds(lab) == ["delayed 4.4.7"]
        about, group = list(dsn.message.iter_parts())[1].iter_parts()
        assert about["Deliver-By-Date"] == "Tue, 14 Nov 2023 22:15:20 +0000"
        assert group["Diagnostic-Code"] == "smtp; 450 4.2.1 later"


@pytest.mark.parametrize("seconds", [0, -5, -3600])
async def test_a_deadline_that_was_over_when_the_mail_came_is_no_delay_if_it_is_delivered(
    tmp_path: Path, autojump_clock: MockClock, seconds: float
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(extensions=(*MODERN, "DELIVERBY"))}) as lab:
        await lab.submit("a@x.test", deliver_by=DeliverBy(lab.now + seconds, ByMode.NOTIFY))
        await lab.submit("bob@here.test", deliver_by=DeliverBy(lab.now + seconds, ByMode.NOTIFY))
        await lab.idle()
        assert lab.dsns() == []


@pytest.mark.parametrize("seconds", [0, -5])
async def test_a_deadline_that_was_over_when_the_mail_came_is_told_after_a_try(
    tmp_path: Path, autojump_clock: MockClock, seconds: float
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}) as lab:
        await lab.submit("a@x.test", deliver_by=DeliverBy(lab.now + seconds, ByMode.NOTIFY))
        await lab.idle()
        assert kinds(lab) == ["delayed 4.4.7"]
        assert last_attempt(lab.dsns()[0]) is not None


WAYS_TO_BE_HELD: Final = ["route", "operator", "egress"]


async def hold(lab: Lab, way: str, mode: ByMode) -> None:
    """A message with two minutes left that is held."""
    message_id = await lab.submit(deliver_by=DeliverBy(lab.now + 120, mode))
    await lab.idle()
    if way == "operator":
        await lab.steer(lambda queue: queue.operator.hold(message_id))
    (item,) = await lab.queue()
    assert item.envelope.hold_reason


@pytest.mark.parametrize("way", WAYS_TO_BE_HELD)
@pytest.mark.parametrize(("mode", "told"), [(ByMode.RETURN, "failed 5.4.7"), (ByMode.NOTIFY, "delayed 4.4.7")])
async def test_a_deadline_holds_for_held_mail(
    tmp_path: Path, autojump_clock: MockClock, way: str, mode: ByMode, told: str
) -> None:
    config = {"route": HOLD, "operator": "", "egress": '[egress]\nallow = ["10.0.0.0/8"]'}[way]
    async with open_lab(tmp_path, {ONE: FakeMx(LATER, extensions=(*PLAIN, "DELIVERBY"))}, config=config) as lab:
        await hold(lab, way, mode)
        await lab.advance(119)
        assert lab.dsns() == []
        await lab.advance(2)
        assert kinds(lab) == [told]
        assert len(await lab.queue()) == (mode is ByMode.NOTIFY)
        assert "Will-Retry-Until" not in fields(lab.dsns()[0])
        await lab.advance(DAY)
        assert kinds(lab) == [told]


async def test_a_deadline_of_held_mail_is_heeded_after_a_time_off(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, config=HOLD) as lab:
        await hold(lab, "route", ByMode.RETURN)
        start = lab.now
    async with open_lab(tmp_path, config=HOLD, wall=lambda: start + DAY + trio.current_time()) as lab:
        await lab.wait_for("bounced")
        await lab.idle()
        assert kinds(lab) == ["failed 5.4.7"]
        assert await lab.queue() == []


async def test_mode_r_from_nobody_is_told_to_postmaster(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, config=HOLD) as lab:
        await lab.submit(sender=None, deliver_by=DeliverBy(lab.now + 120, ByMode.RETURN))
        await lab.advance(HOUR)
        assert await lab.queue() == []
        assert [told.status for dsn in lab.dsns("postmaster") for told in dsn.told] == ["5.4.7"]


async def test_mode_r_that_was_never_tried_tells_of_no_attempt(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, config=HOLD) as lab:
        await hold(lab, "route", ByMode.RETURN)
        await lab.advance(HOUR)
        group = fields(lab.dsns()[0])
        assert group["Last-Attempt-Date"] is None
        assert group["Status"] == "5.4.7"


async def test_an_attempt_under_way_at_the_deadline_is_not_disturbed(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"body": Late(5 * MINUTE, "250 ok")}, extensions=(*MODERN, "DELIVERBY"))
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(deliver_by=DeliverBy(lab.now + 60, ByMode.RETURN))
        await lab.submit(deliver_by=DeliverBy(lab.now + 60, ByMode.NOTIFY))
        await lab.idle()
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0"}
        assert lab.dsns() == []


# The moment of the last attempt.


async def test_a_warning_tells_of_the_last_attempt_not_of_itself(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}, config='[queue]\nretry = ["3h"]\ndelay_warning = "4h"') as lab:
        start = lab.now
        tries: list[float] = []
        lab.notice(("deferred",), lambda _: tries.append(lab.now))
        await lab.submit()
        await lab.advance(4.1 * HOUR)
        (dsn,) = lab.dsns()
        assert last_attempt(dsn) == pytest.approx(tries[-1], abs=2)
        assert tries[-1] < start + 3.7 * HOUR


@pytest.mark.parametrize("tried", [False, True])
async def test_what_the_operator_returns_tells_of_the_last_attempt(
    tmp_path: Path, autojump_clock: MockClock, *, tried: bool
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx(LATER)}, config="" if tried else HOLD) as lab:
        start = lab.now
        message_id = await lab.submit()
        await lab.idle()
        await off(lab, 30)
        await lab.steer(lambda queue: queue.operator.bounce(message_id, lab.now))
        await lab.idle()
        (dsn,) = lab.dsns()
        assert last_attempt(dsn) == (pytest.approx(start, abs=5) if tried else None)


async def test_a_silent_host_is_waited_for_by_nobody_else(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A notice about what waits behind a host that hangs does not stop the clock from being moved."""
    async with open_lab(tmp_path, {ONE: FakeMx({"connect": STALL})}) as lab:
        await lab.submit(deliver_by=DeliverBy(lab.now + 60, ByMode.NOTIFY))
        with trio.fail_after(10 * MINUTE):
            await lab.advance(HOUR)
