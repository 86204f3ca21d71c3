"""Scripted trouble, as a client on the wire meets it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trimta.config.load import build
from trimta.config.model import FaultStage
from trimta.inbound.scripted_faults import FaultScript
from trimta.testing import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trimta.testing import Server

DEADLINE = 20.0
LATER = "451 4.3.0 scripted"
GONE = ""
"""The server has hung up."""

STAGES = [stage.value for stage in FaultStage]
STEPS = {
    "connect": "",
    "helo": "EHLO client.test",
    "mail": "MAIL FROM:<app@app.test>",
    "rcpt": "RCPT TO:<alice@dev.test>",
    "data": "DATA",
    "body": "Subject: hello\r\n\r\nhello\r\n.",
    "quit": "QUIT",
}
AT_STEP = {stage: stage for stage in STAGES} | {"committed": "body"}


class Client:
    """Says a line, hears a reply."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._octets = b""

    async def hear(self) -> str:
        """The last line of the next reply; "" if there is none any more."""
        while True:
            while b"\r\n" not in self._octets:
                try:
                    received = bytes(await self.stream.receive_some())
                except trio.BrokenResourceError:
                    return GONE
                if not received:
                    return GONE
                self._octets += received
            line, _, self._octets = self._octets.partition(b"\r\n")
            if line[3:4] != b"-":
                return line.decode()

    async def say(self, *lines: str) -> str:
        """Send lines together; returns the reply to the first."""
        await self.stream.send_all("".join(f"{line}\r\n" for line in lines).encode())
        return await self.hear()


@asynccontextmanager
async def connected(server: Server) -> AsyncGenerator[Client, None]:
    async with await trio.open_tcp_stream(server.host, server.port) as stream:
        yield Client(stream)


async def send(server: Server) -> dict[str, str]:
    """Send one message step by step, as far as the server goes along; returns the reply to each step."""
    replies: dict[str, str] = {}
    with trio.fail_after(DEADLINE):
        async with connected(server) as client:
            for step, line in STEPS.items():
                replies[step] = await (client.say(line) if line else client.hear())
                if replies[step][:1] not in ("2", "3"):
                    break
    return replies


async def introduced(client: Client, *, lmtp: bool = False) -> None:
    assert (await client.hear()).startswith("220")
    assert (await client.say("LHLO client.test" if lmtp else "EHLO client.test")).startswith("250")


# What happens at each stage.


@pytest.mark.parametrize("stage", STAGES)
async def test_a_scripted_reply_takes_the_place_of_ours_and_then_all_is_well(stage: str) -> None:
    async with open_server() as server:
        server.faults.add(stage=stage, reply=LATER, times=1)
        first, second = await send(server), await send(server)
        assert [*first.items()][-1] == (AT_STEP[stage], LATER)
        assert second["quit"].startswith("221")
        stored = 2 if stage in ("committed", "quit") else 1
        assert len(server.mailbox("alice")) == stored


@pytest.mark.parametrize("stage", STAGES)
async def test_a_connection_is_cut_where_the_script_says(stage: str) -> None:
    async with open_server() as server:
        server.faults.add(stage=stage, drop=True, times=1)
        first, second = await send(server), await send(server)
        assert [*first.items()][-1] == (AT_STEP[stage], GONE)
        assert second["quit"].startswith("221")
        assert len(server.mailbox("alice")) == (2 if stage in ("committed", "quit") else 1)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_delay_alone_changes_nothing_but_the_time(stage: str) -> None:
    async with open_server() as server:
        ordinary = await send(server)
        server.faults.add(stage=stage, delay="0.03s", times=1)
        began = trio.current_time()
        late = await send(server)
        assert trio.current_time() - began >= 0.03
        assert [reply[:3] for reply in late.values()] == [reply[:3] for reply in ordinary.values()]
        assert [event.fields["stage"] for event in server.events if event.name == "fault"] == [stage]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "quit"])
async def test_a_scripted_421_ends_the_session(stage: str) -> None:
    async with open_server() as server:
        server.faults.add(stage=stage, reply="421 4.3.2 scripted")
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                for line in STEPS.values():
                    reply = await (client.say(line) if line else client.hear())
                    if reply.startswith("421"):
                        break
                assert reply == "421 4.3.2 scripted"
                assert await client.hear() == GONE


