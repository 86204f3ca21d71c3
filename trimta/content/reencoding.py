"""A message as the sum of spans that are kept or encoded and of octets that are new, rendered a piece at a time."""

from __future__ import annotations

import binascii
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from trimta.content.source import Source

_BASE64_OCTETS: Final = 57  # in a line of 76 characters
_SEVEN_BIT: Final = bytes(range(128)) + b"?" * 128


class Form(enum.Enum):
    """What becomes of a span."""

    KEPT = "kept"
    SEVEN_BIT = "seven-bit"
    """Octets over 127 become question marks."""
    QUOTED = "quoted-printable"
    BASE64 = "base64"
    """Of text whose line ends are CRLF."""
    BASE64_EXACT = "base64 of the octets as they are"


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end) of the content."""

    start: int
    end: int
    form: Form = Form.KEPT


ENDLESS: Final = 128 * 1024
"""Octets of one line that are held back: a longer one is broken where that comes."""

Piece: TypeAlias = Span | bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What a content is to become, in text form; `raw`: its own line ends are CRLF."""

    pieces: Sequence[Piece]
    raw: bool

    def render(self, source: Source) -> Iterator[bytes]:
        """The new octets, in pieces of about a window; memory is that of a piece."""
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from self._span(source, piece)

    def _span(self, source: Source, span: Span) -> Iterator[bytes]:
        if span.form is Form.BASE64_EXACT:
            yield from base64_lines(source.chunks(span.start, span.end))
            return
        text = text_of(source.chunks(span.start, span.end), raw=self.raw)
        match span.form:
            case Form.QUOTED:
                yield from quoted(text)
            case Form.BASE64:
                yield from base64_lines(chunk.replace(b"\n", b"\r\n") for chunk in text)
            case Form.SEVEN_BIT:
                yield from (chunk.translate(_SEVEN_BIT) for chunk in text)
            case _:
                yield from text


def text_of(chunks: Iterable[bytes], *, raw: bool) -> Iterator[bytes]:
    """The same with LF line ends."""
    if not raw:
        yield from chunks
        return
    held = b""
    for chunk in chunks:
        joined = held + chunk
        held = b"\r" if joined.endswith(b"\r") else b""
        yield joined[: len(joined) - len(held)].replace(b"\r\n", b"\n")
    if held:
        yield held


def quoted(text: Iterable[bytes]) -> Iterator[bytes]:
    """Quoted-printable of text without CR: lines keep their ends, an endless one gets soft ends."""
    held = b""
    for chunk in text:
        joined = held + chunk
        end = joined.rfind(b"\n") + 1
        if end:
            yield binascii.b2a_qp(joined[:end], quotetabs=False, istext=True)
        held = joined[end:]
        if len(held) > ENDLESS:
            yield binascii.b2a_qp(held, quotetabs=False, istext=True) + b"=\n"
            held = b""
    if held:
        yield binascii.b2a_qp(held, quotetabs=False, istext=True)


def base64_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of 76 characters; no line end after the last one."""
    held = b""
    before = b""
    for chunk in chunks:
        joined = held + chunk
        whole = (len(joined) - 1) // _BASE64_OCTETS * _BASE64_OCTETS if joined else 0
        if whole > 0:
            yield before + _base64(joined[:whole])
            before = b"\n"
        held = joined[whole:]
    if held:
        yield before + _base64(held)


def _base64(data: bytes) -> bytes:
    return b"\n".join(
        binascii.b2a_base64(data[start : start + _BASE64_OCTETS], newline=False)
        for start in range(0, len(data), _BASE64_OCTETS)
    )


def base64_size(octets: int) -> int:
    """How long base64 in lines is."""
    return (octets + 2) // 3 * 4 + octets // _BASE64_OCTETS
