"""Where the control socket of a data_dir is: in it, or, where that path is too long for a socket, behind a link."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

NAME: Final = "control.sock"
FOLDER: Final = "trimta-"
"""How the names of temporary folders begin."""
MAX_SOCKET_PATH: Final = 100
"""Octets: a unix socket's address has room for little more than a hundred."""


def address(data_dir: Path) -> Path:
    """The path of the socket: data_dir/control.sock, or what that links to."""
    path = data_dir / NAME
    return path.readlink() if path.is_symlink() else path


def choose(data_dir: Path) -> Path:
    """Take an old socket away and return a path for a new one; a long data_dir gets a link to one in a private
    temporary folder.  OSError if there is no room for that.
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
    """A private folder whose path leaves room for NAME: $TMPDIR may be as long as data_dir.  OSError if none is."""
    places = dict.fromkeys(filter(None, (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp")))
    tried = []
    for place in places:
        if not _fits(Path(place, f"{FOLDER}{'x' * 8}", NAME)):
            tried.append(f"{place}: too long for a socket")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=FOLDER, dir=place))
        except OSError as cause:
            tried.append(f"{place}: {cause.strerror}")
    raise OSError(errno.ENAMETOOLONG, f"no short temporary folder ({'; '.join(tried)}): set TMPDIR to one")


def remove(data_dir: Path) -> None:
    """Take the socket away, and the folder that was made for it; a killed server may have left them behind."""
    path = data_dir / NAME
    if path.is_symlink():
        target = path.readlink()
        if _is_ours(target):  # else another program has put the link there
            target.unlink(missing_ok=True)
            target.parent.rmdir()
    path.unlink(missing_ok=True)


def _is_ours(target: Path) -> bool:
    """Whether a socket's path is one that `choose` made up."""
    folder = target.parent
    if target.name != NAME or not folder.name.startswith(FOLDER):
        return False
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
