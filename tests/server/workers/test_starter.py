"""What the first process hears from the starter of workers, and what the starter does once it is alone."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from trimta.server.workers.starter import ENDED, STARTED, StarterGoneError, WorkerStarter, _fork_workers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def way() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The first process's end, and the starter's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def report(kind: int, pid: int, code: int = 0) -> bytes:
    return struct.pack(">Bii", kind, pid, code)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
async def test_many_wait_for_the_end_of_their_workers_and_none_of_them_spins(
    count: int, way: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = way
    starter = WorkerStarter(cast("trio.Process", None), ours)
    codes: dict[int, int] = {}

    async def wait(pid: int) -> None:
        codes[pid] = await starter.ended(pid)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for pid in range(count):
                nursery.start_soon(wait, pid)
            for pid in reversed(range(count)):
                await trio.testing.wait_all_tasks_blocked()  # never comes where tasks wake each other
                assert pid not in codes
                theirs.send(report(ENDED, pid, -pid))
    assert codes == {pid: -pid for pid in range(count)}


async def test_a_worker_can_be_started_while_others_wait_and_when_the_one_who_reads_is_cancelled(
    way: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = way
    starter = WorkerStarter(cast("trio.Process", None), ours)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(starter.ended, 1)  # reads
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as waiting:
                waiting.start_soon(starter.start)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
                theirs.send(report(STARTED, 7))
    assert theirs.recv(10) == b"w"


async def test_all_who_wait_are_told_that_the_starter_is_gone(way: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = way
    starter = WorkerStarter(cast("trio.Process", None), ours)

    async def wait(pid: int) -> None:
        with pytest.raises(StarterGoneError):
            await starter.ended(pid)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for pid in range(3):
                nursery.start_soon(wait, pid)
            await trio.testing.wait_all_tasks_blocked()
            theirs.close()


def test_the_starter_ends_with_a_first_process_that_has_not_read_all_reports() -> None:
    ours, theirs = socket.socketpair()
    ended, _other = socket.socketpair()
    with theirs, ended, _other:
        theirs.send(report(ENDED, 1))
        ours.close()  # with octets that were not read: ECONNRESET at the other end
        assert _fork_workers(theirs, ended) is None
