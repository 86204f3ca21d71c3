"""Command lines, read from the octets of a client (RFC 5321 2.3.8, 4.5.3.1.4).

A line ends in CRLF, or in LF alone, as people type it.  Memory is bounded: of a line that is too long only the length
is kept.
"""

from __future__ import annotations

import enum
from typing import Final

from trimta.first_use.dataclass import dataclass

MAX_LINE: Final = 12 * 1024
"""Octets of a command line, line end included, as RFC 4954 4 asks for AUTH; other extensions need less."""
MAX_ENDLESS: Final = 1024 * 1024
"""Octets after which the end of a line is no longer waited for."""


def printable(text: str) -> str:
    """A client's text with "?" for each character that is not printable, to be shown to people."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its line end; `crlf`: the line end was CRLF, not LF alone."""

    octets: bytes
    crlf: bool


class Unfit(enum.Enum):
    """A line that is too long to be a command line."""

    TOO_LONG = "too long"
    """More than MAX_LINE octets, the line end included; they are dropped."""
    ENDLESS = "endless"
    """More than MAX_ENDLESS octets without a line end: the session can't go on."""


class LineBuffer:
    """The octets that a client has sent and that were not taken out yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take octets from the wire."""
        self._buffer += data

    def beginning(self, most: int) -> bytes:
        """The first octets of the next line, `most` at most; b"" if octets of a too long line were dropped."""
        return b"" if self._dropped else bytes(self._buffer[:most])

    def line(self) -> Line | Unfit | None:
        """The next line; None if its end was not received yet."""
        end = self._buffer.find(b"\n", self._searched)
        if self._dropped + (end if end >= 0 else len(self._buffer)) >= MAX_ENDLESS:
            self.clear()
            return Unfit.ENDLESS
        if end < 0:
            if self._dropped or len(self._buffer) > MAX_LINE:
                self._dropped += len(self._buffer)
                self._buffer.clear()
            self._searched = len(self._buffer)
            return None
        dropped, self._dropped, self._searched = self._dropped, 0, 0
        if dropped + end + 1 > MAX_LINE:
            del self._buffer[: end + 1]
            return Unfit.TOO_LONG
        crlf = self._buffer.endswith(b"\r", 0, end)
        octets = bytes(self._buffer[: end - crlf])
        del self._buffer[: end + 1]
        return Line(octets, crlf)

    def take(self, most: int | None = None) -> bytes:
        """Take out `most` octets at most, or all, without regard to lines.  Must not be called within a line."""
        self._searched = 0
        if most is None or most >= len(self._buffer):
            data = bytes(self._buffer)
            self._buffer.clear()
            return data
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        return data

    def give_back(self, data: bytes) -> None:
        """Put octets back that `take` has returned and that were not used."""
        self._buffer[:0] = data
        self._searched = 0

    def clear(self) -> None:
        """Drop all octets."""
        self._buffer.clear()
        self._searched = self._dropped = 0
