"""A server's replies, read from the octets of a connection (RFC 5321 4.2)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from trimta.first_use.pattern import pattern
from trimta.mail.reply import REPLY_LINE, Reply, line_text
from trimta.smtp.errors import ReplyError

MAX_REPLY: Final = 64 * 1024
"""Octets of a whole reply, at most.  The replies of servers in use are far shorter."""

_SHORT: Final = 128
"""Octets of a line up to which the reply that it makes is remembered: servers repeat themselves."""

_BEGINNING: Final = pattern(rb"[0-9]{0,2}|[0-9]{3}(?:[ -].*)?", re.DOTALL)
"""The beginning of a line that may become a line with a code."""


class ReplyReader:
    """Reads replies from the octets that a server sends.

    The reader takes what servers in use send: lines may end in LF alone, be longer than 512 octets, not be UTF-8, and
    lack the space after the code.  A line without a code is ignored; inside a reply it is kept in `Reply.received`.
    `Reply.read` makes one reply of the lines.  A reply of more than `MAX_REPLY` octets raises ReplyError, and the
    reader can't be used after that.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._lines: list[str] = []
        """The lines of the reply under way: from the first line with a code on, without empty lines."""
        self._octets = 0
        """Octets of the reply under way that were taken out of the buffer."""

    def feed(self, data: bytes) -> None:
        """Take octets from the wire."""
        self._buffer += data

    @property
    def pending(self) -> int:
        """Octets received and not yet part of a reply that `next` returned."""
        return len(self._buffer) + self._octets

    def next(self) -> Reply | None:
        """The next complete reply; None if its end has not come yet.  Raises ReplyError if it is too long."""
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            self._octets += end + 1
            if self._octets > MAX_REPLY:
                raise ReplyError(f"reply of more than {MAX_REPLY} octets")
            if end <= _SHORT and not self._lines and (reply := _whole_reply(line)) is not None:
                self._octets = 0
                return reply
            if self._take(line.removesuffix(b"\r")):
                return self._finish()
        self._searched = len(self._buffer)
        if self._octets + len(self._buffer) > MAX_REPLY:
            raise ReplyError(f"reply of more than {MAX_REPLY} octets")
        return None

    def cut_off(self) -> Reply | None:
        """The reply under way when the connection was lost, if all its codes are of one class; None otherwise."""
        line = bytes(self._buffer).removesuffix(b"\r")
        self._buffer.clear()
        self._searched = 0
        self._take(line)
        classes = {parts[1][0] for line in self._lines if (parts := REPLY_LINE.fullmatch(line))}
        return self._finish() if len(classes) == 1 else None

    def surplus(self) -> bool:
        """Whether the server has sent a reply, or the beginning of one, that nothing asked for.

        Called when no reply is due.  Lines without a code are ignored.
        """
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
        """Add a line to the reply under way; True if the line ends that reply."""
        line = line_text(octets)
        parts = REPLY_LINE.fullmatch(line)
        if line and (parts is not None or self._lines):
            self._lines.append(line)
        return parts is not None and parts[2] != "-"

    def _finish(self) -> Reply:
        reply = Reply.read(self._lines)
        self._lines, self._octets = [], 0
        return reply


@lru_cache(maxsize=256)
def _whole_reply(octets: bytes) -> Reply | None:
    """The reply that one line makes; None for a line without a code, and where more lines follow."""
    line = line_text(octets.removesuffix(b"\r"))
    parts = REPLY_LINE.fullmatch(line)
    return None if parts is None or parts[2] == "-" else Reply.read([line])
