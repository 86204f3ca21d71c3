"""The standard streams of a command, whatever state they are in: closed, full, without a reader, not blocking.

A standard output that fails ends a command by OutputError, unless what the command did counts more than what it
prints.  A standard error that fails ends nothing: there is nobody left to tell.
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
"""How /dev/null is opened in the place of a closed stream.  Input and output fail when they are used, as the closed
ones would have; what is said on a closed standard error is dropped."""


class OutputError(Exception):
    """Standard output did not take what was written."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause)
        self.reader_is_gone = cause.errno == errno.EPIPE
        closed = cause.errno == errno.EBADF
        self.reason = "is closed" if closed else f"can't be written: {cause.strerror}"

    def __str__(self) -> str:
        return f"standard output {self.reason}"


def occupy() -> None:
    """Put /dev/null on each of the descriptors 0, 1, 2 that is closed: the next file or socket would get its number,
    and what is printed would go into it.
    """
    for descriptor, flags in _STAND_INS.items():
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)  # the lowest free number: this one
            if opened != descriptor:
                os.dup2(opened, descriptor, inheritable=True)
                os.close(opened)
            os.set_inheritable(descriptor, True)


def install() -> None:
    """Make sys.stdout and sys.stderr the ones that this module promises."""
    sys.stdout = _text(STANDARD_OUTPUT, sys.stdout, raises=True)
    sys.stderr = _text(STANDARD_ERROR, sys.stderr, raises=False)


def output_is_secondary() -> None:
    """From now on standard output may fail: what the command does is worth more than what it prints about it."""
    raw = _raw(sys.stdout)
    if raw is not None:
        raw.raises = False


def output_failure() -> OutputError | None:
    """Why standard output took less than it was given, if it did and that has not been raised."""
    raw = _raw(sys.stdout)
    return None if raw is None or raw.failure is None or raw.raises else OutputError(raw.failure)


def output() -> int | None:
    """The descriptor of standard output; None where it has none."""
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError):
        return None


def check_output() -> None:
    """OutputError if standard output takes nothing at all: before something is waited for in vain."""
    descriptor = output()
    if descriptor is not None and not is_open(descriptor, os.O_WRONLY):
        raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def is_open(descriptor: int, mode: int) -> bool:
    """Whether a descriptor can be read (os.O_RDONLY) or written (os.O_WRONLY)."""
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        return False
    return found in (mode, os.O_RDWR)


def say(text: str) -> None:
    """A line for people on standard error, behind what was printed so far."""
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class _Descriptor(io.RawIOBase):
    """One of the descriptors 1 and 2."""

    def __init__(self, descriptor: int, *, raises: bool) -> None:
        self._descriptor = descriptor
        self._kept = raises
        self.raises = raises
        self.failure: OSError | None = None
        """The first one of standard output.  What is written after it is dropped: the interpreter flushes once more at
        its exit.  A log, on standard error, goes on when there is room again.
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
            except BlockingIOError:  # whoever shares it with us has set it so
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
