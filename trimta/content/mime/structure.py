"""The MIME structure of a message (RFC 2045 2.4, RFC 2046 5): its entities, and where each begins and ends.

An entity is a message or a part of a multipart: a header, an empty line, a body.  Where readers of mail might see
different entities in the same octets, the entity is `Unreadable`, with the reason: a line in the header that is no
field, two Content-Type fields, a multipart without a good boundary or without its delimiter, a boundary that is the
one of a multipart around it.  Nothing is raised for content, whatever it is.

Positions are offsets in octets.  Content is read a window at a time, and what is kept of it are positions and names.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.content.header import AmbiguousHeaderError, field_spans
from trimta.content.mime.content_type import content_type, transfer_encoding
from trimta.mail.body import BodyForm
from trimta.mail.limits import MAX_TEXT_LINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trimta.content.header import FieldSpan, HeaderSpan
    from trimta.content.windowed_octets import WindowedOctets

MAX_DEPTH: Final = 24
"""Levels of nesting.  The octets of a part are searched once for each level; no honest message comes near."""
MAX_PARTS: Final = 10_000
MAX_VALUE: Final = 64 * 1024
"""Octets of a Content-Type or Content-Transfer-Encoding field that are understood."""

IDENTITY: Final = frozenset({b"7bit", b"8bit", b"binary"})
"""The transfer encodings that encode nothing (RFC 2045 6.2)."""

_ENCODED: Final = frozenset({b"quoted-printable", b"base64"})

_PROTECTED: Final = frozenset(
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
"""Types that may no longer do what they are for once they, or anything in them, is rewritten (RFC 1847 2.1, RFC 8551
3.1.2).
"""

_MESSAGE: Final = frozenset({b"message/rfc822", b"message/news"})
"""Types that hold a message.  They may not be encoded (RFC 2046 5.2.1); the parts of that message may."""

_GLOBAL: Final = b"message/global"
"""message/global and its relatives, which may be encoded as a whole (RFC 6532 3.7, RFC 6533 4)."""


class PartType(enum.Enum):
    """The kind of a body that has no entities inside, or none that anybody may look for."""

    LEAF = enum.auto()
    """Not encoded; it may be."""
    ENCODED = enum.auto()
    """In a transfer encoding already, or in one that is not known."""
    UNENCODABLE = enum.auto()
    """A message/ type other than message/rfc822, such as message/delivery-status: it is not to be encoded."""
    PROTECTED = enum.auto()
    """Signed or encrypted."""


@dataclass(frozen=True, slots=True)
class Multipart:
    """The body of a multipart (RFC 2046 5.1.1).  What lies between its ranges are the delimiter lines."""

    preamble_end: int
    parts: tuple[Entity | Unreadable, ...]
    epilogue_start: int | None
    """None: the closing delimiter is missing, and the last part goes to the end."""


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """The body of a message/rfc822: a message."""

    message: Entity | Unreadable


EntityBody: TypeAlias = Multipart | Encapsulated | PartType


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A message, or a part of a multipart, that all readers understand in one way."""

    start: int
    end: int
    fields: tuple[FieldSpan, ...]
    header_end: int
    """Where the empty line behind the header begins; `end` where there is none."""
    body_start: int
    """Behind the empty line."""
    is_message: bool
    """It is a message, not a part of a multipart."""
    media_type: bytes
    """In lower case; of an entity without Content-Type what stands for it there (RFC 2045 5.2, RFC 2046 5.1.5)."""
    encoding: bytes
    """The Content-Transfer-Encoding in lower case, `7bit` without such a field."""
    body: EntityBody

    @property
    def is_global(self) -> bool:
        """Whether the type is message/global or one of its relatives."""
        return self.media_type.startswith(_GLOBAL)

    def field(self, name: bytes) -> FieldSpan | None:
        """The first field of this name (in lower case)."""
        return next((field for field in self.fields if field.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """An entity in which readers may see different things."""

    start: int
    end: int
    header_end: int
    """As in Entity; `start` where the header is what can't be read."""
    reason: str
    blurs_others: bool = False
    """Not even where the entities round it end is certain."""


def read_structure(content: WindowedOctets, form: BodyForm = BodyForm.TEXT) -> Entity | Unreadable:
    """The entity that is the whole message, with all entities in it.

    `form` is that of the content, which says how its lines end.  What `content` raises when it is read is passed on.
    """
    return _Reader(content, form).entity(
        0, len(content), depth=0, default=b"text/plain", boundaries=(), is_message=True
    )


class _Unclear(Exception):  # noqa: N818 - it is no error of the program
    """An entity can't be read; the message says why."""

    def __init__(self, reason: str, *, blurs_others: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.blurs_others = blurs_others


class _Reader:
    def __init__(self, content: WindowedOctets, form: BodyForm) -> None:
        self._content = content
        self._line_end = form.line_end
        self._parts = 0

    def entity(
        self, start: int, end: int, *, depth: int, default: bytes, boundaries: tuple[bytes, ...], is_message: bool
    ) -> Entity | Unreadable:
        """The entity in [start, end).  `default`: its type without Content-Type.  `boundaries`: those of the multiparts
        round it.
        """
        self._parts += 1
        header_end = start
        try:
            if depth > MAX_DEPTH or self._parts > MAX_PARTS:
                raise _Unclear("too many parts, or nested too deep")
            header = field_spans(self._content, start, end, line_end=self._line_end)
            header_end = header.end
            type_value = self._only(header, b"content-type")
            encoding_value = self._only(header, b"content-transfer-encoding")
            found = (default, None) if type_value is None else content_type(type_value)
            if found is None:
                raise _Unclear("a Content-Type that cannot be read")
            media_type, boundary = found
            encoding = b"7bit" if encoding_value is None else transfer_encoding(encoding_value)
            body = self._body(header.body_start, end, media_type, boundary, encoding, depth, boundaries)
        except AmbiguousHeaderError as why:
            return Unreadable(start=start, end=end, header_end=start, reason=str(why))
        except _Unclear as why:
            return Unreadable(
                start=start, end=end, header_end=header_end, reason=why.reason, blurs_others=why.blurs_others
            )
        return Entity(
            start=start,
            end=end,
            fields=header.fields,
            header_end=header.end,
            body_start=header.body_start,
            is_message=is_message,
            media_type=media_type,
            encoding=encoding,
            body=body,
        )

    def _body(
        self,
        start: int,
        end: int,
        media_type: bytes,
        boundary: bytes | None,
        encoding: bytes,
        depth: int,
        boundaries: tuple[bytes, ...],
    ) -> EntityBody:
        if media_type in _PROTECTED:
            return PartType.PROTECTED
        if media_type.startswith(b"multipart/"):
            _check_identity(encoding, media_type)
            return self._multipart(start, end, media_type, boundary, depth, boundaries)
        if media_type.startswith(b"message/") and not media_type.startswith(_GLOBAL) and encoding not in _ENCODED:
            _check_identity(encoding, media_type)
            if media_type not in _MESSAGE:
                return PartType.UNENCODABLE
            return Encapsulated(
                self.entity(start, end, depth=depth + 1, default=b"text/plain", boundaries=boundaries, is_message=True)
            )
        return PartType.LEAF if encoding in IDENTITY else PartType.ENCODED

    def _only(self, header: HeaderSpan, name: bytes) -> bytes | None:
        """The value of the field of that name, unfolded.  Raises _Unclear for two such fields: readers differ in which
        of them they take.
        """
        found = [field for field in header.fields if field.name == name]
        if len(found) > 1:
            raise _Unclear(f"more than one {name.decode('ascii').title()} field in one header")
        if not found:
            return None
        (field,) = found
        if field.end - field.value_start > MAX_VALUE:
            raise _Unclear("a Content-Type that cannot be read")
        return self._content.span(field.value_start, field.end).replace(self._line_end, b"").strip()

    def _multipart(
        self,
        start: int,
        end: int,
        media_type: bytes,
        boundary: bytes | None,
        depth: int,
        boundaries: tuple[bytes, ...],
    ) -> Multipart:
        if boundary is None:
            raise _Unclear("a multipart without a good boundary")
        if boundary in boundaries:
            raise _Unclear("a multipart with the boundary of a multipart around it", blurs_others=True)
        default = b"message/rfc822" if media_type == b"multipart/digest" else b"text/plain"
        parts: list[Entity | Unreadable] = []

        def read_part(part_start: int, part_end: int) -> None:
            parts.append(
                self.entity(
                    part_start,
                    part_end,
                    depth=depth + 1,
                    default=default,
                    boundaries=(*boundaries, boundary),
                    is_message=False,
                )
            )

        preamble_end = opened = None
        for delimiter, after, closing in self._delimiters(start, end, boundary):
            if preamble_end is None or opened is None:
                preamble_end = delimiter
            else:  # the line end before a delimiter belongs to the delimiter
                read_part(opened, max(opened, delimiter - len(self._line_end)))
            opened = after
            if closing:
                return Multipart(preamble_end, tuple(parts), after)
        if preamble_end is None or opened is None:
            raise _Unclear("a multipart without its boundary")
        read_part(opened, end)
        return Multipart(preamble_end, tuple(parts), None)

    def _delimiters(self, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
        """For each delimiter line (the boundary, then only white space): where it begins, where the next line begins,
        and whether it is the closing delimiter.
        """
        content, line_end = self._content, self._line_end
        mark = line_end + b"--" + boundary
        rest = re.compile(rb"(--)?[ \t]*(?:" + line_end + rb"|\Z)")
        position = start - len(line_end)  # the first delimiter may follow the empty line behind the header
        while (found := content.find(mark, max(position, 0), end)) >= 0:
            line = found + len(mark)
            match = rest.match(content.span(line, min(end, line + MAX_TEXT_LINE)))
            if match is None:
                position = found + len(line_end)
                continue
            yield found + len(line_end), line + match.end(), match[1] is not None
            position = line + match.end() - len(line_end)


def _check_identity(encoding: bytes, media_type: bytes) -> None:
    """Raises _Unclear for a composite type that says it is encoded (RFC 2045 6.4)."""
    if encoding not in IDENTITY:
        raise _Unclear(f"a part of type {media_type.decode('latin-1')} that is said to be encoded")
