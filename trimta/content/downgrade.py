"""The re-encoding of a message for a host without 8BITMIME or BINARYMIME, part by part (RFC 2045, 2046, 1428, 3030 3,
6152 3).

The content is in one of the two forms of `mail.body`: text with LF line ends, or the raw octets of BODY=BINARYMIME.
Promises:

- A leaf part that does not fit gets quoted-printable or base64, whichever is shorter, and decodes to what it was.  A
  line end of a text message is a line break: CRLF to a reader that decodes it.  A part of a BINARYMIME message with a
  bare CR, a bare LF or a NUL gets base64 of its exact octets.
- Nothing else changes but Content-Transfer-Encoding fields (and MIME-Version, Content-Type where there was no MIME):
  every other field and boundary line stays octet for octet, and so do preambles and epilogues, but for 8-bit octets in
  them, which become question marks.
- The result is always text with LF line ends, also of a BINARYMIME message, since it then travels as text.
- Signed and encrypted parts, and all within them, are never touched; nor are parts that are encoded already.
- Where 8-bit octets (or, in a BINARYMIME message, NUL, bare CR or bare LF) are in a place that may not be touched, in a
  header, a signed part, or in MIME that readers could split in more than one way: CannotDowngrade.
- A line over 998 octets (RFC 5321 4.5.3.1.6) and a NUL in a text message are mended the same way in leaf parts.  In a
  place that may not be touched they stay as they are: most hosts take them, and refusing would lose the mail for sure.
- A DKIM-Signature does not forbid re-encoding, though it no longer verifies: the choice of Postfix.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Final, assert_never

from trimta.content.mime.rewriting import RewritingPlan, Span, SpanForm
from trimta.content.mime.structure import Encapsulated, Multipart, PartType, Unreadable, read_structure
from trimta.content.mime.transfer_encoding import base64_size, lf_text, quoted_printable
from trimta.content.needs import needs_of
from trimta.content.windowed_octets import WindowedOctets
from trimta.mail.body import BodyForm
from trimta.mail.limits import MAX_TEXT_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trimta.content.mime.rewriting import Piece
    from trimta.content.mime.structure import Entity

EIGHT_BIT_LEFT: Final = "8-bit octets outside of what may be encoded"
"""The reason of CannotDowngrade for a result that is not 7-bit."""


class CannotDowngrade(ValueError):  # noqa: N818
    """The content can't be made to fit without changing what it says (status 5.6.3); the message says why."""


class _NeighboursUncertain(CannotDowngrade):
    """An entity can't be read, and because of it the entities around it are uncertain, too."""


def downgrade(content: bytes, form: BodyForm = BodyForm.TEXT, *, eight_bit_ok: bool = False) -> bytes:
    """A message in memory, re-encoded for a host with 8BITMIME (`eight_bit_ok`) or without, and without BINARYMIME.

    Without `eight_bit_ok` all octets of the result are below 128.  Raises CannotDowngrade.
    """
    original = WindowedOctets.of(content)
    plan = rewriting_plan(original, form, eight_bit_ok=eight_bit_ok)
    result = b"".join(plan.render(original))
    if not eight_bit_ok and not result.isascii():  # the promise is checked, whatever the structure seemed to be
        raise CannotDowngrade(EIGHT_BIT_LEFT)
    return result


def rewriting_plan(
    original: WindowedOctets, form: BodyForm = BodyForm.TEXT, *, eight_bit_ok: bool = False, global_ok: bool = True
) -> RewritingPlan:
    """The plan by which a message, which need not be in memory, is re-encoded for a host without BINARYMIME.

    `eight_bit_ok`: the host offers 8BITMIME; if not, the caller has to look for octets over 127 when it renders the
    plan.  `global_ok`: a message/global may have octets over 127, because the host offers SMTPUTF8 (RFC 6533 4.5).

    Raises CannotDowngrade, and what `original` raises when it is read.
    """
    rewriter = _Rewriter(original, form, eight_bit_ok=eight_bit_ok, global_ok=global_ok)
    return RewritingPlan(rewriter.rewritten(read_structure(original, form)), form)


