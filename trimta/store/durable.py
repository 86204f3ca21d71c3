"""Files and directories that survive power loss.  No other module calls fsync and rename.

A file is durable once its octets and its directory entry are both on the disk, which takes two fsyncs.  A new directory
is an entry in its parent, so that making a directory syncs the parent as well.

Some file systems can't sync a directory (vboxsf, some SMB and FUSE ones).  There entries are not synced, and listeners
of `on_unsynced` are told once for each file system.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    StrPath = str | os.PathLike[str]

T = TypeVar("T")
R = TypeVar("R")

PRIVATE_FILE: Final = 0o600
PRIVATE_DIR: Final = 0o700

_CANNOT_SYNC: Final = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""The error numbers by which a file system says that it can't sync directories; with files they are failures."""

_CANNOT_COPY: Final = {errno.EINVAL, errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""The error numbers by which a system says that it can't copy between two files; nothing was copied then."""
_COPIED_AT_ONCE: Final = 64 * 1024 * 1024
"""Octets that the kernel is asked to copy in one call."""
_READ_AT_ONCE: Final = 256 * 1024
"""Octets that are in memory where the kernel does not copy."""

SYNC_THREADS: Final = 4
"""Threads in which one caller syncs many folders: the disk works for all of them at once, and flushes its cache once
for several.
"""
FOLDERS_A_THREAD: Final = 4
"""Folders for which a thread is begun: it costs a third of the time of a sync."""

_unsynced: Final[dict[int, tuple[Path, OSError]]] = {}
"""The first directory of each file system that could not be synced, by its device."""
_listeners: Final[list[Callable[[Path, OSError], None]]] = []


def fsync(fd: int) -> None:
    """Sync the octets that were written to a descriptor.  Raises OSError."""
    os.fsync(fd)


def fsync_file(path: StrPath) -> None:
    """Sync the octets of a file, whoever has written them.  Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fsync(fd)
    finally:
        os.close(fd)


def start_fsync(fd: int) -> None:
    """Begin to write the octets of a file to the disk, where the system has a call for that, and return at once.

    Many files whose octets are on their way when the first is synced are synced in about the time of one: a journal
    then takes all of them in one commit.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # nothing depends on it; a failed write is an error of the sync that follows
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def side_by_side(sync: Callable[[T], R], folders: Sequence[T]) -> list[R]:
    """`[sync(folder) for folder in folders]`, in several threads where there are many.

    `sync` works in one folder, or on the files of one: two threads in the same folder would wait for each other.  It
    is not to raise; if it does, that is raised here, once no thread works any more.
    """
    threads = min(SYNC_THREADS, len(folders) // FOLDERS_A_THREAD)
    if threads < 2:
        return [sync(folder) for folder in folders]
    left = deque(enumerate(folders))
    results: dict[int, R] = {}
    raised: list[BaseException] = []

    def work() -> None:
        while left:
            try:
                number, folder = left.popleft()
            except IndexError:  # another thread has taken the last one meanwhile
                return
            results[number] = sync(folder)

    def help_along(ended: _thread.LockType) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            raised.append(error)
        finally:
            ended.release()

    helpers: list[_thread.LockType] = []
    try:
        with contextlib.suppress(RuntimeError):  # no thread is to be had: those that there are do all of it
            for _ in range(threads - 1):
                ended = _thread.allocate_lock()
                ended.acquire()
                # threading.Thread would wait for its beginning, and again at the end of the program, if the disk hangs.
                _thread.start_new_thread(help_along, (ended,))
                helpers.append(ended)
        work()
    finally:
        for ended in helpers:
            ended.acquire()
    for error in raised:
        raise error
    return [results[number] for number in range(len(folders))]


def fsync_dir(path: StrPath) -> None:
    """Sync the entries of a directory, if its file system can do that.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
        _note_unsynced(os.fstat(fd).st_dev, Path(path), error)
    finally:
        os.close(fd)


def on_unsynced(listener: Callable[[Path, OSError], None]) -> Callable[[], None]:
    """Call `listener` with the first directory of each file system that can't sync directories; earlier ones at once.

    Calling the result ends that.  The listener may be called in any thread, and must not raise.
    """
    _listeners.append(listener)
    for path, error in tuple(_unsynced.values()):
        listener(path, error)
    return lambda: _listeners.remove(listener)


def _note_unsynced(device: int, path: Path, error: OSError) -> None:
    noted = (path, error)
    if _unsynced.setdefault(device, noted) is noted:  # atomic, since several threads may be here at once
        for listener in tuple(_listeners):
            listener(path, error)


def rename(source: StrPath, target: StrPath) -> None:
    """Rename a file without syncing: the caller syncs the directory, once for many renames.  Raises OSError."""
    os.rename(source, target)  # noqa: PTH104 - a Path of either would cost as much as the system call


def rename_into(source: Path, target: Path) -> None:
    """Rename a file within one file system and make the new entry durable.  Raises OSError."""
    rename(source, target)
    fsync_dir(target.parent)


def create(path: StrPath, mode: int = PRIVATE_FILE) -> int:
    """Create a new file and return its descriptor.  Raises FileExistsError if the file exists."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all octets, where a single write() may take only some of them.  Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def copy_all(source: int, target: int) -> int:
    """Copy the octets from the position of one descriptor to its end to another descriptor; returns their number.

    They are copied in the kernel where it can do that.  Raises OSError.
    """
    copied = 0
    if sys.platform == "linux":
        try:
            while count := os.copy_file_range(source, target, _COPIED_AT_ONCE):
                copied += count
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
    while octets := os.read(source, _READ_AT_ONCE):
        write_all(target, octets)
        copied += len(octets)
    return copied


def write_file(path: Path, chunks: Iterable[bytes], mode: int = PRIVATE_FILE) -> None:
    """Create the file `path` with this content and sync the file, but not its directory; an error leaves no file."""
    fd = create(path, mode)
    try:
        try:
            for chunk in chunks:
                write_all(fd, chunk)
            fsync(fd)
        finally:
            os.close(fd)
    except BaseException:  # an interrupt must not leave a part of a file either; all is raised again
        path.unlink(missing_ok=True)
        raise


def make_dirs(path: Path, mode: int = PRIVATE_DIR) -> None:
    """Make a directory and its missing parents, each with a durable entry; an existing directory is left as it is.

    Raises NotADirectoryError, which names the file in the way, and other OSErrors.
    """
    missing: list[Path] = []
    folder = path.absolute()
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        try:
            new.mkdir(mode)
        except FileExistsError:
            if not new.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(new)) from None
        fsync_dir(new.parent)


def settle_ancestors(path: Path, settled: dict[Path, None]) -> None:
    """Sync the directories in `path` that are not in `settled` yet, and add them to it.

    A directory that another process made, and crashed before it synced, looks like any other; a power failure would
    remove it with the files in it.  Directories that this process can't read are other accounts', and old.
    """
    absolute = path.absolute()
    for folder in (absolute, *absolute.parents):
        if folder in settled:
            return
        with contextlib.suppress(PermissionError):
            fsync_dir(folder)
        settled[folder] = None


def replace_file(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace the file `path` as a whole, or create it: readers see the old or the new content.  Raises OSError.

    A crash may leave a file beside it, which the next call removes.  The caller excludes two calls at the same time.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    write_file(new, [data], mode)
    rename_into(new, path)
