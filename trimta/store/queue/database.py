"""The queue's connection: transactions, group commit, and the spool files that come and go with them."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self, TypeVar

from trimta.store import durable
from trimta.store.queue import loss
from trimta.store.queue.schema import FILE, open_database
from trimta.store.queue.values import QueueError, QueueFull, QueueUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from trimta.store.spool import Body

T = TypeVar("T")

CLOSE_LIMIT: Final = 0.5
"""Seconds that closing waits for a batch under way."""


class Database:
    """The database and the spool of one data directory, changed together or not at all."""

    def __init__(self, data_dir: Path) -> None:
        """Open it, made first if there is none.  QueueUnreadable if the database can't be read."""
        self._data_dir = data_dir
        self._spool = data_dir / "spool"
        try:
            loss.note(data_dir)  # before a new database takes the place of one that is gone
            self._connection = open_database(data_dir)
            loss.note(data_dir)
        except OSError as error:
            raise QueueUnreadable(data_dir / FILE, error) from error
        self._batch = threading.Lock()
        """Held by the thread that runs a batch."""
        self._active = False
        self._moved: list[tuple[Path | None, Path]] = []
        """Spool files named in the current transaction: (name before, name now); None: it was made."""
        self._doomed: list[Path] = []
        """Spool files to remove once the current transaction is committed."""

    @property
    def spool(self) -> Path:
        """Where SpoolWriter puts large content, so that the queue can take it over by renaming."""
        return self._spool

    def close(self) -> None:
        """Close the database.  Idempotent.  Where a thread is still at work on a disk that hangs, it stays open:
        nothing that was committed depends on its being closed.
        """
        if self._batch.acquire(timeout=CLOSE_LIMIT):
            self._connection.close()
            self._batch.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, batch: Sequence[Callable[[Self], T]]) -> list[T | Exception]:
        """Run many operations in one transaction, and commit once: group commit.

        Returns, in order, what each returned, or the exception it raised; a failing one leaves no trace and does not
        disturb the others.  If the commit itself fails, nothing has happened and each one's answer is a QueueError.
        """
        try:
            with self._batch, self.transaction():
                return [self._run_one(operation) for operation in batch]
        except QueueError as error:
            return [error for _ in batch]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done inside is done as a whole or, when an exception leaves the block, not at all."""
        if self._active:
            with self._translated():
                yield
            return
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            self._active = True
            try:
                yield
                if self._moved:
                    durable.fsync_dir(self._spool)
                self._connection.execute("COMMIT")
            except BaseException:  # whatever it was, nothing has happened; nothing is swallowed
                self._roll_back()
                raise
            finally:
                self._active = False
            self._moved.clear()
            doomed, self._doomed = self._doomed, []
            for path in doomed:
                with contextlib.suppress(OSError):  # recover() removes it at the next start
                    path.unlink(missing_ok=True)

    def get_meta(self, key: str) -> str | None:
        """A value that outlives the process, such as how far the queue's clock is ahead."""
        with self._translated():
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Set such a value."""
        with self.transaction():
            self._connection.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )

    def _run_one(self, operation: Callable[[Self], T]) -> T | Exception:
        moved, doomed = len(self._moved), len(self._doomed)
        self._connection.execute("SAVEPOINT operation")
        try:
            result = operation(self)
        except Exception as error:
            if not self._connection.in_transaction:  # SQLite gave up on all of it: disk full, I/O error
                raise QueueFull(f"the transaction was rolled back: {error}") from error
            self._connection.execute("ROLLBACK TO operation")
            self._connection.execute("RELEASE operation")
            self._move_back(moved)
            del self._doomed[doomed:]
            return error
        self._connection.execute("RELEASE operation")
        return result

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the error that brought us here says more
                self._connection.execute("ROLLBACK")
        self._move_back(0)
        self._doomed.clear()

    def _move_back(self, count: int) -> None:
        """Give spool files their old names, so that whoever wrote them still has them."""
        for source, target in reversed(self._moved[count:]):
            with contextlib.suppress(OSError):  # then recover() removes it
                if source is None:
                    target.unlink()
                else:
                    durable.rename(target, source)
        del self._moved[count:]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise QueueUnreadable(self._data_dir / FILE, error) from error
            raise QueueFull(f"{self._data_dir / FILE}: {error}") from error
        except OSError as error:
            raise QueueFull(str(error)) from error

    def _adopt(self, content: Body, message_id: str) -> Body:
        """Make a body's file the spool file of a message; it is undone if the transaction fails."""
        target = self._spool / message_id
        durable.make_dirs(self._spool)
        if content.path is None:
            durable.write_file(target, content.chunks())
        else:
            durable.rename(content.path, target)
        self._moved.append((content.path, target))
        return replace(content, data=None, path=target)
