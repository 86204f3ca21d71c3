"""The summary of a header, which decides whether a message is accepted and which fields it gets: its trace fields, and
the presence of others.

The header is read once, in pieces and with bounded memory, however long it is.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from trimta.content.header import HeaderReader, begins_with_empty_line, field_names
from trimta.mail.address import AddressError, Mailbox, fold_local_part, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trimta.content.header import Field

MAX_DELIVERED_TO: Final = 10_000
"""Delivered-To fields that are kept: a header has one for each mailbox that the message came through, or as many as a
`maildir:` route wrote for the recipients of one message.
"""

REMEMBERED: Final = frozenset({"from", "date", "message-id", "resent-date"})
"""Names of fields, in lower case, whose presence is kept."""


@dataclass(frozen=True, slots=True)
class HeaderSummary:
    """The facts about a header that show a mail loop (RFC 5321 6.3, RFC 9228) and missing fields (RFC 6409 8)."""

    received_count: int
    """The number of Received fields."""
    delivered_to: tuple[str, ...]
    """The values of Delivered-To fields, topmost first, at most MAX_DELIVERED_TO of them."""
    names: frozenset[str] = frozenset()
    """The names of REMEMBERED that the header has."""
    is_there: bool = True
    """Whether the content has a header: a field or, in its first line, the empty line."""
    _mailboxes: frozenset[tuple[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Parsed once: there may be thousands of values, and a thousand recipients to compare with.
        mailboxes = frozenset(_mailboxes(self.delivered_to)) if self.delivered_to else frozenset()
        object.__setattr__(self, "_mailboxes", mailboxes)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The summary of content in memory, or of its header alone: as `of_pieces` returns it, in less time."""
        names = field_names(content)
        if "delivered-to" in names:  # the only field whose value is kept
            return cls.of_pieces((content,))
        is_there = bool(names) or begins_with_empty_line(content)
        return cls(names.count("received"), (), REMEMBERED.intersection(names), is_there)

    @classmethod
    def of_pieces(cls, pieces: Iterable[bytes]) -> Self:
        """The summary of content that comes in pieces of any size; those behind the header are not taken."""
        reader = HeaderReader()
        received = 0
        delivered_to: list[str] = []
        names: set[str] = set()
        any_field = False
        for header_field in _fields(reader, pieces):
            any_field = True
            name = header_field.name
            if name == "received":
                received += 1
            elif name in REMEMBERED:
                names.add(name)
            elif name == "delivered-to" and len(delivered_to) < MAX_DELIVERED_TO:
                delivered_to.append(header_field.value)
        is_there = any_field or reader.begins_with_empty_line
        return cls(received, tuple(delivered_to), frozenset(names), is_there)

    def was_delivered_to(self, mailbox: Mailbox) -> bool:
        """Whether the message has been in this mailbox: a loop if it comes again."""
        return bool(self._mailboxes) and _folded(mailbox) in self._mailboxes


def _fields(reader: HeaderReader, pieces: Iterable[bytes]) -> Iterator[Field]:
    for piece in pieces:
        yield from reader.feed(piece)
        if reader.ended:
            return
    yield from reader.finish()


def _mailboxes(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The mailboxes among texts, for comparing."""
    for text in texts:
        with contextlib.suppress(AddressError):
            yield _folded(parse_mailbox(text))


def _folded(mailbox: Mailbox) -> tuple[str, str]:
    return fold_local_part(mailbox.local_part), mailbox.domain_key
