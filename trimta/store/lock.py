"""One data directory, one server.  The kernel drops the lock with the process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING, Final, Self

from trimta.store import durable

if TYPE_CHECKING:
    from pathlib import Path

LOCK_FILE: Final = "lock"


class AlreadyLocked(Exception):  # noqa: N818
    """Another server works on this data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        owner = "another server" if pid is None else f"another server (process {pid})"
        super().__init__(f"{data_dir} is in use by {owner}: stop it, or give this one another data_dir")
        self.data_dir = data_dir
        self.pid = pid
        """Its process id, if it could be read."""


class DataDirLock:
    """Held from `acquire()` to `release()`, or while used as a context manager.

    A flock() on `data_dir/lock`.  The file stays when the lock is released: removing it would let two processes lock
    two files of the same name.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, making the directory if needed.  AlreadyLocked if it is taken, OSError if it can't be made."""
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
        """Let go.  Idempotent."""
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
    """The process id of the server at work on `data_dir`, None if there is none (0 if it has not said who it is)."""
    with contextlib.suppress(OSError):  # what can't be opened is not locked by a server of ours
        # Asked as root, too, about a folder that is somebody else's: no link is followed, no FIFO waited for.
        fd = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _owner(fd) or 0
        finally:
            os.close(fd)
    return None


def _owner(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
