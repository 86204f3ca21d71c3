"""Command lines, read from the octets of a client (RFC 5321 2.3.8, 4.5.3.1.4).

A line ends in CRLF, or in LF alone, as people type it.  Memory is bounded: of a line that is too long only the length
and the beginning are kept.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

MAX_LINE: Final = 12 * 1024
"""Octets of a command line, line end included, as RFC 4954 4 asks for AUTH; other extensions need less."""
MAX_ENDLESS: Final = 1024 * 1024
"""Octets after which the end of a line is no longer waited for."""
BEGINNING: Final = 256
"""Octets of the beginning of a line that are enough to recognize another protocol."""


def printable(text: str) -> str:
    """A client's text with "?" for each character that is not printable, to be shown to people."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class Unfit(enum.Enum):
    """The reason why a line is no command line."""

    TOO_LONG = "too long"
    """It has more than MAX_LINE octets, the line end included."""
    ENDLESS = "endless"
    """It has more than MAX_ENDLESS octets without a line end: the session can't go on."""


@dataclass(frozen=True, slots=True)
class LineBeginning:
    """The beginning of a line whose end was not received yet, or of one that is too long and was dropped."""

    octets: bytes
    """The first octets of the line, BEGINNING at most."""
    unfit: Unfit | None
    """Why the line is no command line; None if it may become one."""


class LineBuffer:
    """The octets that a client has sent and that were not taken out yet."""

    __slots__ = ("_dropped", "_dropped_beginning", "_octets", "_position", "_searched")

    def __init__(self) -> None:
        self._octets = b""
        """The octets as they were received, to be passed on without a copy; those before `_position` are taken out."""
        self._position = 0
        self._searched = 0
        """The position up to which there is no line end, `_position` or more."""
        self._dropped = 0
        """The number of octets of the next line that were dropped, since it is too long."""
        self._dropped_beginning = b""
        """The first BEGINNING of them."""

    def __len__(self) -> int:
        return len(self._octets) - self._position

    def feed(self, data: bytes) -> None:
        """Take octets from the wire."""
        self._octets = self._octets[self._position :] + data
        self._searched -= self._position
        self._position = 0

    def line(self) -> bytes | LineBeginning | None:
        """The next line with its line end, or its beginning; None if no octets are here."""
        octets, start = self._octets, self._position
        if not octets:
            return None
        end = octets.find(b"\n", self._searched) + 1
        if not end or self._dropped or end - start > MAX_LINE:
            return self._line_beginning(end)
        if end == len(octets):
            self._octets = b""
            self._position = self._searched = 0
        else:
            self._position = self._searched = end
        return octets[start:end]

    def _line_beginning(self, end: int) -> LineBeginning:
        """The beginning of a line that is too long or has no end yet.  `end`: the position behind the line, or 0."""
        beginning = self._dropped_beginning or self._octets[self._position : self._position + BEGINNING]
        length = self._dropped + (end or len(self._octets)) - self._position
        if length - bool(end) >= MAX_ENDLESS:
            self.clear()
            return LineBeginning(beginning, Unfit.ENDLESS)
        if not end:
            self._searched = len(self._octets)
            if length > MAX_LINE:
                self.clear()
                self._dropped, self._dropped_beginning = length, beginning
            return LineBeginning(beginning, None)
        self._position = self._searched = end
        self._dropped, self._dropped_beginning = 0, b""
        return LineBeginning(beginning, Unfit.TOO_LONG)

    def take(self, most: int | None = None) -> bytes:
        """Take out `most` octets at most, or all, without regard to lines.  Must not be called within a line."""
        start = self._position
        if most is None or most >= len(self._octets) - start:
            data = self._octets[start:]
            self.clear()
            return data
        self._position = self._searched = start + most
        return self._octets[start : start + most]

    def give_back(self, data: bytes) -> None:
        """Put octets back that `take` has returned and that were not used."""
        self._octets = data + self._octets[self._position :]
        self._position = self._searched = 0

    def clear(self) -> None:
        """Drop all octets."""
        self._octets = self._dropped_beginning = b""
        self._position = self._searched = self._dropped = 0
