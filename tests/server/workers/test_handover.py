"""Connections handed from one process to another, and the page that both have mapped."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from itertools import product
from typing import TYPE_CHECKING

import pytest

from trimta.config.model import FaultStage
from trimta.inbound.connection_counts import Admission
from trimta.server.workers.handover import HandoverClosedError, hand_over, take_over
from trimta.server.workers.shared_page import SharedClock, SharedFile, SharedPage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def way() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of the way, one for each process."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def test_a_connection_arrives_with_its_number_listener_and_admission(
    way: tuple[socket.socket, socket.socket],
) -> None:
    clients = []
    given = [*enumerate(product((0, 255), Admission))]
    for number, (listener, admission) in given:
        client, connection = socket.socketpair()
        clients.append(client)
        with connection:
            assert hand_over(way[0], connection.fileno(), number=number, listener=listener, admission=admission)
    way[0].shutdown(socket.SHUT_WR)
    taken = []
    while (handed_over := await take_over(way[1])) is not None:
        assert handed_over.connection is not None
        with handed_over.connection as connection:
            connection.sendall(b"hello")
        taken.append((handed_over.number, (handed_over.listener, handed_over.admission)))
    assert taken == given
    for client in clients:
        with client:
            assert client.recv(10) == b"hello"


async def test_connections_wait_for_a_process_that_is_busy(way: tuple[socket.socket, socket.socket]) -> None:
    client, connection = socket.socketpair()
    count = 0
    with client, connection:
        while hand_over(way[0], connection.fileno(), number=count, listener=0, admission=Admission.ADMITTED):
            count += 1
        assert count > 1
        for number in range(count):
            handed_over = await take_over(way[1])
            assert handed_over is not None
            assert handed_over.number == number
            assert handed_over.connection is not None
            handed_over.connection.close()


async def test_a_connection_for_which_there_is_no_descriptor_has_its_number(
    way: tuple[socket.socket, socket.socket],
) -> None:
    ours, connection = socket.socketpair()
    with ours, connection:
        assert hand_over(way[0], connection.fileno(), number=7, listener=0, admission=Admission.ADMITTED)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        handed_over = await take_over(way[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert handed_over is not None
    assert (handed_over.connection, handed_over.number) == (None, 7)


def test_a_process_that_has_gone_is_told_of(way: tuple[socket.socket, socket.socket]) -> None:
    way[1].close()
    with pytest.raises(HandoverClosedError):
        hand_over(way[0], way[0].fileno(), number=0, listener=0, admission=Admission.ADMITTED)


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
