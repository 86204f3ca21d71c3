"""The schema of the queue's database, and the opening of the database.

A message has a row, its content another row (or a spool file), and one or more envelopes.  An envelope has recipients,
each until its outcome is final.  The table `destinations` is derived from the envelopes: see `destinations`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from trimta.real_time import monotonic
from trimta.store import durable
from trimta.store.queue import migration
from trimta.store.queue.errors import QueueUnreadable

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "queue.sqlite3"

VERSION: Final = 2
"""The version of the schema below (PRAGMA user_version); `migration.STEPS` changes older databases."""

BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait for another process's write transaction, all of which are short."""

TABLES: Final = """
CREATE TABLE meta (
    key         TEXT PRIMARY KEY,
    value       TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE messages (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    arrived     REAL NOT NULL,
    sender      TEXT NOT NULL,              -- for filters: lower case, "<>" for the null path
    fields      TEXT NOT NULL,              -- JSON: what nobody searches for
    trace       BLOB NOT NULL,
    size        INTEGER NOT NULL,           -- of the content, as kept
    lines       INTEGER NOT NULL,
    spooled     INTEGER NOT NULL            -- 1: the content is the file spool/<id>; 0: it is in contents
);

CREATE TABLE contents (                     -- apart, so that listing messages does not read past them
    message     INTEGER PRIMARY KEY REFERENCES messages (seq) ON DELETE CASCADE,
    data        BLOB NOT NULL
);

CREATE TABLE envelopes (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    message     INTEGER NOT NULL REFERENCES messages (seq),
    number      INTEGER NOT NULL,
    domain      TEXT NOT NULL,
    next_hop    TEXT NOT NULL,
    state       TEXT NOT NULL,
    hold_reason TEXT NOT NULL,
    via         TEXT NOT NULL,
    released    INTEGER NOT NULL,
    bounce      INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    next_try    REAL NOT NULL,
    last_attempt REAL,
    warn_at     REAL,                       -- NULL: never
    warned      INTEGER NOT NULL,
    deadline    REAL                        -- of DELIVERBY, until it has had its consequence; NULL: there is none
);
CREATE INDEX envelopes_message ON envelopes (message);
CREATE INDEX envelopes_domain ON envelopes (domain);
CREATE INDEX envelopes_due ON envelopes (next_hop, next_try) WHERE state = 'queued';
CREATE INDEX envelopes_untried ON envelopes (next_hop, next_try) WHERE state = 'queued' AND attempts = 0;
CREATE INDEX envelopes_warn ON envelopes (warn_at) WHERE state = 'queued' AND warned = 0 AND warn_at IS NOT NULL;
CREATE INDEX envelopes_deadline ON envelopes (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE recipients (
    envelope    INTEGER NOT NULL REFERENCES envelopes (seq) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    address     TEXT NOT NULL,              -- for filters: lower case
    fields      TEXT NOT NULL,              -- JSON: mail.envelope.Recipient
    last        TEXT,                       -- JSON: mail.outcome.Deferred
    PRIMARY KEY (envelope, number)
) WITHOUT ROWID;

CREATE TABLE destinations (
    next_hop    TEXT PRIMARY KEY,
    due         REAL NOT NULL,              -- the least of what its queued envelopes are due at
    failed      REAL NOT NULL,              -- when it was found unusable, and until when what waited then is not
    not_before  REAL NOT NULL               -- tried; who comes later has a first try coming, at once
) WITHOUT ROWID;
CREATE INDEX destinations_due ON destinations (due);

CREATE TABLE log (
    seq         INTEGER PRIMARY KEY,
    message     TEXT NOT NULL,              -- a message's id: it outlives the message
    at          REAL NOT NULL,
    text        TEXT NOT NULL
);
CREATE INDEX log_message ON log (message);
"""


def open_database(data_dir: Path) -> sqlite3.Connection:
    """A connection to the database, which is made if it is missing.

    Raises QueueUnreadable if that fails, and for a database of a newer version.
    """
    path = data_dir / FILE
    try:
        durable.make_dirs(data_dir)
        is_new = not path.exists()
        if is_new:
            # Made here for its mode: SQLite gives its other files that of the database.  One that is there is left
            # alone: closing a descriptor of it drops the locks of every connection that this process has (POSIX).
            with contextlib.suppress(FileExistsError):
                os.close(durable.create(path))
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
            if is_new:
                durable.fsync_dir(data_dir)
        except BaseException:  # an interrupt too must not leave it open; nothing is swallowed
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise QueueUnreadable(path, error) from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    _enter_wal_mode(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -8000")
    connection.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
    if _version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == 0:  # else another process was faster
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    while (version := _version(connection)) in migration.STEPS:
        migration.migrate(connection, path, version)
    if version != VERSION:
        raise QueueUnreadable(
            path,
            f"it is of version {version}, this trimta reads version {VERSION}: use the trimta that made it, or another"
            " data_dir",
        )


def _enter_wal_mode(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode, again while SQLITE_BUSY is raised: SQLite does not wait for another process here."""
    give_up = monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
            return


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
