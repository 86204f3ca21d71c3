"""What is due is tried, within the limits, fairly, and whatever one envelope breaks."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pytest
import trio

from tests.support.clock import mock_wall
from tests.support.fake_mx import DROP, PLAIN, STALL, FakeMx, Late
from tests.support.lab import CONTENT, DAY, HOUR, MINUTE, ZONES, open_lab
from tests.support.sending import recipient
from trimta.mail.envelope import Terms
from trimta.outbound import scheduler
from trimta.outbound.reports import Reports
from trimta.runtime.disk import InlineDisk, ThreadDisk
from trimta.runtime.group_commit import GroupCommit
from trimta.store.queue.due import Due
from trimta.store.queue.errors import QueueUnavailable
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import NewEnvelope, StoredMessage
from trimta.store.spool import Body, SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.lab import Lab

P = ParamSpec("P")
T = TypeVar("T")

ONE = "192.0.2.1"
TWO = "192.0.2.2"


class CountingMx(FakeMx):
    """Knows how many connections it had at once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.now = 0
        self.peak = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.now += 1
        self.peak = max(self.peak, self.now)
        try:
            await super().serve(stream)
        finally:
            self.now -= 1


async def fill(lab: Lab, next_hops: list[str]) -> None:
    """Put many envelopes into the queue in one go, one message to a@ each of these domains."""

    now = lab.now

    def store(queue: Queue) -> None:
        for number, hop in enumerate(next_hops):
            message = StoredMessage(
                id=f"m{number}", arrived=now, terms=Terms(reverse_path=None), content=Body.of(CONTENT), trace=b""
            )
            (part,) = lab.mta.policy.route([recipient(f"a@{hop}")]).envelopes
            queue.accept(message, [NewEnvelope.of(part, next_try=now)])

    await lab.steer(store)


# Limits.


