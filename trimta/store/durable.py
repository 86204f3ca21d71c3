"""Files and directories that survive power loss.  No other module calls fsync and rename.

A file is durable once its octets and the directory entry that names it are both on the disk: hence the two fsyncs
everywhere below.  A new directory is an entry in its parent, so making one syncs the parent as well.

Some file systems can't sync a directory (vboxsf, some SMB and FUSE ones).  That is all that can be had there: mail goes
on, and whoever listens by `on_unsynced` is told once for each file system.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

PRIVATE_FILE: Final = 0o600
PRIVATE_DIR: Final = 0o700

_CANNOT_SYNC: Final = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system says of a directory that it has no way to sync; of a file it is a failure like any other."""

_unsynced: Final[dict[int, tuple[Path, OSError]]] = {}
"""The first directory of each file system that could not be synced, by its device."""
_listeners: Final[list[Callable[[Path, OSError], None]]] = []


def fsync(fd: int) -> None:
    """Put the octets written to a descriptor on the disk.  Raises OSError."""
    os.fsync(fd)


def fsync_dir(path: Path) -> None:
    """Put the entries of a directory on the disk, as far as its file system can do that.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
        _note_unsynced(os.fstat(fd).st_dev, path, error)
    finally:
        os.close(fd)


def on_unsynced(listener: Callable[[Path, OSError], None]) -> Callable[[], None]:
    """Tell `listener` the first directory of each file system that can't sync directories, those of the past at once;
    calling the result ends it.  It is called in whatever thread meets one, and must not raise.
    """
    _listeners.append(listener)
    for path, error in tuple(_unsynced.values()):
        listener(path, error)
    return lambda: _listeners.remove(listener)


def _note_unsynced(device: int, path: Path, error: OSError) -> None:
    noted = (path, error)
    if _unsynced.setdefault(device, noted) is noted:  # atomic: many threads may meet it at once
        for listener in tuple(_listeners):
            listener(path, error)


def rename(source: Path, target: Path) -> None:
    """Rename, not yet durable: the caller syncs the directory, once for many renames."""
    source.rename(target)


def rename_into(source: Path, target: Path) -> None:
    """Rename within one file system and make the new entry durable."""
    rename(source, target)
    fsync_dir(target.parent)


def create(path: Path, mode: int = PRIVATE_FILE) -> int:
    """Create a file that must not exist yet and return its descriptor.  FileExistsError if it does."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every octet: one write() may take fewer than it was given."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def write_file(path: Path, chunks: Iterable[bytes], mode: int = PRIVATE_FILE) -> None:
    """Create `path` with this content and sync it (not its directory).  What was begun is removed on an error."""
    fd = create(path, mode)
    try:
        try:
            for chunk in chunks:
                write_all(fd, chunk)
            fsync(fd)
        finally:
            os.close(fd)
    except BaseException:  # an interrupt too must not leave half a file; nothing is swallowed
        path.unlink(missing_ok=True)
        raise


def make_dirs(path: Path, mode: int = PRIVATE_DIR) -> None:
    """Make a directory and its missing parents, each entry durable; a directory that exists is left as it is.

    Raises NotADirectoryError, naming the file that is in the way, or another OSError.
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
    """Sync the directory entries on the way to `path`, those already in `settled` left out, and note them there.

    A directory that another process made and did not live to sync looks just like an old one; a file promised inside
    it would vanish with it.  Directories that may be passed through but not read are somebody else's, and old.
    """
    absolute = path.absolute()
    for folder in (absolute, *absolute.parents):
        if folder in settled:
            return
        with contextlib.suppress(PermissionError):
            fsync_dir(folder)
        settled[folder] = None


def replace_file(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Put a whole new file in the place of `path`, if there is one: a reader sees the old or the new content.  What a
    crash leaves beside it, the next call removes; two at a time are for the caller to rule out.
    """
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    write_file(new, [data], mode)
    rename_into(new, path)
