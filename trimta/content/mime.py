"""What a relay hop without 8BITMIME or BINARYMIME forces: content is looked at, and re-encoded part by part
(RFC 2045, 2046, 1428, 3030 3, 6152 3).

`needs` says what content asks of a host, `Needs.fits` whether a host can take it, `downgrade` makes content that it
can take.  Content has one of two forms: a text message has LF line ends and no CR; a message of BODY=BINARYMIME is raw
(`binary=True`): its lines end in CRLF, and a bare CR or LF in it is data.

What `downgrade` promises:

- A leaf part that does not fit gets quoted-printable or base64, whichever is shorter, and decodes to what it was.  A
  line end of a text message is a line break, CRLF for who decodes it.  A part of a raw message with a bare CR, a bare
  LF or a NUL gets base64 of its exact octets.
- Nothing else changes but Content-Transfer-Encoding fields (and MIME-Version, Content-Type where there was no MIME):
  every other field and boundary line stays octet for octet, and so do preambles and epilogues, but for 8-bit octets in
  them, which become question marks.
- The result is always in text form: LF line ends, also where the input was raw, since it then travels as text.
- Signed and encrypted parts, and all within them, are never touched; nor are parts that are encoded already.
- Where 8-bit octets (or, in a raw message, NUL, bare CR or bare LF) are in a place that may not be touched, in a
  header, a signed part, or in MIME that readers could split in more than one way: CannotDowngrade.
- A line over 998 octets (RFC 5321 4.5.3.1.6) and a NUL in a text message are mended the same way in leaf parts.  In a
  place that may not be touched they stay as they are: most hosts take them, and refusing would lose the mail for sure.
- A DKIM-Signature does not forbid re-encoding, though it no longer verifies: the choice of Postfix.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.content.content_type import content_type, transfer_encoding
from trimta.content.reencoding import Form, Piece, Plan, Span, base64_size, quoted, text_of
from trimta.content.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE: Final = 998  # octets without the line end: RFC 5321 4.5.3.1.6, RFC 5322 2.1.1
MAX_DEPTH: Final = 24  # of nesting; each level is scanned again, and no honest message comes near
MAX_PARTS: Final = 10_000

MAX_VALUE: Final = 64 * 1024  # octets of a field that has to be understood

_CHUNK: Final = 1 << 16
_READ: Final = frozenset({b"content-type", b"content-transfer-encoding"})
_NAME: Final = re.compile(rb"([!-9;-~]+):")
_IDENTITY: Final = frozenset({b"7bit", b"8bit", b"binary"})
_ENCODED: Final = frozenset({b"quoted-printable", b"base64"})

_OPAQUE: Final = frozenset(
    {
        b"multipart/signed",
        b"multipart/encrypted",
        b"application/pgp-encrypted",
        b"application/pgp-signature",
        b"application/pkcs7-mime",
        b"application/pkcs7-signature",
        b"application/x-pkcs7-mime",
        b"application/x-pkcs7-signature",
    }
)
"""Rewriting these, or anything in them, may break what they are for (RFC 1847 2.1, RFC 8551 3.1.2)."""

_MESSAGE: Final = frozenset({b"message/rfc822", b"message/news"})
"""Only 7bit, 8bit and binary are allowed (RFC 2046 5.2.1), so what is inside gets encoded instead."""

_GLOBAL: Final = b"message/global"
"""message/global and its relatives may be encoded as a whole (RFC 6532 3.7, RFC 6533 4)."""


class CannotDowngrade(ValueError):  # noqa: N818
    """The content cannot be made to fit without changing what it says (5.6.3); the message says why."""


class _Ambiguous(CannotDowngrade):
    """Where parts begin and end depends on the reader, in more than the entity at hand."""


# -- what content asks for ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What is in a content that not every host can take."""

    eight_bit_header: bool = False
    """In the message's own header; headers of parts count as body."""
    eight_bit_body: bool = False
    nul: bool = False
    bare_cr: bool = False
    bare_lf: bool = False
    """Of a raw message only: in a text message every LF is a line end."""
    longest_line: int = 0
    """Octets, without the line end."""

    @property
    def eight_bit(self) -> bool:
        """The host must offer 8BITMIME."""
        return self.eight_bit_header or self.eight_bit_body

    @property
    def binary(self) -> bool:
        """The host must offer BINARYMIME: neither 7BIT nor 8BITMIME allow such octets (RFC 2045 2.7, 2.8)."""
        return self.nul or self.bare_cr or self.bare_lf

    @property
    def long_line(self) -> bool:
        """A line is longer than any host must take."""
        return self.longest_line > MAX_LINE

    def fits(self, *, eight_bit_ok: bool, binary_ok: bool = False) -> bool:
        """Whether a host with 8BITMIME (`eight_bit_ok`) or BINARYMIME (`binary_ok`) takes the content as it is.
        A text message goes to a host as text, so its long lines count unless it is sent as BINARYMIME.
        """
        if self.eight_bit and not (eight_bit_ok or binary_ok):
            return False
        return binary_ok or not (self.binary or self.long_line)


