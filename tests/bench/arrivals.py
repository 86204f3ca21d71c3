"""Arrivals in Maildirs, as inotify(7) tells them: nobody has to look again and again, which would cost the server.

with Arrivals(maildir / "new") as arrivals:
    send(100)
    arrivals.wait(100)
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

PATIENCE: Final = 300.0
"""Seconds without an arrival after which a message counts as lost."""

_CREATED: Final = 0x100
_MOVED_TO: Final = 0x80
_OVERFLOW: Final = 0x4000
_NEWS: Final = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_BUFFER: Final = 1 << 20

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Arrivals:
    """A count of the files that came into folders since the block began.

    An overflow of the kernel's queue (16 384 arrivals that were not waited for) raises RuntimeError.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._descriptor = -1
        self.count = 0

    def __enter__(self) -> Self:
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        for folder in self._folders:
            _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _CREATED | _MOVED_TO))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def wait(self, count: int) -> float:
        """Wait until this many files came in all; returns the moment, as time.perf_counter tells it."""
        while self.count < count:
            readable, _, _ = select.select([self._descriptor], [], [], PATIENCE)
            if not readable:
                raise RuntimeError(f"only {self.count} of {count} files came")
            self._read()
        return time.perf_counter()

    def _read(self) -> None:
        news = os.read(self._descriptor, _BUFFER)
        position = 0
        while position < len(news):
            _, mask, _, length = _NEWS.unpack_from(news, position)
            if mask & _OVERFLOW:
                raise RuntimeError("more files came at once than inotify tells")
            self.count += 1
            position += _NEWS.size + length


def empty(folder: Path) -> None:
    """Remove the files of a folder."""
    for path in folder.iterdir():
        path.unlink()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
