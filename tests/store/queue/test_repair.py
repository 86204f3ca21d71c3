from __future__ import annotations

import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.store.support import NOW, envelope, message
from trimta.store.queue.errors import DamagedEntry, QueueUnreadable
from trimta.store.queue.queue import Queue
from trimta.store.queue.sql_schema import FILE
from trimta.store.spool import MEMORY_LIMIT

if TYPE_CHECKING:
    from pathlib import Path

LARGE = b"x" * (MEMORY_LIMIT + 1)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A queue with m1 (two envelopes), m2, and m3, which is large."""
    with Queue(tmp_path) as queue:
        queue.accept(message("m1"), [envelope(domain="a.test"), envelope(domain="b.test")])
        queue.accept(message("m2"), [envelope()])
        queue.accept(message("m3", LARGE), [envelope()])
    return tmp_path


def spoil(data_dir: Path, *statements: str) -> None:
    connection = sqlite3.connect(data_dir / FILE)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def ids(queue: Queue) -> list[str]:
    return [listed.envelope.id for listed in queue.entries.list_envelopes()]


@pytest.mark.parametrize(
    ("statement", "asked", "damaged", "left"),
    [
        ("UPDATE messages SET fields = '{' WHERE id = 'm1'", "m1.1", "m1", ["m2", "m3"]),
        ("UPDATE messages SET fields = '[]' WHERE id = 'm2'", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("UPDATE messages SET fields = '{\"body\":\"7BIT\"}' WHERE id = 'm2'", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("UPDATE messages SET fields = x'00' WHERE id = 'm2'", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("UPDATE messages SET trace = 'text' WHERE id = 'm2'", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("UPDATE messages SET arrived = 'then' WHERE id = 'm2'", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("UPDATE messages SET size = 'big' WHERE id = 'm2'", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("UPDATE messages SET size = 7 WHERE id = 'm3'", "m3", "m3", ["m1.1", "m1.2", "m2"]),
        ("UPDATE messages SET id = '../../etc' WHERE id = 'm2'", "m2", "../../etc", ["m1.1", "m1.2", "m3"]),
        ("UPDATE contents SET data = x'00' WHERE message = 2", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("UPDATE contents SET data = 'text' WHERE message = 2", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("DELETE FROM contents WHERE message = 2", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("DELETE FROM messages WHERE id = 'm2'", "m2", "m2", ["m1.1", "m1.2", "m3"]),
        ("UPDATE envelopes SET state = 'odd' WHERE id = 'm1.1'", "m1.1", "m1.1", ["m1.2", "m2", "m3"]),
        ("UPDATE envelopes SET next_try = 'soon' WHERE id = 'm1.1'", "m1.1", "m1.1", ["m1.2", "m2", "m3"]),
        ("UPDATE envelopes SET next_hop = x'ff' WHERE id = 'm1.1'", "m1.1", "m1.1", ["m1.2", "m2", "m3"]),
        ("DELETE FROM recipients WHERE envelope = 1", "m1.1", "m1.1", ["m1.2", "m2", "m3"]),
        ("UPDATE recipients SET fields = '{}' WHERE envelope = 1", "m1.1", "m1.1", ["m1.2", "m2", "m3"]),
        ("UPDATE recipients SET fields = 'null' WHERE envelope = 1", "m1.1", "m1.1", ["m1.2", "m2", "m3"]),
        (
            """UPDATE recipients SET fields = '{"to":["a b","x..y"]}' WHERE envelope = 1""",
            "m1.1",
            "m1.1",
            ["m1.2", "m2", "m3"],
        ),
        ("UPDATE recipients SET last = '[1]' WHERE envelope = 1", "m1.1", "m1.1", ["m1.2", "m2", "m3"]),
        ("UPDATE recipients SET last = x'00' WHERE envelope = 1", "m1.1", "m1.1", ["m1.2", "m2", "m3"]),
        (
            """UPDATE recipients SET last = '["5.1.1","","",0]' WHERE envelope = 1""",
            "m1.1",
            "m1.1",
            ["m1.2", "m2", "m3"],
        ),
    ],
)
def test_a_damaged_row_is_noticed_when_loaded_and_set_aside(
    data_dir: Path, statement: str, asked: str, damaged: str, left: list[str]
) -> None:
    spoil(data_dir, statement)
    with Queue(data_dir) as queue:
        assert len(ids(queue)) == 4
        with pytest.raises(DamagedEntry) as caught:
            queue.entries.load(asked)
        assert caught.value.id == damaged
        report = queue.repair.set_aside(caught.value.id, caught.value.reason)
        assert report is not None
        written: dict[str, Any] = json.loads(report.path.read_text())
        assert written["id"] == damaged
        assert written["reason"] == caught.value.reason
        assert report.path.parent == data_dir / "damaged"
        assert queue.repair.set_aside(caught.value.id, "again") is None
        assert ids(queue) == left
        for envelope_id in left:
            assert queue.entries.load(envelope_id) is not None
        assert queue.repair.recover(NOW).set_aside == ()


def test_a_damaged_list_entry_hides_no_other(data_dir: Path) -> None:
    spoil(data_dir, "UPDATE recipients SET fields = '{}' WHERE envelope = 1", "DELETE FROM messages WHERE id = 'm2'")
    with Queue(data_dir) as queue:
        listed = {one.envelope.id: one.envelope.hold_reason for one in queue.entries.list_envelopes()}
    assert [one for one, reason in listed.items() if reason.startswith("damaged: ")] == ["m1.1", "m2"]
    assert len(listed) == 4


def test_what_is_set_aside_can_be_read_by_people(data_dir: Path) -> None:
    with Queue(data_dir) as queue:
        report = queue.repair.set_aside("m1", "seen in a test")
        assert report is not None
        written = json.loads(report.path.read_text())
        assert [row["id"] for row in written["messages"]] == ["m1"]
        assert [row["id"] for row in written["envelopes"]] == ["m1.1", "m1.2"]
        assert len(written["recipients"]) == 2
        assert written["messages"][0]["trace"] == "Received: x\n"
        assert report.path.with_suffix(".content").read_bytes() == b"Subject: hi\n\nhello\n"
        large = queue.repair.set_aside("m3", "seen in a test")
        assert large is not None
        assert large.path.with_suffix(".content").read_bytes() == LARGE
        assert list(queue.spool.iterdir()) == []


def test_a_file_system_without_links_gets_a_copy(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    with Queue(data_dir) as queue:
        report = queue.repair.set_aside("m3", "")
    assert report is not None
    assert report.path.with_suffix(".content").read_bytes() == LARGE


@pytest.mark.parametrize(
    ("entry_id", "name"), [("../../x", "_._.._x.json"), ("", "_.json"), (".a", "_a.json"), ("y" * 500, "y" * 100)]
)
def test_a_damaged_id_names_no_path(data_dir: Path, entry_id: str, name: str) -> None:
    spoil(data_dir, "PRAGMA foreign_keys = OFF", f"UPDATE messages SET id = '{entry_id}' WHERE id = 'm2'")
    with Queue(data_dir) as queue:
        report = queue.repair.set_aside(entry_id, "")
    assert report is not None
    assert report.path.parent == data_dir / "damaged"
    assert report.path.name.startswith(name)


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_missing_or_short_spool_file_is_damage(data_dir: Path, content: bytes | None) -> None:
    path = data_dir / "spool" / "m3"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with Queue(data_dir) as queue:
        with pytest.raises(DamagedEntry, match="spool file") as caught:
            queue.entries.load("m3")
        assert caught.value.id == "m3"
        (report,) = queue.repair.recover(NOW).set_aside
        assert (report.id, report.path.name) == ("m3", "m3.json")
        assert report.path.with_suffix(".content").exists() == (content is not None)
        assert ids(queue) == ["m1.1", "m1.2", "m2"]


def test_recovering_sets_aside_what_would_stay_for_ever(data_dir: Path) -> None:
    spoil(
        data_dir,
        "UPDATE envelopes SET next_try = 'never' WHERE id = 'm1.1'",
        "DELETE FROM recipients WHERE envelope = 2",
        "DELETE FROM messages WHERE id = 'm2'",
        "DELETE FROM envelopes WHERE id = 'm3'",
    )
    with Queue(data_dir) as queue:
        found = queue.repair.recover(NOW)
        assert sorted(report.id for report in found.set_aside) == ["m1.1", "m1.2", "m2", "m3"]
        assert ids(queue) == []
        assert queue.repair.recover(NOW).set_aside == ()


@pytest.mark.parametrize(
    ("statement", "damaged"),
    [
        ("UPDATE messages SET fields = '{' WHERE id = 'm2'", "m2"),
        ("UPDATE messages SET fields = x'00' WHERE id = 'm2'", "m2"),
        ("UPDATE recipients SET fields = '{\"to' WHERE envelope = 1", "m1.1"),
        ("UPDATE recipients SET fields = x'00' WHERE envelope = 1", "m1.1"),
        ("UPDATE recipients SET last = 'x' WHERE envelope = 1", "m1.1"),
        ("UPDATE contents SET data = x'00' WHERE message = 2", "m2"),
        ("UPDATE contents SET data = 'text' WHERE message = 2", "m2"),
        ("DELETE FROM contents WHERE message = 2", "m2"),
    ],
)
def test_recovering_does_not_wait_for_the_next_try_to_see_damage(data_dir: Path, statement: str, damaged: str) -> None:
    spoil(data_dir, statement)
    with Queue(data_dir) as queue:
        (report,) = queue.repair.recover(NOW).set_aside
        assert report.id == damaged
        assert queue.repair.recover(NOW).set_aside == ()


def test_recovering_removes_files_of_no_message_and_no_others(data_dir: Path) -> None:
    for name in ("m9", f"incoming-{os.getpid()}-x", "incoming-1-x"):
        (data_dir / "spool" / name).write_bytes(b"")
    with Queue(data_dir) as queue:
        now = (data_dir / "spool" / "m9").stat().st_mtime
        assert {path.name for path in queue.repair.recover(now).removed} == {"m9", f"incoming-{os.getpid()}-x"}
        assert {path.name for path in queue.spool.iterdir()} == {"m3", "incoming-1-x"}


def test_recovering_mends_destinations(data_dir: Path) -> None:
    with Queue(data_dir) as queue:
        queue.destinations.defer("b.test", NOW, NOW + 60)
    spoil(
        data_dir,
        "DELETE FROM destinations WHERE next_hop = 'a.test'",
        "UPDATE destinations SET due = 9e12 WHERE next_hop = 'far.test'",
        "INSERT INTO destinations VALUES ('nobody', 0, 0, 0)",
    )
    with Queue(data_dir) as queue:
        assert queue.repair.recover(NOW).set_aside == ()
        assert queue.due.destinations(9e11, 10) == [("a.test", NOW), ("far.test", NOW), ("b.test", NOW + 60)]


def test_recovering_bears_with_damage_to_all_of_a_destination_that_is_spared(data_dir: Path) -> None:
    with Queue(data_dir) as queue:
        queue.destinations.defer("far.test", NOW, NOW + 60)
        queue.accept(message("m4"), [envelope()])
        queue.accept(message("m5"), [envelope()])
    (data_dir / "spool" / "m3").unlink()
    spoil(data_dir, "UPDATE envelopes SET next_try = 'soon' WHERE id IN ('m2', 'm4')")
    with Queue(data_dir) as queue:
        assert sorted(report.id for report in queue.repair.recover(NOW).set_aside) == ["m2", "m3", "m4"]
        assert ids(queue) == ["m1.1", "m1.2", "m5"]
        assert ("far.test", NOW + 60) in queue.due.destinations(9e11, 10)


@pytest.mark.parametrize("column", ["due", "failed", "not_before"])
def test_recovering_makes_a_damaged_destination_anew(data_dir: Path, column: str) -> None:
    spoil(data_dir, f"UPDATE destinations SET {column} = 'x'")
    with Queue(data_dir) as queue:
        assert queue.repair.recover(NOW).set_aside == ()
        assert [next_hop for next_hop, _ in queue.due.destinations(NOW, 10)] == ["a.test", "b.test", "far.test"]
        assert queue.entries.load("m2") is not None


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(QueueUnreadable, match=FILE):
        Queue(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_corrupt_page_is_an_unreadable_database(data_dir: Path) -> None:
    with Queue(data_dir) as queue:
        (page,) = queue._connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'envelopes'").fetchone()
    with (data_dir / FILE).open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with Queue(data_dir) as queue:
        with pytest.raises(QueueUnreadable, match=FILE):
            queue.entries.load("m1.1")
        (answer,) = queue.run([lambda queue: queue.remove("m1.1")])
        assert isinstance(answer, QueueUnreadable)


def test_a_newer_database_is_left_alone(data_dir: Path) -> None:
    spoil(data_dir, "PRAGMA user_version = 99")
    with pytest.raises(QueueUnreadable, match="version 99"):
        Queue(data_dir)


def test_a_data_dir_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueUnreadable, match="Not a directory"):
        Queue(tmp_path / "file" / "var")
