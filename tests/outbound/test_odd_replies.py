"""Replies that are none by the letter: what is certain of them counts, and each recipient has its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.fake_mx import MODERN, PLAIN, STALL, FakeMx, Finally, Raw
from tests.support.lab import DAY, open_lab

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trio.testing import MockClock

    from tests.support.fake_mx import Action

ONE = "192.0.2.1"

WAYS = {
    "in the middle": "{code}-a\r\n b\r\n{code} c\r\n",
    "blank": "{code}-a\r\n\r\n{code} c\r\n",
    "before": "hello there\r\n\r\n{code} c\r\n",
    "after": "{code} c\r\nask the owner\r\n",
    "after, LF": "{code} c\nask the owner\n",
    "too long a code": "{code}-a\r\n2500 b\r\n{code} c\r\n",
    "two codes": "{other}-a\r\n{code} c\r\n",
    "no space": "{code}-a\r\n{code}\r\n",
}
STAGES = ("connect", "ehlo", "mail", "rcpt", "data", "bdat", "body", "rset", "quit")


def odd(way: str, code: int) -> Raw:
    return Raw(WAYS[way].format(code=code, other=550 if code < 400 else 250).encode(), code)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("extensions", [(), PLAIN, MODERN], ids=["bare", "plain", "modern"])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_positive_reply_however_it_is_said_is_taken_and_the_message_goes_once(
    stage: str, way: str, extensions: Sequence[str], tmp_path: Path, autojump_clock: MockClock
) -> None:
    code = {"connect": 220, "data": 354, "quit": 221}.get(stage, 250)
    mx = FakeMx({stage: odd(way, code)}, extensions=extensions)
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit("a@x.test", "b@x.test")
        await lab.advance(DAY)
        assert lab.outcomes == {"a@x.test": "delivered 2.0.0", "b@x.test": "delivered 2.0.0"}
        assert await lab.queue() == []
        (received,) = mx.accepted or mx.transactions
        assert received.rcpts == ["<a@x.test>", "<b@x.test>"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", [452, 550])
@pytest.mark.parametrize("extensions", [(), PLAIN, MODERN], ids=["bare", "plain", "modern"])
async def test_an_odd_refusal_of_one_recipient_is_that_recipients(
    extensions: Sequence[str], code: int, way: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"rcpt:a@x.test": odd(way, code)}, extensions=extensions)
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit("a@x.test", "b@x.test")
        await lab.idle()
        assert lab.outcomes["b@x.test"] == "delivered 2.0.0"
        assert lab.outcomes["a@x.test"].split()[0] == ("deferred" if code == 452 else "bounced")
        assert [received.rcpts for received in mx.accepted] == [["<b@x.test>"]]


@pytest.mark.parametrize("code", [150, 650, 99, 999])
async def test_a_code_of_no_class_puts_off_that_recipient_alone(
    code: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"rcpt:a@x.test": Raw(b"%03d what\r\n" % code)})
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit("a@x.test", "b@x.test")
        await lab.idle()
        assert lab.outcomes == {"a@x.test": "deferred 4.5.0", "b@x.test": "delivered 2.0.0"}


@pytest.mark.parametrize("extensions", [(), ("DSN", "PIPELINING", "CHUNKING")], ids=["bare", "modern"])
@pytest.mark.parametrize("reply", [*WAYS, "650", "354"])
async def test_lmtp_has_an_odd_reply_for_one_recipient_too(
    reply: str, extensions: Sequence[str], tmp_path: Path, autojump_clock: MockClock
) -> None:
    first = odd(reply, 250) if reply in WAYS else Raw(f"{reply} what\r\n".encode())
    mx = FakeMx({"body:a@x.test": first}, extensions=extensions, lmtp=True)
    routes = '[routes]\n"*" = "lmtp:mx.x.test:24"'
    async with open_lab(tmp_path, {ONE: mx}, config=routes) as lab:
        await lab.submit("a@x.test", "b@x.test")
        await lab.idle()
        assert lab.outcomes["b@x.test"] == "delivered 2.1.5"
        assert lab.outcomes["a@x.test"] == ("delivered 2.0.0" if reply in WAYS else "deferred 4.5.0")


CUT_OFF: list[Action] = [
    Finally(Raw(b"250 2.0.0 queued")),
    Finally(Raw(b"250-2.0.0 queued\r\n")),
    Finally(Raw(b"250-2.0.0 queued\r\nas 1234\r\n")),
]


@pytest.mark.parametrize("stalled", [False, True])
@pytest.mark.parametrize("action", CUT_OFF)
@pytest.mark.parametrize("extensions", [PLAIN, MODERN], ids=["plain", "modern"])
async def test_a_message_whose_250_has_no_end_goes_once(
    extensions: Sequence[str], action: Finally, stalled: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    mx = FakeMx({"body": action.first if stalled else action}, extensions=extensions)
    async with open_lab(tmp_path, {ONE: mx}) as lab:
        await lab.submit("a@x.test", "b@x.test")
        await lab.wait_for("delivered", count=2)
        await lab.advance(DAY)
        assert len(mx.transactions) == 1


@pytest.mark.parametrize("greeting", [Raw(b"SSH-2.0-x\r\n"), Raw(b"\r\n" * 70_000), STALL])
async def test_what_never_becomes_a_greeting_is_given_up_in_time(
    greeting: Action, tmp_path: Path, autojump_clock: MockClock
) -> None:
    other = FakeMx()
    async with open_lab(tmp_path, {ONE: FakeMx({"connect": greeting}), "192.0.2.2": other}) as lab:
        await lab.submit("a@two.test")
        await lab.wait_for("delivered")
        assert len(other.accepted) == 1
