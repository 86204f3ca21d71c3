"""Migration of the queue's database: an older version is changed to the next one when it is opened.

A copy of the older database stays beside it.  A crash leaves the database as it was.
"""

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
        # Version 1 kept the deadline of BY mode N in warn_at, as the moment of the only delay warning.  A message from
        # the null reverse-path has no deadline in mode N, since nobody is to be told that it passed.
        "UPDATE envelopes SET deadline = (SELECT CAST(json_extract(m.fields, '$.by[0]') AS REAL) FROM messages m"
        " WHERE m.seq = envelopes.message AND json_valid(m.fields) AND json_type(m.fields, '$.by[0]') IS NOT NULL"
        " AND (json_extract(m.fields, '$.by[1]') = 'R'"
        " OR m.sender != '<>' AND NOT (envelopes.warned AND envelopes.warn_at >= json_extract(m.fields, '$.by[0]'))))",
        "CREATE INDEX envelopes_deadline ON envelopes (deadline) WHERE deadline IS NOT NULL",
    ),
}
"""SQL statements that change a database of the version in the key to the version after it."""


def migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Change a database from `version`, a key of `STEPS`, to the version after it, in one transaction.

    `path` is the database's file; its copy is kept as `queue.sqlite3.version-1`.  Nothing is changed where another
    process has done the migration meanwhile.  Raises sqlite3.Error and OSError; the database is then as it was.
    """
    keep_copy(connection, path.with_name(f"{path.name}.version-{version}"))
    connection.execute("BEGIN IMMEDIATE")
    try:
        (current,) = connection.execute("PRAGMA user_version").fetchone()
        if current == version:
            for statement in STEPS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):  # the first error says more about the cause
            connection.execute("ROLLBACK")
        raise


def keep_copy(connection: sqlite3.Connection, target: Path) -> None:
    """Write a copy of the database to the file `target`, whole or not at all.  Raises sqlite3.Error and OSError.

    A copy that an earlier, interrupted migration left is kept: it was made from the same database.
    """
    if target.exists():
        return
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    os.close(durable.create(unfinished))  # else SQLite would create the file, readable for other accounts
    try:
        with contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
            connection.backup(copy)
        durable.rename(unfinished, target)
        durable.fsync_dir(target.parent)
    finally:
        unfinished.unlink(missing_ok=True)
