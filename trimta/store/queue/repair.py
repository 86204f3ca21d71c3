"""What is wrong with a queue: found at start, set aside in `data_dir/damaged/<id>.json` and `.content`, for people to
look at.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import TYPE_CHECKING, Any, Final

from trimta.store import durable
from trimta.store.queue import loss
from trimta.store.queue.envelopes import Envelopes
from trimta.store.queue.rows import is_message_id
from trimta.store.queue.values import Recovered, SetAside
from trimta.store.spool import CHUNK, INCOMING, abandoned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_UNFIT: Final = re.compile(r"[^A-Za-z0-9_.-]|^\.")

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
"""What can't be queued, and why: such entries would stay for ever, or until their next try, and nobody would know.
Only what costs little with 100 000 of them; the rest is seen when an envelope is loaded.
"""


class Repair(Envelopes):
    """What the server does about damage, rather than not start."""

    def recover(self, now: float) -> Recovered:
        """To be called once by the server when it starts, before it spools anything: removes spool files that belong to
        no message, sets aside entries that can't ever be sent, and brings `destinations` up to date.
        Where a queue was lost, spool files of no message are kept as damaged.  Reads no content.
        """
        with self.transaction():
            removed = list(abandoned(self._spool, now=now))
            damaged: dict[str, str] = {}
            sizes = self._spool_sizes()
            for message_id, size in self._connection.execute("SELECT id, size FROM messages WHERE spooled"):
                if message_id not in sizes:
                    damaged[str(message_id)] = "its spool file is missing"
                elif sizes[message_id] != size:
                    damaged[str(message_id)] = f"its spool file has {sizes[message_id]} octets where {size} are meant"
                sizes.pop(message_id, None)
            strays = sorted(self._spool / name for name in sizes)
            rescued = loss.rescue(self._data_dir, strays) if loss.is_lost(self._data_dir) else []
            removed += [] if rescued else strays
            for statement, reason in _IMPOSSIBLE:
                for (entry_id,) in self._connection.execute(statement).fetchall():
                    damaged.setdefault(str(entry_id), reason)
            self._connection.execute(
                "DELETE FROM destinations"
                " WHERE typeof(due) != 'real' OR typeof(failed) != 'real' OR typeof(not_before) != 'real'"
            )
            reports = [self.set_aside(entry_id, reason) for entry_id, reason in damaged.items()]
            self._rebuild_destinations()
            self._doomed += removed
        set_aside = tuple(report for report in reports if report is not None)
        return Recovered(tuple(removed), set_aside, tuple(rescued))

    def set_aside(self, entry_id: str, reason: str) -> SetAside | None:
        """Move a damaged message, or one damaged envelope of it, to `damaged/` and out of the queue.  What can still be
        read of it is there as JSON, its content beside it.  None if it is gone already.
        """
        with self.transaction():
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
            path = write_damaged(self._data_dir / "damaged", entry_id, reason, rows, content)
            for seq in seqs:
                self._delete_envelope(seq)
            if row is not None:
                self._delete_message_without_envelopes(row[0])
            return SetAside(entry_id, reason, path)

    def _spool_sizes(self) -> dict[str, int]:
        """Of every file of the spool that no writer is at work on."""
        sizes = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._spool) as entries:
            for entry in entries:
                if not entry.name.startswith(INCOMING) and entry.is_file(follow_symlinks=False):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        return sizes

    def _rebuild_destinations(self) -> None:
        self._connection.execute(
            "DELETE FROM destinations WHERE next_hop NOT IN (SELECT next_hop FROM envelopes WHERE state = 'queued')"
        )
        wrong = self._connection.execute(
            "SELECT e.next_hop FROM"
            " (SELECT next_hop, min(next_try) AS first FROM envelopes WHERE state = 'queued' GROUP BY next_hop) e"
            " LEFT JOIN destinations d ON d.next_hop = e.next_hop"
            " WHERE d.due IS NOT e.first OR d.not_before > 0"
        ).fetchall()
        for (next_hop,) in wrong:
            self._touch(next_hop)

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


def write_damaged(
    directory: Path, entry_id: str, reason: str, rows: dict[str, list[dict[str, Any]]], content: bytes | Path | None
) -> Path:
    """Write an entry's rows as JSON and, beside it, its content; durable.  Returns the path of the JSON file.

    The id may be damaged as well, so the file's name is only like it.  A spool file gets a second link rather than a
    copy.  An older file of that name is replaced: it is of an attempt whose transaction failed.
    """
    durable.make_dirs(directory)
    name = _UNFIT.sub("_", entry_id)[:100] or "_"
    path = directory / f"{name}.json"
    beside = directory / f"{name}.content"
    path.unlink(missing_ok=True)
    beside.unlink(missing_ok=True)
    if isinstance(content, bytes):
        durable.write_file(beside, [content])
    elif content is not None and content.is_file():
        try:
            os.link(content, beside)
        except OSError:  # a file system without links
            durable.write_file(beside, _chunks(content))
    text = json.dumps({"id": entry_id, "reason": reason, **rows}, indent=2, default=_octets)
    durable.write_file(path, [text.encode(), b"\n"])
    durable.fsync_dir(directory)
    return path


def _octets(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else repr(value)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk
