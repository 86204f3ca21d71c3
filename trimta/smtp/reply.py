"""A reply: three digits, an enhanced status code, one or more lines of text (RFC 5321 4.2, RFC 2034)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Self

from trimta.mail.status import EnhancedStatus
from trimta.smtp.errors import ReplyError

MAX_REPLY_LINE: Final = 512  # octets, CRLF included: RFC 5321 4.5.3.1.5
MAX_REPLY: Final = 64 * 1024  # octets of a whole reply that ReplyReader puts up with; no server in use comes near

_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_STATUS: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)", re.ASCII)
_LINE: Final = re.compile(rb"([0-9]{3})(?:([ -])(.*))?", re.DOTALL)
_BEGUN: Final = re.compile(rb"[0-9]{0,2}|[0-9]{3}(?:[ -].*)?", re.DOTALL)  # what a line with a code may begin with


@dataclass(frozen=True, slots=True)
class Reply:
    """`Reply(550, ("no such user",), EnhancedStatus(5, 1, 1))`.  Lines are characters without CR, LF or control
    characters; a status is repeated on every line when rendered, and stripped from every line when parsed.
    """

    code: int
    lines: tuple[str, ...]
    status: EnhancedStatus | None = None
    received: tuple[str, ...] = field(default=(), compare=False)
    """The lines as the peer wrote them, codes included; empty for a reply of ours."""

    @classmethod
    def of(cls, code: int, status: str, *lines: str) -> Self:
        """`Reply.of(550, "5.1.1", "no such user")`; an empty status is none (354, the greeting, EHLO's answer)."""
        return cls(code, lines, EnhancedStatus.parse(status) if status else None)

    @property
    def klass(self) -> int:
        """First digit: 2 done, 3 go on, 4 not now, 5 never."""
        return self.code // 100

    @property
    def text(self) -> str:
        """All lines as one, without code and status."""
        return " ".join(self.lines)

    @property
    def diagnostic(self) -> str:
        """A peer's reply as exactly as one line can be (RFC 3461 9.2): `550-5.1.1 no such 550 5.1.1 user`."""
        return " ".join(self.received) if self.received else str(self)

    def __str__(self) -> str:
        """On one line, with code and status, for logs, listings and DSNs: `550 5.1.1 no such user`."""
        return " ".join(part for part in (str(self.code), str(self.status or ""), self.text) if part)

    def render(self, *, enhanced: bool = True, utf8: bool = True) -> bytes:
        """The octets on the wire, CRLF included.

        Control characters become "?", so that no text can forge a line; a line is cut at 512 octets, between
        characters.  `enhanced=False` leaves the status out (RFC 2034 is not on offer); `utf8=False` writes other
        characters than ASCII as escapes (RFC 6531 3.7.4.1: the client did not say SMTPUTF8).
        """
        status = f"{self.status} " if enhanced and self.status is not None else ""
        lines = self.lines or ("",)
        last = len(lines) - 1
        return b"".join(
            _render_line(f"{self.code}{' ' if number == last else '-'}{status}{line}", utf8=utf8)
            for number, line in enumerate(lines)
        )


def _render_line(text: str, *, utf8: bool) -> bytes:
    text = _UNSAFE.sub("?", text)
    octets = text.encode() if utf8 else text.encode("ascii", "backslashreplace")
    room = MAX_REPLY_LINE - 2
    if len(octets) > room:
        octets = octets[:room].decode(errors="ignore").encode()
    return octets + b"\r\n"


class ReplyReader:
    """Octets from a server in, replies out.

    Lenient where the world is: lines may end in LF alone, be longer than 512 octets, not be UTF-8, lack the space
    after the code.  A line without a code says nothing and is passed over, before, in and after a reply; of two codes
    in one reply that of the last line counts (RFC 5321 4.2.1).  More than `MAX_REPLY` octets for one reply raise
    ReplyError, and the reader is of no use after that.

    An enhanced status is believed only if its class is that of the code; else it stays part of the text.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._lines: list[tuple[int, str]] = []
        """Code and text of each line so far that has a code."""
        self._received: list[str] = []
        self._octets = 0

    def feed(self, data: bytes) -> None:
        """Take octets from the wire."""
        self._buffer += data

    @property
    def pending(self) -> int:
        """Octets received and not yet part of a reply that `next` gave out."""
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
        """The reply whose end will not come: what its lines agree about counts; None if nothing is certain."""
        line = bytes(self._buffer).removesuffix(b"\r")
        self._buffer.clear()
        self._searched = 0
        self._take(line)
        return self._finish() if len({code // 100 for code, _ in self._lines}) == 1 else None

    def surplus(self) -> bool:
        """Whether there is more than lines without a code, which are passed over; asked when no reply is due."""
        if self._lines:
            return True
        self._octets = 0
        while (end := self._buffer.find(b"\n")) >= 0:
            if _LINE.fullmatch(bytes(self._buffer[:end]).removesuffix(b"\r")):
                return True
            del self._buffer[: end + 1]
        self._searched = len(self._buffer)
        return bool(self._buffer) and _BEGUN.fullmatch(self._buffer) is not None

    def _take(self, line: bytes) -> bool:
        """Add one line; True if it is the last of its reply."""
        found = _LINE.fullmatch(line)
        if found is not None:
            self._lines.append((int(found[1]), _readable(found[3] or b"")))
        if self._lines and line:
            self._received.append(_readable(line))
        return found is not None and found[2] != b"-"

    def _finish(self) -> Reply:
        code = self._lines[-1][0]
        lines = [text for of, text in self._lines if of == code]
        received = tuple(self._received)
        self._lines, self._received, self._octets = [], [], 0
        found = _STATUS.match(lines[0])
        if found is None or int(found[1][0]) != code // 100:
            return Reply(code, tuple(lines), received=received)
        status = EnhancedStatus(*(int(part) for part in found[1].split(".")))
        return Reply(code, tuple(_without_status(line, code) for line in lines), status, received)


def _without_status(line: str, code: int) -> str:
    found = _STATUS.match(line)
    return line if found is None or int(found[1][0]) != code // 100 else line[found.end() :]


def _readable(octets: bytes) -> str:
    return _UNSAFE.sub("?", octets.decode(errors="replace"))
