"""Folders that root makes for another account, without being led astray by what that account, or any other, may do.

A name that is looked up twice may mean two things: who owns a folder can put a link to /etc into it between the two.
So root goes down from / by descriptors, through folders that only root can change, and never through another's link.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

LINKS: Final = 40
"""Symbolic links on one way, as the kernel counts them."""


def make_for(folder: Path, uid: int, gid: int) -> None:
    """As root: make one folder, mode 0700, and give it to an account.  PermissionError, naming the folder and the
    reason, if another than root could have a hand in it.
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
    """Whether a folder is there, and nobody but root can change what root finds by its path, or has made in it."""
    try:
        os.close(_descend(folder / "any name"))
    except OSError:
        return False
    return True


def _descend(folder: Path) -> int:
    """A descriptor of the folder above."""
    left = [*folder.absolute().parts[1:-1]]
    links = 0
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(here, folder)
        while left:
            name = left.pop(0)
            entry = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISLNK(entry.st_mode):  # root's own: nobody else can make one here
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
    """Raise PermissionError if another than root could rename or replace an entry of this folder that is root's."""
    status = os.fstat(descriptor)
    if status.st_uid != 0:
        raise _refused(folder, f"a folder above it belongs to user id {status.st_uid}, who may not make it")
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if writable and not status.st_mode & stat.S_ISVTX:
        raise _refused(folder, "everybody may change a folder above it")


def _refused(folder: Path, reason: str) -> PermissionError:
    return PermissionError(None, f"{folder} is not made by root, for {reason}: make it yourself")