@pytest.mark.parametrize("per_domain", [1, 3, 5])
async def test_a_slow_next_hop_gets_as_many_connections_as_allowed(
    per_domain: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = CountingMx({"body": Late(10, "250 2.0.0 ok")})
    async with open_lab(tmp_path, {ONE: mx}, config=f"[queue]\nper_domain = {per_domain}") as lab:
        start = trio.current_time()
        for _ in range(15):
            await lab.submit()
        await lab.idle()
        assert mx.peak == per_domain
        assert len(mx.accepted) == 15
        assert trio.current_time() - start == pytest.approx(10 * 15 / per_domain, abs=1)


async def test_a_fast_one_needs_no_more_than_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = CountingMx()
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        for _ in range(15):
            await lab.submit()
        await lab.idle()
        assert (mx.connections, len(mx.accepted)) == (1, 15)


async def test_what_follows_is_claimed_in_the_commit_of_the_outcomes_before(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        operations = 0
        run = GroupCommit.run

        async def counted(queue: GroupCommit, *arguments: Any, **options: Any) -> Any:
            nonlocal operations
            operations += 1
            return await run(queue, *arguments, **options)

        monkeypatch.setattr(GroupCommit, "run", counted)
        await fill(lab, ["x.test"] * 50)
        await lab.idle()
        assert len(mx.accepted) == 50
        assert operations < 70


async def test_the_next_hop_is_the_host_where_a_route_says_so(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = CountingMx({"body": Late(10, "250 2.0.0 ok")})
    config = f'[queue]\nper_domain = 2\n[routes]\n"*" = "smtp:{ONE}:2600"'
    async with open_lab(tmp_path, {ONE: mx}, config=config) as lab:
        for number in range(8):
            await lab.submit(f"a@{number}.test")
        await lab.idle()
        assert mx.peak == 2


async def test_no_more_deliveries_at_once_than_allowed(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = CountingMx({"body": Late(10, "250 2.0.0 ok")})
    zones = {f"d{number}.test": ONE for number in range(30)}
    async with open_lab(tmp_path, {ONE: mx}, zones=zones, config="[queue]\nconcurrency = 7") as lab:
        for name in zones:
            await lab.submit(f"a@{name}")
        await lab.idle()
        assert (mx.peak, len(mx.accepted)) == (7, 30)


async def test_nobody_gets_it_twice_whoever_looks_for_work_at_once(tmp_path: Path) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}, disk=ThreadDisk(), wall=time.time) as lab:
        with trio.fail_after(30):
            await fill(lab, ["x.test"] * 300)
            await lab.idle()
        assert len(mx.accepted) == 300
        assert Counter(event.fields["id"] for event in lab.events if event.name == "delivered") == {
            f"m{number}": 1 for number in range(300)
        }


# Fairness.


async def test_a_thousand_silent_destinations_do_not_delay_a_healthy_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    silent = {f"s{number}.test": TWO for number in range(1000)}
    good = FakeMx()
    async with open_lab(tmp_path, {TWO: FakeMx({"connect": STALL}), ONE: good}, zones={**ZONES, **silent}) as lab:
        await fill(lab, list(silent))
        await trio.sleep(0.5)
        for number in range(3):
            start = trio.current_time()
            await lab.submit(f"{number}@x.test")
            with trio.fail_after(2):
                await lab.wait_for("delivered", count=number + 1)
            assert trio.current_time() - start < 2
            await trio.sleep(MINUTE)


async def test_a_backlog_for_one_destination_does_not_delay_another(tmp_path: Path, autojump_clock: MockClock) -> None:
    slow, good = FakeMx({"body": Late(60, "250 2.0.0 ok")}), FakeMx()
    async with open_lab(tmp_path, {TWO: slow, ONE: good}, zones={**ZONES, "slow.test": TWO}) as lab:
        await fill(lab, ["slow.test"] * 2000)
        await trio.sleep(5)
        await lab.submit("a@x.test")
        with trio.fail_after(1):
            await lab.wait_for("delivered")
        assert len(good.accepted) == 1
        await lab.steer(lambda queue: [queue.remove(f"m{number}") for number in range(2000)])


async def test_a_place_is_shared_with_those_who_come_later(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx, good = FakeMx({"body": Late(1, "250 2.0.0 ok")}), FakeMx()
    config = "[queue]\nconcurrency = 1"
    async with open_lab(tmp_path, {TWO: mx, ONE: good}, zones={**ZONES, "slow.test": TWO}, config=config) as lab:
        await fill(lab, ["slow.test"] * 200)
        await trio.sleep(0.5)
        await lab.submit("a@x.test")
        with trio.fail_after(3 * scheduler.TURN):
            await lab.wait_until(lambda: bool(good.accepted))
        await lab.steer(lambda queue: [queue.remove(f"m{number}") for number in range(200) if _is_there(queue, number)])


def _is_there(queue: Queue, number: int) -> bool:
    return queue.entries.load(f"m{number}") is not None


async def test_who_gives_way_has_tried_its_other_hosts_and_is_tried_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    hosts = {ONE: FakeMx({"connect": STALL}), TWO: FakeMx(), "192.0.2.3": FakeMx()}
    zones = {**ZONES, "other.test": "192.0.2.3"}
    async with open_lab(tmp_path, hosts, zones=zones, config="[queue]\nconcurrency = 1") as lab:
        start = trio.current_time()
        await lab.submit("a@two.test")
        await trio.sleep(0.1)
        await lab.submit("a@other.test")
        await lab.idle()
        assert lab.net.tried == [ONE, TWO, "192.0.2.3"]
        assert trio.current_time() - start < 3
        assert lab.outcomes == {"a@two.test": "delivered 2.0.0", "a@other.test": "delivered 2.0.0"}


async def test_who_has_no_other_host_is_deferred_for_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    hosts = {ONE: FakeMx({"connect": STALL}), TWO: FakeMx()}
    zones = {**ZONES, "other.test": TWO}
    async with open_lab(tmp_path, hosts, zones=zones, config="[queue]\nconcurrency = 1") as lab:
        await lab.submit("a@x.test")
        await trio.sleep(0.1)
        await lab.submit("a@other.test")
        await lab.wait_for("delivered")
        assert await lab.waiting() == {"a@x.test": "4.4.1"}


# When.


async def test_the_first_try_is_at_once_even_where_others_just_failed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path) as lab:
        await lab.submit("a@x.test")
        await lab.idle()
        await trio.sleep(1)
        await lab.submit("b@x.test")
        await lab.idle()
        assert await lab.waiting() == {"a@x.test": "4.4.1", "b@x.test": "4.4.1"}


async def test_a_destination_that_failed_is_not_hammered_by_what_waited(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path) as lab:
        await fill(lab, ["x.test"] * 500)
        await lab.idle()
        assert len(lab.net.tried) <= 5
        queued = await lab.queue()
        assert {one.envelope.attempts for one in queued} == {0, 1}
        await lab.advance(MINUTE)
        assert len(lab.net.tried) <= 20
        await trio.sleep(1)
        await lab.submit("new@x.test")
        await lab.idle()
        assert (await lab.waiting())["new@x.test"] == "4.4.1"


async def test_an_envelope_is_tried_at_its_own_times_whatever_others_do(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Sparing a dead destination moves a try by no more than it says."""
    async with open_lab(tmp_path) as lab:
        tries: dict[str, list[float]] = {}
        lab.notice(("deferred",), lambda event: tries.setdefault(str(event.fields["id"]), []).append(lab.now))
        for _ in range(3):
            await lab.submit()
            await lab.advance(20)
        await lab.advance(HOUR)
        assert len(tries) == 3
        for moments in tries.values():
            for step, (before, after) in zip((60, 300, 900), pairwise(moments), strict=False):
                assert 0.8 * step <= after - before <= 1.2 * step + lab.mta.retries.spared_until(0)


class SlowDisk(InlineDisk):
    """Time passes while it works."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.sleep(0.01)
        return await super().run(function, *args, **kwargs)


async def test_what_falls_due_while_we_look_is_not_forgotten(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}, disk=SlowDisk()) as lab:
        for number in range(200):
            await lab.submit(hold_until=lab.now + 10 + number * 0.003)
        with trio.fail_after(scheduler.LOOK_ANYWAY / 2):
            await lab.wait_for("delivered", count=200)


async def test_a_clock_that_jumps_is_noticed(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path) as lab:
        await lab.submit()
        await lab.idle()
        lab.mta.clock.advance_to(lab.now + HOUR)  # nobody is told: the machine was asleep
        with trio.fail_after(scheduler.LOOK_ANYWAY + 1):
            await lab.wait_for("deferred", count=2)


async def test_moving_the_clock_waits_for_a_delivery_only_so_long(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx({"connect": STALL})}) as lab:
        await lab.submit()
        start = trio.current_time()
        await lab.advance(10)
        assert trio.current_time() - start < 5 * MINUTE


async def test_idle_costs_nothing_while_a_delivery_takes_its_time(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx({"body": Late(HOUR / 10, "250 ok")})}) as lab:
        await lab.submit()
        with trio.fail_after(HOUR):
            await lab.idle()
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0"}


