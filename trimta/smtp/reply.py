"""A reply: three digits, an enhanced status code, one or more lines of text (RFC 5321 4.2, RFC 2034)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from trimta.mail.status import EnhancedStatus
from trimta.smtp.errors import ReplyError

MAX_REPLY_LINE: Final = 512  # octets, CRLF included: RFC 5321 4.5.3.1.5
MAX_REPLY: Final = 64 * 1024  # octets of a whole reply that ReplyReader puts up with; no server in use comes near

_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_STATUS: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)", re.ASCII)
_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reply:
    """`Reply(550, ("no such user",), EnhancedStatus(5, 1, 1))`.  Lines are characters without CR, LF or control
    characters; a status is repeated on every line when rendered, and stripped from every line when parsed.
    """

    code: int
    lines: tuple[str, ...]
    status: EnhancedStatus | None = None

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
    after the code.  Strict where it must be: a line without a code, two codes in one reply, or more than `MAX_REPLY`
    octets for one reply raise ReplyError, and the reader is of no use after that.

    An enhanced status is believed only if its class is that of the code; else it stays part of the text.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._lines: list[str] = []
        self._code: int | None = None
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

    def _take(self, line: bytes) -> bool:
        """Add one line; True if it is the last of its reply."""
        found = _LINE.fullmatch(line)
        if found is None:
            raise ReplyError(f"not an SMTP reply: {_readable(line[:80])}")
        code = int(found[1])
        if self._code is not None and self._code != code:
            raise ReplyError(f"one reply with two codes: {self._code} and {code}")
        self._code = code
        self._lines.append(_readable(found[3] or b""))
        return found[2] != b"-"

    def _finish(self) -> Reply:
        assert self._code is not None
        code, lines = self._code, self._lines
        self._code, self._lines, self._octets = None, [], 0
        found = _STATUS.match(lines[0])
        if found is None or int(found[1][0]) != code // 100:
            return Reply(code, tuple(lines))
        status = EnhancedStatus(*(int(part) for part in found[1].split(".")))
        return Reply(code, tuple(_without_status(line, code) for line in lines), status)


def _without_status(line: str, code: int) -> str:
    found = _STATUS.match(line)
    return line if found is None or int(found[1][0]) != code // 100 else line[found.end() :]


def _readable(octets: bytes) -> str:
    return _UNSAFE.sub("?", octets.decode(errors="replace"))
