"""The message log, which stores the dialogues and events of each message in the queue's database, for `trimta log`.

No session or delivery waits for it: lines are collected, and stored a moment later with those of other messages in one
commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from trimta import real_time
from trimta.store.queue.errors import QueueError
from trimta.store.queue.values import message_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trimta.runtime.events import Event
    from trimta.runtime.group_commit import GroupCommit
    from trimta.runtime.queue_clock import QueueClock
    from trimta.store.queue.queue import Queue

MOMENT: Final = 0.3
"""Seconds from the first line that waits to the commit."""

NOTE_SIZE: Final = 8 * 1024
"""Characters after which a message's next lines begin a new note."""

BACKLOG: Final = 8 * 1024 * 1024
"""Characters that may wait in memory; lines beyond that are lost."""


@dataclass(slots=True)
class _Note:
    message: str
    lines: list[tuple[float, str]]
    size: int


class DialogueLog(Protocol):
    """Where a session's dialogue is kept for `trimta log`."""

    def note_dialogue(self, message: str, lines: Sequence[tuple[float, str]]) -> None:
        """Add lines about a message, each with its own moment, in seconds since the epoch on the queue's clock."""


class MessageLog:
    """Collects lines about messages and stores them; subscribed to `Events`, it keeps the events about a message."""

    def __init__(self, queue: GroupCommit, clock: QueueClock) -> None:
        self._queue = queue
        self._clock = clock
        self._notes: list[_Note] = []
        self._latest: dict[str, _Note] = {}
        """The last note of each message with lines that wait."""
        self._size = 0
        self._work = trio.Event()

    def __call__(self, event: Event) -> None:
        """Note an event under the message that it names; the event `report` under the message it reports on, too."""
        for key in ("id", "about"):
            entry_id = event.fields.get(key)
            if isinstance(entry_id, str):
                # It may come from another process.
                moment = self._clock.now() - max(0.0, real_time.wall() - event.at)
                self.note_dialogue(message_id(entry_id), [(moment, event.as_line(without=key))])

    def note(self, message: str, lines: Iterable[str]) -> None:
        """Add lines about a message, with the present moment as their time.  They hold no secrets and no bodies."""
        now = self._clock.now()
        self.note_dialogue(message, [(now, line) for line in lines])

    def note_dialogue(self, message: str, lines: Sequence[tuple[float, str]]) -> None:
        """Add lines about a message, each with its own moment, in seconds since the epoch on the queue's clock."""
        size = sum([len(line) for _, line in lines]) + len(lines)
        if not lines or self._size + size > BACKLOG:
            return
        note = self._latest.get(message)
        if note is None or note.size > NOTE_SIZE:
            note = self._latest[message] = _Note(message, [], 0)
            self._notes.append(note)
        note.lines += lines
        note.size += size
        self._size += size
        self._work.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Store lines until cancelled, then those that still wait, for a second at most."""
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
        """Store all lines noted so far; when this returns, they can be read."""
        notes, self._notes = self._notes, []
        self._latest = {}
        self._size = 0
        if self._work.is_set():
            self._work = trio.Event()

        def store(queue: Queue) -> None:
            for note in notes:
                queue.log.append_timed(note.message, note.lines)

        try:
            await self._queue.run(store)  # also without notes: the lines of an earlier flush may not be committed yet
        except QueueError:  # a full disk: mail meets the same trouble, and is answered for it
            return
