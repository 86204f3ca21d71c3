"""The queue's door: who comes when the server has ended is told so."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trimta.runtime.disk import InlineDisk, ThreadDisk
from trimta.runtime.group_commit import GroupCommit
from trimta.store.queue.errors import QueueUnavailable
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE = 20.0


async def test_nobody_waits_behind_a_shield_for_a_door_that_is_closed(tmp_path: Path) -> None:
    refused = []

    async def late(door: GroupCommit) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), pytest.raises(QueueUnavailable, match="has ended"):
                await door.run(lambda queue: queue.entries.count())
            refused.append(True)

    with Queue(tmp_path) as queue, trio.fail_after(DEADLINE):
        door = GroupCommit(queue, InlineDisk())
        async with trio.open_nursery() as nursery:
            await nursery.start(door.serve)
            assert await door.run(lambda queue: queue.entries.count()) == 0
            nursery.start_soon(late, door)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with pytest.raises(QueueUnavailable, match="has ended"):
            await door.run(lambda queue: queue.entries.count())
    assert refused == [True]


class Visits:
    """Work in threads that lasts until it is let go, and what is done when its callers have gone."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.left: queue.SimpleQueue[int] = queue.SimpleQueue()

    def __call__(self, number: int) -> int:
        self.begun.put(number)
        assert self.free.wait(DEADLINE)
        return number

    async def visit(self, disk: ThreadDisk, number: int) -> int:
        return await disk.run_or_leave(self, number, left=lambda: self.left.put(number))


async def test_what_a_gone_caller_left_is_cleaned_up_when_its_thread_has_ended() -> None:
    visits, disk = Visits(), ThreadDisk(1)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visits.visit, disk, 1)
            assert await trio.to_thread.run_sync(visits.begun.get) == 1
            nursery.cancel_scope.cancel()
        assert visits.left.empty()
        visits.free.set()
        assert await trio.to_thread.run_sync(visits.left.get) == 1


async def test_a_visit_whose_caller_went_before_it_began_is_never_made_and_cleaned_up_at_once() -> None:
    visits, disk = Visits(), ThreadDisk(1)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(visits.visit, disk, 1)
            assert await trio.to_thread.run_sync(visits.begun.get) == 1
            with trio.move_on_after(0):
                await visits.visit(disk, 2)
            assert await trio.to_thread.run_sync(visits.left.get) == 2
            visits.free.set()
        assert await visits.visit(disk, 3) == 3
    assert visits.begun.get(timeout=DEADLINE) == 3
    assert visits.begun.empty()
    assert visits.left.empty(), "who waits cleans up"
