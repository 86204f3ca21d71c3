"""The plan of a rewritten message: ranges of the original that are kept or encoded, and octets that are new.

A plan takes little memory, however large the message is.  It is rendered each time that the octets are needed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

from trimta.content.mime.transfer_encoding import base64_lines, lf_text, quoted_printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trimta.content.windowed_octets import WindowedOctets
    from trimta.mail.body import BodyForm

_SEVEN_BIT: Final = bytes(range(128)) + b"?" * 128


class SpanForm(enum.Enum):
    """The form in which a range of the original is written."""

    KEPT = "kept"
    """The octets as they are, with LF line ends."""
    SEVEN_BIT = "seven-bit"
    """The octets with LF line ends, and with a question mark for each octet over 127."""
    QUOTED = "quoted-printable"
    BASE64 = "base64"
    """Base64 of text whose line ends are CRLF."""
    BASE64_EXACT = "base64 of the octets as they are"


@dataclass(frozen=True, slots=True)
class Span:
    """The range [start, end) of the original, in octets, and the form in which it is written."""

    start: int
    end: int
    form: SpanForm = SpanForm.KEPT


Piece: TypeAlias = Span | bytes
"""A range of the original, or octets that are new."""


@dataclass(frozen=True, slots=True)
class RewritingPlan:
    """The pieces of a rewritten message, in their order.  The result has LF line ends."""

    pieces: Sequence[Piece]
    form: BodyForm
    """The form of the original."""

    def render(self, original: WindowedOctets) -> Iterator[bytes]:
        """The octets of the rewritten message, in chunks of about a window."""
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from self._span(original, piece)

    def _span(self, original: WindowedOctets, span: Span) -> Iterator[bytes]:
        octets = original.chunks(span.start, span.end)
        match span.form:
            case SpanForm.KEPT:
                yield from lf_text(octets, self.form)
            case SpanForm.SEVEN_BIT:
                yield from (chunk.translate(_SEVEN_BIT) for chunk in lf_text(octets, self.form))
            case SpanForm.QUOTED:
                yield from quoted_printable(lf_text(octets, self.form))
            case SpanForm.BASE64:
                text = lf_text(octets, self.form)
                yield from base64_lines(chunk.replace(b"\n", b"\r\n") for chunk in text)
            case SpanForm.BASE64_EXACT:
                yield from base64_lines(octets)
            case _:
                assert_never(span.form)