async def test_what_was_said_before_a_delay_is_not_kept_waiting() -> None:
    async with open_server() as server:
        server.faults.add(stage="rcpt", delay="1h")
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client)
                assert (await client.say(STEPS["mail"], STEPS["rcpt"])).startswith("250 2.1.0")


@pytest.mark.parametrize(
    "drop", [{}, {"drop": True}, {"reply": LATER}, {"delay": "1h"}], ids=lambda what: next(iter(what), "as it is")
)
async def test_a_client_that_lost_the_250_finds_its_message_stored(drop: dict[str, Any]) -> None:
    """Also while the delay lasts, which does not keep the server from stopping."""
    with trio.fail_after(DEADLINE):
        async with open_server() as server:
            server.faults.add(stage="committed", **drop)
            async with connected(server) as client:
                await introduced(client)
                for step in ("mail", "rcpt", "data"):
                    await client.say(STEPS[step])
                await client.stream.send_all(f"{STEPS['body']}\r\n".encode())
                assert (await server.wait_for(to="alice"))["Subject"] == "hello"
                if not drop:
                    assert await client.hear() == ""


# Which ones strike.


async def test_times_are_counted_over_all_sessions() -> None:
    async with open_server() as server:
        server.faults.add(stage="rcpt", reply=LATER, times=2)
        assert [(await send(server))["rcpt"] == LATER for _ in range(4)] == [True, True, False, False]


async def test_the_first_that_matches_strikes_and_the_next_when_it_is_used_up() -> None:
    async with open_server({"faults": [{"stage": "mail", "reply": "451 4.3.0 one", "times": 1}]}) as server:
        server.faults.add(stage="mail", reply="451 4.3.0 two", times=1)
        server.faults.add(stage="mail", reply="451 4.3.0 three")
        said = [(await send(server))["mail"] for _ in range(4)]
        assert said == [f"451 4.3.0 {which}" for which in ("one", "two", "three", "three")]
        server.faults.clear()
        assert "quit" in await send(server)


async def refusals(seed: int | None) -> list[bool]:
    async with open_server() as server:
        server.faults.add(stage="rcpt", reply=LATER, probability=0.5, seed=seed)
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client)
                await client.say(STEPS["mail"])
                return [await client.say(STEPS["rcpt"]) == LATER for _ in range(40)]


async def test_the_same_seed_strikes_the_same_ones() -> None:
    first = await refusals(7)
    assert first == await refusals(7)
    assert first != await refusals(8)
    assert {*first} == {True, False}


@pytest.mark.parametrize(
    ("globs", "strikes"),
    [
        ({}, True),
        ({"recipient": "alice@dev.test"}, True),
        ({"recipient": "Al*@DEV.test"}, True),
        ({"recipient": "bob@dev.test"}, False),
        ({"recipient": "alice"}, False),
        ({"sender": "*@app.test"}, True),
        ({"sender": "<>"}, False),
        ({"client": "127.0.0.*"}, True),
        ({"client": "10.*"}, False),
        ({"recipient": "alice@*", "sender": "app@*", "client": "127.*"}, True),
        ({"recipient": "alice@*", "sender": "other@*"}, False),
        ({"recipient": "bob@*", "sender": "app@*"}, False),
    ],
)
@pytest.mark.parametrize("stage", ["rcpt", "data", "body", "committed"])
async def test_all_globs_must_match(globs: dict[str, str], strikes: bool, stage: str, tmp_path: Path) -> None:
    config = build({"faults": [{"stage": stage, "drop": True, **globs}]}, base=tmp_path, file="test")
    found = await FaultScript(config.faults).find(
        FaultStage(stage), client="127.0.0.1", sender="app@app.test", recipients=["alice@dev.test", "carol@dev.test"]
    )
    assert (found is not None) is strikes


@pytest.mark.parametrize(
    ("glob", "path", "strikes"),
    [("<>", "", True), ("*", "", True), ("*@*", "", False), ("a@[127.0.0.1]", "a@[127.0.0.1]", True)],
)
async def test_globs_know_the_null_path_and_address_literals(glob: str, path: str, strikes: bool) -> None:
    async with open_server() as server:
        server.faults.add(stage="mail", sender=glob, reply=LATER)
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client)
                assert (await client.say(f"MAIL FROM:<{path}>") == LATER) is strikes


