"""The queue's door: who comes when the server has ended is told so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trimta.mta.disk import InlineDisk, QueueDoor
from trimta.store.queue import Queue
from trimta.store.queue_values import QueueFull

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE = 20.0


async def test_nobody_waits_behind_a_shield_for_a_door_that_is_closed(tmp_path: Path) -> None:
    refused = []

    async def late(door: QueueDoor) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), pytest.raises(QueueFull, match="has ended"):
                await door.run(lambda queue: queue.count())
            refused.append(True)

    with Queue(tmp_path) as queue, trio.fail_after(DEADLINE):
        door = QueueDoor(queue, InlineDisk())
        async with trio.open_nursery() as nursery:
            await nursery.start(door.serve)
            assert await door.run(lambda queue: queue.count()) == 0
            nursery.start_soon(late, door)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with pytest.raises(QueueFull, match="has ended"):
            await door.run(lambda queue: queue.count())
    assert refused == [True]
