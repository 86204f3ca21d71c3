"""A queue that was there and is gone is never taken for a new one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.store.support import NOW, envelope, message
from trimta.store.lock import taking_turns
from trimta.store.queue import loss
from trimta.store.queue.queue import Queue
from trimta.store.queue.sql_schema import FILE
from trimta.store.spool import MEMORY_LIMIT, SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trimta.store.spool import Body

CONTENT = b"x" * (MEMORY_LIMIT + 1)


@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_lost_queue_is_remembered_until_somebody_has_told(how: str, tmp_path: Path) -> None:
    assert not loss.is_lost(tmp_path)
    for _ in range(2):
        with Queue(tmp_path) as queue:
            assert queue.entries.count() == 0
        assert not loss.is_lost(tmp_path)
    (tmp_path / FILE).unlink() if how == "deleted" else (tmp_path / FILE).write_bytes(b"")
    assert loss.is_lost(tmp_path)
    for _ in range(2):  # whoever opens it makes a new one, and it stays known that there was another
        with Queue(tmp_path) as queue:
            assert queue.entries.count() == 0
        assert loss.is_lost(tmp_path)
    loss.note(tmp_path, told=True)
    assert not loss.is_lost(tmp_path)


@pytest.mark.parametrize("first", ["look", "other"])
def test_a_loss_is_remembered_when_two_open_the_queue_at_once(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes the new database just before, or just after, this one has looked for it."""
    Queue(tmp_path).close()
    (tmp_path / FILE).unlink()
    look = loss._is_empty

    def look_while_another_opens(database: Path) -> bool:
        monkeypatch.undo()
        before = look(database)
        Queue(tmp_path).close()
        return before if first == "look" else look(database)

    monkeypatch.setattr(loss, "_is_empty", look_while_another_opens)
    Queue(tmp_path).close()
    assert loss.is_lost(tmp_path)


def test_a_loss_that_is_told_in_the_turn_before_is_not_noted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Queue(tmp_path).close()
    (tmp_path / FILE).unlink()
    turn = taking_turns

    @contextlib.contextmanager
    def a_turn_after_the_server(folder: Path) -> Iterator[bool]:
        monkeypatch.undo()
        Queue(folder).close()
        loss.note(folder, told=True)
        with turn(folder) as alone:
            yield alone

    monkeypatch.setattr(loss, "taking_turns", a_turn_after_the_server)
    loss.note(tmp_path)
    assert not loss.is_lost(tmp_path)


def test_a_queue_of_before_the_marker_is_marked_when_it_is_opened(tmp_path: Path) -> None:
    with Queue(tmp_path):
        pass
    (tmp_path / loss.MARKER).unlink()
    with Queue(tmp_path):
        pass
    (tmp_path / FILE).unlink()
    assert loss.is_lost(tmp_path)


def test_what_is_left_of_large_messages_is_kept(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "abc").write_bytes(b"content")
    assert loss.rescue(tmp_path, [tmp_path / "spool" / "abc"]) == [tmp_path / "damaged" / "abc.content"]
    assert (tmp_path / "damaged" / "abc.content").read_bytes() == b"content"
    assert not (tmp_path / "spool" / "abc").exists()
    assert loss.rescue(tmp_path, []) == []


def test_a_message_that_came_after_the_loss_keeps_its_content(tmp_path: Path) -> None:
    with Queue(tmp_path) as queue:
        queue.accept(message("before", large(queue)), [envelope()])
    (tmp_path / FILE).unlink()
    with Queue(tmp_path) as queue:  # sendmail, while no server runs
        queue.accept(message("after", large(queue)), [envelope()])
    (tmp_path / "spool" / "incoming-1-aa").write_bytes(b"of a session that was cut off")
    with Queue(tmp_path) as queue:
        recovered = queue.repair.recover(NOW + 10**9)
        assert recovered.rescued == (tmp_path / "damaged" / "before.content",)
        assert [path.name for path in recovered.removed] == ["incoming-1-aa"]
        assert recovered.set_aside == ()
        kept, _ = queue.entries.show("after")
        assert kept.content.read() == CONTENT
    assert (tmp_path / "damaged" / "before.content").read_bytes() == CONTENT


def test_what_no_loss_explains_is_removed_as_ever(tmp_path: Path) -> None:
    with Queue(tmp_path) as queue:
        queue.accept(message("gone", large(queue)), [envelope()])
        (tmp_path / "spool" / "stray").write_bytes(b"x")
        recovered = queue.repair.recover(NOW)
        assert recovered.rescued == ()
        assert [path.name for path in recovered.removed] == ["stray"]


def large(queue: Queue) -> Body:
    writer = SpoolWriter(queue.spool)
    writer.append(CONTENT)
    return writer.finish()
