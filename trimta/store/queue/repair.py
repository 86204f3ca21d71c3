"""Repair of the queue: at the start spool files and tables are put in order; damaged entries are moved into files.

A damaged entry must not keep the server from starting, nor other entries from being sent.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from trimta.store.queue import damaged_files, loss
from trimta.store.queue.values import RecoveryReport, SetAside, is_message_id
from trimta.store.spool import INCOMING, abandoned

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trimta.store.queue.database import Database
    from trimta.store.queue.destinations import Destinations
    from trimta.store.queue.envelopes import Envelopes

_IMPOSSIBLE: Final = (
    (
        "SELECT id FROM envelopes e WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.seq = e.message)",
        "its message is missing",
    ),
    (
        "SELECT id FROM envelopes WHERE typeof(next_try) != 'real' OR state NOT IN ('queued', 'held')",
        "it would never be due",
    ),
    (
        "SELECT id FROM envelopes e WHERE NOT EXISTS (SELECT 1 FROM recipients r WHERE r.envelope = e.seq)",
        "it has no recipients",
    ),
    (
        "SELECT id FROM messages m WHERE NOT EXISTS (SELECT 1 FROM envelopes e WHERE e.message = m.seq)",
        "it has no envelopes",
    ),
    (
        "SELECT id FROM messages WHERE typeof(fields) != 'text' OR NOT json_valid(fields)",
        "its fields cannot be read",
    ),
    (
        "SELECT e.id FROM recipients r JOIN envelopes e ON e.seq = r.envelope"
        " WHERE typeof(r.fields) != 'text' OR NOT json_valid(r.fields)"
        " OR r.last IS NOT NULL AND (typeof(r.last) != 'text' OR NOT json_valid(r.last))",
        "a recipient of it cannot be read",
    ),
    (
        "SELECT id FROM messages m LEFT JOIN contents c ON c.message = m.seq"
        " WHERE NOT m.spooled AND (typeof(c.data) != 'blob' OR length(c.data) IS NOT m.size)",
        "its content is not whole",
    ),
)
"""Queries for damaged entries, each with the reason for people.

Such entries would stay in the queue for ever, or until their next try, unnoticed.  Each query is cheap with 100 000
entries; other damage is noticed when an envelope is loaded.
"""


class Repair:
    """The repair of damage, and of what a crash has left."""

    def __init__(self, database: Database, envelopes: Envelopes, destinations: Destinations) -> None:
        self._database = database
        self._connection = database.connection
        self._spool = database.spool_files.folder
        self._envelopes = envelopes
        self._destinations = destinations

    def recover(self, now: float) -> RecoveryReport:
        """Put the queue in order; called once at the server's start, before it writes spool files.

        Spool files that belong to no message are removed, entries that can never be sent are moved out, and the table
        `destinations` is brought up to date.  After the loss of a queue, spool files are kept in `damaged/` instead.
        `now` is seconds since the epoch.  No content is read.
        """
        with self._database.transaction():
            removed = list(abandoned(self._spool, now=now))
            damaged: dict[str, str] = {}
            sizes = _sizes(self._spool)
            for message_id, size in self._connection.execute("SELECT id, size FROM messages WHERE spooled"):
                if message_id not in sizes:
                    damaged[str(message_id)] = "its spool file is missing"
                elif sizes[message_id] != size:
                    damaged[str(message_id)] = f"its spool file has {sizes[message_id]} octets where {size} are meant"
                sizes.pop(message_id, None)
            data_dir = self._database.data_dir
            strays = sorted(self._spool / name for name in sizes)
            rescued = loss.rescue(data_dir, strays) if loss.is_lost(data_dir) else []
            removed += [] if rescued else strays
            for statement, reason in _IMPOSSIBLE:
                for (entry_id,) in self._connection.execute(statement).fetchall():
                    damaged.setdefault(str(entry_id), reason)
            self._destinations.remove_damaged()
            reports = [self.set_aside(entry_id, reason) for entry_id, reason in damaged.items()]
            self._destinations.rebuild()
            self._database.spool_files.remove_after_commit(removed)
        set_aside = tuple(report for report in reports if report is not None)
        return RecoveryReport(tuple(removed), set_aside, tuple(rescued))

    def set_aside(self, entry_id: str, reason: str) -> SetAside | None:
        """Move a damaged message, or one damaged envelope of it, out of the queue and into files in `damaged/`.

        The readable part of the entry is there as JSON, with its content beside it.  None if the entry is gone already.
        """
        with self._database.transaction():
            envelopes = self._connection.execute(
                "SELECT seq FROM envelopes WHERE message IN (SELECT seq FROM messages WHERE id = :id) OR id = :id",
                {"id": entry_id},
            ).fetchall()
            seqs = [seq for (seq,) in envelopes]
            row = self._connection.execute(
                "SELECT seq, id, spooled FROM messages WHERE id = :id"
                " OR seq = (SELECT message FROM envelopes WHERE id = :id)",
                {"id": entry_id},
            ).fetchone()
            if row is None and not seqs:
                return None
            rows: dict[str, list[dict[str, Any]]] = {
                "messages": [] if row is None else self._rows("messages", "seq", [row[0]]),
                "envelopes": self._rows("envelopes", "seq", seqs),
                "recipients": self._rows("recipients", "envelope", seqs),
            }
            content = None if row is None else self._raw_content(*row)
            path = damaged_files.write(self._database.data_dir / "damaged", entry_id, reason, rows, content)
            for seq in seqs:
                self._envelopes.delete(seq)
            if row is not None:
                self._envelopes.delete_message_without_envelopes(row[0], row[1], spooled=row[2])
            return SetAside(entry_id, reason, path)

    def _rows(self, table: str, column: str, keys: Sequence[int]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for key in keys:
            cursor = self._connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", (key,))
            names = [column[0] for column in cursor.description]
            rows += [dict(zip(names, row, strict=True)) for row in cursor]
        return rows

    def _raw_content(self, seq: int, message_id: object, spooled: object) -> bytes | Path | None:
        if spooled:
            return self._spool / message_id if isinstance(message_id, str) and is_message_id(message_id) else None
        row = self._connection.execute("SELECT data FROM contents WHERE message = ?", (seq,)).fetchone()
        return row[0] if row is not None and isinstance(row[0], bytes) else None


def _sizes(spool: Path) -> dict[str, int]:
    """The sizes in octets of the spool's files, by name, without those that a process is still writing."""
    sizes = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(spool) as entries:
        for entry in entries:
            if not entry.name.startswith(INCOMING) and entry.is_file(follow_symlinks=False):
                sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
    return sizes