# What breaks.


async def test_a_bug_with_one_envelope_stops_neither_the_server_nor_the_others(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        lab.bugs_expected = True
        outbound = lab.mta.dispatch._outbound

        def buggy(claimed: Any) -> Any:
            if claimed.message.id == "bad":
                raise LookupError("a bug")
            return outbound(claimed)

        monkeypatch.setattr(lab.mta.dispatch, "_outbound", buggy)
        await lab.submit("a@x.test", message_id="bad")
        await lab.submit("b@x.test")
        await lab.idle()
        assert await lab.waiting() == {"a@x.test": "4.3.0"}
        assert len(mx.accepted) == 1
        assert [type(bug) for bug in lab.mta.bugs.latest] == [LookupError]
        (event,) = [event for event in lab.events if event.name == "bug"]
        assert "LookupError: a bug" in str(event.fields["error"])
        assert event.fields["id"] == "bad"
        monkeypatch.undo()
        await lab.advance(2 * MINUTE)
        assert len(mx.accepted) == 2


async def test_a_report_that_cannot_be_written_loses_nothing(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = FakeMx({"rcpt:b@x.test": "550 5.1.1 no"})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        lab.bugs_expected = True

        async def buggy(*_: Any, **__: Any) -> None:
            await trio.lowlevel.checkpoint()
            raise LookupError("a bug")

        monkeypatch.setattr(Reports, "_compose", buggy)
        await lab.submit("a@x.test", "b@x.test")
        await lab.advance(6 * DAY)
        assert [received.rcpts for received in mx.accepted] == [["<a@x.test>"]]
        assert set(await lab.waiting()) == {"b@x.test"}
        tries = len(mx.commands)
        await lab.advance(HOUR)
        assert len(mx.commands) - tries < 20 * 4
        monkeypatch.undo()
        await lab.advance(DAY)
        assert [dsn.verdicts for dsn in lab.dsns()] == [{"b@x.test": "failed 5.1.1"}]


async def test_while_the_disk_is_full_nothing_is_sent_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        settle = Queue.settle
        failures = iter(range(20))

        def full(queue: Queue, *arguments: Any, **options: Any) -> bool:
            if next(failures, None) is not None:
                raise QueueUnavailable("database or disk is full")
            return settle(queue, *arguments, **options)

        await fill(lab, ["x.test"] * 3)
        monkeypatch.setattr(Queue, "settle", full)
        await lab.idle()
        assert len(mx.transactions) == 3
        assert lab.mta.events.counters["queue_trouble"] == 20
        assert await lab.queue() == []


async def test_a_claim_that_failed_does_not_undo_the_outcomes_before_it(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}, config="[queue]\nper_domain = 1") as lab:
        claim = Queue.claim_next
        answers = iter([claim, None, claim, None])

        def broken(queue: Queue, *arguments: Any, **options: Any) -> Any:
            if next(answers, claim) is None:
                raise QueueUnavailable("disk I/O error")
            return claim(queue, *arguments, **options)

        monkeypatch.setattr(Queue, "claim_next", broken)
        await fill(lab, ["x.test"] * 3)
        await lab.idle()
        assert len(mx.transactions) == 3
        assert lab.mta.events.counters["queue_trouble"] == 2
        assert await lab.queue() == []


async def test_a_queue_in_trouble_is_asked_again(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        due = Due.destinations
        failures = iter(range(3))

        def broken(queue: Due, *arguments: Any, **options: Any) -> Any:
            if next(failures, None) is not None:
                raise QueueUnavailable("disk I/O error")
            return due(queue, *arguments, **options)

        await lab.submit()
        monkeypatch.setattr(Due, "destinations", broken)
        await lab.wait_for("delivered")
        assert len(mx.accepted) == 1


async def test_a_damaged_entry_is_set_aside_and_the_others_go(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}, config="[queue]\nper_domain = 1") as lab:
        await fill(lab, ["x.test"] * 5)
        await lab.mta.queue.run(
            lambda queue: queue._connection.execute("UPDATE recipients SET fields = 'x' WHERE envelope IN (1, 3)")
        )
        await lab.idle()
        assert len(mx.accepted) == 3
        assert [event.fields["id"] for event in lab.events if event.name == "damaged"] == ["m0", "m2"]
        assert len(list((tmp_path / "var" / "damaged").glob("*.json"))) == 2


@pytest.mark.parametrize("spoil", ["missing", "short"])
async def test_a_body_that_is_not_what_it_was_is_set_aside(
    spoil: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"mail": Late(5, "250 2.1.0 ok")})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        writer = SpoolWriter(lab.mta.spool, threshold=10)
        writer.append(CONTENT + b"x" * 300_000)
        await lab.submit(content=writer.finish(), message_id="big")
        await trio.sleep(1)
        path = tmp_path / "var" / "spool" / "big"
        path.unlink() if spoil == "missing" else path.write_bytes(b"short")
        await lab.idle()
        assert mx.accepted == []
        assert [event.name for event in lab.events if event.name == "damaged"] == ["damaged"]
        assert await lab.queue() == []


