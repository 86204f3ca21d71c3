"""A header that is read piece by piece, however long it is: which fields it has, and where the message has been.

Memory is bounded: of a field only its name is kept, and of Delivered-To values as many as a message can need.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Self

from trimta.content.trace import HeaderSummary

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINE: Final = 4096
"""Octets of a header line that are kept: a field's name, and any address, are within them."""

MAX_DELIVERED_TO: Final = 10_000
"""Delivered-To fields that are remembered: a header has one for each mailbox that the message came through, or as many
as a `maildir:` route wrote for the recipients of one message.
"""

KNOWN: Final = frozenset({b"from", b"date", b"message-id", b"resent-date"})
"""Names whose presence is remembered."""

_NAME: Final = re.compile(rb"([!-9;-~]{1,998})[ \t]*:")
_FROM_LINE: Final = re.compile(rb">?From ")


class HeaderScan:
    """`HeaderScan.of(pieces)`, or `feed` until `ended`, then `finish`.  Lines end in LF or CRLF."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        """Which of KNOWN are there, in lower case."""
        self.has_fields = False
        """There is a field at all."""
        self.ended = False
        """The end of the header was seen: what follows does not matter."""
        self.starts_with_blank = False
        """The first line is empty: the header has no field, and is complete."""
        self._received = 0
        self._delivered_to: list[str] = []
        self._line = bytearray()
        """The beginning of a line whose end has not come."""
        self._value: bytearray | None = None
        """A Delivered-To field that may be continued."""
        self._first = True

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> Self:
        """Read a header from content that comes in pieces of any size; reads no further than it must."""
        scan = cls()
        for piece in pieces:
            scan.feed(piece)
            if scan.ended:
                break
        scan.finish()
        return scan

    @property
    def summary(self) -> HeaderSummary:
        """The way behind the message, as far as the header was read."""
        return HeaderSummary(self._received, tuple(self._delivered_to))

    def feed(self, piece: bytes) -> None:
        """Take the next octets of the content."""
        position = 0
        while not self.ended:
            end = piece.find(b"\n", position)
            part = piece[position : end if end >= 0 else len(piece)]
            self._line += part[: MAX_LINE - len(self._line)]
            if end < 0:
                return
            position = end + 1
            self._take_line()

    def finish(self) -> None:
        """No more octets come: a last line may have no end."""
        if not self.ended and self._line:
            self._take_line()
        self._end_field()
        self.ended = True

    def _take_line(self) -> None:
        line = bytes(self._line).removesuffix(b"\r")
        self._line.clear()
        first, self._first = self._first, False
        if line[:1] in (b" ", b"\t") and self.has_fields:
            if self._value is not None:
                self._value += line[: MAX_LINE - len(self._value)]
            return
        self._end_field()
        found = _NAME.match(line)
        if found is not None:
            self._begin_field(found[1].lower(), line[found.end() :])
        elif not (first and _FROM_LINE.match(line)):  # the line of an mbox on top belongs to the header
            self.starts_with_blank = first and not line
            self.ended = True

    def _begin_field(self, name: bytes, value: bytes) -> None:
        self.has_fields = True
        if name in KNOWN:
            self.names.add(name.decode("ascii"))
        elif name == b"received":
            self._received += 1
        elif name == b"delivered-to" and len(self._delivered_to) < MAX_DELIVERED_TO:
            self._value = bytearray(value)

    def _end_field(self) -> None:
        if self._value is not None:
            self._delivered_to.append(self._value.decode(errors="surrogateescape").strip(" \t"))
            self._value = None
