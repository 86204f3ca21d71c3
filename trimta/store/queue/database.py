"""The queue's connection to SQLite: transactions, a savepoint for each operation, SQLite's errors as QueueErrors."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from trimta.store.queue import loss
from trimta.store.queue.errors import QueueError, QueueUnavailable, QueueUnreadable
from trimta.store.queue.spool_files import SpoolFiles
from trimta.store.queue.sql_schema import FILE, open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


T = TypeVar("T")

CLOSE_LIMIT: Final = 0.5
"""Seconds that closing waits for a batch under way."""


class Database:
    """The database and the spool of one data directory, changed together or not at all.

    One thread at a time may use it; other processes may have connections of their own.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open the database, or make a new one.  Raises QueueUnreadable if that fails."""
        self.data_dir = data_dir
        self.spool_files = SpoolFiles(data_dir / "spool")
        try:
            loss.note(data_dir)  # before a new database takes the place of one that is gone
            self.connection = open_database(data_dir)
            try:
                loss.note(data_dir)
            except OSError:
                self.connection.close()
                raise
        except OSError as error:
            raise QueueUnreadable(data_dir / FILE, error) from error
        self._batch_lock = threading.Lock()
        """Held by the thread that runs a batch."""
        self._in_transaction = False
        self._lacks_savepoint = False
        """Whether an operation of a batch is under way that has changed nothing yet."""
        self.before_commit: Callable[[], None] = lambda: None
        """Called at the end of each transaction, to bring up to date what is derived from the rest."""

    def close(self) -> None:
        """Close the connection; a second call does nothing.

        While a thread is at work on a disk that hangs, the connection stays open: commits do not depend on its close.
        """
        if self._batch_lock.acquire(timeout=CLOSE_LIMIT):
            self.connection.close()
            self._batch_lock.release()

    def run(self, batch: Sequence[Callable[[], T]]) -> list[T | Exception]:
        """Run many operations in one transaction, and commit once: group commit.

        Returns, in order, what each operation returned, or the exception it raised.  A failing operation leaves no
        trace and does not disturb the others.  If the commit itself fails, nothing has happened, and the answer to
        each operation is a QueueError.
        """
        try:
            with self._batch_lock, self.transaction():
                return [self._run_apart(operation) for operation in batch]
        except QueueError as error:
            return [error for _ in batch]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A block whose changes are committed as a whole or, when an exception leaves the block, not at all.

        A block within another is a part of that.  Raises QueueUnavailable, QueueUnreadable.
        """
        if self._in_transaction:  # as in reading(), without the cost of a second context manager
            try:
                if self._lacks_savepoint:
                    self.connection.execute("SAVEPOINT operation")
                    self._lacks_savepoint = False
                yield
            except (sqlite3.Error, OSError) as error:
                raise self._translated(error) from error
            return
        with self.reading():
            self.connection.execute("BEGIN IMMEDIATE")
            self._in_transaction = True
            try:
                yield
                self.before_commit()
                self.spool_files.sync()
                self.connection.execute("COMMIT")
            except BaseException:  # the transaction is undone, whatever the error; all is raised again
                self._roll_back()
                raise
            finally:
                self._in_transaction = False
            self.spool_files.finish()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """A block in which an error of SQLite or of the disk is raised as QueueUnavailable or QueueUnreadable."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error | OSError) -> QueueError:
        if isinstance(error, OSError):
            return QueueUnavailable(str(error))
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return QueueUnreadable(self.data_dir / FILE, error)
        return QueueUnavailable(f"{self.data_dir / FILE}: {error}")

    def _run_apart(self, operation: Callable[[], T]) -> T | Exception:
        """Run one operation of a batch; if it fails, its changes are undone and its exception is returned.

        Each statement costs the batch a turn at Python's global lock, so that an operation that only reads, which
        never begins a `transaction()`, is spared its savepoint.
        """
        mark = self.spool_files.mark()
        result: T | Exception
        self._lacks_savepoint = True
        try:
            result = operation()
        except Exception as error:
            if not self.connection.in_transaction:  # SQLite has undone the whole transaction: disk full, I/O error
                raise QueueUnavailable(f"the transaction was rolled back: {error}") from error
            if not self._lacks_savepoint:
                self.connection.execute("ROLLBACK TO operation")
            self.spool_files.roll_back(mark)
            result = error
        if not self.connection.in_transaction:  # the same, and the operation has kept the error to itself
            raise QueueUnavailable("the transaction was rolled back")
        if not self._lacks_savepoint:
            self.connection.execute("RELEASE operation")
        self._lacks_savepoint = False
        return result

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error says more about the cause
                self.connection.execute("ROLLBACK")
        self.spool_files.roll_back()
