"""The body of a message while it is received and kept: in memory while it is small, else in one file of the spool.

A body is what follows our trace fields, the header that the client sent included; its form is text or raw octets.
"""

from __future__ import annotations

import contextlib
import os
import secrets
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
"""Octets that are read from a file at once, where the caller names no number."""

INCOMING: Final = "incoming-"
"""Prefix of the spool files that no entry of the queue names yet; the id of the process that writes them follows."""


class BodyDamagedError(Exception):
    """The spool file of a body is missing or not as long as it was when it was written."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body that is complete, and may be read any number of times.

    Made by `Body.of(octets)`, by `SpoolWriter.finish()` or by the queue.  A body in a file is durable but belongs to
    nobody until the queue adopts its file; `discard()` removes the file if that never happens.
    """

    size: int
    """Octets, in the form in which the body is kept."""
    lines: int
    """The number of LFs among them."""
    data: bytes | None = None
    """The octets of a body in memory."""
    path: Path | None = None
    """The file of a body that is not in memory."""
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
        """Octets on the wire, before dot-stuffing."""
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
        if read != self.size:
            raise BodyDamagedError(f"{self.path} has {read} octets where {self.size} are meant")

    @contextlib.contextmanager
    def reader(self) -> Iterator[Callable[[int, int], bytes]]:
        """A function `read(start, end)` that gives the octets of the body in that range.  Blocks unless `in_memory`.

        Raises BodyDamagedError, here or from `read`, if the file is gone or not as long as it was; OSError if it can't
        be read.
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
            size = os.fstat(file.fileno()).st_size
            if size != self.size:
                raise BodyDamagedError(f"{self.path} has {size} octets where {self.size} are meant")

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

    def discard(self) -> None:
        """Remove the file of a body that nobody adopted.  Idempotent; a body in memory stays as it is, and so does
        one that the queue adopted, since its file has another name by then.
        """
        if self.path is not None and self.path.name.startswith(INCOMING):
            self.path.unlink(missing_ok=True)


class SpoolWriter:
    """A writer that takes the octets of a body as they come, and makes a Body of them.

    `append` only buffers while `needs_disk` is false, so an asynchronous caller goes to a thread only when it is
    true; `finish` and `discard` stay off the disk while `in_memory` is true.  At most `threshold` octets and one
    appended piece are in memory.
    """

    def __init__(self, directory: Path, threshold: int = MEMORY_LIMIT, *, form: BodyForm = BodyForm.TEXT) -> None:
        """`form`: that of the octets which are going to be appended."""
        self._directory = directory
        self._form = form
        self._threshold = threshold
        self._buffer = bytearray()
        self._fd: int | None = None
        self._path: Path | None = None
        self._body: Body | None = None
        self.size = 0
        """Octets appended so far."""
        self.lines = 0
        """The number of LFs among them."""

    @property
    def needs_disk(self) -> bool:
        """Whether the next append() writes to the disk."""
        return len(self._buffer) >= self._threshold

    @property
    def in_memory(self) -> bool:
        """Whether finish() and discard(), called now, do not touch the disk."""
        return self._path is None and self.size <= self._threshold

    def append(self, data: bytes) -> None:
        """Add octets.  Raises OSError if the disk refuses what was buffered: the caller then calls `discard`."""
        if not data:
            return
        if self.needs_disk:
            self._spill()
        self._buffer += data
        self.size += len(data)
        self.lines += data.count(b"\n")

    def finish(self) -> Body:
        """The body, durable if it is in a file (but for the file's name, which the queue gives).  Raises OSError as
        `append`.
        """
        if self._body is not None:
            return self._body
        if self.in_memory:
            self._body = Body(self.size, self.lines, bytes(self._buffer), form=self._form)
        else:
            self._spill()
            assert self._fd is not None
            durable.fsync(self._fd)
            self._close()
            self._body = Body(self.size, self.lines, None, self._path, self._form)
        self._buffer = bytearray()
        return self._body

    def discard(self) -> None:
        """Forget the octets and remove the file, if there is one and nobody adopted it.  Idempotent.

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
            path = self._directory / f"{INCOMING}{os.getpid()}-{secrets.token_hex(8)}"
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
    """Spool files that no process is going to finish: their process has ended, or had the id that this process has.

    To be called before this process spools anything; `now` is in seconds since the epoch.  The id may belong to another
    program by now, so a file that has not grown for a day is abandoned whichever process has its id.
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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
