"""Listening sockets: what is bound, what is refused and why, and how many are let in."""

from __future__ import annotations

import os
import resource
import socket
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.support.receiving import Client, configuration, mailbox
from trimta.config.model import InetAddress, LimitsSection, ListenSection, UnixAddress
from trimta.inbound.client_address import ClientAddress
from trimta.inbound.connection_counts import Admission, ConnectionCounts
from trimta.inbound.listener import (
    RESERVED,
    BindError,
    accept_connections,
    bind,
    in_tasks,
    raise_descriptor_limit,
    room_for_connections,
    wants_both_families,
)
from trimta.server.mta_server import MtaServer

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trimta.runtime.connected_socket import ConnectedSocket

DEADLINE = 20.0


async def test_localhost_is_both_families_on_the_same_free_port() -> None:
    bound = await bind(ListenSection(address=InetAddress("localhost", 0)))
    ports = {listener.socket.getsockname()[1] for listener in bound.sockets}
    assert len(ports) == 1
    assert 0 not in ports
    assert bound.addresses[0] == f"127.0.0.1:{ports.pop()}"
    await bound.close()


@pytest.mark.parametrize(
    ("others", "both"),
    [
        ([], True),
        ([("::1", 2525)], True),
        ([("0.0.0.0", 2600)], True),
        ([("0.0.0.0", 2525)], False),
        ([("127.0.0.1", 2525)], False),
        ([("localhost", 2525)], False),
    ],
)
def test_every_ipv6_address_is_every_ipv4_one_too_unless_that_is_said_apart(
    others: list[tuple[str, int]], both: bool
) -> None:
    listen = ListenSection(address=InetAddress("::", 2525))
    assert (
        wants_both_families(listen, [listen, *(ListenSection(address=InetAddress(*other)) for other in others)]) is both
    )
    assert not wants_both_families(ListenSection(address=InetAddress("::1", 2525)), [])


async def test_both_families_are_reached_and_shown() -> None:
    bound = await bind(ListenSection(address=InetAddress("::", 0)))
    port = bound.sockets[0].socket.getsockname()[1]
    assert bound.addresses == (f"[::]:{port}", f"0.0.0.0:{port}")
    for host in ("127.0.0.1", "::1"):
        stream = await trio.open_tcp_stream(host, port)
        await stream.aclose()
    await bound.close()


@pytest.mark.parametrize(
    ("listen", "host", "mine"),
    [("127.0.0.1", "127.0.0.1", True), ("127.0.0.1", "127.0.0.2", False), ("0.0.0.0", "127.0.0.2", True)],
)
async def test_a_listener_knows_its_own_address(listen: str, host: str, mine: bool) -> None:
    bound = await bind(ListenSection(address=InetAddress(listen, 0)))
    port = bound.sockets[0].socket.getsockname()[1]
    assert bound.has(host, port) is mine
    assert not bound.has(host, port + 1)
    await bound.close()


async def test_a_port_in_use_is_named() -> None:
    first = await bind(ListenSection(address=InetAddress("127.0.0.1", 0)))
    with pytest.raises(BindError, match=r"cannot listen on 127\.0\.0\.1:\d+: the address is in use; stop"):
        await bind(ListenSection(address=InetAddress("127.0.0.1", first.sockets[0].socket.getsockname()[1])))
    await first.close()


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(BindError, match="this machine has no such address"):
        await bind(ListenSection(address=InetAddress("192.0.2.1", 0)))


@pytest.fixture
def short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A unix socket's name has about 100 octets."""
    monkeypatch.chdir(tmp_path)
    return Path("s")


def exists(path: Path) -> bool:
    return os.path.lexists(path)


async def test_a_unix_socket_that_a_killed_server_left_is_replaced(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(short_path))
    bound = await bind(ListenSection(address=UnixAddress(short_path)))
    assert bound.addresses == (f"unix:{short_path}",)
    await bound.close()
    assert not exists(short_path)


async def test_a_unix_socket_that_answers_is_not(short_path: Path) -> None:
    bound = await bind(ListenSection(address=UnixAddress(short_path)))
    with pytest.raises(BindError, match="in use"):
        await bind(ListenSection(address=UnixAddress(short_path)))
    assert exists(short_path)
    await bound.close()


async def test_a_file_of_that_name_is_not_either(short_path: Path) -> None:
    os.mkfifo(short_path)
    with pytest.raises(BindError, match="in use"):
        await bind(ListenSection(address=UnixAddress(short_path)))
    assert exists(short_path)


