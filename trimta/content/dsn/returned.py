"""The third part of a DSN: the message that it is about, or the header of that message (RFC 3461 6.2, RFC 6522 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.content.dsn.values import DsnKind
from trimta.content.header import fields, possible_headers
from trimta.mail.envelope import Ret
from trimta.mail.limits import MAX_TEXT_LINE

if TYPE_CHECKING:
    from trimta.content.dsn.values import OriginalMessage

RETURN_LIMIT: Final = 64 * 1024
"""Octets of the message that a DSN returns at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The octets of a message that a DSN returns."""

    content: bytes
    """LF line ends."""
    is_message: bool
    """Whether it is the whole message, not its header alone."""
    media_type: str

    @property
    def is_global(self) -> bool:
        """Whether internationalized headers travel in it, so that the DSN needs SMTPUTF8 (RFC 6531 3.4)."""
        return self.media_type.startswith("message/global")


def returned_from(original: OriginalMessage, kind: DsnKind, *, utf8: bool, limit: int) -> Returned:
    """The whole message in a failure DSN, unless RET=HDRS was given (RFC 3461 4.3), the message is over `limit` octets,
    or its octets do not travel as text: a NUL, a bare CR, a line over 998 octets.  Else its header, cut at `limit`.

    `utf8`: the sender reads UTF-8, so that the media type may be one of RFC 6532 and 6533.
    """
    content = original.head.replace(b"\r\n", b"\n")
    has_all = original.whole and len(content) <= limit
    is_message = kind is DsnKind.FAILED and original.terms.ret is not Ret.HEADERS and has_all and _is_text(content)
    if not is_message:
        content = returned_header(content[:limit], whole=has_all)
    media_type = _media_type(content, is_message=is_message, utf8=utf8)
    return Returned(content=content, is_message=is_message, media_type=media_type)


def returned_header(head: bytes, *, whole: bool) -> bytes:
    """The fields of the header that `head` begins with, and nothing of the body, whatever is wrong with the message.

    `whole`: the message ends with `head`; else `head` may end within a line, which is left out.  What can't travel as
    text is mended: a CR or NUL becomes "?", a line over 998 octets is folded.
    """
    if not whole:
        head = head[: head.rfind(b"\n") + 1]
    lines: list[bytes] = []
    for field in fields(head):
        for line in field.raw.removesuffix(b"\n").split(b"\n"):
            lines += _mended(line)
    return b"".join(line + b"\n" for line in lines)


def _mended(line: bytes) -> list[bytes]:
    """A line of a field as lines of at most 998 octets, without CR and NUL."""
    rest = line.replace(b"\r", b"?").replace(b"\0", b"?")
    lines: list[bytes] = []
    while len(rest) > MAX_TEXT_LINE:
        cut = MAX_TEXT_LINE - 1
        while cut > MAX_TEXT_LINE - 5 and rest[cut] & 0xC0 == 0x80:  # not within a character
            cut -= 1
        lines.append(rest[:cut])
        rest = b" " + rest[cut:]
    return [*lines, rest]


def _media_type(content: bytes, *, is_message: bool, utf8: bool) -> str:
    """The type of RFC 6532 3.7 or RFC 6533 6.3 where a header is UTF-8, that of a part of the message included."""
    if utf8:
        headers = b"".join(possible_headers(content)) if is_message else content
        if not headers.isascii() and _is_utf8(headers):
            return "message/global" if is_message else "message/global-headers"
    return "message/rfc822" if is_message else "text/rfc822-headers"


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_text(content: bytes) -> bool:
    """Whether the content can be part of a text message as it is (RFC 2045 2.8)."""
    return (
        b"\0" not in content
        and b"\r" not in content
        and all(len(line) <= MAX_TEXT_LINE for line in content.split(b"\n"))
    )
