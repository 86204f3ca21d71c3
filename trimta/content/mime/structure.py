"""The MIME structure of a message (RFC 2045 2.4, RFC 2046 5): its entities, and where each begins and ends.

An entity is a message or a part of a multipart: a header, an empty line, a body.  Where programs for reading mail might
see different entities in the same octets, the entity is `Unreadable`, with the reason: a line in the header that is no
field, two Content-Type fields, a multipart without a good boundary or without its delimiter, a boundary that is also
that of a multipart around it.  No content makes the functions raise.

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
    """The kind of a body in which no entities are looked for."""

    LEAF = enum.auto()
    """The body is not encoded, and may be."""
    ENCODED = enum.auto()
    """The body has a transfer encoding already, or says that it has one that is not known."""
    UNENCODABLE = enum.auto()
    """The type is message/ and not message/rfc822, such as message/delivery-status: it may not be encoded."""
    PROTECTED = enum.auto()
    """The body is signed or encrypted."""


@dataclass(frozen=True, slots=True)
class Multipart:
    """The body of a multipart (RFC 2046 5.1.1).  What lies between its ranges are the delimiter lines."""

    preamble_end: int
    parts: tuple[Entity | Unreadable, ...]
    epilogue_start: int | None
    """None where the closing delimiter is missing, so that the last part goes to the end."""


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
    """Whether it is a message, not a part of a multipart."""
    media_type: bytes
    """In lower case; without a Content-Type field the default type (RFC 2045 5.2, RFC 2046 5.1.5)."""
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
    """An entity in which programs for reading mail may see different entities."""

    start: int
    end: int
    header_end: int
    """As in Entity; `start` where the header is what can't be read."""
    reason: str
    neighbours_uncertain: bool = False
    """Whether it is uncertain, too, where the entities around it end."""


def read_structure(content: WindowedOctets, form: BodyForm = BodyForm.TEXT) -> Entity | Unreadable:
    """The entity that is the whole message, with all entities in it.

    `form` is that of the content, which says how its lines end.  What `content` raises when it is read is passed on.
    """
    return _Reader(content, form).entity(
        0, len(content), depth=0, default=b"text/plain", boundaries=(), is_message=True
    )


class _UnreadableError(Exception):
    """An entity can't be read; the arguments are those of `Unreadable`."""

    def __init__(self, reason: str, *, neighbours_uncertain: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.neighbours_uncertain = neighbours_uncertain


class _Reader:
    def __init__(self, content: WindowedOctets, form: BodyForm) -> None:
        self._content = content
        self._line_end = form.line_end
        self._parts = 0

    def entity(
        self, start: int, end: int, *, depth: int, default: bytes, boundaries: tuple[bytes, ...], is_message: bool
    ) -> Entity | Unreadable:
        """The entity in [start, end).  `depth` is the number of entities around it, `default` its media type if it has
        no Content-Type, `boundaries` those of the multiparts around it.
        """
        self._parts += 1
        header_end = start
        try:
            if depth > MAX_DEPTH or self._parts > MAX_PARTS:
                raise _UnreadableError("too many parts, or nested too deep")
            header = field_spans(self._content, start, end, line_end=self._line_end)
            header_end = header.end
            type_value = self._only(header, b"content-type")
            encoding_value = self._only(header, b"content-transfer-encoding")
            media_type_and_boundary = (default, None) if type_value is None else content_type(type_value)
            if media_type_and_boundary is None:
                raise _UnreadableError("a Content-Type that cannot be read")
            media_type, boundary = media_type_and_boundary
            encoding = b"7bit" if encoding_value is None else transfer_encoding(encoding_value)
            body = self._body(header.body_start, end, media_type, boundary, encoding, depth, boundaries)
        except AmbiguousHeaderError as why:
            return Unreadable(start=start, end=end, header_end=start, reason=str(why))
        except _UnreadableError as why:
            return Unreadable(
                start=start,
                end=end,
                header_end=header_end,
                reason=why.reason,
                neighbours_uncertain=why.neighbours_uncertain,
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
        """The value of the only field of that name, unfolded; None if there is none.  Raises _UnreadableError for two
        such fields, since readers differ in which of them they take, and for a value that is too long.
        """
        named = [field for field in header.fields if field.name == name]
        if len(named) > 1:
            raise _UnreadableError(f"more than one {name.decode('ascii').title()} field in one header")
        if not named:
            return None
        (field,) = named
        if field.end - field.value_start > MAX_VALUE:
            raise _UnreadableError("a Content-Type that cannot be read")
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
            raise _UnreadableError("a multipart without a good boundary")
        if boundary in boundaries:
            raise _UnreadableError("a multipart with the boundary of a multipart around it", neighbours_uncertain=True)
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
            raise _UnreadableError("a multipart without its boundary")
        read_part(opened, end)
        return Multipart(preamble_end, tuple(parts), None)

    def _delimiters(self, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
        """The delimiter lines (the boundary, then only white space): for each the position where it begins, that where
        the next line begins, and whether it is the closing delimiter.
        """
        content, line_end = self._content, self._line_end
        mark = line_end + b"--" + boundary
        rest = re.compile(rb"(--)?[ \t]*(?:" + line_end + rb"|\Z)")
        position = start - len(line_end)  # the first delimiter may follow the empty line behind the header
        while (before := content.find(mark, max(position, 0), end)) >= 0:
            behind_mark = before + len(mark)
            match = rest.match(content.span(behind_mark, min(end, behind_mark + MAX_TEXT_LINE)))
            if match is None:
                position = before + len(line_end)
                continue
            after = behind_mark + match.end()
            yield before + len(line_end), after, match[1] is not None
            position = after - len(line_end)


def _check_identity(encoding: bytes, media_type: bytes) -> None:
    """Raises _UnreadableError for a multipart or message with a transfer encoding (RFC 2045 6.4)."""
    if encoding not in IDENTITY:
        raise _UnreadableError(f"a part of type {media_type.decode('latin-1')} that is said to be encoded")
