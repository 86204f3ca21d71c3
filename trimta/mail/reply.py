"""An SMTP reply, of this server or of a peer: three digits, an enhanced status, lines of text (RFC 5321 4.2, RFC 2034).

`Reply` is the one form of a reply, whoever wrote it: an answer of this server, the answer of a next hop, the diagnostic
of a queued recipient, the text of a `reject` route.  `REPLY_LINE` is the one grammar of its lines.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from trimta.first_use.pattern import pattern
from trimta.mail.limits import MAX_REPLY_LINE
from trimta.mail.status import EnhancedStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

REPLY_LINE: Final = pattern(r"([0-9]{3})(?:([ -])(.*))?", re.DOTALL | re.ASCII)
"""One line of a reply without its line end.  Groups: the code; "-" where more lines follow, a space or nothing on the
last one; the text.
"""

_UNSAFE: Final = pattern("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_STATUS: Final = pattern(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: `Reply(550, ("no such user",), EnhancedStatus(5, 1, 1))`.

    Lines are characters without CR, LF or control characters.  The status is written on every line by `render`, and
    taken off every line by `read`.
    """

    code: int
    lines: tuple[str, ...]
    status: EnhancedStatus | None = None
    received: tuple[str, ...] = field(default=(), compare=False)
    """The lines as the peer wrote them, codes included; empty for a reply of this server."""

    _text: str | None = field(default=None, init=False, repr=False, compare=False)
    """What `__str__` has returned."""

    _octets: bytes | None = field(default=None, init=False, repr=False, compare=False)
    """What `render` has returned, if nothing was left out and nothing escaped."""

    @classmethod
    def of(cls, code: int, status: str, *lines: str) -> Reply:
        """A reply of this server: `Reply.of(550, "5.1.1", "no such user")`.  An empty status is none (354, the
        greeting, the answer to EHLO); ValueError for a text that is no status.
        """
        if len(lines) == 1:
            return _one_line_reply(code, status, lines[0])
        return cls(code, lines, EnhancedStatus.parse(status) if status else None)

    @classmethod
    def read(cls, lines: Iterable[str]) -> Self:
        """The reply that a peer's lines make, line ends left out; ValueError if none of the lines has a code.

        A line without a code has no meaning.  Of two codes that of the last line counts (RFC 5321 4.2.1), and the text
        of the lines with another code is left out.  An enhanced status counts only if its class is that of the code;
        otherwise it stays part of the text.
        """
        received = tuple(lines)
        coded = [(int(parts[1]), parts[3] or "") for line in received if (parts := REPLY_LINE.fullmatch(line))]
        if not coded:
            raise ValueError(f"no reply: {received!r}")
        code = coded[-1][0]
        texts = [text for line_code, text in coded if line_code == code]
        first = _STATUS.match(texts[0])
        if first is None or int(first[1][0]) != code // 100:
            return cls(code, tuple(texts), received=received)
        status = EnhancedStatus(*(int(number) for number in first[1].split(".")))
        return cls(code, tuple(_without_status(text, code) for text in texts), status, received)

    @property
    def klass(self) -> int:
        """First digit: 2 done, 3 go on, 4 not now, 5 never."""
        return self.code // 100

    @property
    def text(self) -> str:
        """The text of all lines as one line, without code and status."""
        return self.lines[0] if len(self.lines) == 1 else " ".join(self.lines)

    @property
    def diagnostic(self) -> str:
        """A peer's reply as exactly as one line can be (RFC 3461 9.2): `550-5.1.1 no such 550 5.1.1 user`."""
        return " ".join(self.received) if self.received else str(self)

    def __str__(self) -> str:
        """The reply on one line, with code and status, for logs, listings and DSNs: `550 5.1.1 no such user`."""
        if self._text is not None:
            return self._text
        line = f"{self.code}" if self.status is None else f"{self.code} {self.status}"
        if self.text:
            line = f"{line} {self.text}"
        object.__setattr__(self, "_text", line)
        return line

    def render(self, *, enhanced: bool = True, utf8: bool = True) -> bytes:
        """The octets on the wire, CRLF included.

        Control characters become "?", so that no text can forge a line; a line is cut at 512 octets, between
        characters.  `enhanced=False` leaves the status out (RFC 2034 is not on offer); `utf8=False` writes other
        characters than ASCII as escapes (RFC 6531 3.7.4.1: the client did not say SMTPUTF8).
        """
        if self.status is None:
            enhanced = True
        if enhanced and self._octets is not None:
            return self._octets
        status = f"{self.status} " if enhanced and self.status is not None else ""
        *lines, last = self.lines or ("",)
        octets = _render_line(f"{self.code} {status}{last}", utf8=utf8)
        if lines:
            octets = b"".join([*(_render_line(f"{self.code}-{status}{line}", utf8=utf8) for line in lines), octets])
        if enhanced and self.text.isascii():
            object.__setattr__(self, "_octets", octets)
        return octets


def line_text(octets: bytes | bytearray) -> str:
    """A peer's line as text: U+FFFD for what is not UTF-8, "?" for control characters."""
    return _UNSAFE.sub("?", octets.decode(errors="replace"))


@functools.lru_cache(maxsize=64)  # a server gives the same few replies again and again, and each is rendered once
def _one_line_reply(code: int, status: str, line: str) -> Reply:
    return Reply(code, (line,), EnhancedStatus.parse(status) if status else None)


def _render_line(text: str, *, utf8: bool) -> bytes:
    room = MAX_REPLY_LINE - 2
    if len(text) <= room and text.isascii() and text.isprintable():  # nearly all are, and these are quickly asked
        return text.encode() + b"\r\n"
    text = _UNSAFE.sub("?", text)
    octets = text.encode() if utf8 else text.encode("ascii", "backslashreplace")
    if len(octets) > room:
        octets = octets[:room].decode(errors="ignore").encode()
    return octets + b"\r\n"


def _without_status(text: str, code: int) -> str:
    status = _STATUS.match(text)
    return text if status is None or int(status[1][0]) != code // 100 else text[status.end() :]
