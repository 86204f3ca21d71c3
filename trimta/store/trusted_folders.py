"""Folders that root makes for another account, safe from links that this or any other account may put in the way.

A path that is looked up twice may lead to two places: between the look-ups the owner of a folder can put a link to /etc
into it.  So root opens folder after folder, from / on, by descriptors, and only folders that no other account can
change.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

LINKS: Final = 40
"""Symbolic links in one path, at most, as in the kernel."""


def make_for(folder: Path, uid: int, gid: int) -> None:
    """Make one folder, mode 0700, and give it to an account; called as root.

    Raises PermissionError, which names the folder and the reason, if another account can change a folder in its path.
    """
    parent = _descend(folder)
    try:
        os.mkdir(folder.name, 0o700, dir_fd=parent)
        made = os.open(folder.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            os.fchown(made, uid, gid)
        finally:
            os.close(made)
    finally:
        os.close(parent)


def is_roots(folder: Path) -> bool:
    """Whether a folder exists, and no account but root can change a folder in its path, or make entries in it."""
    try:
        os.close(_descend(folder / "any name"))
    except OSError:
        return False
    return True


def _descend(folder: Path) -> int:
    """A descriptor of the parent folder, after a check of all folders in its path.  Raises PermissionError."""
    left = [*folder.absolute().parts[1:-1]]
    links = 0
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(here, folder)
        while left:
            name = left.pop(0)
            entry = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISLNK(entry.st_mode):  # root's link: no other account can make one here
                links += 1
                if links > LINKS:
                    raise _refused(folder, "there are too many links on the way")
                target = os.readlink(name, dir_fd=here)
                left = [*(step for step in target.split("/") if step), *left]
                if target.startswith("/"):
                    os.close(here)
                    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
                continue
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
            _check(here, folder)
    except BaseException:  # whatever it was, the descriptor must not stay open; nothing is swallowed
        os.close(here)
        raise
    return here


def _check(descriptor: int, folder: Path) -> None:
    """Raise PermissionError if an account other than root can rename or replace root's entries in a folder."""
    status = os.fstat(descriptor)
    if status.st_uid != 0:
        raise _refused(folder, f"a folder above it belongs to user id {status.st_uid}, who may not make it")
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writable and not status.st_mode & stat.S_ISVTX:
        raise _refused(folder, "everybody may change a folder above it")


def _refused(folder: Path, reason: str) -> PermissionError:
    return PermissionError(None, f"{folder} is not made by root, for {reason}: make it yourself")
