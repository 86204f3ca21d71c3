"""The path of the control socket: in data_dir, or in a temporary folder if that path is too long for a socket."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

NAME: Final = "control.sock"
FOLDER: Final = "trimta-"
"""The beginning of the names of temporary folders."""
MAX_SOCKET_PATH: Final = 100
"""Octets of a socket's path, at most: systems allow little more than a hundred."""


def address(data_dir: Path) -> Path:
    """The path to connect to: data_dir/control.sock, or the target of that link."""
    path = data_dir / NAME
    return path.readlink() if path.is_symlink() else path


def choose(data_dir: Path) -> Path:
    """Remove an old socket and return the path for a new one.

    For a long data_dir that path is in a new private folder, and data_dir gets a link to it.  Raises OSError if there
    is no folder for it.
    """
    path = data_dir / NAME
    remove(data_dir)
    if _fits(path):
        return path
    target = _temporary_folder() / NAME
    path.symlink_to(target)
    return target


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH


def _temporary_folder() -> Path:
    """Make a private folder whose path leaves room for the socket's name, also where $TMPDIR is long.  OSError."""
    import tempfile

    parents = (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp")
    tried = []
    for parent in dict.fromkeys(filter(None, parents)):
        if not _fits(Path(parent, f"{FOLDER}{'x' * 8}", NAME)):
            tried.append(f"{parent}: too long for a socket")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=FOLDER, dir=parent))
        except OSError as cause:
            tried.append(f"{parent}: {cause.strerror}")
    raise OSError(errno.ENAMETOOLONG, f"no short temporary folder ({'; '.join(tried)}): set TMPDIR to one")


def remove(data_dir: Path) -> None:
    """Remove the socket and the folder that was made for it, if they exist: a killed server leaves them behind."""
    path = data_dir / NAME
    if path.is_symlink():
        target = path.readlink()
        if _is_ours(target):  # else another program has made the link
            target.unlink(missing_ok=True)
            target.parent.rmdir()
    path.unlink(missing_ok=True)


def _is_ours(target: Path) -> bool:
    """Whether a socket's path is in a folder that `choose` made: of this account, with the names used here."""
    folder = target.parent
    if target.name != NAME or not folder.name.startswith(FOLDER):
        return False
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