async def test_a_glob_on_a_recipient_strikes_that_one_only() -> None:
    async with open_server() as server:
        server.faults.add(stage="rcpt", recipient="slow-*@dev.test", reply=LATER)
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client)
                await client.say(STEPS["mail"])
                to = ["slow-1@dev.test", "alice@dev.test", "slow-2@dev.test", "slow@dev.test"]
                said = [(await client.say(f"RCPT TO:<{address}>"))[:3] for address in to]
                assert said == ["451", "250", "451", "250"]


# What no script can do.


@pytest.mark.parametrize(
    ("config", "recipient", "reply"),
    [
        ({"local": {"users": ["alice"]}}, "nobody@dev.test", "550 5.1.1"),
        ({"relay": {"networks": []}}, "somebody@example.com", "550 5.7.1"),
        ({"routes": {"closed.test": "reject:550 5.7.9 closed"}}, "somebody@closed.test", "550 5.7.9"),
        ({}, "alice@dev.test", "250 2.1.5 scripted"),
    ],
)
async def test_no_script_lets_in_what_would_be_refused(config: dict[str, Any], recipient: str, reply: str) -> None:
    async with open_server(config) as server:
        server.faults.add(stage="rcpt", reply="250 2.1.5 scripted")
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client)
                await client.say(STEPS["mail"])
                assert (await client.say(f"RCPT TO:<{recipient}>")).startswith(reply)


async def test_a_script_may_refuse_otherwise_what_would_be_refused() -> None:
    async with open_server({"local": {"users": ["alice"]}}) as server:
        server.faults.add(stage="rcpt", reply=LATER, recipient="nobody@*")
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client)
                await client.say(STEPS["mail"])
                assert await client.say("RCPT TO:<nobody@dev.test>") == LATER


# BDAT and LMTP.


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("data", [LATER, "503 5.5.1", "503 5.5.1"]),
        ("body", ["250 2.0.0", "250 2.0.0", LATER]),
        ("committed", ["250 2.0.0", "250 2.0.0", LATER]),
    ],
)
async def test_bdat_meets_the_trouble_of_data(stage: str, said: list[str]) -> None:
    """Its first chunk is what DATA is elsewhere."""
    async with open_server() as server:
        server.faults.add(stage=stage, reply=LATER, times=1)
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client)
                for attempt in range(2):
                    for step in ("mail", "rcpt"):
                        assert (await client.say(STEPS[step])).startswith("250")
                    await client.stream.send_all(b"BDAT 5\r\nS: 1\nBDAT 4\r\n\nabcBDAT 2 LAST\r\nd\n")
                    heard = [await client.hear() for _ in range(3)]
                    if attempt == 0:
                        assert [one[: len(expected)] for one, expected in zip(heard, said, strict=True)] == said
                    else:
                        assert heard[2].startswith("250 2.6.0")
        assert len(server.mailbox("alice")) == (2 if stage == "committed" else 1)


async def test_lmtp_recipients_learn_different_things_of_a_committed_message() -> None:
    async with open_server({"listen": [{"protocol": "lmtp"}]}) as server:
        server.faults.add(stage="committed", recipient="bob@*", reply=LATER)
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client, lmtp=True)
                await client.say(STEPS["mail"])
                for name in ("alice", "bob", "carol"):
                    await client.say(f"RCPT TO:<{name}@dev.test>")
                await client.say("DATA")
                first = await client.say(STEPS["body"])
                assert [first[:3], await client.hear(), (await client.hear())[:3]] == ["250", LATER, "250"]
        assert [len(server.mailbox(name)) for name in ("alice", "bob", "carol")] == [1, 1, 1]


@pytest.mark.parametrize(("stage", "each"), [("body", LATER), ("committed", LATER)])
async def test_lmtp_has_the_scripted_reply_for_each_recipient(stage: str, each: str) -> None:
    async with open_server({"listen": [{"protocol": "lmtp"}]}) as server:
        server.faults.add(stage=stage, reply=each)
        with trio.fail_after(DEADLINE):
            async with connected(server) as client:
                await introduced(client, lmtp=True)
                await client.say(STEPS["mail"])
                for name in ("alice", "bob"):
                    await client.say(f"RCPT TO:<{name}@dev.test>")
                await client.say("DATA")
                assert [await client.say(STEPS["body"]), await client.hear()] == [each, each]
                assert (await client.say("QUIT")).startswith("221")
