"""Bodies of messages while they are received and stored: small ones in memory, others in a file of the spool.

A body here is all that follows the trace fields of this server, the client's header included, as text or raw octets.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trimta.mail.body import BodyForm
from trimta.store import durable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

MEMORY_LIMIT: Final = 256 * 1024
"""Octets of the largest body that is held in memory and in a row of the database."""

CHUNK: Final = 64 * 1024
"""Octets that are read from a file at once, by default."""

INCOMING: Final = "incoming-"
"""The prefix of spool files that belong to no message of the queue yet; the id of the writing process follows."""


class BodyDamagedError(Exception):
    """The spool file of a body is missing, or its length has changed."""


@dataclass(frozen=True, slots=True)
class Body:
    """A complete body, which may be read any number of times.

    `Body.of(octets)`, `SpoolWriter.finish()` and the queue make bodies.  The file of a body is not durable, and belongs
    to no message, until the queue adopts it; `discard()` removes a file that is never adopted.
    """

    size: int
    """The number of octets, in the form in which the body is stored."""
    lines: int
    """The number of LFs in the body."""
    data: bytes | None = None
    """The octets of a body in memory; None for a body in a file."""
    path: Path | None = None
    """The file of a body; None for a body in memory."""
    form: BodyForm = BodyForm.TEXT

    def __post_init__(self) -> None:
        if (self.data is None) == (self.path is None):
            raise ValueError("a body is either in memory or in a file")

    @classmethod
    def of(cls, data: bytes, form: BodyForm = BodyForm.TEXT) -> Body:
        """A body in memory."""
        return cls(len(data), data.count(b"\n"), data, form=form)

    @property
    def in_memory(self) -> bool:
        """Whether the body can be read without blocking."""
        return self.data is not None

    @property
    def wire_size(self) -> int:
        """The number of octets on the wire, before dot-stuffing."""
        return self.form.wire_size(self.size, self.lines)

    def chunks(self, size: int = CHUNK) -> Generator[bytes, None, None]:
        """The octets of the body in pieces of at most `size`.  Blocks unless `in_memory`.

        Raises BodyDamagedError if the file is gone, and after the last octet if the file is shorter or longer than it
        was; OSError if it can't be read.
        """
        if self.data is not None:
            if self.size <= size:
                if self.data:
                    yield self.data
                return
            for start in range(0, self.size, size):
                yield self.data[start : start + size]
            return
        assert self.path is not None
        read = 0
        try:
            with self.path.open("rb", buffering=0) as file:
                while chunk := file.read(size):
                    read += len(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise BodyDamagedError(f"{self.path} is missing") from error
        self._check_size(read)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[int, int], bytes]]:
        """A block with a function `read(start, end)` that returns the octets of that range.  Blocks unless `in_memory`.

        The block and `read` raise BodyDamagedError if the file is gone or has another length, OSError if it can't be
        read.
        """
        data = self.data
        if data is not None:
            yield lambda start, end: data[start:end]
            return
        assert self.path is not None
        try:
            file = self.path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise BodyDamagedError(f"{self.path} is missing") from error
        with file:
            self._check_size(os.fstat(file.fileno()).st_size)

            def read(start: int, end: int) -> bytes:
                octets = os.pread(file.fileno(), end - start, start)
                if len(octets) != end - start:
                    raise BodyDamagedError(f"{self.path} has become shorter than {self.size} octets")
                return octets

            yield read

    def head(self, limit: int) -> bytes:
        """The first `limit` octets of the body, or all if there are fewer.  Blocks unless `in_memory`.  Raises as
        `chunks`.
        """
        if self.data is not None:
            return self.data[:limit]
        octets = bytearray()
        with contextlib.closing(self.chunks(max(1, min(limit, CHUNK)))) as chunks:
            for chunk in chunks:
                octets += chunk
                if len(octets) >= limit:
                    break
        return bytes(octets[:limit])

    def read(self) -> bytes:
        """All octets, for a body that is known to be small.  Blocks unless `in_memory`.  Raises as `chunks`."""
        return self.data if self.data is not None else b"".join(self.chunks())

    def write_to(self, descriptor: int) -> None:
        """Write all octets to a descriptor.  Blocks.  Raises as `chunks`."""
        if self.data is not None:
            durable.write_all(descriptor, self.data)
            return
        assert self.path is not None
        try:
            with self.path.open("rb", buffering=0) as file:
                copied = durable.copy_all(file.fileno(), descriptor)
        except FileNotFoundError as error:
            raise BodyDamagedError(f"{self.path} is missing") from error
        self._check_size(copied)

    def sync(self) -> None:
        """Make the octets of a body in a file durable, as the queue does when it adopts the file: a caller that has
        done so before spares the queue the wait for a large file.  Blocks unless `in_memory`.  Raises OSError.
        """
        if self.path is not None:
            durable.fsync_file(self.path)

    def _check_size(self, octets: int) -> None:
        if octets != self.size:
            raise BodyDamagedError(f"{self.path} has {octets} octets where {self.size} are meant")

    def discard(self) -> None:
        """Remove the file of a body that the queue has not adopted; a second call does nothing.

        A body in memory stays as it is, and so does an adopted one, whose file has another name by then.
        """
        if self.path is not None and self.path.name.startswith(INCOMING):
            self.path.unlink(missing_ok=True)


class SpoolWriter:
    """Collects the octets of a body, and makes a Body of them.

    `append` does not block while `needs_disk` is false, `finish` and `discard` do not while `in_memory` is true: an
    asynchronous caller needs a thread only otherwise.  At most `threshold` octets and one piece are in memory.
    """

    def __init__(
        self,
        directory: Path,
        threshold: int = MEMORY_LIMIT,
        *,
        form: BodyForm = BodyForm.TEXT,
        counts_lines: bool = True,
    ) -> None:
        """`form`: the form of the octets that will be appended.  `counts_lines`: False for a caller that tells
        `finish` the size on the wire, from which it follows how many lines a text has: a pass over the octets less.
        """
        self._directory = directory
        self._form = form
        self._threshold = threshold
        self._buffer = bytearray()
        self._fd: int | None = None
        self._path: Path | None = None
        self._body: Body | None = None
        self._counts_lines = counts_lines or form is BodyForm.RAW
        self._lines = 0
        """The number of LFs appended so far, if they are counted."""
        self.size = 0
        """The number of octets appended so far."""

    @property
    def needs_disk(self) -> bool:
        """Whether the next append() writes to the disk."""
        return len(self._buffer) >= self._threshold

    @property
    def in_memory(self) -> bool:
        """Whether finish() and discard(), called now, do not touch the disk."""
        return self._path is None and self.size <= self._threshold

    def append(self, data: bytes) -> None:
        """Add octets to the body.  Raises OSError if the disk fails; the caller then calls `discard`."""
        if not data:
            return
        if self.needs_disk:
            self._spill()
        self._buffer += data
        self.size += len(data)
        if self._counts_lines:
            self._lines += data.count(b"\n")

    def finish(self, wire_size: int = 0) -> Body:
        """The complete body.  If it is in a file, the queue makes that durable, should the body get into the queue.

        `wire_size`: its `Body.wire_size`; needed only where lines were not counted.  Raises OSError, as `append`.
        """
        if self._body is not None:
            return self._body
        lines = self._lines if self._counts_lines else wire_size - self.size
        if self.in_memory:
            self._body = Body(self.size, lines, bytes(self._buffer), form=self._form)
        else:
            self._spill()
            self._close()
            self._body = Body(self.size, lines, None, self._path, self._form)
        self._buffer = bytearray()
        return self._body

    def discard(self) -> None:
        """Drop the octets, and remove the file unless the queue has adopted it; a second call does nothing.

        A file that can't be removed is removed at the next start of the server.
        """
        self._buffer = bytearray()
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            if self._path is not None:
                self._path.unlink(missing_ok=True)

    def _spill(self) -> None:
        if self._fd is None:
            if self._path is not None:
                raise ValueError("this writer was finished or discarded")
            path = self._directory / f"{INCOMING}{os.getpid()}-{os.urandom(8).hex()}"
            try:
                self._fd = durable.create(path)
            except FileNotFoundError:
                durable.make_dirs(self._directory)
                self._fd = durable.create(path)
            self._path = path
        durable.write_all(self._fd, self._buffer)
        self._buffer.clear()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def abandoned(directory: Path, *, now: float) -> Iterator[Path]:
    """The spool files that no process will finish: their process has ended, or had the id that this process has now.

    Must be called before this process writes spool files.  `now` is in seconds since the epoch.  Another program may
    have the id by now, so a file that has not grown for a day counts as abandoned, too.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith(INCOMING):
                continue
            pid = entry.name.removeprefix(INCOMING).partition("-")[0]
            try:
                old = entry.stat(follow_symlinks=False).st_mtime < now - 86_400
            except FileNotFoundError:
                continue
            if old or not pid.isdecimal() or int(pid) == os.getpid() or not _is_alive(int(pid)):
                yield Path(entry.path)


def remove_incoming(directory: Path, pid: int) -> None:
    """Remove the spool files that a process, which has ended, was still writing."""
    for path in directory.glob(f"{INCOMING}{pid}-*"):
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended, and only its parent has not asked how; systems without Linux's /proc don't tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[:1] == [b"Z"]  # the name before it may hold anything
