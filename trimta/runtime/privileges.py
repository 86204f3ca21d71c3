"""Privileges of a server that was started as root: it binds its ports, then becomes the account `user` for good.

Before that, folders and files that other accounts could have replaced by links are changed as the account `user`, never
as root.
"""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trimta.first_use.modules import LATE, load
from trimta.routing.maildir_paths import maildir_path
from trimta.routing.routes import MaildirRoute
from trimta.store import trusted_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trimta.config.model import Configuration


class AccountError(Exception):
    """The process can't become the account; the message says why."""


def is_root() -> bool:
    """Whether this process has the rights of root."""
    return os.geteuid() == 0


def name() -> str:
    """The name of the account that this process runs as, or its number if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def become(name: str, folders: Iterable[Path]) -> None:
    """Give up the rights of root for good and become the account `name`, with its groups.

    `folders` that do not exist are made for the account first, which may lack the right to; others are left as they
    are. Raises AccountError.
    """
    account = _account(name)
    try:
        for folder in folders:
            _make(folder, account)
        load(LATE)
        os.initgroups(name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    except OSError as cause:
        raise AccountError(f"user: cannot become {name}: {cause.strerror or cause}") from cause


@contextmanager
def hands_for(name: str, folder: Path) -> Iterator[None]:
    """A block that changes files in `folder`; in a process of root it runs as the account `name`.

    A folder that only root can change is changed as root, and so is any folder if `name` is empty.  The account is that
    of the whole process, so this is for the start, when there is one task.  Raises AccountError.
    """
    if not is_root() or not name or trusted_folders.is_roots(folder):
        yield
        return
    with _as(_account(name)):
        yield


def _account(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise AccountError(f"user: there is no account {name!r} on this machine") from None


def folders(config: Configuration) -> list[Path]:
    """The folders that the server writes to, for `become` to make before the rights of root are given up."""
    mail = Path(maildir_path(config.local.maildir, "user", "domain", "detail")).parent
    captures = [Path(route.template) for route in config.routes.values() if isinstance(route, MaildirRoute)]
    return [config.data_dir, mail, *(path.parent for path in captures)]


def become_owner(folder: Path) -> None:
    """Become the owner of a folder, so that files made in it belong to the same account.

    Of a folder that does not exist, the owner is that of the folder around it.  A process that is not root's, and a
    folder of root's, change nothing.  Raises AccountError.
    """
    if not is_root():
        return
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    owner = folder.stat()
    if owner.st_uid == 0:
        return
    load(LATE)
    try:
        os.setgroups([owner.st_gid])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except OSError as cause:
        raise AccountError(f"cannot become the owner of {folder}: {cause.strerror}") from cause


def _make(folder: Path, account: pwd.struct_passwd) -> None:
    """Make a folder for an account, and the folders above it that are missing.

    Each is made as the account if that is allowed; as root only in folders where no other account can put a link.
    """
    for step in (*reversed(folder.parents), folder):
        if os.path.lexists(step):
            continue
        with _as(account):
            made = _made(step)
        if not made:
            trusted_folders.make_for(step, account.pw_uid, account.pw_gid)


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(0o700)
    except PermissionError:
        return False
    except FileExistsError:  # another process was faster
        return True
    return True


@contextmanager
def _as(account: pwd.struct_passwd) -> Iterator[None]:
    """A block in which the process of root acts as the account."""
    groups, group = os.getgroups(), os.getegid()
    os.initgroups(account.pw_name, account.pw_gid)
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
