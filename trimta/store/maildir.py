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
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trimta import real_time
from trimta.mail.body import BodyForm
from trimta.store import durable
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from trimta.store.spool import Body

FOLDERS: Final = ("cur", "new", "tmp")

OPEN_FILES: Final = 32
"""Files that are written before the first of them is synced: more would use up descriptors, and gain little."""

SETTLED_LIMIT: Final = 20_000
"""Directories remembered as durable, at most; beyond that all are forgotten, and synced again when used."""

_counter: Final = itertools.count(1)
_settled: Final[set[str]] = set()
"""The folders new/ that are durable with all above them."""
_settled_folders: Final[dict[Path, None]] = {}
"""They, and the folders above them."""


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

    # Texts, since each Path that is joined costs as much as a system call.

    @property
    def source(self) -> str:
        """The path of the file in tmp/."""
        return f"{self.maildir}/tmp/{self.name}"

    @property
    def target(self) -> str:
        """The path that the file will have in new/."""
        return f"{self.maildir}/new/{self.name}"


@dataclass(slots=True)
class _OpenFile:
    """A file in tmp/ that is written and not yet synced."""

    descriptor: int
    """-1 once the file is closed."""
    pending: Pending
    trouble: MaildirError | None = None
    """Why it could not be synced."""

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor != -1:
            os.close(descriptor)

    def drop(self) -> None:
        """Close and remove the file; a second call does nothing."""
        with contextlib.suppress(OSError):
            self.close()
        discard(self.pending)


def prepare(delivery: Delivery) -> Pending:
    """Write the file of a delivery in tmp/ and sync it; the Maildir is made if it is missing.

    Raises MaildirError, and then leaves no file.
    """
    (result,) = prepare_all([delivery])
    if isinstance(result, MaildirError):
        raise result
    return result


def commit(pending: Pending) -> Path:
    """Move the file into new/, where readers see it, and sync that folder; returns the file's path.

    Raises MaildirError, and then removes the file from tmp/.  If only the sync has failed, the file is in new/ all the
    same, and a new delivery may make a duplicate.
    """
    (result,) = commit_all([pending])
    if isinstance(result, MaildirError):
        raise result
    return result


def discard(pending: Pending) -> None:
    """Remove the file from tmp/; nothing happens if it is removed or committed already."""
    with contextlib.suppress(OSError):  # readers do not look into tmp/, but remove old files from it
        os.unlink(pending.source)  # noqa: PTH108 - see Pending


def discard_all(pending: Iterable[Pending]) -> None:
    """Discard every file, as discard() does."""
    for file in pending:
        discard(file)


def prepare_all(deliveries: Iterable[Delivery]) -> list[Pending | MaildirError]:
    """Prepare all deliveries, as prepare() does; returns each result or error.  A failure does not stop the others."""
    left = list(deliveries)
    results: list[Pending | MaildirError] = []
    while left:
        results += _prepare_together(left[:OPEN_FILES])
        del left[:OPEN_FILES]
    return results


def commit_all(pending: Sequence[Pending]) -> list[Path | MaildirError]:
    """Commit all files, as commit() does; returns each path or error.  A failure does not stop the others.

    Each directory is synced once, after all renames.
    """
    results = [_try_rename(file) for file in pending]
    folders = list({file.maildir: None for file, path in zip(pending, results, strict=True) if isinstance(path, Path)})
    errors = durable.side_by_side(_try_sync, folders)
    failed = {folder: error for folder, error in zip(folders, errors, strict=True) if error is not None}
    if not failed:
        return results
    return [
        failed.get(file.maildir, path) if isinstance(path, Path) else path
        for file, path in zip(pending, results, strict=True)
    ]


def deliver(delivery: Delivery) -> Path:
    """Write a message into its Maildir, by prepare() and commit(); returns the file's path.  Raises MaildirError."""
    return commit(prepare(delivery))


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


