"""The reader of header fields: every module that looks into a header has its fields from here (RFC 5322 2.2, 3.6.8).

The grammar, for content with LF or CRLF line ends:

- A field is a name of 1 to 998 octets (printable ASCII without ":"), perhaps white space (the obsolete syntax of RFC
  5322 4.5), ":", and all up to its line end.  A line that begins with a space or a tab continues the field before it,
  also where there is nothing else in it.  A field in the last line of the content needs no line end.
- The header ends before the first line that is no field and continues none.  In a well-formed message that is the empty
  line; a line of any other kind ends the header too, and belongs to the body.  A first line that begins with white
  space continues nothing, so that such content has no header.
- The From_ line of an mbox (a line with `From ` or `>From ` at the very beginning, however long), which some programs
  pass on, belongs to the header and is no field.
- Octets are taken as they are: NUL, bare CR and 8-bit octets may stand in a value.  In a value as text, octets that are
  not UTF-8 are surrogates (PEP 383).

There are three ways to read.  `fields` and `split_header` read content that is in memory.  `HeaderReader` reads content
that comes in pieces, with bounded memory.  `field_spans` returns the positions of the fields of an entity in a MIME
message, and is strict: it raises where programs for reading mail may see different fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.first_use.pattern import pattern
from trimta.mail.limits import MAX_TEXT_LINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trimta.content.windowed_octets import WindowedOctets

MAX_KEPT: Final = 4096
"""Octets of a field that a HeaderReader keeps: any address is within them."""

_START: Final = rb"[!-9;-~]{1,998}+[ \t]{0,998}+:"
_MAX_START: Final = 2 * 998 + 1
_FIELD_START: Final = pattern(_START)
_FIELD: Final = pattern(rb"([!-9;-~]{1,998}+)[ \t]{0,998}+:[^\n]*+(?:\n[ \t][^\n]*+)*+\n?")
_FIELDS: Final = pattern(rb"(?:" + _START + rb"[^\n]*+(?:\n[ \t][^\n]*+)*+\n?)*+")
_INCOMPLETE_START: Final = pattern(rb"[!-9;-~]{1,998}+[ \t]{0,998}+")
_REST_OF_FIELD: Final = pattern(rb"[^\n]*+(?:\n[ \t][^\n]*+)*+\n?")
_FROM: Final = rb"From (?![ \t]{0,997}+:)"  # "From :" is a field in the obsolete syntax
_FROM_LINE: Final = pattern(rb">?" + _FROM + rb"[^\n]*+\n")
_FROM_LINES: Final = pattern(rb"(?:>*+" + _FROM + rb"[^\n]*+\n)+")
_FROM_START: Final = pattern(rb">?" + _FROM)
_QUOTED_FROM_START: Final = pattern(rb">*+" + _FROM)
_FROM_OR_FIELD: Final = pattern(rb">?From [ \t]{0,997}+")
_POSSIBLE_DELIMITER: Final = pattern(rb"^--[^\n]*+\n", re.MULTILINE)
_LINES: Final = pattern(rb"(?:[^\n]++(?:\n|\Z))++")
_STRICT_START: Final = pattern(rb"([!-9;-~]+):")


@dataclass(frozen=True, slots=True)
class Field:
    """A header field as it stands in the content, folding included."""

    name: str
    """In lower case."""
    raw: bytes
    """All its octets, with the last line end."""

    @property
    def written_name(self) -> str:
        """The name as it stands, in its own case."""
        return self.raw[: len(self.name)].decode("ascii")

    @property
    def value(self) -> str:
        """What follows the colon, unfolded (RFC 5322 2.2.3), without white space round it."""
        value = self.raw.partition(b":")[2].replace(b"\r\n", b"").replace(b"\n", b"")
        return value.decode(errors="surrogateescape").strip(" \t")


# -- content in memory ------------------------------------------------------------------------------------------------


def fields(content: bytes) -> Iterator[Field]:
    """The fields of the header that `content` begins with, topmost first."""
    position = _after_from_line(content)
    while match := _FIELD.match(content, position):
        yield Field(match[1].decode("ascii").lower(), match[0])
        position = match.end()


def split_header(content: bytes) -> tuple[bytes, bytes]:
    """The header, and all the rest from the empty line on; together they are the content."""
    _, end = _header_span(content)
    return content[:end], content[end:]


def field_names(content: bytes) -> list[str]:
    """The names of the fields of the header that `content` begins with, in lower case, topmost first."""
    start, end = _header_span(content)
    # Fields follow each other without a gap, so that the search finds each of them and nothing else.
    return [name.decode("ascii").lower() for name in _FIELD.findall(content, start, end)]


def begins_with_empty_line(content: bytes) -> bool:
    """Whether content begins with the empty line that ends a header: the header is complete and has no fields."""
    return content.startswith((b"\n", b"\r\n")) or content == b"\r"


def possible_headers(content: bytes) -> Iterator[bytes]:
    """All that some reader may take for a header of the message or of a part, whether the MIME structure can be read or
    not: the lines up to the first empty line, and those from a field behind a line that begins with `--`.
    """
    end = 0
    starts = (match.end() for match in _POSSIBLE_DELIMITER.finditer(content))
    for start in (0, *(start for start in starts if _FIELD_START.match(content, start))):
        # Lines that are no field count, too: some readers go over them.
        if start >= end and (match := _LINES.match(content, start)):
            end = match.end()
            yield match[0]


def without_from_lines(content: bytes) -> bytes:
    """Content without From_ lines of an mbox, one or more, quoted or not, that it begins with."""
    match = _FROM_LINES.match(content)
    return content if match is None else content[match.end() :]


def begins_from_line(content: bytes) -> bool:
    """Whether content begins with a From_ line of an mbox, quoted or not, whose line end may be still to come."""
    return _QUOTED_FROM_START.match(content) is not None


def _header_span(content: bytes) -> tuple[int, int]:
    """Where the fields of the header begin that content begins with, and where they end."""
    start = _after_from_line(content)
    match = _FIELDS.match(content, start)
    return start, start if match is None else match.end()


def _after_from_line(content: bytes) -> int:
    match = _FROM_LINE.match(content)
    return 0 if match is None else match.end()


# -- content in pieces ------------------------------------------------------------------------------------------------


class HeaderReader:
    """The fields of a header whose content comes in pieces of any size: `feed` until `ended`, then `finish`.

    Memory is that of a piece: of a field that is longer only the first MAX_KEPT octets are kept.
    """

    def __init__(self) -> None:
        self.ended = False
        """The end of the header was seen: what follows does not matter."""
        self.size = 0
        """Octets of the header as far as it was read, the field that may still go on left out."""
        self.begins_with_empty_line = False
        """The content begins with the empty line: its header is complete and has no fields."""
        self._held = b""
        """The last octets of the content so far: a field or a line that may still go on."""
        self._from_line = 0
        """Octets of the From_ line so far, as long as its line end is still to come; nothing of it is kept."""
        self._long: Field | None = None
        """The beginning of a field that is longer than MAX_KEPT; `_held` is at most a line end then."""

    def feed(self, piece: bytes) -> list[Field]:
        """The fields that are complete with the next octets of the content."""
        if self.ended or not piece:
            return []
        data = self._held + piece if self._held else piece
        self._held = b""
        complete: list[Field] = []
        position = 0
        if self._long is not None:
            position = self._skip_long(data, complete)
        elif self._from_line:
            position = self._skip_from_line(data)
        elif self.size == 0:
            position = self.size = _after_from_line(data)
            if not position and _may_begin_from_line(data):
                self._held = data
                return []
            if not position and _FROM_START.match(data):
                position = self._skip_from_line(data)
        if position < len(data):
            self._read(data, position, complete)
        return complete

    def finish(self) -> list[Field]:
        """The last field, if it goes to the end of the content."""
        rest, self._held = self._held, b""
        if self.ended:
            return []
        self.ended = True
        if self._long is not None:
            self.size += len(rest)
            return [self._long]
        last = _FIELD.match(rest)
        if last is None:
            self.begins_with_empty_line = self.size == 0 and rest == b"\r"
            return []
        self.size += last.end()
        return [Field(last[1].decode("ascii").lower(), last[0])]

    def _read(self, data: bytes, position: int, complete: list[Field]) -> None:
        match, size = _FIELD.match, len(data)
        begin = position
        while (field := match(data, position)) is not None:
            end = field.end()
            if end == size:  # the next piece may continue it
                break
            complete.append(Field(field[1].decode("ascii").lower(), field[0]))
            position = end
        self.size += position - begin
        if field is None:
            self._read_other_line(data[position : position + _MAX_START])
        elif size - position <= MAX_KEPT:
            self._held = data[position:]
        else:
            self._long = Field(field[1].decode("ascii").lower(), data[position : position + MAX_KEPT])
            self._go_on(data, position)

    def _read_other_line(self, rest: bytes) -> None:
        """Read a line that is no field, or of which too little has come to know whether it is one."""
        if rest == b"\r" or (len(rest) < _MAX_START and _INCOMPLETE_START.fullmatch(rest)):
            self._held = rest
            return
        self.ended = True
        self.begins_with_empty_line = self.size == 0 and rest.startswith((b"\n", b"\r\n"))

    def _skip_from_line(self, data: bytes) -> int:
        """Go over the next octets of the From_ line; returns the position behind it, or the end of the data."""
        position = data.find(b"\n") + 1
        if not position:
            self._from_line += len(data)
            return len(data)
        self.size = self._from_line + position
        self._from_line = 0
        return position

    def _skip_long(self, data: bytes, complete: list[Field]) -> int:
        """Go over the next octets of the long field; returns the position behind it, or the end of the data."""
        assert self._long is not None
        rest = _REST_OF_FIELD.match(data)
        end = 0 if rest is None else rest.end()
        if end == len(data):
            self._go_on(data, 0)
            return end
        complete.append(self._long)
        self._long = None
        self.size += end
        return end

    def _go_on(self, data: bytes, position: int) -> None:
        """Count octets of the long field, which has not ended: the next piece may continue it behind its line end."""
        self._held = b"\n" if data.endswith(b"\n") else b""
        self.size += len(data) - position - len(self._held)


def _may_begin_from_line(data: bytes) -> bool:
    """Whether too little of the content has come to know if it begins with a From_ line."""
    return b">From ".startswith(data) or b"From ".startswith(data) or _FROM_OR_FIELD.fullmatch(data) is not None


# -- entities of a MIME message ---------------------------------------------------------------------------------------


class AmbiguousHeaderError(ValueError):
    """A header in which programs for reading mail may see different fields; the message says why."""


@dataclass(frozen=True, slots=True)
class FieldSpan:
    """The position of a field, in octets."""

    name: bytes
    """In lower case."""
    start: int
    value_start: int
    """Behind the colon."""
    end: int
    """Behind the last line end."""


@dataclass(frozen=True, slots=True)
class HeaderSpan:
    """The position of a header: it begins where its entity does."""

    fields: tuple[FieldSpan, ...]
    end: int
    """Where the empty line begins, or where the entity ends."""
    body_start: int
    """Behind the empty line."""


def field_spans(content: WindowedOctets, start: int, end: int, *, line_end: bytes) -> HeaderSpan:
    """The header of the entity in [start, end), whose lines end in `line_end` and nothing else.

    Raises AmbiguousHeaderError for a line that is no field, since some programs take it for the end of the header and
    others do not: white space before the colon, a name over 997 octets, a continuation line before the first field.
    """
    spans: list[FieldSpan] = []
    position = start
    while position < end:
        if content.starts(line_end, position, end):
            return HeaderSpan(tuple(spans), position, position + len(line_end))
        line_end_position = content.find(line_end, position, end)
        after = end if line_end_position < 0 else line_end_position + len(line_end)
        if content.span(position, position + 1) in (b" ", b"\t"):
            if not spans:
                raise AmbiguousHeaderError("a header begins with a continuation line")
            last = spans[-1]
            spans[-1] = FieldSpan(last.name, last.start, last.value_start, after)
        else:
            match = _STRICT_START.match(content.span(position, min(after, position + MAX_TEXT_LINE)))
            if match is None:
                raise AmbiguousHeaderError("a header holds a line that is no field")
            spans.append(FieldSpan(match[1].lower(), position, position + match.end(), after))
        position = after
    return HeaderSpan(tuple(spans), end, end)


# -- values for people ------------------------------------------------------------------------------------------------


def decoded(value: str) -> str:
    """The value of a field for people: encoded words (RFC 2047) decoded, octets that are no UTF-8 as U+FFFD."""
    from email.errors import HeaderParseError
    from email.header import decode_header, make_header

    try:
        text = str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        text = value
    return text.encode(errors="surrogateescape").decode(errors="replace")
