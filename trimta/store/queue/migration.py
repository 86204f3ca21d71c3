"""Databases of older versions are brought up to date when they are opened; a copy of the old one is kept beside."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from trimta.store import durable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

STEPS: Final[Mapping[int, Sequence[str]]] = {
    1: (
        "ALTER TABLE envelopes ADD COLUMN deadline REAL",
        # Of mode N it was the moment of the one warning, and nobody hears of a message from the null path.
        "UPDATE envelopes SET deadline = (SELECT CAST(json_extract(m.fields, '$.by[0]') AS REAL) FROM messages m"
        " WHERE m.seq = envelopes.message AND json_valid(m.fields) AND json_type(m.fields, '$.by[0]') IS NOT NULL"
        " AND (json_extract(m.fields, '$.by[1]') = 'R'"
        " OR m.sender != '<>' AND NOT (envelopes.warned AND envelopes.warn_at >= json_extract(m.fields, '$.by[0]'))))",
        "CREATE INDEX envelopes_deadline ON envelopes (deadline) WHERE deadline IS NOT NULL",
    ),
}
"""What makes a database of the next version of one of this version."""


def migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Make a database of this version (a key of `STEPS`) one of the next; nothing happens where another process was
    faster.  The old one is kept as `queue.sqlite3.version-1`.
    """
    keep_copy(connection, path.with_name(f"{path.name}.version-{version}"))
    connection.execute("BEGIN IMMEDIATE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == version:
            for statement in STEPS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):  # the error that brought us here says more
            connection.execute("ROLLBACK")
        raise


def keep_copy(connection: sqlite3.Connection, target: Path) -> None:
    """Write a copy of the database, whole or not at all.  One that is there, from a start that was cut short, stays."""
    if target.exists():
        return
    part = target.with_name(f"{target.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    os.close(durable.create(part))  # for its mode
    try:
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
            connection.backup(copy)
        durable.rename(part, target)
        durable.fsync_dir(target.parent)
    finally:
        part.unlink(missing_ok=True)
