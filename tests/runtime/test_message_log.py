"""What `trimta log` reads: written behind the mail's back, in order, bounded."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from tests.support.clock import mock_wall
from trimta.runtime.background import background
from trimta.runtime.disk import InlineDisk
from trimta.runtime.events import Event
from trimta.runtime.group_commit import GroupCommit
from trimta.runtime.message_log import BACKLOG, MOMENT, MessageLog
from trimta.runtime.queue_clock import QueueClock
from trimta.store.queue.errors import QueueUnavailable
from trimta.store.queue.message_log_table import MessageLogTable
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    import pytest
    from trio.testing import MockClock


@dataclass
class Kept:
    """A history and the queue that it is in."""

    history: MessageLog
    queue: Queue
    clock: QueueClock

    def of(self, message: str) -> list[str]:
        return [line for _, line in self.queue.log.read(message)]


@asynccontextmanager
async def keeping(folder: Path) -> AsyncGenerator[Kept, None]:
    with Queue(folder) as queue:
        clock = QueueClock(wall=mock_wall())
        door = GroupCommit(queue, InlineDisk())
        history = MessageLog(door, clock)
        async with background(door.serve), background(history.serve):
            yield Kept(history, queue, clock)


async def test_notes_are_stored_a_moment_later(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with keeping(tmp_path) as kept:
        kept.history.note("m1", ["C: EHLO x", "S: 250 y"])
        kept.history.note("m2", ["other"])
        kept.history.note("m1", ["S: 221 bye"])
        assert kept.of("m1") == []
        await trio.sleep(2 * MOMENT)
        assert kept.of("m1") == ["C: EHLO x", "S: 250 y", "S: 221 bye"]
        assert kept.of("m2") == ["other"]


async def test_what_is_noted_at_the_end_is_stored_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with keeping(tmp_path) as kept:
        kept.history.note("m1", ["last words"])
        queue = kept.queue
        queue.close = lambda: None  # type: ignore[method-assign]
    assert kept.of("m1") == ["last words"]
    Queue.close(queue)


async def test_who_cannot_wait_flushes_and_later_notes_are_stored_as_well(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with keeping(tmp_path) as kept:
        await kept.history.flush()  # with nothing there, while the history waits for something
        kept.history.note("m1", ["one"])
        await kept.history.flush()
        assert kept.of("m1") == ["one"]
        kept.history.note("m1", ["two"])
        await trio.sleep(2 * MOMENT)
        assert kept.of("m1") == ["one", "two"]


async def test_each_line_has_its_time_on_the_queues_clock(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with keeping(tmp_path) as kept:
        start = kept.clock.now()
        kept.history.note("m1", ["one"])
        kept.clock.advance_to(start + 3600)
        kept.history.note("m1", ["two"])
        await trio.sleep(MOMENT / 10)
        kept.history.note("m1", ["three"])
        kept.history.note_dialogue("m1", [(start + 0.5, "C: a"), (start + 3600.02, "S: b"), (start + 3601.5, "S: c")])
        await kept.history.flush()
        lines = [(round(at - start, 3), line) for at, line in kept.queue.log.read("m1")]
    assert lines == [
        (0, "one"),
        (0.5, "C: a"),
        (3600, "two"),
        (3600.02, "S: b"),
        (3600.03, "three"),
        (3601.5, "S: c"),
    ]


async def test_events_are_kept_under_the_message_they_name_and_are_about(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with keeping(tmp_path) as kept:
        kept.history(Event("connect", {"client": "127.0.0.1"}))
        kept.history(Event("accepted", {"id": "m1", "to": ["a@x.test", "b@x.test"]}))
        kept.history(Event("report", {"id": "m2", "about": "m1", "kind": "failed"}))
        kept.history(Event("damaged", {"id": "m1.3", "reason": "a\nb"}))
        await kept.history.flush()
        assert kept.of("m1") == [
            "accepted to=a@x.test,b@x.test",
            "report id=m2 kind=failed",
            r'damaged reason="a\x0ab"',
        ]
        assert kept.of("m2") == ["report about=m1 kind=failed"]


async def test_memory_is_bounded_whatever_is_noted(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with keeping(tmp_path) as kept:
        for number in range(2 * BACKLOG // 100_000):
            kept.history.note(f"m{number}", ["x" * 100_000])
        await kept.history.flush()
        stored = [number for number in range(2 * BACKLOG // 100_000) if kept.of(f"m{number}")]
        assert len(stored) == BACKLOG // 100_001
        kept.history.note("later", ["there is room again"])
        await kept.history.flush()
        assert kept.of("later") == ["there is room again"]


async def test_a_full_disk_ends_nothing(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping(tmp_path) as kept:

        def full(*_: object) -> None:
            raise QueueUnavailable("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(MessageLogTable, "append_timed", full)
            kept.history.note("m1", ["lost"])
            await trio.sleep(2 * MOMENT)
        kept.history.note("m1", ["kept"])
        await trio.sleep(2 * MOMENT)
        assert kept.of("m1") == ["kept"]