# The end.


async def test_at_the_end_what_is_done_is_noted_and_what_is_not_stays(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"mail": ["250 2.1.0 ok", STALL], "rcpt:c@x.test": "550 5.1.1 no"})
    async with open_lab(tmp_path, {ONE: mx}, config="[queue]\nrecipients_per_transaction = 2") as lab:
        await lab.submit("a@x.test", "c@x.test", "b@x.test")
        await trio.sleep(1)
        assert len(mx.accepted) == 1
    with Queue(tmp_path / "var") as queue:
        left = [
            (str(recipient.recipient.address), one.envelope.due <= mock_now(lab))
            for one in queue.entries.list_envelopes()
            for recipient in one.envelope.recipients
        ]
    assert sorted(left) == [("b@x.test", True), ("me@here.test", True)]


def mock_now(lab: Lab) -> float:
    """What the clock of a lab that is over showed."""
    return mock_wall()() + lab.mta.clock.offset


async def test_at_the_end_nothing_new_begins(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"body": Late(0.5, "250 2.0.0 ok")})
    async with open_lab(tmp_path, {ONE: mx}, config="[queue]\nper_domain = 1") as lab:
        await fill(lab, ["x.test"] * 5)
        await trio.sleep(0.1)
        lab.mta.scheduler.stop()
        with trio.fail_after(1):
            await lab.wait_until(lambda: not lab.mta.scheduler.in_flight)
        assert len(mx.accepted) == 1
        assert len(await lab.queue()) == 4


async def test_a_lost_connection_is_trouble_for_one_attempt_only(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"connect": [DROP, "220 fake.test ESMTP"]}, extensions=PLAIN)
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await fill(lab, ["x.test"] * 10)
        await lab.advance(2 * MINUTE)
        assert len(mx.accepted) == 10
