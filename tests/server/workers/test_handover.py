"""Connections handed from one process to another, and the page that both have mapped."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING, Final

import pytest
import trio

from trimta.config.model import FaultStage
from trimta.inbound.client_address import ClientAddress
from trimta.inbound.connection_counts import Admission
from trimta.server.workers.handover import AT_ONCE, HandedOver, HandoverClosedError, hand_over, take_over
from trimta.server.workers.shared_page import SharedClock, SharedFile, SharedPage

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT: Final = ClientAddress("192.0.2.1", 40000)


@pytest.fixture
def way() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of the way, one for each process."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def connection(descriptor: int, number: int = 0) -> HandedOver:
    return HandedOver(descriptor, socket.AF_UNIX, CLIENT, number, 0, Admission.ADMITTED)


async def test_connections_arrive_in_their_order_with_all_that_is_said_of_them(
    way: tuple[socket.socket, socket.socket],
) -> None:
    clients = []
    said: list[tuple[int, ClientAddress, int, int, Admission]] = [
        (family, ClientAddress(host, port), number, listener, admission)
        for number, (family, (host, port), listener, admission) in enumerate(
            product(
                (socket.AF_INET, socket.AF_INET6),
                (("unix", 0), ("192.0.2.1", 65535), ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 1)),
                (0, 255),
                Admission,
            )
        )
    ]
    for first in range(0, len(said), AT_ONCE):
        with ExitStack() as sent:
            given = []
            for about in said[first : first + AT_ONCE]:
                client, theirs = socket.socketpair()
                clients.append(client)
                given.append(HandedOver(sent.enter_context(theirs).fileno(), *about))
            assert hand_over(way[0], given)
    way[0].shutdown(socket.SHUT_WR)
    taken: list[tuple[object, ...]] = []
    while handed_over := await take_over(way[1]):
        for each in handed_over:
            assert each.descriptor is not None
            with socket.socket(fileno=each.descriptor) as ours:
                ours.sendall(b"hello")
            taken.append(each[1:])
    assert taken == said
    for client in clients:
        with client:
            assert client.recv(10) == b"hello"


async def test_connections_wait_for_a_process_that_is_busy(way: tuple[socket.socket, socket.socket]) -> None:
    client, theirs = socket.socketpair()
    count = 0
    with client, theirs:
        while hand_over(way[0], [connection(theirs.fileno(), count)]):
            count += 1
        assert count > 1
        for number in range(count):
            (handed_over,) = await take_over(way[1])
            assert handed_over.number == number
            assert handed_over.descriptor is not None
            os.close(handed_over.descriptor)


@pytest.mark.parametrize("free", [0, 1, 2])
async def test_a_connection_for_which_there_is_no_descriptor_is_told_of_all_the_same(
    free: int, way: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert hand_over(way[0], [connection(theirs.fileno(), number) for number in range(3)])
    await trio.lowlevel.wait_readable(way[1])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
    try:
        handed_over = await take_over(way[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [each.number for each in handed_over] == [0, 1, 2]
    assert [each.descriptor is None for each in handed_over] == [number >= free for number in range(3)]
    for each in handed_over[:free]:
        assert each.descriptor is not None
        os.close(each.descriptor)


def test_a_process_that_has_gone_is_told_of(way: tuple[socket.socket, socket.socket]) -> None:
    way[1].close()
    with pytest.raises(HandoverClosedError):
        hand_over(way[0], [connection(way[0].fileno())])


def test_what_the_first_process_notes_on_the_page_every_process_sees_at_once() -> None:
    with SharedFile() as file:
        other = SharedPage(os.dup(file.descriptor))
        assert not any(other.has_faults(stage) for stage in FaultStage)
        for stages in ({FaultStage.RCPT, FaultStage.QUIT}, set(FaultStage), set()):
            file.page.note_faults(stages)
            assert {stage for stage in FaultStage if other.has_faults(stage)} == stages
        clock = SharedClock(file.page, wall=lambda: 1000.0, offset=86400.5)
        seen = SharedClock(other, wall=lambda: 1000.0)
        assert seen.now() == clock.now() == 87400.5
        clock.advance_to(100_000.0)
        assert seen.now() == 100_000.0
        other.close()
    assert clock.now() == seen.now() == 100_000.0, "also after the end"


def test_a_server_of_one_process_loads_nothing_of_this() -> None:
    program = "import sys, trimta.cli.main, trimta.server.foreground; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "trimta.server.mta_server" in loaded
    assert "trimta.server.workers" not in loaded


def test_a_server_with_workers_has_loaded_all_of_this_before_it_gives_up_the_rights_of_root() -> None:
    program = """
import sys, trio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from trimta.server.start import begin_starter

async def main():
    async with AsyncExitStack() as cleanup:
        await begin_starter(SimpleNamespace(worker_count=2, user=""), cleanup)
        print(*sys.modules)

trio.run(main)
"""
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert {f"trimta.server.workers.{name}" for name in ("processes", "shared_page")} <= {*loaded.stdout.split()}
