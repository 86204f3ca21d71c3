"""What becomes of a message: DNS answers × hosts × replies -> hosts tried in order, outcome, status, DSN."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from tests.support.fake_mx import DROP, MODERN, PLAIN, STALL, FakeMx, Finally, Late, Raw
from tests.support.lab import CONTENT, DAY, HOUR, MINUTE, ZONES, open_lab
from tests.support.sending import recipient
from trimta.mail.envelope import BodyKind, ByMode, DeliverBy, Notify, Ret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.fake_mx import Action
    from trimta.mail.envelope import Recipient

ONE = "192.0.2.1"
TWO = "192.0.2.2"
SIX = "2001:db8::6"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scenario and what it comes to, before anything is tried again."""

    id: str
    to: Sequence[str | Recipient] = ("a@x.test",)
    one: Any = None
    """The fake at 192.0.2.1: a script, or what `FakeNet` takes; None refuses the connection."""
    two: Any = None
    zones: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""
    extensions: Sequence[str] = MODERN
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the envelope, and its content."""

    tried: Sequence[str] = (ONE,)
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """By recipient; without them every one has `outcome`."""
    outcome: str = ""
    told: Mapping[str, str] = field(default_factory=dict)
    """What DSNs say."""
    taken: int | None = None
    """How many messages the hosts took over; None: it does not matter."""

    @property
    def addresses(self) -> list[str]:
        return [one if isinstance(one, str) else str(one.address) for one in self.to]

    @property
    def expected(self) -> Mapping[str, str]:
        return self.outcomes or dict.fromkeys(self.addresses, self.outcome)


def fails(id: str, status: str, **options: Any) -> Case:  # noqa: A002
    """Everybody fails with this status, and the sender is told so."""
    case = Case(id=id, outcome=f"bounced {status}", taken=0, **options)
    told = {"x@xn--bcher-kva.test": "x@bücher.test"}
    return Case(**{**vars(case), "told": {told.get(one, one): f"failed {status}" for one in case.addresses}})


def defers(id: str, status: str, **options: Any) -> Case:  # noqa: A002
    """Everybody is deferred with this status, and nobody is told."""
    return Case(id=id, outcome=f"deferred {status}", taken=0, **options)


def arrives(id: str, **options: Any) -> Case:  # noqa: A002
    """Everybody has it, and nobody is told."""
    return Case(id=id, outcome="delivered 2.0.0", **({"one": {}} | options))


OK: dict[str, Action] = {}

DNS = [
    arrives("an MX"),
    arrives("no MX, but an address", zones={"x.test": ONE}),
    arrives("a host with IPv6 only", zones={"mx.x.test": SIX}, one=None, two={}, tried=[SIX]),
    arrives("a host with IPv4 and IPv6", zones={"mx.x.test": f"{ONE} {SIX}"}, one=DROP, two={}, tried=[ONE, SIX]),
    arrives(
        "preferences, not the order", zones={"x.test": ["20 one.two.test", "10 other.two.test"]}, two={}, tried=[TWO]
    ),
    arrives("an IDN", to=["x@bücher.test"], zones={"xn--bcher-kva.test": ONE}),
    arrives("an address literal", to=["a@[192.0.2.1]"]),
    arrives("an IPv6 address literal", to=["a@[IPv6:2001:db8::6]"], one=None, two={}, tried=[SIX]),
    arrives(
        "an MX without an address beside one that has",
        zones={"x.test": ["10 none.test", "20 mx.x.test"], "none.test": []},
    ),
    arrives(
        "an MX in DNS trouble beside a good one",
        zones={"x.test": ["10 bad.test", "20 mx.x.test"], "bad.test": "servfail"},
    ),
    arrives("itself behind a better MX", zones={"x.test": ["10 mx.x.test", "20 here.test"], "here.test": TWO}),
    defers(
        "itself before the others, and those are down",
        "4.4.1",
        one=None,
        zones={"x.test": ["10 mx.x.test", "20 here.test", "30 other.two.test"], "here.test": "192.0.2.9"},
    ),
    fails(
        "itself the best MX", "5.4.6", zones={"x.test": ["10 here.test", "20 mx.x.test"], "here.test": TWO}, tried=[]
    ),
    fails("a null MX", "5.1.10", zones={"x.test": ["0 ."]}, tried=[]),
    fails("no such domain", "5.1.2", zones={"x.test": "nxdomain"}, tried=[]),
    fails("no records", "5.4.4", zones={"x.test": []}, tried=[]),
    fails("an MX without an address", "5.4.4", zones={"mx.x.test": []}, tried=[]),
    fails("an MX that does not exist", "5.4.4", zones={"mx.x.test": "nxdomain"}, tried=[]),
    defers("SERVFAIL", "4.4.3", zones={"x.test": "servfail"}, tried=[]),
    defers("no answer", "4.4.3", zones={"x.test": "timeout"}, tried=[]),
    defers("an MX in DNS trouble", "4.4.3", zones={"mx.x.test": "servfail"}, tried=[]),
]

STAGES = ("connect", "ehlo", "mail", "rcpt", "data", "body")

HOSTS = [
    # Trouble with a host sends the message to the next one.
    *(
        arrives(
            f"{name}: the next host", to=["a@two.test"], one=one, two={}, extensions=PLAIN, tried=[ONE, TWO], taken=1
        )
        for name, one in {
            "connection refused": None,
            "no route": OSError(113, "No route to host"),
            "no answer to the connect": STALL,
            "greeting 554": {"connect": "554 5.3.2 no mail here"},
            "greeting 421": {"connect": "421 4.3.2 busy"},
            "no greeting": {"connect": STALL},
            "an HTTP server": {"connect": Raw(b"HTTP/1.1 400 Bad Request\r\n")},
            "EHLO and HELO refused": {"ehlo": "500 what", "helo": "554 no"},
            "dropped after MAIL": {"mail": DROP},
            "dropped after RCPT": {"rcpt": DROP},
            "dropped after DATA": {"data": DROP},
            "silent after RCPT": {"rcpt": STALL},
            "421 to RCPT": {"rcpt": "421 4.7.0 too fast"},
        }.items()
    ),
    # Where there is no other, it is deferred.
    *(
        defers(f"{name}, and no other host", status, one=one, extensions=PLAIN)
        for name, status, one in [
            ("connection refused", "4.4.1", None),
            ("no answer to the connect", "4.4.1", STALL),
            ("greeting 554", "4.3.2", {"connect": "554 5.3.2 no mail here"}),
            ("greeting 450", "4.2.0", {"connect": "450 wait"}),
        ]
    ),
    *(defers(f"dropped at {stage}", "4.4.2", one={stage: DROP}, extensions=PLAIN) for stage in STAGES),
    *(defers(f"silent at {stage}", "4.4.2", one={stage: STALL}, extensions=PLAIN) for stage in STAGES),
    *(defers(f"421 at {stage}", "4.3.2", one={stage: "421 4.3.2 bye"}, extensions=PLAIN) for stage in STAGES),
    # After the final dot nobody knows: no other host is asked.
    defers(
        "dropped after the final dot: no other host",
        "4.4.2",
        to=["a@two.test"],
        one={"body": DROP},
        two={},
        extensions=PLAIN,
    ),
    defers(
        "silent after the final dot: no other host",
        "4.4.2",
        to=["a@two.test"],
        one={"body": STALL},
        two={},
        extensions=PLAIN,
    ),
    # A refusal for now may be this host's only; one for good is an answer.
    *(
        arrives(
            f"{stage} 451: the next host",
            to=["a@two.test"],
            one={stage: "451 4.3.0 later"},
            two={},
            extensions=PLAIN,
            tried=[ONE, TWO],
            taken=1,
        )
        for stage in ("mail", "rcpt", "data", "body")
    ),
    *(
        defers(
            f"{stage} 451 from all",
            "4.3.0",
            to=["a@two.test"],
            one={stage: "451 4.3.0 later"},
            two={stage: "451 4.3.0 later"},
            extensions=PLAIN,
            tried=[ONE, TWO],
        )
        for stage in ("mail", "rcpt", "data", "body")
    ),
    *(
        fails(f"{stage} 554", "5.7.1", to=["a@two.test"], one={stage: "554 5.7.1 no"}, two={}, extensions=PLAIN)
        for stage in ("mail", "rcpt", "data", "body")
    ),
    fails("a code whose class is not the reply's", "5.0.0", one={"rcpt": "550 4.2.1 no"}),
    fails("no enhanced code", "5.0.0", one={"rcpt": "550 no such user"}),
    defers(
        "too slow as a whole",
        "4.4.2",
        one={"mail": Late(200, "250 ok"), "rcpt": Late(200, "250 ok")},
        config='[timeouts]\ndelivery = "5m"',
    ),
]

RECIPIENTS = [
    Case(
        id="each has an outcome of its own",
        to=["a@x.test", "b@x.test", "c@x.test"],
        one={"rcpt:b@x.test": "451 4.2.1 later", "rcpt:c@x.test": "550 5.1.1 who?"},
        outcomes={"a@x.test": "delivered 2.0.0", "b@x.test": "deferred 4.2.1", "c@x.test": "bounced 5.1.1"},
        told={"c@x.test": "failed 5.1.1"},
        taken=1,
    ),
    Case(
        id="domains are apart",
        to=["a@x.test", "a@two.test"],
        one={"rcpt:a@two.test": "550 5.1.1 who?"},
        tried=[ONE, ONE],
        outcomes={"a@x.test": "delivered 2.0.0", "a@two.test": "bounced 5.1.1"},
        told={"a@two.test": "failed 5.1.1"},
        taken=1,
    ),
    Case(
        id="who failed is told in one DSN",
        to=["a@x.test", "b@x.test"],
        one={"rcpt:a@x.test": "550 5.1.1 who?", "rcpt:b@x.test": "550 5.7.1 no"},
        outcomes={"a@x.test": "bounced 5.1.1", "b@x.test": "bounced 5.7.1"},
        told={"a@x.test": "failed 5.1.1", "b@x.test": "failed 5.7.1"},
        taken=0,
    ),
    arrives(
        "more than fit into a transaction",
        to=[f"r{number}@x.test" for number in range(5)],
        config="[queue]\nrecipients_per_transaction = 2",
        taken=3,
    ),
    arrives(
        "more than the host takes at once",
        to=[f"r{number}@x.test" for number in range(4)],
        one={"rcpt:r3@x.test": ["452 4.5.3 too many", "250 2.1.5 ok"]},
        taken=2,
    ),
    Case(
        id="LMTP answers for each",
        to=["a@x.test", "b@x.test", "c@x.test"],
        one=FakeMx({"body:b@x.test": "452 4.2.2 full", "body:c@x.test": "554 5.2.0 no"}, lmtp=True),
        config='[routes]\n"x.test" = "lmtp:192.0.2.1:24"',
        outcomes={"a@x.test": "delivered 2.1.5", "b@x.test": "deferred 4.2.2", "c@x.test": "bounced 5.2.0"},
        told={"c@x.test": "failed 5.2.0"},
    ),
    arrives("nobody wants to hear of a failure", to=[recipient("a@x.test", notify=frozenset({Notify.NEVER}))]),
    Case(
        id="a failure that nobody wants to hear of",
        to=[recipient("a@x.test", notify=frozenset({Notify.NEVER}))],
        one={"rcpt": "550 5.1.1 no"},
        outcome="bounced 5.1.1",
    ),
]

CONTENTS = [
    fails("too large for the host", "5.3.4", one={}, extensions=("SIZE 20",)),
    fails("UTF-8 addresses to a host without SMTPUTF8", "5.6.7", to=["jürgen@x.test"], one={}, extensions=PLAIN),
    arrives("UTF-8 addresses to a host with it", to=["jürgen@x.test"]),
    arrives("8-bit content is re-encoded", extensions=(), options={"content": b"A: b\n\n\xc3\xa9\n"}),
    fails(
        "8-bit header fields can't be", "5.6.3", one={}, extensions=(), options={"content": b"Subject: \xc3\xa9\n\nx\n"}
    ),
    arrives("binary content", options={"content": b"A: b\r\n\r\n\0\r\n", "body": BodyKind.BINARY}),
]

SUCCESS = frozenset({Notify.SUCCESS})

REPORTS = [
    arrives("NOTIFY=SUCCESS goes on to who knows it", to=[recipient("a@x.test", notify=SUCCESS)]),
    arrives(
        "NOTIFY=SUCCESS is answered where the chain ends",
        to=[recipient("a@x.test", notify=SUCCESS)],
        extensions=PLAIN,
        told={"a@x.test": "relayed 2.0.0"},
    ),
    Case(
        id="NOTIFY=SUCCESS is no wish to hear of failures",
        to=[recipient("a@x.test", notify=SUCCESS)],
        one={"rcpt": "550 5.1.1 no"},
        outcome="bounced 5.1.1",
    ),
    fails("RET=HDRS", "5.1.1", one={"rcpt": "550 5.1.1 no"}, options={"ret": Ret.HEADERS}),
]

ROUTES = [
    Case(
        id="reject",
        config='[routes]\n"x.test" = "reject:550 5.7.1 we do not talk to them"',
        tried=[],
        outcome="bounced 5.7.1",
        told={"a@x.test": "failed 5.7.1"},
    ),
    defers("reject for now", "4.7.1", config='[routes]\n"x.test" = "reject:450 4.7.1 not now"', tried=[]),
    arrives("a smarthost", config='[routes]\n"*" = { transport = "smtp", host = "192.0.2.1", tls = "none" }'),
    arrives("an address has its own", config=f'[routes]\n"a@x.test" = "smtp:{ONE}"\n"x.test" = "hold"'),
    arrives("the longest suffix", to=["a@b.c.test"], config=f'[routes]\n".test" = "hold"\n".c.test" = "smtp:{ONE}"'),
    defers(
        "a smarthost that does not exist",
        "4.3.5",
        config='[routes]\n"*" = "smtp:gone.test"',
        zones={"gone.test": "nxdomain"},
        tried=[],
    ),
    defers(
        "a smarthost that wants no TLS",
        "4.7.4",
        one={},
        config=f'[routes]\n"*" = {{ transport = "smtp", host = "{ONE}", tls = "encrypt" }}',
    ),
    defers("a command that is not there", "4.3.5", config='[routes]\n"*" = "pipe:/nonexistent/command"', tried=[]),
]

CASES = [*DNS, *HOSTS, *RECIPIENTS, *CONTENTS, *REPORTS, *ROUTES]


def test_the_table_is_long_enough_and_says_nothing_twice() -> None:
    assert len(CASES) >= 60
    assert len({case.id for case in CASES}) == len(CASES)


def fake(what: Any, extensions: Sequence[str]) -> Any:
    return FakeMx(what, extensions=extensions) if isinstance(what, dict) else what


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_what_becomes_of_a_message(case: Case, tmp_path: Path, autojump_clock: MockClock) -> None:
    other = fake(case.two, case.extensions)
    hosts = {ONE: fake(case.one, case.extensions), TWO: other, SIX: other}
    hosts = {address: host for address, host in hosts.items() if host is not None}
    async with open_lab(tmp_path, hosts, zones={**ZONES, **case.zones}, config=case.config) as lab:
        message_id = await lab.submit(*case.to, **case.options)
        with trio.fail_after(HOUR):
            await lab.idle()
        assert lab.net.tried == list(case.tried)
        own = {
            str(event.fields["to"]): f"{event.name} {event.fields['status']}"
            for event in lab.events
            if event.fields.get("id") == message_id and "status" in event.fields
        }
        assert own == case.expected
        waiting = {address for address, verdict in case.expected.items() if verdict.startswith("deferred")}
        assert set(await lab.waiting()) == waiting
        dsns = lab.dsns()
        assert len(dsns) == (1 if case.told else 0)
        if dsns:
            assert dsns[0].verdicts == case.told
    mxes = {id(mx): mx for mx in hosts.values() if isinstance(mx, FakeMx)}.values()
    assert [violation for mx in mxes for violation in mx.violations] == []
    if case.taken is not None:
        assert sum(len(mx.accepted) for mx in mxes) == case.taken


# What follows a first try.


async def test_greylisting_costs_one_wait(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt": ["451 4.7.1 greylisted", "250 2.1.5 ok"]})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit()
        await lab.idle()
        assert await lab.waiting() == {"a@x.test": "4.7.1"}
        await lab.advance(1.2 * MINUTE)
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0"}
        assert len(mx.accepted) == 1
        assert lab.mailbox() == []


async def test_only_who_was_deferred_is_tried_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt:b@x.test": ["451 4.2.1 later", "250 2.1.5 ok"], "rcpt:c@x.test": "550 5.1.1 who?"})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit("a@x.test", "b@x.test", "c@x.test")
        await lab.advance(DAY)
        assert [received.rcpts for received in mx.accepted] == [["<a@x.test>"], ["<b@x.test>"]]
        assert [dsn.verdicts for dsn in lab.dsns()] == [{"c@x.test": "failed 5.1.1"}]
        assert await lab.queue() == []


async def test_a_lost_final_reply_is_the_only_cause_of_a_second_copy(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"body": [DROP, "250 2.0.0 ok"]}, extensions=PLAIN)
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit("a@x.test", "b@x.test")
        await lab.advance(DAY)
        assert [received.rcpts for received in mx.transactions] == [["<a@x.test>", "<b@x.test>"]] * 2
        assert await lab.queue() == []


async def test_what_was_taken_before_the_connection_broke_is_not_sent_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"mail": ["250 2.1.0 ok", DROP, DROP, "250 2.1.0 ok"]})
    async with open_lab(tmp_path, {ONE: mx}, config="[queue]\nrecipients_per_transaction = 1") as lab:
        await lab.submit("a@x.test", "b@x.test")
        await lab.idle()
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0", "b@x.test": "deferred 4.4.2"}
        await lab.advance(DAY)
        assert [received.rcpts for received in mx.accepted] == [["<a@x.test>"], ["<b@x.test>"]]


async def test_an_envelope_is_given_up_at_the_end_of_its_lifetime_not_before(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"rcpt": "450 4.2.1 not now"})
    async with open_lab(tmp_path, {ONE: mx}, config='[queue]\nlifetime = "1h"\nretry = ["10m", "3h"]') as lab:
        await lab.submit()
        await lab.advance(HOUR - 1)
        assert lab.outcomes == {"a@x.test": "deferred 4.2.1"}
        await lab.advance(1)
        assert lab.outcomes["a@x.test"] == "bounced 4.4.7"
        assert [dsn.verdicts for dsn in lab.dsns()] == [{"a@x.test": "failed 4.4.7"}]
        assert await lab.queue() == []


async def test_five_days_of_450(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt": "450 4.2.1 not now"})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        start = lab.now
        tries: list[float] = []
        lab.notice(("deferred", "bounced"), lambda _: tries.append(lab.now))
        await lab.submit()
        await lab.advance(6 * DAY)
        waits = [after - before for before, after in pairwise(tries)]
        documented = [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR] + [4 * HOUR] * len(waits)
        for wait, step in zip(waits[:-1], documented, strict=False):
            assert 0.8 * step <= wait <= 1.2 * step
        assert waits[-1] <= 1.2 * 4 * HOUR
        assert tries[0] == start
        assert tries[-1] == pytest.approx(start + 5 * DAY, abs=1)
        warning, failure = lab.dsns()
        assert warning.verdicts == {"a@x.test": "delayed 4.2.1"}
        assert failure.verdicts == {"a@x.test": "failed 4.4.7"}
        assert failure.told[0].diagnostic == "450 4.2.1 not now"
        assert await lab.queue() == []


async def test_the_warning_comes_on_time_between_tries_and_for_mail_that_was_never_tried(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path, config='[queue]\nretry = ["10h"]\n[routes]\n"x.test" = "hold"\n"*" = "mx"') as lab:
        start = lab.now
        told: list[float] = []
        lab.notice(("delay_warning",), lambda _: told.append(lab.now))
        await lab.submit("a@two.test", "a@x.test", "a@other.two.test")
        await lab.advance(4 * HOUR + MINUTE)
        assert told == [pytest.approx(start + 4 * HOUR, abs=1)] * 2
        assert {address for dsn in lab.dsns() for address in dsn.verdicts} == {"a@two.test", "a@other.two.test"}


@pytest.mark.parametrize(
    ("notify", "kinds"),
    [
        (None, ["delayed", "failed"]),
        (frozenset({Notify.FAILURE}), ["failed"]),
        (frozenset({Notify.DELAY}), ["delayed"]),
        (frozenset({Notify.NEVER}), []),
        (frozenset({Notify.SUCCESS}), []),
    ],
)
async def test_a_sender_is_told_what_it_asked_for(
    notify: frozenset[Notify] | None, kinds: list[str], tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path) as lab:
        await lab.submit(recipient("a@x.test", notify=notify))
        await lab.advance(6 * DAY)
        assert [dsn.told[0].action for dsn in lab.dsns()] == kinds
        assert await lab.queue() == []


FULL = "452 4.5.3 too many"
FEW_AT_A_TIME: dict[str, tuple[dict[str, Action | Sequence[Action]], Sequence[str], int]] = {
    "RCPTMAX": ({}, (*MODERN, "LIMITS RCPTMAX=1"), 100),
    "RCPTMAX and MAILMAX": ({}, (*MODERN, "LIMITS RCPTMAX=1 MAILMAX=7"), 100),
    "recipients_per_transaction": ({}, MODERN, 1),
    "the same in lock step": ({}, (), 1),
    "452 to the third": ({"rcpt": ["250 ok", "250 ok", FULL, "250 ok"]}, ("SIZE",), 3),
    "452 without a status": ({"rcpt": ["250 ok", "250 ok", "452 too many", "250 ok"]}, (), 3),
    "421 to the eighth message": ({"mail": [*["250 ok"] * 7, "421 4.7.0 enough"] * 50}, MODERN, 1),
    "closed after each message": ({"body": Finally("250 2.0.0 ok")}, MODERN, 1),
    "closed at the eighth message": ({"mail": [*["250 ok"] * 7, DROP] * 50}, MODERN, 1),
    "452 from the eighth message on": ({"rcpt": [*["250 ok"] * 7, FULL] * 50}, MODERN, 1),
    "some nobody knows": ({"rcpt": ["250 2.1.5 ok", "550 5.1.1 who"] * 50}, MODERN, 1),
}


@pytest.mark.parametrize("habit", FEW_AT_A_TIME)
async def test_a_host_that_takes_few_recipients_at_a_time_gets_all_of_them_at_once(
    habit: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    script, extensions, at_once = FEW_AT_A_TIME[habit]
    mx = FakeMx(script, extensions=extensions)
    config = f"[queue]\nrecipients_per_transaction = {at_once}"
    async with open_lab(tmp_path, {ONE: mx}, config=config) as lab:
        start = trio.current_time()
        await lab.submit(*(f"u{number}@x.test" for number in range(100)))
        await lab.idle()
        assert trio.current_time() - start < 1
        assert await lab.queue() == []
        known = [path for received in mx.transactions for path in received.rcpts]
        assert len(set(known)) == len(known) == (50 if habit == "some nobody knows" else 100)
        assert not any(event.name == "deferred" for event in lab.events)


async def test_recipients_beyond_what_a_reused_connection_bears_go_over_the_next(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx(extensions=(*MODERN, "LIMITS RCPTMAX=1 MAILMAX=2"))
    async with open_lab(tmp_path, {ONE: mx}, config="[queue]\nper_domain = 1") as lab:
        await lab.submit("a@x.test")
        await lab.submit("b@x.test", "c@x.test", "d@x.test")
        await lab.idle()
        assert await lab.queue() == []
        assert sorted(rcpt for received in mx.accepted for rcpt in received.rcpts) == [
            f"<{name}@x.test>" for name in "abcd"
        ]


@pytest.mark.parametrize(
    ("limit", "connections"), [("", 1), ("LIMITS RCPTDOMAINMAX=1", 3), ("LIMITS RCPTDOMAINMAX=2", 2)]
)
async def test_a_host_gets_as_many_domains_over_a_connection_as_it_says(
    limit: str, connections: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx(extensions=(*MODERN, *([limit] if limit else [])))
    config = '[queue]\nper_domain = 1\n[routes]\n"*" = { transport = "smtp", host = "mx.x.test", tls = "none" }'
    async with open_lab(tmp_path, {ONE: mx}, config=config) as lab:
        await lab.submit("a@x.test", "b@y.test", "c@z.test", "d@x.test")
        await lab.idle()
        assert await lab.queue() == []
        assert mx.connections == connections


# What we do without.


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("extensions", [("PIPELINING",), ("8BITMIME",)])
@pytest.mark.parametrize("trouble", [{"tls": [DROP, Raw(b"")]}, {"starttls": ["454 4.7.0 later", "220 go"]}])
async def test_a_host_that_wants_the_tls_that_failed_gets_the_message_when_it_works(
    trouble: dict[str, Any], extensions: tuple[str, ...], stage: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.x.test").configure_cert(context)
    good = "354 go" if stage == "data" else "250 ok"
    script = {**trouble, stage: ["530 5.7.0 Must issue a STARTTLS command first", good]}
    mx = FakeMx(script, extensions=(*extensions, "STARTTLS"), tls=context)
    async with open_lab(tmp_path, {ONE: mx}, config='[routes]\n"*" = "mx"') as lab:
        await lab.submit()
        await lab.idle()
        assert await lab.waiting() == {"a@x.test": "4.7.0"}
        await lab.advance(2 * MINUTE)
        assert await lab.queue() == []
        assert lab.dsns() == []
        assert mx.tls_used == [True]


@pytest.mark.parametrize(
    ("route", "reply", "waits"),
    [
        ("smtp:mx.x.test:25", "530 5.7.0 Authentication required", True),
        ("smtp:mx.x.test:25", "550 5.1.1 nobody", False),
        ("mx", "530 5.7.0 Authentication required", True),  # or TLS: 530 is for both
        ("mx", "550 5.7.1 Authentication required", False),
    ],
)
async def test_a_smarthost_that_wants_a_login_which_the_route_lacks_puts_off(
    route: str, reply: str, waits: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"mail": reply})
    async with open_lab(tmp_path, {ONE: mx}, config=f'[routes]\n"*" = "{route}"') as lab:
        await lab.submit()
        await lab.idle()
        assert bool(await lab.queue()) == waits


@pytest.mark.parametrize(("code", "waits"), [(500, False), (502, False), (550, True), (554, True)])
@pytest.mark.parametrize("need", ["utf8", "by"])
async def test_what_a_host_lacks_that_refused_ehlo_is_not_known(
    need: str, code: int, waits: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"ehlo": f"{code} no"})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        if need == "utf8":
            await lab.submit("jürgen@x.test", smtputf8=True)
        else:
            await lab.submit(deliver_by=DeliverBy(lab.now + HOUR, ByMode.RETURN))
        await lab.idle()
        assert bool(await lab.queue()) == waits
        assert bool(lab.dsns()) != waits


# DELIVERBY and FUTURERELEASE.


async def test_after_the_time_of_deliverby_r_it_is_returned_with_the_last_reply(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"rcpt": "450 4.2.1 not now"}, extensions=(*MODERN, "DELIVERBY 1"))
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        by = DeliverBy(lab.now + HOUR, ByMode.RETURN)
        await lab.submit(deliver_by=by)
        await lab.advance(DAY)
        (failure,) = lab.dsns()
        assert failure.verdicts == {"a@x.test": "failed 5.4.7"}
        assert failure.told[0].diagnostic == "450 4.2.1 not now"
        assert await lab.queue() == []


@pytest.mark.parametrize("mode", ByMode)
async def test_by_says_how_much_time_is_left_when_mail_goes_out(
    mode: ByMode, tmp_path: Path, autojump_clock: MockClock
) -> None:
    slow = {"connect": Late(3, "220 hi"), "ehlo": Late(2, "250-fake.test\n250 DELIVERBY"), "rset": Late(4, "250 ok")}
    mx = FakeMx({**slow, "rcpt": "550 5.1.1 no"}, extensions=("DELIVERBY",))
    config = '[queue]\nper_domain = 1\n[routes]\n"*" = "mx"'
    async with open_lab(tmp_path, {ONE: mx}, config=config) as lab:
        for _ in range(2):  # the second one over the same connection, after RSET
            await lab.submit(deliver_by=DeliverBy(lab.now + 20.5, mode))
        await lab.wait_for("bounced", count=2)
        assert [line.partition(" BY=")[2] for line in mx.commands if "MAIL" in line] == [f"15;{mode}", f"11;{mode}"]


@pytest.mark.parametrize("seconds", [3.0, 3.9])
async def test_a_deadline_that_passes_while_a_host_is_slow_to_greet_is_seen(
    seconds: float, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"connect": Late(3, "220 hi")}, extensions=("DELIVERBY",))
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(deliver_by=DeliverBy(lab.now + seconds, ByMode.RETURN))
        await lab.wait_for("bounced")
        assert not any("MAIL" in line for line in mx.commands)
        await lab.idle()
        assert [dsn.verdicts for dsn in lab.dsns()] == [{"a@x.test": "failed 5.4.7"}]


async def test_the_time_of_deliverby_r_is_kept_while_its_destination_is_spared(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path) as lab:
        start = lab.now
        await lab.submit(deliver_by=DeliverBy(start + 2, ByMode.RETURN))
        await lab.submit(deliver_by=DeliverBy(start + 3, ByMode.RETURN))
        await lab.wait_for("bounced", count=2)
        assert lab.now == pytest.approx(start + 3, abs=0.5)
        await lab.idle()
        assert [dsn.verdicts for dsn in lab.dsns()] == [{"a@x.test": "failed 5.4.7"}] * 2
        assert await lab.queue() == []


async def test_a_lifetime_shorter_than_that_of_a_spared_destination_is_kept(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path, config='[queue]\nlifetime = "5s"\n[routes]\n"*" = "mx"') as lab:
        start = lab.now
        await lab.submit()
        await lab.wait_for("bounced")
        assert lab.now == pytest.approx(start + 5, abs=0.5)


async def test_at_the_time_of_deliverby_n_the_sender_is_told_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt": "450 4.2.1 not now"})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(deliver_by=DeliverBy(lab.now + HOUR, ByMode.NOTIFY))
        await lab.advance(DAY)
        assert [dsn.verdicts for dsn in lab.dsns()] == [{"a@x.test": "delayed 4.4.7"}]
        assert await lab.waiting() == {"a@x.test": "4.2.1"}


async def test_a_message_for_the_future_waits_for_everybody(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit("a@x.test", "bob@here.test", hold_until=lab.now + 6 * HOUR)
        await lab.advance(6 * HOUR - MINUTE)
        assert (mx.transactions, lab.mailbox("bob"), lab.dsns()) == ([], [], [])
        await lab.advance(MINUTE)
        assert (len(mx.accepted), len(lab.mailbox("bob"))) == (1, 1)


# Where nobody is left to tell.


async def test_what_fails_of_a_null_sender_goes_to_postmaster(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt": "550 5.1.1 no"})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit(sender=None)
        await lab.idle()
        assert [dsn.verdicts for dsn in lab.dsns("postmaster")] == [{"a@x.test": "failed 5.1.1"}]
        assert lab.dsns() == []


async def test_a_report_that_fails_is_told_to_postmaster_and_kept_where_that_fails_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"rcpt": "550 5.1.1 no"})
    async with open_lab(tmp_path, {ONE: mx}, config='[aliases]\npostmaster = "root@two.test"') as lab:
        await lab.submit(sender="who@two.test")
        await lab.idle()
        assert await lab.waiting() == {"root@two.test": "4.1.1"}
        await lab.advance(4 * DAY)
        assert await lab.waiting() == {"root@two.test": "4.1.1"}
        await lab.advance(2 * DAY)
        assert await lab.queue() == []
        assert lab.mta.events.counters["dropped"] == 1
        assert lab.mta.events.counters["report"] == 2


async def test_the_members_of_a_list_are_reported_as_expanded(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt:c@x.test": "550 5.1.1 no"})
    async with open_lab(tmp_path, {ONE: mx}, config='[aliases]\nteam = ["bob", "a@x.test", "c@x.test"]') as lab:
        await lab.submit(recipient("team@here.test", notify=frozenset({Notify.SUCCESS, Notify.FAILURE})))
        await lab.idle()
        assert sorted(dsn.told[0].action for dsn in lab.dsns()) == ["expanded", "failed"]
        assert len(lab.mailbox("bob")) == 1
        assert [received.rcpts for received in mx.accepted] == [["<a@x.test> NOTIFY=FAILURE"]]


# The operator, and a changed configuration.


async def test_a_held_message_goes_when_it_is_released(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}, config='[routes]\n"x.test" = "hold"\n"*" = { transport = "mx" }') as lab:
        message_id = await lab.submit()
        await lab.advance(10 * DAY)
        assert await lab.waiting() == {"a@x.test": "by its route"}
        await lab.steer(lambda queue: queue.operator.release(message_id, lab.now))
        await lab.idle()
        assert len(mx.accepted) == 1


async def test_release_by_another_route(tmp_path: Path, autojump_clock: MockClock) -> None:
    one, two = FakeMx(), FakeMx()
    async with open_lab(tmp_path, {ONE: one, TWO: two}, config='[routes]\n"*" = "hold"') as lab:
        message_id = await lab.submit()
        await lab.steer(lambda queue: queue.operator.release(message_id, lab.now, via=f"smtp:{TWO}:2600"))
        await lab.idle()
        assert (len(one.accepted), len(two.accepted)) == (0, 1)


async def test_egress_holds_an_envelope_and_says_where_it_would_have_gone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_lab(tmp_path, {ONE: FakeMx()}, config='[egress]\nallow = ["127.0.0.0/8"]') as lab:
        message_id = await lab.submit()
        await lab.idle()
        assert lab.net.tried == []
        (reason,) = (await lab.waiting()).values()
        assert "mx.x.test [192.0.2.1]:25" in reason
        await lab.steer(lambda queue: queue.operator.release(message_id, lab.now))
        await lab.idle()
        (reason,) = (await lab.waiting()).values()
        assert "mx.x.test" in reason


async def test_the_operator_returns_a_message_to_its_sender(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with open_lab(tmp_path, config='[routes]\n"*" = "hold"') as lab:
        message_id = await lab.submit()
        await lab.steer(lambda queue: queue.operator.bounce(message_id, lab.now))
        await lab.idle()
        assert [dsn.verdicts for dsn in lab.dsns()] == [{"a@x.test": "failed 5.7.0"}]


@pytest.mark.parametrize(
    ("verb", "waits"),
    [
        ("remove", {}),
        ("hold", {"a@x.test": "by the operator"}),
        ("bounce", {}),
        ("retry", {"a@x.test": "4.2.1"}),
    ],
)
async def test_the_operator_may_interfere_with_an_attempt(
    verb: str, waits: dict[str, str], tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"rcpt": Late(10, "450 4.2.1 later")})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        message_id = await lab.submit()
        await trio.sleep(5)
        arguments = (message_id,) if verb in ("remove", "hold") else (message_id, lab.now)
        await lab.steer(lambda queue: getattr(queue if verb == "remove" else queue.operator, verb)(*arguments))
        await lab.idle()
        assert await lab.waiting() == waits
        assert [dsn.told[0].status for dsn in lab.dsns()] == (["5.7.0"] if verb == "bounce" else [])


async def test_release_by_another_route_is_not_delayed_by_an_attempt_under_way(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    two = FakeMx()
    async with open_lab(tmp_path, {ONE: FakeMx({"rcpt": Late(10, "450 4.2.1 later")}), TWO: two}) as lab:
        message_id = await lab.submit()
        await trio.sleep(5)
        now = lab.now
        await lab.steer(
            lambda queue: (
                queue.operator.hold(message_id),
                queue.operator.release(message_id, now, via=f"smtp:{TWO}:2600"),
            )
        )
        with trio.fail_after(10):
            await lab.wait_for("delivered")
        assert len(two.accepted) == 1


async def test_what_waits_goes_where_a_new_configuration_says(tmp_path: Path, autojump_clock: MockClock) -> None:
    two = FakeMx()
    async with open_lab(tmp_path, {TWO: two}) as lab:
        await lab.submit("a@x.test")
        await lab.idle()
        lab.reload(f'[routes]\n"*" = "smtp:{TWO}:2600"')
        await lab.advance(2 * MINUTE)
        assert lab.net.tried == [ONE, TWO]
        assert len(two.accepted) == 1


async def test_recipients_that_shared_a_destination_may_have_several_now(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    two = FakeMx()
    async with open_lab(tmp_path, {TWO: two}) as lab:
        await lab.submit("a@x.test", "b@x.test", "c@x.test", "nobody@x.test")
        await lab.idle()
        lab.reload(
            f'[aliases]\n[routes]\n"c@x.test" = "smtp:{TWO}:2600"\n"x.test" = "hold"\n'
            '"a@x.test" = "maildir:mail/a"\n"b@x.test" = "maildir:mail/b"'
        )
        await lab.advance(HOUR)
        assert [len(lab.mailbox(user)) for user in ("a", "b")] == [1, 1]
        assert lab.mailbox("a")[0]["Delivered-To"] == "a@x.test"
        assert len(two.accepted) == 1
        assert await lab.waiting() == {"nobody@x.test": "by its route"}


# One connection for several messages.


async def test_several_waiting_messages_share_a_connection(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx()
    routes = f'[routes]\n"x.test" = "smtp:{ONE}:2600"\n"two.test" = "smtp:{ONE}:2600"'
    async with open_lab(tmp_path, {ONE: mx}, config=routes) as lab:
        for number in range(6):
            await lab.submit(f"a@{('x', 'two')[number % 2]}.test")
        await lab.idle()
        assert (mx.connections, len(mx.accepted)) == (1, 6)


async def test_a_backlog_is_sent_over_few_connections_of_bounded_length(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx()
    config = '[queue]\nper_domain = 1\n[routes]\n"x.test" = { transport = "mx", tls = "none" }'
    async with open_lab(tmp_path, {ONE: mx}, config=config) as lab:
        for _ in range(120):
            await lab.submit()
        await lab.idle()
        assert (mx.connections, len(mx.accepted)) == (2, 120)


async def test_each_of_them_has_its_own_outcome(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt:b@x.test": "550 5.1.1 no", "rcpt:c@x.test": "451 4.2.1 later"})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        for user in ("a", "b", "c", "d"):
            await lab.submit(f"{user}@x.test")
        await lab.idle()
        assert mx.connections == 1
        assert lab.outcomes == {
            "a@x.test": "delivered 2.0.0",
            "b@x.test": "bounced 5.1.1",
            "c@x.test": "deferred 4.2.1",
            "d@x.test": "delivered 2.0.0",
            "me@here.test": "delivered 2.0.0",
        }


async def test_content_of_a_message_is_what_came(tmp_path: Path, autojump_clock: MockClock) -> None:
    mx = FakeMx()
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit()
        await lab.idle()
        assert mx.accepted[0].body == b"Received: from client by here.test; now\r\n" + CONTENT.replace(b"\n", b"\r\n")