def needs(content: bytes | Iterable[bytes], *, binary: bool = False) -> Needs:
    """One pass over a content, whole or in chunks of any size; memory is that of a chunk."""
    chunks: Iterable[bytes] = _pieces(content) if isinstance(content, bytes | bytearray) else content
    line_end = b"\r\n" if binary else b"\n"
    blank = line_end * 2
    tail = line_end  # so that a content that begins with its blank line has an empty header
    in_header = True
    eight_bit_header = eight_bit_body = nul = False
    crs = lfs = crlfs = 0
    longest = current = 0
    last = b""
    for chunk in chunks:
        if not chunk:
            continue
        ascii_chunk = chunk.isascii()
        if in_header:
            joined = tail + chunk
            found = joined.find(blank)
            if found < 0:
                eight_bit_header = eight_bit_header or not ascii_chunk
                tail = joined[-(len(blank) - 1) :]
            else:
                in_header = False
                if not ascii_chunk:
                    eight_bit_header = eight_bit_header or not joined[:found].isascii()
                    eight_bit_body = not joined[found:].isascii()
        elif not ascii_chunk:
            eight_bit_body = True
        nul = nul or b"\0" in chunk
        if b"\r" in chunk or last == b"\r":
            crs += chunk.count(b"\r")
            crlfs += chunk.count(b"\r\n") + (last == b"\r" and chunk[:1] == b"\n")
        lfs += chunk.count(b"\n")
        lengths = _line_lengths(chunk, last, raw=binary)
        current += next(lengths)
        for length in lengths:
            longest = max(longest, current)
            current = length
        last = chunk[-1:]
    if binary and last == b"\r":
        current += 1
    return Needs(
        eight_bit_header=eight_bit_header,
        eight_bit_body=eight_bit_body,
        nul=nul,
        bare_cr=crs > (crlfs if binary else 0),
        bare_lf=binary and lfs > crlfs,
        longest_line=max(longest, current),
    )


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _CHUNK):
        yield bytes(content[start : start + _CHUNK])


def _line_lengths(chunk: bytes, last: bytes, *, raw: bool) -> Iterator[int]:
    """What the chunk adds to the line that it begins in, then the length of each line that begins in it.

    In a raw message a line ends at CRLF only, and a CR at the end of a chunk counts once it turns out to be bare.
    """
    if not raw:
        yield from map(len, chunk.split(b"\n"))
        return
    if last == b"\r":
        if chunk[:1] == b"\n":
            yield 0
            chunk = chunk[1:]
        else:
            chunk = b"\r" + chunk
    if chunk.endswith(b"\r"):
        chunk = chunk[:-1]
    yield from map(len, chunk.split(b"\r\n"))


# -- making it fit -----------------------------------------------------------------------------------------------


def downgrade(content: bytes, *, binary: bool = False, eight_bit_ok: bool = False) -> bytes:
    """The same message for a host without BINARYMIME (`eight_bit_ok`), or without 8BITMIME too: then all of the result
    is below octet 128.

    `binary` says that the content is raw (see above).  The result is in text form.  Raises CannotDowngrade.
    """
    source = Source.of(content)
    plan = rewritten(source, binary=binary, eight_bit_ok=eight_bit_ok)
    result = b"".join(plan.render(source))
    if not eight_bit_ok and not result.isascii():  # what is promised is checked, whatever was thought before
        raise CannotDowngrade(BEYOND)
    return result


BEYOND: Final = "8-bit octets outside of what may be encoded"


@dataclass(frozen=True, slots=True)
class Inside:
    """What a message that asked for SMTPUTF8 has below its own header."""

    eight_bit_header: bool
    """In the header of a part, or of a message/rfc822."""
    eight_bit_global: bool
    """In a message/global or one of its relatives."""


def inside(content: Source, *, binary: bool = False) -> Inside:
    """Where internationalised headers travel (RFC 6531 3.2, RFC 6532 3.7), as far as the structure can be read."""
    rewriter = _Rewriter(content, raw=binary, eight_bit_ok=True)
    with contextlib.suppress(CannotDowngrade):
        rewriter.entity(0, len(content), depth=0, default=b"text/plain", boundaries=(), message=True)
    return Inside(rewriter.eight_bit_header, rewriter.eight_bit_global)


