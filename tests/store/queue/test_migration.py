"""A database of an older version goes on working; one of a newer version is refused."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.store.support import NOW, envelope, message
from trimta.mail.envelope import Ret
from trimta.store.queue import migration
from trimta.store.queue.errors import QueueUnreadable
from trimta.store.queue.loss import MARKER
from trimta.store.queue.queue import Queue
from trimta.store.queue.sql_schema import FILE, VERSION
from trimta.store.queue.values import EnvelopeState

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION_1 = Path(__file__).parent / "queue_version_1.sql"


def rows(path: Path, statement: str) -> Sequence[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A data_dir with a database of version 1."""
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1.read_text())
    return tmp_path


def test_what_was_queued_is_there_and_can_be_worked_on(old: Path) -> None:
    with Queue(old) as queue:
        assert queue.repair.recover(NOW + 100).set_aside == ()
        assert queue.entries.count() == 10
        found = queue.entries.load("plain.1")
        assert found is not None
        stored, queued = found
        assert (stored.terms.envid, stored.terms.ret, stored.content.data) == (
            "e 1",
            Ret.HEADERS,
            b"Subject: plain\n\nhi\n",
        )
        assert (stored.terms.hold_request, stored.helo, stored.report) == ("", "", None)
        assert (queued.attempts, queued.next_try, queued.last_attempt) == (1, NOW + 61, NOW + 1)
        assert queued.recipients[0].reply == "450 4.2.1 later"
        assert queue.meta.get("clock_offset") == "3600.0"
        assert queue.log.read("plain") == [(NOW, "one"), (NOW, "two")]
        queue.accept(message("new"), [envelope()])
        for item in list(queue.entries.list_envelopes()):
            assert queue.settle(item.envelope.id, now=NOW + 100, done=[0])
        assert queue.entries.count() == 0


def test_deadlines_are_as_if_they_had_been_accepted_by_this_version(old: Path) -> None:
    with Queue(old) as queue:
        deadlines = {item.envelope.id: item.envelope.deadline for item in queue.entries.list_envelopes()}
        assert deadlines == {
            "plain.1": None,
            "plain.2": None,
            "return": NOW + 600,
            "heldreturn": NOW + 600,
            "notify": NOW + 900,
            "told": None,  # by the one warning that there was
            "early": NOW + 900,
            "nobody": None,
            "nobodyreturn": NOW + 600,
            "until": None,
        }
        held = queue.entries.load("heldreturn")
        assert held is not None
        assert held[1].state is EnvelopeState.HELD
        assert [id_ for id_, _ in queue.due.notices(NOW + 600, 99)] == ["return", "heldreturn", "nobodyreturn"]


def test_the_tables_are_those_of_a_new_database(old: Path, tmp_path: Path) -> None:
    Queue(old).close()
    Queue(tmp_path / "new").close()
    statement = "SELECT type, name FROM sqlite_master ORDER BY name"
    assert rows(old / FILE, statement) == rows(tmp_path / "new" / FILE, statement)
    for table in ("messages", "envelopes", "recipients", "destinations"):
        statement = f"SELECT name, type, \"notnull\" FROM pragma_table_info('{table}') ORDER BY cid"
        assert rows(old / FILE, statement) == rows(tmp_path / "new" / FILE, statement)
    assert rows(old / FILE, "PRAGMA user_version") == [(VERSION,)]


def test_a_copy_of_the_old_one_is_kept(old: Path) -> None:
    Queue(old).close()
    copy = old / f"{FILE}.version-1"
    assert rows(copy, "PRAGMA user_version") == [(1,)]
    assert rows(copy, "PRAGMA integrity_check") == [("ok",)]
    assert rows(copy, "SELECT count(*) FROM messages") == [(9,)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert {path.name for path in old.iterdir()} - {f"{copy.name}-shm", f"{copy.name}-wal"} == {FILE, copy.name, MARKER}
    before = copy.stat()
    Queue(old).close()
    assert copy.stat().st_mtime_ns == before.st_mtime_ns


def test_one_that_was_cut_short_is_made_again(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(migration.STEPS, 1, (*migration.STEPS[1], "SELECT nonsense"))
        with pytest.raises(QueueUnreadable, match="nonsense"):
            Queue(old)
    assert rows(old / FILE, "PRAGMA user_version") == [(1,)]
    with Queue(old) as queue:
        assert queue.entries.count() == 10


def test_two_processes_may_open_it_at_once(old: Path) -> None:
    with Queue(old) as first, Queue(old) as second:
        migration.migrate(first._connection, old / FILE, 1)  # it has found version 1, and is the slower one
        assert first.entries.count() == second.entries.count() == 10


def test_a_newer_one_is_refused_with_what_to_do(tmp_path: Path) -> None:
    Queue(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(QueueUnreadable, match=f"version {VERSION + 1}.*use the trimta that made it"):
        Queue(tmp_path)
