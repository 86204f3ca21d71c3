"""Each message's whole life, for `trimta log`: dialogues and events, written behind the mail's back.

Nobody waits for it: lines are collected and stored a moment later, many messages in one commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from trimta.mta.events import as_line
from trimta.store.queue_values import QueueError, message_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trimta.mta.clock import QueueClock
    from trimta.mta.disk import QueueDoor
    from trimta.mta.events import Event
    from trimta.store.queue import Queue

MOMENT: Final = 0.3
"""Seconds between two commits."""

TOGETHER: Final = 0.05
"""Seconds within which lines about a message are stored as one note, with one time."""

NOTE_SIZE: Final = 8 * 1024
"""Characters after which a message's next lines are another note."""

BACKLOG: Final = 8 * 1024 * 1024
"""Characters that may wait; what comes on top is not kept."""


@dataclass(slots=True)
class _Note:
    message: str
    lines: list[str]
    at: float
    size: int


class History:
    """Collects notes and stores them; a subscriber of events, of which it keeps those about a message."""

    def __init__(self, door: QueueDoor, clock: QueueClock) -> None:
        self._door = door
        self._clock = clock
        self._notes: list[_Note] = []
        self._latest: dict[str, _Note] = {}
        """The last note of each message that has some waiting."""
        self._size = 0
        self._work = trio.Event()

    def __call__(self, event: Event) -> None:
        """Note an event under the message it names, and a report under the one that it is about, too."""
        for key in ("id", "about"):
            entry_id = event.fields.get(key)
            if isinstance(entry_id, str):
                facts = {name: value for name, value in event.fields.items() if name != key}
                self.note(message_id(entry_id), [as_line(event.name, facts)])

    def note(self, message: str, lines: Iterable[str]) -> None:
        """Add lines to the life of a message: bounded, without secrets and without bodies."""
        lines = list(lines)
        size = sum(map(len, lines)) + len(lines)
        if not lines or self._size + size > BACKLOG:
            return
        now = self._clock.now()
        note = self._latest.get(message)
        if note is None or note.size > NOTE_SIZE or now - note.at > TOGETHER:
            note = self._latest[message] = _Note(message, [], now, 0)
            self._notes.append(note)
        note.lines += lines
        note.size += size
        self._size += size
        self._work.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Store until cancelled, and then, for a second at most, what is left."""
        task_status.started()
        try:
            while True:
                await self._work.wait()
                await trio.sleep(MOMENT)
                await self.flush()
        finally:
            with trio.move_on_after(1, shield=True):
                await self.flush()

    async def flush(self) -> None:
        """Store what was noted so far; on return it can be read."""
        notes, self._notes = self._notes, []
        self._latest = {}
        self._size = 0
        if self._work.is_set():
            self._work = trio.Event()

        def store(queue: Queue) -> None:
            for note in notes:
                queue.append_log(note.message, note.lines, note.at)

        try:
            await self._door.run(store)  # also without notes: those of an earlier flush may still be on their way
        except QueueError:  # the disk is full: mail's own trouble is reported where it matters
            return