async def test_a_client_on_a_unix_socket_may_relay_and_is_named_so(tmp_path: Path, short_path: Path) -> None:
    config = configuration(tmp_path, '[[listen]]\nprotocol = "lmtp"')
    config = replace(config, listen=(replace(config.listen[0], address=UnixAddress(short_path)),))
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(config, cleanup)
            await nursery.start(server.run)
            client = Client(await trio.open_unix_socket(str(short_path)))
            await client.expect("220")
            await client.say("LHLO c.test", "250")
            await client.say("MAIL FROM:<a@dev.test>", "250")
            await client.say("RCPT TO:<x@example.com>", "250")
            await client.say("DATA", "354")
            await client.say("hello\r\n.", "250 2.6.0 <x@example.com>")
            await client.close()
            server.stop()
    assert server.bugs == []
    assert b"from c.test (unix socket)" in mailbox(tmp_path, "remote")[0]
    assert not exists(short_path)


def test_a_crowd_counts_in_all_and_for_each_client() -> None:
    crowd, limits = ConnectionCounts(), LimitsSection(connections=3, connections_per_client=2)
    one, other = ClientAddress("192.0.2.1", 1), ClientAddress("192.0.2.2", 1)
    crowd.enter(one)
    crowd.enter(ClientAddress("192.0.2.1", 2))
    assert crowd.admission(one, limits) is Admission.ADMITTED
    crowd.enter(one)
    assert crowd.admission(one, limits) is Admission.CROWDED
    assert crowd.admission(other, limits) is Admission.ADMITTED
    crowd.enter(other)
    assert crowd.admission(other, limits) is Admission.FULL
    assert crowd.admission(one, limits) is Admission.CROWDED
    for peer in (one, one, one, other):
        crowd.leave(peer)
    assert crowd.total == 0
    assert crowd.admission(one, limits) is Admission.ADMITTED


@pytest.mark.parametrize(
    ("soft", "room"), [(1024, 1024 - RESERVED), (64, 64 - RESERVED), (16, 1), (resource.RLIM_INFINITY, sys.maxsize)]
)
def test_connections_leave_descriptors_to_everything_else(
    soft: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))
    assert room_for_connections() == room


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1024, 4096), (2000, 4096)),
        ((64, 64), (64, 64)),
        ((1024, resource.RLIM_INFINITY), (2000, resource.RLIM_INFINITY)),
        ((3000, 4096), (3000, 4096)),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
    ],
)
def test_the_descriptors_that_are_wanted_are_had_as_far_as_the_hard_limit_allows(
    before: tuple[int, int], after: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [before]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    raise_descriptor_limit(2000)
    assert limits[-1] == after


async def test_beyond_the_ceiling_connections_wait_for_their_turn(autojump_clock: MockClock) -> None:
    served: list[ConnectedSocket] = []
    leave = trio.Event()

    async def session(stream: ConnectedSocket, _: ClientAddress) -> None:
        served.append(stream)
        await leave.wait()
        await stream.aclose()

    autojump_clock.autojump_threshold = 0.01  # sockets of this very process need a moment
    bound = await bind(ListenSection(address=InetAddress("127.0.0.1", 0)))
    address = bound.sockets[0].socket.getsockname()
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            crowd = ConnectionCounts()
            take = in_tasks(nursery, session, crowd)
            await nursery.start(accept_connections, bound.sockets[0], take, crowd, lambda: 2)
            clients = [await trio.open_tcp_stream(*address) for _ in range(4)]
            await trio.sleep(1)
            assert (len(served), crowd.total) == (2, 2)
            leave.set()
            await trio.sleep(1)
            assert (len(served), crowd.total) == (4, 0)
            nursery.cancel_scope.cancel()
    for stream in (*clients, *bound.sockets):
        await stream.aclose()


async def test_a_full_server_waits_for_room_and_does_not_keep_looking(autojump_clock: MockClock) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    crowd, looks, most = ConnectionCounts(), 0, 1
    served: list[ClientAddress] = []
    ends = [trio.Event() for _ in range(3)]

    def ceiling() -> int:
        nonlocal looks
        looks += 1
        return most

    async def session(stream: ConnectedSocket, peer: ClientAddress) -> None:
        served.append(peer)
        await ends[len(served) - 1].wait()
        await stream.aclose()

    async def served_are(count: int) -> None:
        with trio.fail_after(DEADLINE):
            while len(served) < count:
                await trio.lowlevel.checkpoint()

    async with listener, AsyncExitStack() as clients, trio.open_nursery() as nursery:
        await nursery.start(accept_connections, listener, in_tasks(nursery, session, crowd), crowd, ceiling)
        for _ in range(3):
            await clients.enter_async_context(await trio.open_tcp_stream(*listener.socket.getsockname()[:2]))
        await served_are(1)
        await trio.testing.wait_all_tasks_blocked()
        before = looks
        await trio.sleep(3600)
        assert looks == before
        ends[0].set()
        await served_are(2)
        most = 2  # a reload
        crowd.look_again()
        await served_are(3)
        for end in ends:
            end.set()
        nursery.cancel_scope.cancel()