class _Rewriter:
    def __init__(self, content: WindowedOctets, form: BodyForm, *, eight_bit_ok: bool, global_ok: bool) -> None:
        self._content = content
        self._form = form
        self._raw = form is BodyForm.RAW
        self._eight_bit_ok = eight_bit_ok
        self._global_ok = global_ok

    # Entities.

    def rewritten(self, entity: Entity | Unreadable) -> list[Piece]:
        """The pieces of an entity as the host can take it.

        An entity that may not be rewritten is kept if it fits as it is.  Raises CannotDowngrade if it does not.
        """
        try:
            return self._rewritten(entity)
        except _NeighboursUncertain:
            if self._unfit(0, len(self._content)) is not None:
                raise
        except CannotDowngrade:
            if self._unfit(entity.start, entity.end) is not None:
                raise
        return [Span(entity.start, entity.end)]

    def _rewritten(self, entity: Entity | Unreadable) -> list[Piece]:
        self._keep(entity.start, entity.header_end, "the header")
        if isinstance(entity, Unreadable):
            raise (_NeighboursUncertain if entity.neighbours_uncertain else CannotDowngrade)(entity.reason)
        start, end = entity.body_start, entity.end
        encoding = entity.encoding
        body: list[Piece] = [Span(start, end)]
        match entity.body:
            case PartType.PROTECTED:
                self._keep(start, end, f"a part of type {entity.media_type.decode('ascii')}")
                return [Span(entity.start, end)]
            case PartType.ENCODED:
                self._keep(start, end, f"a part encoded as {encoding.decode('latin-1')[:40] or 'nothing'}")
                return [Span(entity.start, end)]
            case PartType.UNENCODABLE:
                self._keep(start, end, f"a part of type {entity.media_type.decode('latin-1')}")
            case PartType.LEAF:
                body, encoding = self._leaf(entity)
            case Encapsulated(message=message):
                body = self.rewritten(message)
            case Multipart():
                body = self._multipart(entity.body, start, end)
            case _:
                assert_never(entity.body)
        label = self._label(encoding, start, end)
        added = self._mime_fields(entity)
        if label == entity.encoding and (not added or _is_kept(body)):
            return [Span(entity.start, start), *body]
        return [*self._header(entity, label, added), *body]

    def _multipart(self, multipart: Multipart, start: int, end: int) -> list[Piece]:
        pieces = [self._unread(start, multipart.preamble_end, "a preamble")]
        position = multipart.preamble_end
        for part in multipart.parts:
            pieces += [Span(position, part.start), *self.rewritten(part)]
            position = part.end
        if multipart.epilogue_start is not None:
            pieces.append(Span(position, multipart.epilogue_start))
            pieces.append(self._unread(multipart.epilogue_start, end, "an epilogue"))
        return pieces

    def _unread(self, start: int, end: int, where: str) -> Piece:
        """A preamble or an epilogue, which no program shows: 8-bit octets become question marks if they do not fit."""
        if self._raw:
            self._keep(start, end, where)
        fits = self._eight_bit_ok or self._content.is_ascii(start, end)
        return Span(start, end, SpanForm.KEPT if fits else SpanForm.SEVEN_BIT)

    def _leaf(self, entity: Entity) -> tuple[list[Piece], bytes]:
        """The body of a leaf part, and its transfer encoding."""
        start, end = entity.body_start, entity.end
        exact = self._is_more_than_text(start, end)
        encode_global = entity.is_global and not self._global_ok and not self._content.is_ascii(start, end)
        if not (exact or encode_global or self._unfit(start, end) is not None or self._has_long_line(start, end)):
            return [Span(start, end)], entity.encoding
        final = b"\n" if self._content.ends(self._form.line_end, start, end) else b""
        if self._raw and exact:
            return [Span(start, end, SpanForm.BASE64_EXACT), final], b"base64"
        if self._raw or self._content.find(b"\r", start, end) < 0:
            size = newlines = 0
            for chunk in self._text(start, end):
                size += len(chunk)
                newlines += chunk.count(b"\n")
            if sum(map(len, quoted_printable(self._text(start, end)))) <= base64_size(size + newlines):
                return [Span(start, end, SpanForm.QUOTED)], b"quoted-printable"
        return [Span(start, end, SpanForm.BASE64), final], b"base64"

    # The header.

    def _mime_fields(self, entity: Entity) -> bytes:
        """The MIME fields that a message without MIME gets when a part of it is encoded."""
        if not entity.is_message or entity.field(b"mime-version") is not None:
            return b""
        added = b"MIME-Version: 1.0\n"
        if entity.field(b"content-type") is None:
            added += b"Content-Type: text/plain; charset=" + self._charset(entity.body_start, entity.end) + b"\n"
        return added

    def _charset(self, start: int, end: int) -> bytes:
        """The charset of text without a Content-Type field (RFC 1428)."""
        if self._content.is_ascii(start, end):
            return b"us-ascii"
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for chunk in self._content.chunks(start, end):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return b"unknown-8bit"
        return b"utf-8"

    def _label(self, encoding: bytes, start: int, end: int) -> bytes:
        """The Content-Transfer-Encoding that the rewritten entity says it has, where the original says `encoding`."""
        if encoding == b"binary" or (encoding == b"8bit" and not self._eight_bit_ok):
            return b"8bit" if self._eight_bit_ok and not self._content.is_ascii(start, end) else b"7bit"
        return encoding

    def _header(self, entity: Entity, label: bytes, added: bytes) -> list[Piece]:
        """The header with the empty line behind it: `label` replaces the Content-Transfer-Encoding, `added` goes to the
        end of the header.
        """
        start, end = entity.start, entity.header_end
        encoding_field = entity.field(b"content-transfer-encoding")
        field = b"Content-Transfer-Encoding: " + label + b"\n"
        top: list[Piece] = [Span(start, end)]
        if encoding_field is None:
            if label != b"7bit":
                added += field
        else:
            if not self._content.ends(self._form.line_end, start, encoding_field.end):
                field = field[:-1]  # the entity ends in the middle of its header
            top = [Span(start, encoding_field.start), field, Span(encoding_field.end, end)]
        if added and end != start and not self._content.ends(self._form.line_end, start, end):
            top.append(b"\n")
        return [*top, added, Span(end, entity.body_start)]

    # Ranges of octets.

    def _keep(self, start: int, end: int, where: str) -> None:
        """Check a range that stays as it is.  Raises CannotDowngrade if the host can't take it; `where` names it."""
        octets = self._unfit(start, end)
        if octets is not None:
            raise CannotDowngrade(f"{octets} in {where}, which may not be rewritten")

    def _unfit(self, start: int, end: int) -> str | None:
        """The octets of the range, in words, that the host can't take in any way; None if there are none."""
        if not self._eight_bit_ok and not self._content.is_ascii(start, end):
            return "8-bit octets"
        if self._raw and self._is_more_than_text(start, end):
            return "a NUL, a bare CR or a bare LF"
        return None

    def _is_more_than_text(self, start: int, end: int) -> bool:
        """Whether there are octets beside lines of text (a NUL, a bare CR or LF), which a text form would not keep."""
        content = self._content
        if not self._raw:
            return content.find(b"\0", start, end) >= 0 or content.find(b"\r", start, end) >= 0
        return needs_of(content.chunks(start, end), self._form).binary

    def _has_long_line(self, start: int, end: int) -> bool:
        """Whether a line of the range is over MAX_TEXT_LINE octets.  Each step looks at no more octets than that."""
        size = len(self._form.line_end)
        while end - start > MAX_TEXT_LINE:
            offset = self._content.span(start, min(start + MAX_TEXT_LINE + size, end)).rfind(self._form.line_end)
            if offset < 0:
                return True
            start += offset + size
        return False

    def _text(self, start: int, end: int) -> Iterator[bytes]:
        """The range with LF line ends."""
        return lf_text(self._content.chunks(start, end), self._form)


def _is_kept(pieces: Iterable[Piece]) -> bool:
    return all(isinstance(piece, Span) and piece.form is SpanForm.KEPT for piece in pieces)
