"""Delivery into Maildirs, in two steps: prepare() writes and syncs in tmp/, commit() renames into new/ and syncs that.

Between the two a caller can make other things durable; a crash then leaves a file in tmp/ that no reader looks at.
A file in new/ is always whole, and never takes the place of another: see `_reserve`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta import real_time
from trimta.mail.body import BodyForm
from trimta.store import durable
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from trimta.store.spool import Body

FOLDERS: Final = ("cur", "new", "tmp")

SETTLED_LIMIT: Final = 20_000
"""Directories remembered as durable, at most; beyond that all are forgotten, and synced again when used."""

_counter: Final = itertools.count(1)
_settled: Final[dict[Path, None]] = {}


def host_part(hostname: str) -> str:
    """A host's name as it is written into file names, "/" and ":" escaped."""
    return hostname.replace("/", "\\057").replace(":", "\\072") or "localhost"


_HOST: Final = host_part(socket.gethostname())


class MaildirError(Exception):
    """A Maildir can't be written; the message names the folder and the system's error.  A later try may succeed."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery to be made: a message, and the Maildir into which it is to be written."""

    maildir: Path
    head: bytes
    """Fields on top of the message, with LF line ends: Return-Path, Delivered-To, Received.  Over a raw body they are
    written with CRLF, as the body has it.
    """
    body: Body


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that is durable in tmp/ and not yet in new/."""

    maildir: Path
    name: str

    @property
    def source(self) -> Path:
        return self.maildir / "tmp" / self.name

    @property
    def target(self) -> Path:
        return self.maildir / "new" / self.name


def prepare(delivery: Delivery) -> Pending:
    """Write the file of a delivery in tmp/ and sync it; the Maildir is made if it is missing.

    Raises MaildirError, and then leaves no file.
    """
    head = delivery.head
    if delivery.body.form is BodyForm.RAW:
        head = head.replace(b"\n", b"\r\n")
    path = delivery.maildir
    try:
        with _explained(path, "write"):
            fd, pending = _open_new(path, len(head) + delivery.body.size)
            try:
                try:
                    _write(fd, head, delivery.body)
                    durable.fsync(fd)
                finally:
                    os.close(fd)
                _settle(path)
            except BaseException:  # an interrupt must not leave the file either; all is raised again
                discard(pending)
                raise
    except BodyDamagedError as error:
        raise MaildirError(f"cannot write {path}: {error}") from error
    return pending


def commit(pending: Pending) -> Path:
    """Move the file into new/, where readers see it, and sync that folder; returns the file's path.

    Raises MaildirError.  If only the sync has failed, the file is in new/ all the same, and a new delivery may make a
    duplicate.
    """
    with _explained(pending.maildir, "deliver into"):
        durable.rename(pending.source, pending.target)
        durable.fsync_dir(pending.target.parent)
    return pending.target


def discard(pending: Pending) -> None:
    """Remove the file from tmp/; nothing happens if it is removed or committed already."""
    with contextlib.suppress(OSError):  # readers do not look into tmp/, but remove old files from it
        pending.source.unlink(missing_ok=True)


def discard_all(pending: Iterable[Pending]) -> None:
    """Discard every file, as discard() does."""
    for file in pending:
        discard(file)


def prepare_all(deliveries: Iterable[Delivery]) -> list[Pending | MaildirError]:
    """Prepare all deliveries, as prepare() does; returns each result or error.  A failure does not stop the others."""
    return [_try_prepare(delivery) for delivery in deliveries]


def commit_all(pending: Sequence[Pending]) -> list[Path | MaildirError]:
    """Commit all files, as commit() does; returns each path or error.  A failure does not stop the others.

    Each directory is synced once, after all renames.
    """
    results: list[Path | MaildirError] = [_try_rename(file) for file in pending]
    failed: dict[Path, MaildirError | None] = {}
    for place, file in enumerate(pending):
        if isinstance(results[place], MaildirError):
            continue
        folder = file.target.parent
        if folder not in failed:
            failed[folder] = _try_sync(folder)
        error = failed[folder]
        if error is not None:
            results[place] = error
    return results


def deliver(delivery: Delivery) -> Path:
    """Write a message into its Maildir, by prepare() and commit(); returns the file's path.  Raises MaildirError."""
    pending = prepare(delivery)
    try:
        return commit(pending)
    except MaildirError:
        discard(pending)
        raise


def messages(path: Path) -> Iterator[Path]:
    """The files of new/, then those of cur/, each in the order of their names, which is that of delivery.

    A Maildir that does not exist is empty; dot files and folders are skipped.  A reader may move files from new/ to
    cur/ meanwhile: such a file is seen twice rather than not at all, since new/ is listed first, and a path may be gone
    when it is opened.
    """
    for folder in ("new", "cur"):
        try:
            with os.scandir(path / folder) as entries:
                names = sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            yield path / folder / name


def _open_new(path: Path, size: int) -> tuple[int, Pending]:
    try:
        return _reserve(path, size)
    except FileNotFoundError:
        for folder in FOLDERS:
            durable.make_dirs(path / folder)
        return _reserve(path, size)


def _reserve(path: Path, size: int) -> tuple[int, Pending]:
    """Open a file in tmp/ under a name that is free in new/, too, and stays free until the file is renamed there.

    Another delivery would need a file of the same name in tmp/ first, which this file prevents.
    """
    while True:
        seconds, rest = divmod(real_time.wall_ns(), 1_000_000_000)
        name = f"{seconds}.M{rest // 1000:06}P{os.getpid()}Q{next(_counter)}.{_HOST},S={size}"
        pending = Pending(path, name)
        try:
            fd = durable.create(pending.source)
        except FileExistsError:
            continue
        if not os.path.lexists(pending.target):
            return fd, pending
        os.close(fd)
        discard(pending)


def _write(fd: int, head: bytes, body: Body) -> None:
    if body.in_memory:
        durable.write_all(fd, head + body.read())
        return
    durable.write_all(fd, head)
    for chunk in body.chunks():
        durable.write_all(fd, chunk)


def _settle(path: Path) -> None:
    """Sync the directories above new/, so that no power failure removes a Maildir with its messages.

    The process that made the Maildir may have crashed before it synced them.
    """
    new = path / "new"
    if not new.is_dir():
        durable.make_dirs(new)
    if not os.access(new, os.W_OK | os.X_OK):  # else only the rename would fail, when the message is accepted
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(new))
    if new not in _settled:
        if len(_settled) > SETTLED_LIMIT:
            _settled.clear()
        durable.settle_ancestors(new, _settled)


@contextlib.contextmanager
def _explained(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise MaildirError(f"cannot {verb} {path}: {error.strerror or error}{where}") from error


def _try_prepare(delivery: Delivery) -> Pending | MaildirError:
    try:
        return prepare(delivery)
    except MaildirError as error:
        return error


def _try_rename(pending: Pending) -> Path | MaildirError:
    try:
        with _explained(pending.maildir, "deliver into"):
            durable.rename(pending.source, pending.target)
    except MaildirError as error:
        discard(pending)
        return error
    return pending.target


def _try_sync(folder: Path) -> MaildirError | None:
    try:
        with _explained(folder.parent, "deliver into"):
            durable.fsync_dir(folder)
    except MaildirError as error:
        return error
    return None
