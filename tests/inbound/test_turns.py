"""Sessions over sockets take turns: one that has much to say leaves the others theirs."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from tests.support.receiving import LOOPBACK, Client, open_mta
from trimta.inbound.server_conversation import LARGE
from trimta.runtime.connected_socket import ConnectedSocket
from trimta.runtime.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import pytest

    from trimta.server.wiring import Mta

DEADLINE: Final = 20.0


class Turns:
    """Counts the turns of a task that always has something to do."""

    def __init__(self) -> None:
        self.count = 0

    async def take(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1


@asynccontextmanager
async def conversing(mta: Mta) -> AsyncGenerator[tuple[Client, Turns]]:
    """A session over a socket, beside a task that takes turns."""
    ours, theirs = socket.socketpair()
    client, turns = Client(ConnectedSocket(ours)), Turns()
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mta.session(mta.configuration.listen[0], Wire(ConnectedSocket(theirs)), LOOPBACK).run)
            await client.expect("220")
            await client.say("EHLO client.test", "250")
            nursery.start_soon(turns.take)
            yield client, turns
            nursery.cancel_scope.cancel()
    await client.close()


def count_large(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of large pieces that any wire receives from now on."""
    sizes: list[int] = []
    receive_now = Wire.receive_now

    def counting(wire: Wire) -> bytes | None:
        data = receive_now(wire)
        if data is not None and len(data) >= LARGE:
            sizes.append(len(data))
        return data

    monkeypatch.setattr(Wire, "receive_now", counting)
    return sizes


async def test_after_much_content_others_have_three_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = count_large(monkeypatch)
    async with open_mta(tmp_path) as mta, conversing(mta) as (client, turns):
        await client.say_all(("MAIL FROM:<a@dev.test>", "250"), ("RCPT TO:<alice@dev.test>", "250"), ("DATA", "354"))
        before = turns.count
        await client.send((b"x" * 76 + b"\r\n") * 12_000 + b".\r\n")
        await client.expect("250")
        assert len(large) >= 3
        assert turns.count - before >= 3 * len(large)


async def test_between_many_commands_others_have_turns(tmp_path: Path) -> None:
    async with open_mta(tmp_path) as mta, conversing(mta) as (client, turns):
        before = turns.count
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, "NOOP\r\n" * 8_000)
            for _ in range(8_000):
                await client.expect("250")
        assert turns.count - before >= 8_000 * len("250 2.0.0 ok\r\n") // (16 * 1024)


async def test_an_idle_session_is_told_that_the_server_stops_also_if_it_has_just_spoken(tmp_path: Path) -> None:
    async with open_mta(tmp_path) as mta, conversing(mta) as (client, _):
        mta.drain.start()
        await client.send("NOOP\r\n")
        await client.expect("421 4.3.2")
        await client.expect("")


async def test_a_transaction_goes_on_while_the_server_stops(tmp_path: Path) -> None:
    async with open_mta(tmp_path) as mta, conversing(mta) as (client, _):
        await client.say("MAIL FROM:<a@dev.test>", "250")
        mta.drain.start()
        await client.say_all(("RCPT TO:<alice@dev.test>", "250"), ("DATA", "354"), ("Subject: last\r\n.", "250"))
        await client.expect("421 4.3.2")
