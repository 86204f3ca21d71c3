"""One attempt for one next hop: which hosts are tried in which order, and what becomes of each recipient."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.support.fake_mx import DROP, MODERN, PLAIN, STALL, FakeMx, FakeNet, Finally, Late, Raw
from tests.support.sending import BODY, WIRE, FakeHosts, outbound, sending, verdicts
from trimta.mail.envelope import BodyKind, Notify
from trimta.mail.outcome import Delivered, Handover, LocalCause
from trimta.outbound.transports.client_conversation import ClientConversation
from trimta.outbound.transports.smtp_client import REUSE_MESSAGES, REUSE_SECONDS, SmtpClient
from trimta.routing.routes import HostRoute, MxRoute, TlsPolicy
from trimta.store.spool import Body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.fake_mx import Action
    from trimta.outbound.transports.attempt import AttemptResult, OutboundMessage

ONE = "192.0.2.1"
TWO = "192.0.2.2"
HOSTS = {"x.test": [("one.x.test", ONE), ("two.x.test", TWO)]}
NO_TLS = MxRoute(tls=TlsPolicy.NONE)


async def deliver(
    hosts: dict[str, Any],
    *messages: OutboundMessage,
    answers: dict[str, Any] | None = None,
    route: MxRoute | HostRoute = NO_TLS,
    recipients_per_transaction: int = 100,
    **options: Any,
) -> tuple[list[AttemptResult], FakeNet]:
    """Send these messages (by default one to a@x.test), one after the other."""
    results: list[AttemptResult] = []
    waiting = list(messages or (outbound(),))
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery, hosts)
        client = SmtpClient(
            route,
            "x.test",
            sending(net, **options),
            FakeHosts(answers or HOSTS),
            recipients_per_transaction=recipients_per_transaction,
        )

        async def report(_: OutboundMessage, result: AttemptResult, *, asks_for_next: bool) -> OutboundMessage | None:
            await trio.lowlevel.checkpoint()
            results.append(result)
            return waiting.pop(0) if asks_for_next and waiting else None

        while waiting:
            await client.run(waiting.pop(0), report)
        assert client.silent_since is None
        nursery.cancel_scope.cancel()
    for mx in hosts.values():
        if isinstance(mx, FakeMx):
            assert mx.violations == []
    return results, net


async def deliver_one(hosts: dict[str, Any], *args: Any, **options: Any) -> tuple[AttemptResult, FakeNet]:
    (result,), net = await deliver(hosts, *args, **options)
    return result, net


# What arrives.


@pytest.mark.parametrize("extensions", [(), ("PIPELINING",), PLAIN, MODERN, ("CHUNKING",), ("8BITMIME", "SIZE 100000")])
async def test_a_message_arrives_as_it_is_whatever_is_offered(
    extensions: Sequence[str], autojump_clock: MockClock
) -> None:
    mx = FakeMx(extensions=extensions)
    result, _ = await deliver_one({ONE: mx}, outbound("a@x.test", "b@x.test"))
    (received,) = mx.accepted
    assert received.body == WIRE
    assert received.rcpts == ["<a@x.test>", "<b@x.test>"]
    assert verdicts(result.outcomes) == {"a@x.test": "Delivered 2.0.0", "b@x.test": "Delivered 2.0.0"}
    assert all(outcome.cause.host == "one.x.test" for outcome in result.outcomes)
    assert result.unusable is None
    assert mx.commands[-1] == "QUIT"
    assert bool(received.chunks) == ("CHUNKING" in extensions)


async def test_a_host_that_knows_only_helo_gets_the_message_too(autojump_clock: MockClock) -> None:
    mx = FakeMx({"ehlo": "502 5.5.1 what?"})
    await deliver({ONE: mx})
    assert mx.commands[:3] == ["EHLO here.test", "HELO here.test", "MAIL FROM:<me@here.test>"]
    assert mx.accepted[0].body == WIRE


@pytest.mark.parametrize("extensions", [PLAIN, MODERN])
async def test_a_large_spooled_body_arrives_whole(
    extensions: Sequence[str], tmp_path: Path, autojump_clock: MockClock
) -> None:
    lines = b"".join(b".%d some more of it\n" % number for number in range(150_000))
    path = tmp_path / "body"
    path.write_bytes(b"Subject: large\n\n" + lines)
    body = Body(path.stat().st_size, lines.count(b"\n") + 2, None, path)
    mx = FakeMx(extensions=extensions)
    await deliver({ONE: mx}, outbound(content=body))
    (received,) = mx.accepted
    assert received.body.endswith(lines.replace(b"\n", b"\r\n"))
    assert len(received.chunks) == (4 if "CHUNKING" in extensions else 0)


@pytest.mark.parametrize(
    ("content", "options", "extensions", "mail", "body"),
    [
        (b"\n\xc3\xa9\n", {}, ("8BITMIME",), "BODY=8BITMIME", b"\r\n\xc3\xa9\r\n"),
        (b"A: b\n\n\xc3\xa9\n", {}, (), "", b"=C3=A9"),
        (b"A: b\n\nno end", {}, ("CHUNKING",), "", b"A: b\r\n\r\nno end"),
        (b"A: b\n\nno end", {}, (), "", b"A: b\r\n\r\nno end\r\n"),
        (b"A: b\r\n\r\n\0\r\r\n\n", {"body": BodyKind.BINARY}, MODERN, "BODY=BINARYMIME", b"\r\n\r\n\0\r\r\n\n"),
        (b"A: b\n\n\0\n", {}, MODERN, "BODY=BINARYMIME", b"\r\n\r\n\0\r\n"),
        (b"A: b\n\n" + b"x" * 2000 + b"\n", {}, MODERN, "BODY=BINARYMIME", b"x" * 2000 + b"\r\n"),
    ],
)
async def test_content_is_sent_as_the_host_can_take_it(
    content: bytes,
    options: dict[str, Any],
    extensions: Sequence[str],
    mail: str,
    body: bytes,
    autojump_clock: MockClock,
) -> None:
    mx = FakeMx(extensions=extensions)
    await deliver({ONE: mx}, outbound(content=content, **options))
    (received,) = mx.accepted
    assert mail in received.mail
    assert body in received.body


async def test_content_that_cannot_be_made_to_fit_fails(autojump_clock: MockClock) -> None:
    mx = FakeMx(extensions=())
    result, net = await deliver_one({ONE: mx}, outbound(content=b"Subject: \xc3\xa9\n\n\n"))
    assert verdicts(result.outcomes) == {"a@x.test": "Failed 5.6.3"}
    assert net.tried == [ONE]


# Hosts in order.


@pytest.mark.parametrize(
    ("first", "tried"),
    [
        (None, [ONE, TWO]),
        (OSError(113, "No route to host"), [ONE, TWO]),
        (STALL, [ONE, TWO]),
        (({"connect": DROP}, MODERN), [ONE, TWO]),
        (({"connect": STALL}, MODERN), [ONE, TWO]),
        (({"connect": "554 5.3.2 no mail here"}, MODERN), [ONE, TWO]),
        (({"connect": "421 4.3.2 busy"}, MODERN), [ONE, TWO]),
        (({"connect": "450 wait"}, MODERN), [ONE, TWO]),
        (({"connect": Raw(b"HTTP/1.1 400 Bad Request\r\n")}, MODERN), [ONE, TWO]),
        (({"ehlo": "500 what", "helo": "554 no"}, MODERN), [ONE, TWO]),
        (({"ehlo": "450 not now"}, MODERN), [ONE, TWO]),
        (({"ehlo": "421 bye"}, MODERN), [ONE, TWO]),
        (({"ehlo": DROP}, MODERN), [ONE, TWO]),
        (({"ehlo": STALL}, MODERN), [ONE, TWO]),
        (({"ehlo": Raw(b"250-one\r\n550 two\r\n"), "helo": "550 no"}, MODERN), [ONE, TWO]),
        (({"mail": DROP}, MODERN), [ONE, TWO]),
        (({"mail": STALL}, MODERN), [ONE, TWO]),
        (({"mail": "421 4.3.2 bye"}, MODERN), [ONE, TWO]),
        (({"mail": "354 what"}, MODERN), [ONE, TWO]),
        (({"rcpt": DROP}, MODERN), [ONE, TWO]),
        (({"rcpt": "421 4.7.0 too fast"}, MODERN), [ONE, TWO]),
        (({"rcpt": STALL}, MODERN), [ONE, TWO]),
        (({"data": DROP}, PLAIN), [ONE, TWO]),
        (({"data": STALL}, PLAIN), [ONE, TWO]),
        (({"data": "421 4.3.2 bye"}, PLAIN), [ONE, TWO]),
        (({"data": "250 what"}, PLAIN), [ONE, TWO]),
        (({"body": "421 4.3.2 bye"}, PLAIN), [ONE, TWO]),
        (({"body": "421 4.3.2 bye"}, MODERN), [ONE, TWO]),
        (({"mail": Raw(b"x" * 200_000)}, MODERN), [ONE, TWO]),
        # A refusal for good is an answer, which the next host is not asked to change; one for now is not.
        (({"mail": "451 4.3.0 not now"}, MODERN), [ONE, TWO]),
        (({"mail": "550 5.7.1 no"}, MODERN), [ONE]),
        (({"rcpt": "450 4.2.1 greylisted"}, MODERN), [ONE, TWO]),
        (({"rcpt": "550 5.1.1 no"}, MODERN), [ONE]),
        (({"data": "451 4.3.0 no"}, PLAIN), [ONE, TWO]),
        (({"body": "451 4.3.0 no"}, MODERN), [ONE, TWO]),
        (({"body": "554 5.7.1 spam"}, MODERN), [ONE]),
        # Doubt: it may have been taken.
        (({"body": DROP}, MODERN), [ONE]),
        (({"body": DROP}, PLAIN), [ONE]),
        (({"body": STALL}, MODERN), [ONE]),
        (({"body": Raw(b"garbage\r\n")}, MODERN), [ONE]),
    ],
)
async def test_the_next_host_is_tried_when_this_one_is_of_no_use(
    first: Any, tried: list[str], autojump_clock: MockClock
) -> None:
    if isinstance(first, tuple):
        script, extensions = first
        first = FakeMx(script, extensions=extensions)
    second = FakeMx()
    result, net = await deliver_one({ONE: first, TWO: second})
    assert net.tried == tried
    assert len(result.outcomes) == 1
    assert isinstance(result.outcomes[0], Delivered) == (TWO in tried)
    assert len(second.accepted) == (TWO in tried)


async def test_the_next_host_gets_only_those_whom_this_one_puts_off(autojump_clock: MockClock) -> None:
    first = FakeMx({"rcpt": ["250 ok", "451 4.7.1 greylisted", "550 5.1.1 no", "451 4.2.1 later"]}, extensions=MODERN)
    second = FakeMx({"rcpt": ["250 ok", "452 4.2.2 full"]}, extensions=MODERN)
    result, net = await deliver_one({ONE: first, TWO: second}, outbound("a@x.test", "b@x.test", "c@x.test", "d@x.test"))
    assert net.tried == [ONE, TWO]
    assert second.accepted[0].rcpts == ["<b@x.test>"]
    assert verdicts(result.outcomes) == {
        "a@x.test": "Delivered 2.0.0",
        "b@x.test": "Delivered 2.0.0",
        "c@x.test": "Failed 5.1.1",
        "d@x.test": "Deferred 4.2.2",
    }
    assert result.unusable is None


STAGES: list[tuple[str, Action | None, str, float]] = [
    ("connect", DROP, "Deferred 4.4.2", 0),
    ("connect", STALL, "Deferred 4.4.2", 300),
    ("connect", "554 no mail here", "Deferred 4.3.2", 0),
    ("connect", "554 5.7.1 blocked", "Deferred 4.7.1", 0),
    ("ehlo", STALL, "Deferred 4.4.2", 300),
    ("mail", DROP, "Deferred 4.4.2", 0),
    ("mail", STALL, "Deferred 4.4.2", 300),
    ("rcpt", STALL, "Deferred 4.4.2", 300),
    ("data", STALL, "Deferred 4.4.2", 300),
    ("during", STALL, "Deferred 4.4.2", 600),
    ("during", DROP, "Deferred 4.4.2", 0),
    ("body", STALL, "Deferred 4.4.2", 600),
    ("body", DROP, "Deferred 4.4.2", 0),
    ("body", "421 4.3.2 bye", "Deferred 4.3.2", 0),
    ("body", Late(599, "250 2.0.0 at last"), "Delivered 2.0.0", 599),
    ("quit", STALL, "Delivered 2.0.0", 1),
    ("quit", DROP, "Delivered 2.0.0", 0),
    ("quit", "500 what", "Delivered 2.0.0", 0),
]


@pytest.mark.parametrize(("stage", "action", "outcome", "seconds"), STAGES)
async def test_trouble_at_every_stage_ends_in_a_known_state_and_time(
    stage: str, action: Action, outcome: str, seconds: float, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    result, _ = await deliver_one(
        {ONE: FakeMx({stage: action}, extensions=PLAIN)}, answers={"x.test": [("one.x.test", ONE)]}
    )
    assert verdicts(result.outcomes) == {"a@x.test": outcome}
    assert trio.current_time() - began == pytest.approx(seconds)


async def test_a_slow_drip_does_not_extend_the_time_of_a_reply(autojump_clock: MockClock) -> None:
    async def drip(stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"2")
                await trio.sleep(60)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def dial(_: object) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(drip, theirs)
            return ours

        net = FakeNet(nursery, {})
        net.dial = dial  # type: ignore[method-assign, assignment]
        client = SmtpClient(NO_TLS, "x.test", sending(net), FakeHosts({"x.test": [("one.x.test", ONE)]}))
        result = await client.send(outbound())
        assert trio.current_time() - began == pytest.approx(300)
        nursery.cancel_scope.cancel()
    assert verdicts(result.outcomes) == {"a@x.test": "Deferred 4.4.2"}


async def test_a_whole_attempt_has_its_time(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    slow = FakeMx({stage: Late(299, "250 ok") for stage in ("ehlo", "mail", "rcpt", "rset")}, extensions=())
    many = outbound(*(f"u{number}@x.test" for number in range(20)))
    result, _ = await deliver_one({ONE: slow}, many)
    assert trio.current_time() - began == pytest.approx(1800)
    assert set(verdicts(result.outcomes).values()) == {"Deferred 4.4.2"}
    assert len(result.outcomes) == 20


async def test_all_addresses_of_a_host_are_tried(autojump_clock: MockClock) -> None:
    mx = FakeMx()
    _, net = await deliver_one({"2001:db8::2": mx}, answers={"x.test": [("one.x.test", ONE, TWO, "2001:db8::2")]})
    assert net.tried == [ONE, TWO, "2001:db8::2"]
    assert len(mx.accepted) == 1


async def test_nobody_answering_defers_with_the_last_reason(autojump_clock: MockClock) -> None:
    result, _ = await deliver_one({ONE: OSError(113, "No route to host")})
    (outcome,) = result.outcomes
    assert str(outcome.status) == "4.4.1"
    assert outcome.cause.diagnostic == f"cannot connect to two.x.test [{TWO}]:25: connection refused"
    assert result.unusable is not None


@pytest.mark.parametrize("status", ["5.1.2", "5.1.10", "5.4.4", "4.4.3"])
async def test_a_domain_without_hosts_has_the_resolvers_verdict(status: str, autojump_clock: MockClock) -> None:
    result, _ = await deliver_one({}, answers={"x.test": status})
    kind = "Failed" if status.startswith("5") else "Deferred"
    assert verdicts(result.outcomes) == {"a@x.test": f"{kind} {status}"}


# Recipients apart.


@pytest.mark.parametrize("extensions", [PLAIN, MODERN, ()])
async def test_recipients_of_one_transaction_have_outcomes_of_their_own(
    extensions: Sequence[str], autojump_clock: MockClock
) -> None:
    mx = FakeMx({"rcpt:b@x.test": "451 4.2.1 later", "rcpt:c@x.test": "550 5.1.1 nobody"}, extensions=extensions)
    result, _ = await deliver_one({ONE: mx}, outbound("a@x.test", "b@x.test", "c@x.test"))
    assert verdicts(result.outcomes) == {
        "a@x.test": "Delivered 2.0.0",
        "b@x.test": "Deferred 4.2.1",
        "c@x.test": "Failed 5.1.1",
    }
    assert mx.accepted[0].rcpts == ["<a@x.test>"]


async def test_only_the_undecided_go_to_the_next_host(autojump_clock: MockClock) -> None:
    first = FakeMx({"rcpt:a@x.test": "550 5.1.1 nobody", "rcpt:c@x.test": Finally("421 4.3.2 bye")})
    second = FakeMx()
    result, _ = await deliver_one({ONE: first, TWO: second}, outbound("a@x.test", "b@x.test", "c@x.test"))
    assert second.accepted[0].rcpts == ["<b@x.test>", "<c@x.test>"]
    assert verdicts(result.outcomes) == {
        "a@x.test": "Failed 5.1.1",
        "b@x.test": "Delivered 2.0.0",
        "c@x.test": "Delivered 2.0.0",
    }


async def test_recipients_over_the_peers_limit_follow_at_once(autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt:c@x.test": ["452 4.5.3 too many", "250 ok"]})
    result, net = await deliver_one({ONE: mx}, outbound("a@x.test", "b@x.test", "c@x.test"))
    assert [received.rcpts for received in mx.accepted] == [["<a@x.test>", "<b@x.test>"], ["<c@x.test>"]]
    assert len(result.outcomes) == 3
    assert net.tried == [ONE]


async def test_many_recipients_take_several_transactions(autojump_clock: MockClock) -> None:
    mx = FakeMx()
    result, _ = await deliver_one({ONE: mx}, outbound("a@x.test", "b@x.test", "c@x.test"), recipients_per_transaction=2)
    assert [len(received.rcpts) for received in mx.accepted] == [2, 1]
    assert len(result.outcomes) == 3


async def test_a_host_that_takes_nobody_more_is_not_asked_forever(autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt": [*["250 ok"] * 20, "452 4.5.3 too many"]}, extensions=(*MODERN, "LIMITS RCPTMAX=1"))
    result, net = await deliver_one({ONE: mx}, outbound(*(f"u{number}@x.test" for number in range(30))))
    found = list(verdicts(result.outcomes).values())
    assert found.count("Delivered 2.0.0") == 20
    assert found.count("Deferred 4.5.3") == 10
    assert result.unusable is None
    assert len(net.tried) < 10


async def test_a_host_that_takes_few_messages_at_a_time_is_visited_again(autojump_clock: MockClock) -> None:
    mx = FakeMx(extensions=(*MODERN, "LIMITS RCPTMAX=1 MAILMAX=1"))
    result, net = await deliver_one({ONE: mx}, outbound("a@x.test", "b@x.test", "c@x.test"))
    assert set(verdicts(result.outcomes).values()) == {"Delivered 2.0.0"}
    assert net.tried == [ONE, ONE, ONE]


async def test_why_a_peer_stopped_reading_is_heard(autojump_clock: MockClock) -> None:
    mx = FakeMx({"during": "552 5.3.4 too large for us"}, extensions=PLAIN)
    result, _ = await deliver_one({ONE: mx}, outbound(content=b"\n" + b"x" * 70 + b"\n" + b"y\n" * 100_000))
    assert verdicts(result.outcomes) == {"a@x.test": "Failed 5.3.4"}


async def test_success_is_passed_on_or_reported_here(autojump_clock: MockClock) -> None:
    for extensions, handover in ((MODERN, Handover.PASSED_ON), (PLAIN, Handover.RELAYED)):
        result, _ = await deliver_one({ONE: FakeMx(extensions=extensions)})
        (outcome,) = result.outcomes
        assert isinstance(outcome, Delivered)
        assert outcome.handover is handover
        assert Notify.SUCCESS not in (outcome.recipient.notify or ())


# One connection for several messages.


async def test_messages_for_one_destination_share_a_connection(autojump_clock: MockClock) -> None:
    mx = FakeMx()
    results, net = await deliver({ONE: mx}, outbound(name="1"), outbound(name="2"), outbound(name="3"))
    assert net.tried == [ONE]
    assert len(mx.accepted) == len(results) == 3
    assert "RSET" not in mx.commands
    assert any("open connection" in line for _, line in results[1].transcript)


async def test_an_open_transaction_is_reset_before_the_next(autojump_clock: MockClock) -> None:
    mx = FakeMx({"rcpt": ["550 5.1.1 no", "250 ok"]}, extensions=())
    results, net = await deliver({ONE: mx}, outbound(), outbound())
    assert verdicts(results[1].outcomes) == {"a@x.test": "Delivered 2.0.0"}
    assert net.tried == [ONE]
    assert "RSET" in mx.commands


@pytest.mark.parametrize("extensions", [PLAIN, MODERN])
@pytest.mark.parametrize("action", [DROP, Finally("421 4.4.2 idle")])
async def test_a_reused_connection_that_breaks_is_replaced_at_once(
    action: Action, extensions: Sequence[str], autojump_clock: MockClock
) -> None:
    mx = FakeMx({"mail": ["250 ok", action, "250 ok"]}, extensions=extensions)
    results, net = await deliver({ONE: mx}, outbound(), outbound())
    assert verdicts(results[1].outcomes) == {"a@x.test": "Delivered 2.0.0"}
    assert net.tried == [ONE, ONE]
    assert results[1].unusable is None


async def test_what_a_peer_says_between_messages_ends_the_connection(autojump_clock: MockClock) -> None:
    mx = FakeMx({"body": [Raw(b"250 ok\r\n421 4.4.2 bored\r\n"), "250 ok"]})
    results, net = await deliver({ONE: mx}, outbound(), outbound())
    assert [verdicts(result.outcomes) for result in results] == [{"a@x.test": "Delivered 2.0.0"}] * 2
    assert net.tried == [ONE, ONE]


async def test_a_connection_is_not_used_for_ever(autojump_clock: MockClock) -> None:
    mx = FakeMx()
    results, net = await deliver({ONE: mx}, *(outbound() for _ in range(REUSE_MESSAGES + 1)))
    assert len(results) == REUSE_MESSAGES + 1
    assert net.tried == [ONE, ONE]
    slow = FakeMx({"body": Late(REUSE_SECONDS / 2, "250 ok")})
    _, net = await deliver({ONE: slow}, outbound(), outbound(), outbound())
    assert net.tried == [ONE, ONE]


# Egress.


async def test_what_egress_does_not_allow_is_held_and_never_dialled(autojump_clock: MockClock) -> None:
    result, net = await deliver_one({ONE: FakeMx()}, allow=["127.0.0.0/8", "::1/128"])
    assert net.tried == []
    assert result.outcomes == []
    assert result.denied is not None
    assert (result.denied.host, result.denied.address) == ("one.x.test", ONE)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("fe80::1%lo", False),
    ],
)
async def test_egress_looks_at_the_address_that_is_really_meant(
    address: str, allowed: bool, autojump_clock: MockClock
) -> None:
    answers = {"x.test": [("one.x.test", address)]}
    result, net = await deliver_one({address: FakeMx()}, answers=answers, allow=["127.0.0.0/8", "::1/128"])
    assert bool(net.tried) is allowed
    assert (result.denied is None) is allowed


async def test_an_allowed_host_is_used_though_another_is_not(autojump_clock: MockClock) -> None:
    mx = FakeMx()
    result, net = await deliver_one(
        {"127.0.0.1": mx}, answers={"x.test": [("one.x.test", ONE, "127.0.0.1")]}, allow=["127.0.0.0/8"]
    )
    assert result.denied is None
    assert net.tried == ["127.0.0.1"]
    assert len(mx.accepted) == 1


# Being looked at, and cancelled.


async def test_the_transcript_shows_the_dialogue_without_the_body(autojump_clock: MockClock) -> None:
    result, _ = await deliver_one({ONE: FakeMx({"rcpt": "550 5.1.1 no\x1b[2Jbody"})})
    text = "\n".join(line for _, line in result.transcript)
    assert "connecting to one.x.test [192.0.2.1]:25" in text
    assert "C: MAIL FROM:<me@here.test>" in text
    assert "S: 550 5.1.1 no?[2Jbody" in text
    assert "Subject" not in text


async def test_silence_of_a_fresh_peer_can_be_seen(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery, {ONE: FakeMx({"connect": Late(10, "220 hi"), "ehlo": Late(10, "250 hi")})})
        client = SmtpClient(NO_TLS, "x.test", sending(net), FakeHosts(HOSTS))
        assert client.silent_since is None
        began = trio.current_time()
        nursery.start_soon(client.send, outbound())
        await trio.sleep(5)
        assert client.silent_since == pytest.approx(began)
        await trio.sleep(10)
        assert client.silent_since is None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "body", "quit"])
async def test_a_cancelled_delivery_reports_what_is_decided_and_leaves_nothing_open(
    stage: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    original = ClientConversation.__init__

    def spy(self: ClientConversation, wire: Any, *args: Any) -> None:
        original(self, wire, *args)
        aclose = wire.aclose

        async def noted() -> None:
            closed.append(True)
            await aclose()

        wire.aclose = noted

    monkeypatch.setattr(ClientConversation, "__init__", spy)
    reported: list[AttemptResult] = []
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery, {ONE: FakeMx({stage: STALL})})
        client = SmtpClient(NO_TLS, "x.test", sending(net), FakeHosts(HOSTS))

        async def report(_: OutboundMessage, result: AttemptResult, *, asks_for_next: bool) -> None:
            await trio.lowlevel.checkpoint()
            reported.append(result)

        with trio.move_on_after(0.5):
            await client.run(outbound(), report)
        nursery.cancel_scope.cancel()
    assert closed
    assert len(reported) == (stage in ("body", "quit"))  # a message that may have been taken is not sent again at once


@pytest.mark.parametrize(
    ("second", "outcomes"),
    [
        ({"connect": STALL}, {"a@x.test": "Delivered 2.0.0"}),
        ({"rcpt": STALL}, {"a@x.test": "Delivered 2.0.0"}),
        ({"body": STALL}, {"a@x.test": "Delivered 2.0.0", "b@x.test": "Deferred 4.4.2"}),
    ],
)
async def test_a_cancelled_delivery_reports_who_has_the_message_already(
    second: dict[str, Any], outcomes: dict[str, str], autojump_clock: MockClock
) -> None:
    first = FakeMx({"mail": ["250 ok", "421 4.3.2 enough"]}, extensions=(*MODERN, "LIMITS RCPTMAX=1"))
    reported: list[AttemptResult] = []
    async with trio.open_nursery() as nursery:
        net = FakeNet(nursery, {ONE: first, TWO: FakeMx(second)})
        client = SmtpClient(NO_TLS, "x.test", sending(net), FakeHosts(HOSTS))

        async def report(_: OutboundMessage, result: AttemptResult, *, asks_for_next: bool) -> None:
            await trio.sleep(1)
            reported.append(result)

        with trio.move_on_after(5):
            await client.run(outbound("a@x.test", "b@x.test"), report)
        nursery.cancel_scope.cancel()
    (result,) = reported
    assert result.cut_short
    assert verdicts(result.outcomes) == outcomes


async def test_a_damaged_spool_file_is_told_apart_and_never_finished(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "body"
    path.write_bytes(BODY)
    for extensions in (PLAIN, MODERN):
        mx = FakeMx(extensions=extensions)
        result, _ = await deliver_one({ONE: mx}, outbound(content=Body(len(BODY) + 1, 4, None, path)))
        assert result.damaged is not None
        assert result.outcomes == []
        assert mx.accepted == []


# Relays.


async def test_a_relay_is_asked_for_by_its_host_and_lmtp_answers_for_each(autojump_clock: MockClock) -> None:
    mx = FakeMx({"body:b@x.test": "452 4.2.2 full"}, lmtp=True, extensions=PLAIN)
    result, net = await deliver_one(
        {ONE: mx},
        outbound("a@x.test", "b@x.test"),
        route=HostRoute(host="lmtp.test", port=24, protocol="lmtp", tls=TlsPolicy.NONE),
        answers={"lmtp.test": [("lmtp.test", ONE)]},
    )
    assert mx.commands[0] == "LHLO here.test"
    assert verdicts(result.outcomes) == {"a@x.test": "Delivered 2.1.5", "b@x.test": "Deferred 4.2.2"}
    delivered = result.outcomes[0]
    assert isinstance(delivered, Delivered)
    assert delivered.handover is Handover.FINAL
    assert net.tried == [ONE]


async def test_lmtp_has_no_helo_to_fall_back_to(autojump_clock: MockClock) -> None:
    mx = FakeMx({"ehlo": "500 what"}, lmtp=True)
    result, _ = await deliver_one(
        {ONE: mx},
        route=HostRoute(host="lmtp.test", port=24, protocol="lmtp", tls=TlsPolicy.NONE),
        answers={"lmtp.test": [("lmtp.test", ONE)]},
    )
    assert mx.commands == ["LHLO here.test"]
    assert verdicts(result.outcomes) == {"a@x.test": "Deferred 4.5.2"}


async def test_a_unix_socket_needs_no_resolver_and_no_egress(autojump_clock: MockClock) -> None:
    mx = FakeMx(lmtp=True)
    result, net = await deliver_one(
        {"/run/lmtp": mx},
        route=HostRoute(unix_path="/run/lmtp", protocol="lmtp", tls=TlsPolicy.NONE),
        allow=["203.0.113.0/24"],
    )
    assert net.tried == ["/run/lmtp"]
    assert verdicts(result.outcomes) == {"a@x.test": "Delivered 2.1.5"}


def secured(path: Path, **options: Any) -> HostRoute:
    return HostRoute(host="hub.test", port=587, tls=TlsPolicy.NONE, username="u", password_file=path, **options)


@pytest.mark.parametrize(
    ("address", "password", "extensions", "script", "outcome", "logins"),
    [
        ("127.0.0.1", "secret\n", ("AUTH PLAIN",), {}, "Delivered 2.0.0", [("u", "secret")]),
        ("127.0.0.1", "secret", ("AUTH LOGIN",), {}, "Delivered 2.0.0", [("u", "secret")]),
        ("127.0.0.1", "wrong", ("AUTH PLAIN LOGIN",), {}, "Deferred 4.7.8", [("u", "wrong")]),
        ("127.0.0.1", "secret", ("AUTH PLAIN",), {"auth": "454 4.7.0 later"}, "Deferred 4.7.0", [("u", "secret")]),
        ("127.0.0.1", "secret", ("AUTH PLAIN",), {"auth": "334 "}, "Deferred 4.5.1", [("u", "secret")]),
        ("127.0.0.1", "secret", ("AUTH CRAM-MD5",), {}, "Deferred 4.7.0", []),
        ("127.0.0.1", "secret", (), {}, "Deferred 4.7.0", []),
        (ONE, "secret", ("AUTH PLAIN",), {}, "Deferred 4.7.11", []),
    ],
)
async def test_credentials_go_in_clear_to_loopback_only_and_their_refusal_defers(
    address: str,
    password: str,
    extensions: Sequence[str],
    script: dict[str, str],
    outcome: str,
    logins: list[tuple[str, str]],
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(password)
    mx = FakeMx(script, extensions=extensions, passwords={"u": "secret"})
    result, _ = await deliver_one({address: mx}, route=secured(secret), answers={"hub.test": [("hub.test", address)]})
    assert verdicts(result.outcomes) == {"a@x.test": outcome}
    assert mx.logins[:1] == logins
    assert all(command.endswith(" AUTH=<>") for command in mx.commands if command.startswith("MAIL"))
    assert "secret" not in "\n".join(line for _, line in result.transcript)


async def test_a_missing_password_file_defers(tmp_path: Path, autojump_clock: MockClock) -> None:
    result, net = await deliver_one({}, route=secured(tmp_path / "none"), answers={"hub.test": [("hub.test", ONE)]})
    assert verdicts(result.outcomes) == {"a@x.test": "Deferred 4.3.5"}
    assert net.tried == []


async def test_the_cause_names_the_host_that_was_tried_and_not_one_that_egress_forbids(
    autojump_clock: MockClock,
) -> None:
    answers = {"x.test": [("one.x.test", "127.0.0.1"), ("two.x.test", TWO)]}
    result, net = await deliver_one(
        {"127.0.0.1": OSError(113, "No route to host")}, answers=answers, allow=["127.0.0.0/8"]
    )
    assert net.tried == ["127.0.0.1"]
    assert result.denied is None
    (outcome,) = result.outcomes
    assert outcome.cause == LocalCause("cannot connect to one.x.test [127.0.0.1]:25: no route to host", "one.x.test")