def rewritten(content: Source, *, binary: bool = False, eight_bit_ok: bool = False, global_ok: bool = True) -> Plan:
    """The same for content that need not be in memory: what is to become of it.  Who renders the plan has to look for
    octets over 127 where none may be.  Unless `global_ok` no message/global keeps any (RFC 6533 4.5).
    """
    rewriter = _Rewriter(content, raw=binary, eight_bit_ok=eight_bit_ok, global_ok=global_ok)
    pieces = rewriter.entity(0, len(content), depth=0, default=b"text/plain", boundaries=(), message=True)
    return Plan(pieces, binary)


@dataclass(frozen=True, slots=True)
class _Field:
    name: bytes  # lower case
    start: int
    end: int  # after its line end
    value: bytes  # unfolded, stripped


@dataclass(frozen=True, slots=True)
class _Header:
    fields: tuple[_Field, ...]
    end: int  # where the blank line begins, or the entity ends
    body: int  # after the blank line

    def only(self, name: bytes) -> _Field | None:
        """The field of that name; two are ambiguous, and readers differ in which one they take."""
        found = [field for field in self.fields if field.name == name]
        if len(found) > 1:
            raise CannotDowngrade(f"more than one {name.decode('ascii').title()} field in one header")
        return found[0] if found else None


class _Rewriter:
    def __init__(self, content: Source, *, raw: bool, eight_bit_ok: bool, global_ok: bool = True) -> None:
        self.content = content
        self.raw = raw
        self.line_end = b"\r\n" if raw else b"\n"
        self.eight_bit_ok = eight_bit_ok
        self.global_ok = global_ok
        self.parts = 0
        self.eight_bit_header = False
        self.eight_bit_global = False

    # What a span holds.

    def forbidden(self, start: int, end: int) -> str | None:
        """What of the span the host cannot take in any way, in words."""
        if not self.eight_bit_ok and not self.content.is_ascii(start, end):
            return "8-bit octets"
        if self.raw and self.exact(start, end):
            return "a NUL, a bare CR or a bare LF"
        return None

    def exact(self, start: int, end: int) -> bool:
        """Whether the octets are more than text: lines alone would not keep them."""
        content = self.content
        if not self.raw:
            return content.find(b"\0", start, end) >= 0 or content.find(b"\r", start, end) >= 0
        return needs(content.chunks(start, end), binary=True).binary

    def long_line(self, start: int, end: int) -> bool:
        """Whether a line of the span is over MAX_LINE; jumps from line end to line end, a thousand octets a step."""
        size = len(self.line_end)
        while end - start > MAX_LINE:
            found = self.content.span(start, min(start + MAX_LINE + size, end)).rfind(self.line_end)
            if found < 0:
                return True
            start += found + size
        return False

    # Entities (RFC 2045 2.4): a message, or a part of one.

    def entity(
        self, start: int, end: int, *, depth: int, default: bytes, boundaries: tuple[bytes, ...], message: bool
    ) -> list[Piece]:
        """The entity in [start, end), rewritten; whatever could not be understood is kept if it fits as it is."""
        try:
            self.parts += 1
            if depth > MAX_DEPTH or self.parts > MAX_PARTS:
                raise CannotDowngrade("too many parts, or nested too deep")
            return self._entity(start, end, depth, default, boundaries, message)
        except _Ambiguous:
            if self.forbidden(0, len(self.content)) is not None:
                raise
        except CannotDowngrade:
            if self.forbidden(start, end) is not None:
                raise
        return [Span(start, end)]

    def _entity(
        self, start: int, end: int, depth: int, default: bytes, boundaries: tuple[bytes, ...], message: bool
    ) -> list[Piece]:
        header = self.header(start, end)
        self.keep(start, header.end, "the header")
        if depth and not self.eight_bit_header and not self.content.is_ascii(start, header.end):
            self.eight_bit_header = True
        type_field = header.only(b"content-type")
        encoding_field = header.only(b"content-transfer-encoding")
        found = content_type(type_field.value) if type_field else (default, None)
        if found is None:
            raise CannotDowngrade("a Content-Type that cannot be read")
        media_type, boundary = found
        encoding = transfer_encoding(encoding_field.value) if encoding_field else b"7bit"
        body, body_end = header.body, end
        encoded = encoding  # unless leaf() says otherwise

        add = b""
        if message and not any(field.name == b"mime-version" for field in header.fields):
            add = b"MIME-Version: 1.0\n"
            if type_field is None:
                add += b"Content-Type: text/plain; charset=" + self.charset(body, body_end) + b"\n"

        if media_type in _OPAQUE:
            self.keep(body, body_end, f"a part of type {media_type.decode('ascii')}")
            return [Span(start, end)]

        if media_type.startswith(b"multipart/"):
            _identity_only(encoding, media_type)
            inner = self.multipart(body, body_end, media_type, boundary, depth, boundaries)
        elif media_type in _MESSAGE and encoding not in _ENCODED:
            _identity_only(encoding, media_type)
            inner = self.entity(
                body, body_end, depth=depth + 1, default=b"text/plain", boundaries=boundaries, message=True
            )
        elif media_type.startswith(b"message/") and not media_type.startswith(_GLOBAL) and encoding not in _ENCODED:
            _identity_only(encoding, media_type)  # of message/delivery-status, partial, external-body …
            self.keep(body, body_end, f"a part of type {media_type.decode('latin-1')}")
            inner = [Span(body, body_end)]
        elif encoding in _IDENTITY:
            seven_bit = False
            if media_type.startswith(_GLOBAL) and not self.content.is_ascii(body, body_end):
                self.eight_bit_global = True
                seven_bit = not self.global_ok
            inner, encoded = self.leaf(body, body_end, encoding, seven_bit=seven_bit)
        else:
            self.keep(body, body_end, f"a part encoded as {encoding.decode('latin-1')[:40] or 'nothing'}")
            return [Span(start, end)]

        label = self.label(encoded, body, body_end)
        if label == encoding and (not add or _is_kept(inner)):
            return [Span(start, body), *inner]
        return [*self.rewritten_header(header, start, encoding_field, label, add), *inner]

    def label(self, encoding: bytes, start: int, end: int) -> bytes:
        """The Content-Transfer-Encoding that the host may see in place of `encoding`."""
        if encoding == b"binary" or (encoding == b"8bit" and not self.eight_bit_ok):
            return b"8bit" if self.eight_bit_ok and not self.content.is_ascii(start, end) else b"7bit"
        return encoding

    def keep(self, start: int, end: int, where: str) -> None:
        """The span must stay as it is: CannotDowngrade if the host can't take it so."""
        what = self.forbidden(start, end)
        if what is not None:
            raise CannotDowngrade(f"{what} in {where}, which may not be rewritten")

    def charset(self, start: int, end: int) -> bytes:
        """What to call text that says nothing of itself (RFC 1428)."""
        if self.content.is_ascii(start, end):
            return b"us-ascii"
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for chunk in self.content.chunks(start, end):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return b"unknown-8bit"
        return b"utf-8"

    # The header.

    def header(self, start: int, end: int) -> _Header:
        """Splits an entity into fields and body.  Raises CannotDowngrade where a line is no field: readers differ in
        whether the header ends there.
        """
        content, line_end = self.content, self.line_end
        spans: list[tuple[bytes, int, int, int]] = []
        position = start
        while position < end:
            if content.starts(line_end, position, end):
                return _Header(self.fields(spans), position, position + len(line_end))
            found = content.find(line_end, position, end)
            after = end if found < 0 else found + len(line_end)
            if content.span(position, position + 1) in (b" ", b"\t"):
                if not spans:
                    raise CannotDowngrade("a header begins with a continuation line")
                name, first, value, _ = spans[-1]
                spans[-1] = (name, first, value, after)
            else:
                match = _NAME.match(content.span(position, min(after, position + MAX_LINE)))
                if match is None:
                    raise CannotDowngrade("a header holds a line that is no field")
                spans.append((match[1].lower(), position, position + match.end(), after))
            position = after
        return _Header(self.fields(spans), end, end)

    def fields(self, spans: list[tuple[bytes, int, int, int]]) -> tuple[_Field, ...]:
        """Values are read only where they matter."""
        return tuple(
            _Field(
                name,
                first,
                after,
                self.value(value, after) if name in _READ else b"",
            )
            for name, first, value, after in spans
        )

    def value(self, start: int, end: int) -> bytes:
        if end - start > MAX_VALUE:
            raise CannotDowngrade("a Content-Type that cannot be read")
        return self.content.span(start, end).replace(self.line_end, b"").strip()

    def rewritten_header(
        self, header: _Header, start: int, encoding_field: _Field | None, label: bytes, add: bytes
    ) -> list[Piece]:
        """The header with its blank line; `label` replaces the Content-Transfer-Encoding, `add` goes to its end."""
        field = b"Content-Transfer-Encoding: " + label + b"\n"
        ended = header.end == start or self.content.ends(self.line_end, start, header.end)
        top: list[Piece] = [Span(start, header.end)]
        if encoding_field is None:
            if label != b"7bit":
                add += field
        else:
            if not self.content.ends(self.line_end, start, encoding_field.end):
                field = field[:-1]  # the entity ends in the middle of its header
            top = [Span(start, encoding_field.start), field, Span(encoding_field.end, header.end)]
        if add and not ended:
            top.append(b"\n")
        return [*top, add, Span(header.end, header.body)]

    # Bodies.

    def leaf(self, start: int, end: int, encoding: bytes, *, seven_bit: bool) -> tuple[list[Piece], bytes]:
        """The body of a part that is not a composite, and how it is now encoded; `seven_bit`: it has to be."""
        exact = self.exact(start, end)
        if not exact and not seven_bit and self.forbidden(start, end) is None and not self.long_line(start, end):
            return [Span(start, end)], encoding
        final = b"\n" if self.content.ends(self.line_end, start, end) else b""
        if self.raw and exact:
            return [Span(start, end, Form.BASE64_EXACT), final], b"base64"
        if self.raw or self.content.find(b"\r", start, end) < 0:
            size = newlines = 0
            for chunk in self.text(start, end):
                size += len(chunk)
                newlines += chunk.count(b"\n")
            if sum(map(len, quoted(self.text(start, end)))) <= base64_size(size + newlines):
                return [Span(start, end, Form.QUOTED)], b"quoted-printable"
        return [Span(start, end, Form.BASE64), final], b"base64"

    def text(self, start: int, end: int) -> Iterator[bytes]:
        """The span in text form."""
        return text_of(self.content.chunks(start, end), raw=self.raw)

    def multipart(
        self,
        start: int,
        end: int,
        media_type: bytes,
        boundary: bytes | None,
        depth: int,
        boundaries: tuple[bytes, ...],
    ) -> list[Piece]:
        """The body of a multipart (RFC 2046 5.1.1).  Delimiters are whole lines: boundary, then only white space."""
        if boundary is None:
            raise CannotDowngrade("a multipart without a good boundary")
        if boundary in boundaries:
            raise _Ambiguous("a multipart with the boundary of a multipart around it")
        default = b"message/rfc822" if media_type == b"multipart/digest" else b"text/plain"
        pieces: list[Piece] = []
        kept = start  # what comes from here is not written yet
        opened: int | None = None  # where the current part begins
        for delimiter, after, closing in self.delimiters(start, end, boundary):
            if opened is None:
                pieces.append(self.unread(kept, delimiter, "a preamble"))
                kept = delimiter
            else:
                part_end = max(opened, delimiter - len(self.line_end))
                pieces += self.entity(
                    opened,
                    part_end,
                    depth=depth + 1,
                    default=default,
                    boundaries=(*boundaries, boundary),
                    message=False,
                )
                kept = part_end
            pieces.append(Span(kept, after))
            kept = opened = after
            if closing:
                return [*pieces, self.unread(after, end, "an epilogue")]
        if opened is None:
            raise CannotDowngrade("a multipart without its boundary")
        # The last boundary is missing: all that follows is the last part, for every reader.
        return [
            *pieces,
            *self.entity(
                opened, end, depth=depth + 1, default=default, boundaries=(*boundaries, boundary), message=False
            ),
        ]

    def unread(self, start: int, end: int, where: str) -> Piece:
        """A preamble or an epilogue, which no reader shows: 8-bit octets become question marks where they must."""
        if self.raw:
            self.keep(start, end, where)
        fits = self.eight_bit_ok or self.content.is_ascii(start, end)
        return Span(start, end, Form.KEPT if fits else Form.SEVEN_BIT)

    def delimiters(self, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
        """(start of line, start of next line, is it the closing one) for each delimiter line."""
        content, line_end = self.content, self.line_end
        mark = line_end + b"--" + boundary
        rest = re.compile(rb"(--)?[ \t]*(?:" + line_end + rb"|\Z)")
        position = start - len(line_end)  # the blank line that ends the header
        while (found := content.find(mark, max(position, 0), end)) >= 0:
            line = found + len(mark)
            match = rest.match(content.span(line, min(end, line + MAX_LINE)))
            if match is None:
                position = found + len(line_end)
                continue
            yield found + len(line_end), line + match.end(), match[1] is not None
            position = line + match.end() - len(line_end)


def _identity_only(encoding: bytes, media_type: bytes) -> None:
    if encoding not in _IDENTITY:
        raise CannotDowngrade(f"a part of type {media_type.decode('latin-1')} that is said to be encoded")


def _is_kept(pieces: Iterable[Piece]) -> bool:
    return all(isinstance(piece, Span) and piece.form is Form.KEPT for piece in pieces)
