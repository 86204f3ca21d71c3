"""Each message's whole life, for `trimta log`: dialogues and outcomes, written behind the mail's back.

Nobody waits for it: lines are collected and stored a moment later, many messages in one commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from trimta.store.queue_values import QueueError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trimta.mta.clock import QueueClock
    from trimta.mta.disk import QueueDoor
    from trimta.store.queue import Queue

MOMENT: Final = 0.3
"""Seconds between two commits."""

BACKLOG: Final = 5_000
"""Notes that may wait; what comes on top is not kept."""


class History:
    """Collects notes and stores them."""

    def __init__(self, door: QueueDoor, clock: QueueClock) -> None:
        self._door = door
        self._clock = clock
        self._notes: list[tuple[str, list[str], float]] = []
        self._work = trio.Event()

    def note(self, message_id: str, lines: Iterable[str]) -> None:
        """Add lines to the life of a message: bounded, without secrets and without bodies."""
        lines = list(lines)
        if lines and len(self._notes) < BACKLOG:
            self._notes.append((message_id, lines, self._clock.now()))
            self._work.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Store until cancelled, and then, for a second at most, what is left."""
        task_status.started()
        try:
            while True:
                await self._work.wait()
                await trio.sleep(MOMENT)
                await self._store()
        finally:
            with trio.move_on_after(1, shield=True):
                await self._store()

    async def _store(self) -> None:
        notes, self._notes = self._notes, []
        self._work = trio.Event()
        if not notes:
            return

        def store(queue: Queue) -> None:
            for message_id, lines, at in notes:
                queue.append_log(message_id, lines, at)

        try:
            await self._door.run(store)
        except QueueError:  # the disk is full: mail's own trouble is reported where it matters
            return
