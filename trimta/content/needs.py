"""The needs of a message: the extensions that a host must offer to take it (8BITMIME, BINARYMIME, SMTPUTF8; RFC 6152,
3030, 6531).

Content is in one of the two forms of `mail.body`: text with LF line ends, or the raw octets of BODY=BINARYMIME.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from trimta.content.mime.structure import Encapsulated, Entity, Multipart, PartType, read_structure
from trimta.mail.body import BodyForm
from trimta.mail.limits import MAX_TEXT_LINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trimta.content.mime.structure import Unreadable
    from trimta.content.windowed_octets import WindowedOctets

_CHUNK: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentNeeds:
    """The properties of a content that not every host can take."""

    eight_bit_header: bool = False
    """Octets over 127 in the message's own header; headers of parts count as body."""
    eight_bit_body: bool = False
    """Octets over 127 behind the header."""
    nul: bool = False
    bare_cr: bool = False
    bare_lf: bool = False
    """Only in raw octets: in text every LF is a line end."""
    longest_line: int = 0
    """Octets of the longest line, without its line end."""

    @property
    def eight_bit(self) -> bool:
        """Whether the host must offer 8BITMIME."""
        return self.eight_bit_header or self.eight_bit_body

    @property
    def binary(self) -> bool:
        """Whether the host must offer BINARYMIME: neither 7BIT nor 8BITMIME allow such octets (RFC 2045 2.7, 2.8)."""
        return self.nul or self.bare_cr or self.bare_lf

    @property
    def long_line(self) -> bool:
        """Whether a line is longer than those that every host must take."""
        return self.longest_line > MAX_TEXT_LINE

    def fits(self, *, eight_bit_ok: bool, binary_ok: bool = False) -> bool:
        """Whether a host with 8BITMIME (`eight_bit_ok`) or BINARYMIME (`binary_ok`) takes the content as it is.

        A text message goes to a host as text, so its long lines count unless it is sent as BINARYMIME.
        """
        if self.eight_bit and not (eight_bit_ok or binary_ok):
            return False
        return binary_ok or not (self.binary or self.long_line)


def needs_of(content: bytes | Iterable[bytes], form: BodyForm = BodyForm.TEXT) -> ContentNeeds:
    """The needs of a content in this form, given whole or in chunks of any size.  The octets are read once, with
    the memory of a chunk.
    """
    scan = _Scan(form)
    for chunk in _chunks(content) if isinstance(content, bytes | bytearray) else content:
        if chunk:
            scan.feed(chunk)
    return scan.result()


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _CHUNK):
        yield bytes(content[start : start + _CHUNK])


class _Scan:
    """The pass over a content, chunk by chunk."""

    def __init__(self, form: BodyForm) -> None:
        self._raw = form is BodyForm.RAW
        line_end = form.line_end
        self._blank = line_end * 2
        self._tail = line_end
        """The last octets of the header so far, in which the blank line may have begun; at first a line end, so that a
        content that begins with its blank line has an empty header.
        """
        self._in_header = True
        self._eight_bit_header = self._eight_bit_body = self._nul = False
        self._crs = self._lfs = self._crlfs = 0
        self._longest = self._current = 0
        """Octets of the longest line, and of the line that has not ended yet."""
        self._last = b""
        """The last octet of the chunk before."""

    def feed(self, chunk: bytes) -> None:
        """Take the next octets, one or more."""
        if self._in_header:
            self._feed_header(chunk)
        elif not chunk.isascii():
            self._eight_bit_body = True
        self._nul = self._nul or b"\0" in chunk
        if b"\r" in chunk or self._last == b"\r":
            self._crs += chunk.count(b"\r")
            self._crlfs += chunk.count(b"\r\n") + (self._last == b"\r" and chunk[:1] == b"\n")
        self._lfs += chunk.count(b"\n")
        first, *lengths = self._line_lengths(chunk)
        self._current += first
        if lengths:
            *between, last = lengths
            self._longest = max(self._longest, self._current, *between)
            self._current = last
        self._last = chunk[-1:]

    def _feed_header(self, chunk: bytes) -> None:
        ascii_chunk = chunk.isascii()
        joined = self._tail + chunk
        end = joined.find(self._blank)
        if end < 0:
            self._eight_bit_header = self._eight_bit_header or not ascii_chunk
            self._tail = joined[-(len(self._blank) - 1) :]
            return
        self._in_header = False
        if not ascii_chunk:
            self._eight_bit_header = self._eight_bit_header or not joined[:end].isascii()
            self._eight_bit_body = not joined[end:].isascii()

    def _line_lengths(self, chunk: bytes) -> Iterator[int]:
        """The octets that the chunk adds to the line that it begins in, then the length of each line that begins in it.

        A line of raw octets ends at CRLF only, and a CR at the end of a chunk counts once it proves to be bare.
        """
        if not self._raw:
            return map(len, chunk.split(b"\n"))
        ended: tuple[int, ...] = ()
        if self._last == b"\r":
            if chunk[:1] == b"\n":
                ended = (0,)
                chunk = chunk[1:]
            else:
                chunk = b"\r" + chunk
        if chunk.endswith(b"\r"):
            chunk = chunk[:-1]
        return chain(ended, map(len, chunk.split(b"\r\n")))

    def result(self) -> ContentNeeds:
        """The needs of all chunks together."""
        current = self._current
        if self._raw and self._last == b"\r":
            current += 1
        return ContentNeeds(
            eight_bit_header=self._eight_bit_header,
            eight_bit_body=self._eight_bit_body,
            nul=self._nul,
            bare_cr=self._crs > (self._crlfs if self._raw else 0),
            bare_lf=self._raw and self._lfs > self._crlfs,
            longest_line=max(self._longest, current),
        )


# -- internationalized headers below the message's own -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InternationalizedParts:
    """The internationalized headers that a message has below its own header (RFC 6531 3.2, RFC 6532 3.7)."""

    part_header: bool
    """The header of a part, or of a message/rfc822, has octets over 127."""
    message_global: bool
    """A message/global, or one of its relatives, has octets over 127."""


def internationalized_parts(content: WindowedOctets, form: BodyForm = BodyForm.TEXT) -> InternationalizedParts:
    """The internationalized headers below the message's own, as far as its MIME structure can be read."""
    part_header = message_global = False
    waiting: list[tuple[Entity | Unreadable, int]] = [(read_structure(content, form), 0)]
    while waiting:
        entity, depth = waiting.pop()
        if depth and not part_header:
            part_header = not content.is_ascii(entity.start, entity.header_end)
        if not isinstance(entity, Entity):
            continue
        match entity.body:
            case Multipart(parts=parts):
                waiting.extend((part, depth + 1) for part in parts)
            case Encapsulated(message=message):
                waiting.append((message, depth + 1))
            case PartType.LEAF if entity.is_global and not message_global:
                message_global = not content.is_ascii(entity.body_start, entity.end)
    return InternationalizedParts(part_header, message_global)
