"""The standard streams of a command, which may be closed, full, without a reader, or not blocking.

A failure of standard output ends a command by OutputError, unless the command has said that its output is secondary.  A
failure of standard error ends nothing, since there is no place left to report it.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

STANDARD_INPUT: Final = 0
STANDARD_OUTPUT: Final = 1
STANDARD_ERROR: Final = 2

_STAND_INS: Final = {STANDARD_INPUT: os.O_WRONLY, STANDARD_OUTPUT: os.O_RDONLY, STANDARD_ERROR: os.O_WRONLY}
"""The flags with which /dev/null is opened in the place of a closed stream.

Standard input and output are opened the wrong way, so that their use fails as that of the closed stream would.  What is
written on a closed standard error is dropped.
"""


class OutputError(Exception):
    """A write to standard output has failed; `reader_is_gone` tells a closed pipe from other failures."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.reader_is_gone = cause.errno == errno.EPIPE
        closed = cause.errno == errno.EBADF
        self.reason = "is closed" if closed else f"can't be written: {cause.strerror}"

    def __str__(self) -> str:
        return f"standard output {self.reason}"


def occupy() -> None:
    """Open /dev/null on each of the descriptors 0, 1 and 2 that is closed.

    Else the next file or socket would get that number, and the output of the command would be written into it.
    """
    for descriptor, flags in _STAND_INS.items():
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)  # gets the lowest free number, which is `descriptor` as a rule
            if opened != descriptor:
                os.dup2(opened, descriptor, inheritable=True)
                os.close(opened)
            os.set_inheritable(descriptor, True)


def install() -> None:
    """Replace sys.stdout and sys.stderr by streams that fail as this module says."""
    sys.stdout = _text(STANDARD_OUTPUT, sys.stdout, raises=True)
    sys.stderr = _text(STANDARD_ERROR, sys.stderr, raises=False)


def output_is_secondary() -> None:
    """Let the command go on from here if standard output fails: its action counts more than the report on it."""
    raw = _raw(sys.stdout)
    if raw is not None:
        raw.raises = False


def output_failure() -> OutputError | None:
    """The failure of a secondary standard output, which was not raised; None if all output was written."""
    raw = _raw(sys.stdout)
    return None if raw is None or raw.failure is None or raw.raises else OutputError(raw.failure)


def output() -> int | None:
    """The descriptor of standard output; None if sys.stdout has none, as in tests."""
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError):
        return None


def check_output() -> None:
    """Raise OutputError if standard output is closed: called before a wait whose result could not be printed."""
    descriptor = output()
    if descriptor is not None and not is_open(descriptor, os.O_WRONLY):
        raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def is_open(descriptor: int, mode: int) -> bool:
    """Whether a descriptor is open for reading (`mode` os.O_RDONLY) or for writing (os.O_WRONLY)."""
    try:
        access = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        return False
    return access in (mode, os.O_RDWR)


def say(text: str) -> None:
    """Print a line on standard error, after the output so far has been written."""
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class _Descriptor(io.RawIOBase):
    """Descriptor 1 or 2 as a raw stream.

    With `raises`, as for standard output, the first failure is raised and kept.  Without, as for standard error,
    failures are ignored.
    """

    def __init__(self, descriptor: int, *, raises: bool) -> None:
        self._descriptor = descriptor
        self._kept = raises
        self.raises = raises
        self.failure: OSError | None = None
        """The first failure of standard output.

        What is written after it is dropped, since the interpreter flushes once more at its exit.  Standard error keeps
        no failure: a log on a full disk goes on when there is room again.
        """

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, octets: Buffer, /) -> int:
        data = memoryview(octets).cast("B")
        while self.failure is None:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another process that shares the open file has made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError as error:
                if not self._kept:
                    break
                self.failure = error
                if self.raises:
                    raise OutputError(error) from error
        return len(data)


def _text(descriptor: int, before: TextIO | None, *, raises: bool) -> TextIO:
    raw = _Descriptor(descriptor, raises=raises)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",  # file names need not be text
        line_buffering=descriptor == STANDARD_ERROR or raw.isatty(),
    )


def _raw(stream: TextIO) -> _Descriptor | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Descriptor) else None
