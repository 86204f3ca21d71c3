"""Started as root: the account to become once the sockets are bound.

Until then root changes nothing where anybody else could have put something else in its way: that the account does.
"""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trimta.routing.maildir_paths import maildir_path
from trimta.routing.routes import MaildirRoute
from trimta.store import trusted_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trimta.config.model import Configuration


class AccountError(Exception):
    """The account can't be had; the message says why."""


def is_root() -> bool:
    """Whether this process may do everything."""
    return os.geteuid() == 0


def name() -> str:
    """The account that this process runs as; its number where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def become(name: str, folders: Iterable[Path]) -> None:
    """Give up root for good and be `name`, with its groups.

    `folders` that do not exist yet are made for it first, since it may not be able to; those that exist are left alone.
    """
    account = _account(name)
    try:
        for folder in folders:
            _make(folder, account)
        os.initgroups(name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    except OSError as cause:
        raise AccountError(f"user: cannot become {name}: {cause.strerror or cause}") from cause


@contextmanager
def hands_for(name: str, folder: Path) -> Iterator[None]:
    """For a block that changes what is in `folder`: as root it acts as the account `name`, if there is one, unless the
    folder is root's alone.  The whole process does: at the start only.
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
    """Where the server writes: what `become` should make before root is given up."""
    mail = Path(maildir_path(config.local.maildir, "user", "domain", "detail")).parent
    captures = [Path(route.template) for route in config.routes.values() if isinstance(route, MaildirRoute)]
    return [config.data_dir, mail, *(path.parent for path in captures)]


def become_owner(folder: Path) -> None:
    """As root: be whoever owns a folder, or the one that it is to be made in, so that files made there are that
    account's too.  Nothing happens to others, nor where the folder is root's.
    """
    if not is_root():
        return
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    owner = folder.stat()
    if owner.st_uid == 0:
        return
    try:
        os.setgroups([owner.st_gid])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except OSError as cause:
        raise AccountError(f"cannot become the owner of {folder}: {cause.strerror}") from cause


def _make(folder: Path, account: pwd.struct_passwd) -> None:
    """Make a folder and those above it that are missing: as the account, wherever that may; as root only where nobody
    else can put a link, or another folder, in the way.
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
    """Act as the account for a moment, and be root again."""
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
