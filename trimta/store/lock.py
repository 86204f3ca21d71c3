"""Locks of a data directory: one server at a time, and short turns of several processes.

The kernel drops a lock with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final, Self

from trimta.real_time import monotonic
from trimta.store import durable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_FILE: Final = "lock"

TURN_LIMIT: Final = 10.0
"""Seconds to wait for a turn: turns are short, but a process may be stopped in the middle of its turn."""


class AlreadyLocked(Exception):  # noqa: N818
    """Another server runs on this data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        owner = "another server" if pid is None else f"another server (process {pid})"
        super().__init__(f"{data_dir} is in use by {owner}: stop it, or give this one another data_dir")
        self.data_dir = data_dir
        self.pid = pid
        """The process id of the other server; None if it could not be read."""


class DataDirLock:
    """The server's lock of its data directory, held from `acquire()` to `release()`, or within a `with` block.

    It is a flock() on `data_dir/lock`.  The file stays when the lock is released: removing it would let two processes
    lock two files of the same name.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock; the directory is made if there is none.

        Raises AlreadyLocked if another server has the lock, OSError if the file or the directory can't be made.
        """
        durable.make_dirs(self._data_dir)
        fd = os.open(self._data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, durable.PRIVATE_FILE)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyLocked(self._data_dir, _owner(fd)) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:  # whatever it was, the descriptor must not stay open; nothing is swallowed
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)  # the number in it no longer means anything
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # closing is not enough: a forked child may have the file open, too
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def locked_by(data_dir: Path) -> int | None:
    """The process id of the server that runs on `data_dir`; None without a server, 0 if it has not noted its id yet."""
    with contextlib.suppress(OSError):  # a file that can't be opened is not locked by a server of this account
        # Root may call this for another account's folder: links are not followed, and a FIFO is not waited for.
        fd = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(fd) or 0
        finally:
            os.close(fd)
    return None


@contextlib.contextmanager
def taking_turns(folder: Path, limit: float = TURN_LIMIT) -> Iterator[bool]:
    """A block in which one process at a time is, for this folder; gives whether this process has the turn.

    The lock is a flock() on the folder itself.  The block is entered without a turn if the file system has no such
    locks, and if another process has not left the block for `limit` seconds.  Raises OSError if the folder can't be
    read.
    """
    give_up = monotonic() + limit
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _wait_for_lock(fd, give_up)
    finally:
        os.close(fd)


def _wait_for_lock(fd: int, give_up: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= give_up:
                return False
            time.sleep(0.01)
        except OSError:
            return False
        else:
            return True


def _owner(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
