"""A queue that was there and is gone is never taken for a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trimta.store import queue_loss
from trimta.store.queue import Queue
from trimta.store.queue_schema import FILE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_lost_queue_is_remembered_until_somebody_has_told(how: str, tmp_path: Path) -> None:
    assert not queue_loss.is_lost(tmp_path)
    for _ in range(2):
        with Queue(tmp_path) as queue:
            assert queue.count() == 0
        assert not queue_loss.is_lost(tmp_path)
    (tmp_path / FILE).unlink() if how == "deleted" else (tmp_path / FILE).write_bytes(b"")
    assert queue_loss.is_lost(tmp_path)
    for _ in range(2):  # whoever opens it makes a new one, and it stays known that there was another
        with Queue(tmp_path) as queue:
            assert queue.count() == 0
        assert queue_loss.is_lost(tmp_path)
    queue_loss.note(tmp_path, told=True)
    assert not queue_loss.is_lost(tmp_path)


def test_a_queue_of_before_the_marker_is_marked_when_it_is_opened(tmp_path: Path) -> None:
    with Queue(tmp_path):
        pass
    (tmp_path / queue_loss.MARKER).unlink()
    with Queue(tmp_path):
        pass
    (tmp_path / FILE).unlink()
    assert queue_loss.is_lost(tmp_path)


def test_what_is_left_of_large_messages_is_kept(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "abc").write_bytes(b"content")
    (spool / "incoming-1-aa").write_bytes(b"half")
    assert queue_loss.rescue(tmp_path, spool) == [tmp_path / "damaged" / "abc.content"]
    assert (tmp_path / "damaged" / "abc.content").read_bytes() == b"content"
    assert [path.name for path in spool.iterdir()] == ["incoming-1-aa"]
    assert queue_loss.rescue(tmp_path, tmp_path / "none") == []