def _prepare_together(deliveries: Sequence[Delivery]) -> list[Pending | MaildirError]:
    """Prepare deliveries, all of whose files are open at once: each is written before the first is synced."""
    files: list[_OpenFile | MaildirError] = []
    try:
        for delivery in deliveries:
            files.append(_try_write(delivery))  # noqa: PERF401 - those before an interrupt are to be dropped
        written = [file for file in files if isinstance(file, _OpenFile)]
        if len(written) > 1:
            for open_file in written:
                durable.start_fsync(open_file.descriptor)
        by_folder: dict[Path, list[_OpenFile]] = {}
        for open_file in written:
            by_folder.setdefault(open_file.pending.maildir, []).append(open_file)
        durable.side_by_side(_try_sync_files, list(by_folder.values()))
        return [file if isinstance(file, MaildirError) else file.trouble or file.pending for file in files]
    except BaseException:  # an interrupt must not leave the files either; all is raised again
        for file in files:
            if isinstance(file, _OpenFile):
                file.drop()
        raise


def _try_write(delivery: Delivery) -> _OpenFile | MaildirError:
    """Write the file of a delivery in tmp/; an error leaves no file."""
    head, path = delivery.head, delivery.maildir
    if delivery.body.form is BodyForm.RAW:
        head = head.replace(b"\n", b"\r\n")
    try:
        file = _open_new(path, len(head) + delivery.body.size)
        try:
            _write(file, head, delivery.body)
        except BaseException:  # an interrupt must not leave the file either; all is raised again
            file.drop()
            raise
    except OSError as error:
        return _explained(path, "write", error)
    except BodyDamagedError as error:
        return MaildirError(f"cannot write {path}: {error}")
    return file


def _try_settle(path: Path) -> MaildirError | None:
    try:
        _settle(path)
    except OSError as error:
        return _explained(path, "write", error)
    return None


def _try_sync_files(files: Sequence[_OpenFile]) -> None:
    """Sync and close the files in one Maildir; one that is in trouble is dropped."""
    path = files[0].pending.maildir
    unsettled = _try_settle(path)
    for file in files:
        file.trouble = unsettled
        if unsettled is None:
            try:
                durable.fsync(file.descriptor)
                file.close()
            except OSError as error:
                file.trouble = _explained(path, "write", error)
        if file.trouble is not None:
            file.drop()


def _try_rename(pending: Pending) -> Path | MaildirError:
    try:
        durable.rename(pending.source, pending.target)
    except OSError as error:
        discard(pending)
        return _explained(pending.maildir, "deliver into", error)
    return Path(pending.target)


def _try_sync(path: Path) -> MaildirError | None:
    try:
        durable.fsync_dir(f"{path}/new")
    except OSError as error:
        return _explained(path, "deliver into", error)
    return None


def _explained(path: Path, verb: str, error: OSError) -> MaildirError:
    where = f" ({error.filename})" if error.filename else ""
    explained = MaildirError(f"cannot {verb} {path}: {error.strerror or error}{where}")
    explained.__cause__ = error
    return explained


def _open_new(path: Path, size: int) -> _OpenFile:
    try:
        return _reserve(path, size)
    except FileNotFoundError:
        for folder in FOLDERS:
            durable.make_dirs(path / folder)
        return _reserve(path, size)


def _reserve(path: Path, size: int) -> _OpenFile:
    """Open a file in tmp/ under a name that is free in new/, too, and stays free until the file is renamed there.

    Another delivery would need a file of the same name in tmp/ first, which this file prevents.
    """
    while True:
        seconds, rest = divmod(real_time.wall_ns(), 1_000_000_000)
        name = f"{seconds}.M{rest // 1000:06}P{os.getpid()}Q{next(_counter)}.{_HOST},S={size}"
        pending = Pending(path, name)
        try:
            file = _OpenFile(durable.create(pending.source), pending)
        except FileExistsError:
            continue
        if not os.path.lexists(pending.target):
            return file
        file.drop()


def _write(file: _OpenFile, head: bytes, body: Body) -> None:
    if body.in_memory:
        durable.write_all(file.descriptor, head + body.read())
        return
    durable.write_all(file.descriptor, head)
    body.write_to(file.descriptor)


def _settle(path: Path) -> None:
    """Sync the directories above new/, so that no power failure removes a Maildir with its messages.

    The process that made the Maildir may have crashed before it synced them.
    """
    new = f"{path}/new"
    inside = f"{new}/."  # which a file named new does not have
    if not os.access(inside, os.W_OK | os.X_OK):  # else only the rename would fail, when the message is accepted
        durable.make_dirs(path / "new")
        if not os.access(inside, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), new)
    if new not in _settled:
        if len(_settled_folders) > SETTLED_LIMIT:
            _settled.clear()
            _settled_folders.clear()
        durable.settle_ancestors(path / "new", _settled_folders)
        _settled.add(new)
