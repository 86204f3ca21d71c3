"""The replies of a server, read from the octets of its connection (RFC 5321 4.2)."""

from __future__ import annotations

import re
from typing import Final

from trimta.mail.reply import REPLY_LINE, Reply, line_text
from trimta.smtp.errors import ReplyError

MAX_REPLY: Final = 64 * 1024  # octets of a whole reply; no server in use comes near

_BEGINNING: Final = re.compile(rb"[0-9]{0,2}|[0-9]{3}(?:[ -].*)?", re.DOTALL)
"""An incomplete line that may become a line with a code."""


class ReplyReader:
    """Octets from a server in, replies out.

    The reader is as lenient as servers are various: lines may end in LF alone, be longer than 512 octets, not be UTF-8,
    lack the space after the code.  A line without a code is passed over, before, in and after a reply.  What the lines
    with a code mean says `Reply.read`.  More than `MAX_REPLY` octets for one reply raise ReplyError, and the reader is
    of no use after that.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._lines: list[str] = []
        """The lines of the reply under way: the first one with a code, and what followed, empty lines left out."""
        self._octets = 0
        """The length of the reply under way, as far as it has left the buffer."""

    def feed(self, data: bytes) -> None:
        """Take octets from the wire."""
        self._buffer += data

    @property
    def pending(self) -> int:
        """Octets received and not yet part of a reply that `next` returned."""
        return len(self._buffer) + self._octets

    def next(self) -> Reply | None:
        """The next whole reply; None if its end has not come yet.  Raises ReplyError."""
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            self._octets += end + 1
            if self._octets > MAX_REPLY:
                raise ReplyError(f"reply of more than {MAX_REPLY} octets")
            if self._take(line.removesuffix(b"\r")):
                return self._finish()
        self._searched = len(self._buffer)
        if self._octets + len(self._buffer) > MAX_REPLY:
            raise ReplyError(f"reply of more than {MAX_REPLY} octets")
        return None

    def cut_off(self) -> Reply | None:
        """The reply whose end will not come, if the codes of its lines are of one class; None otherwise."""
        line = bytes(self._buffer).removesuffix(b"\r")
        self._buffer.clear()
        self._searched = 0
        self._take(line)
        classes = {parts[1][0] for line in self._lines if (parts := REPLY_LINE.fullmatch(line))}
        return self._finish() if len(classes) == 1 else None

    def surplus(self) -> bool:
        """Whether there is more than lines without a code, which are passed over; asked when no reply is due."""
        if self._lines:
            return True
        self._octets = 0
        while (end := self._buffer.find(b"\n")) >= 0:
            if REPLY_LINE.fullmatch(line_text(self._buffer[:end].removesuffix(b"\r"))):
                return True
            del self._buffer[: end + 1]
        self._searched = len(self._buffer)
        return bool(self._buffer) and _BEGINNING.fullmatch(self._buffer) is not None

    def _take(self, octets: bytes) -> bool:
        """Add one line; True if it is the last of its reply."""
        line = line_text(octets)
        parts = REPLY_LINE.fullmatch(line)
        if line and (parts is not None or self._lines):
            self._lines.append(line)
        return parts is not None and parts[2] != "-"

    def _finish(self) -> Reply:
        reply = Reply.read(self._lines)
        self._lines, self._octets = [], 0
        return reply
