"""What a server has to know of a header before it accepts the message: the way behind it, and the fields that it has.

The header is read once, piece by piece and with bounded memory, however long it is.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from trimta.content.header import HeaderReader
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
    """The parts of a header that decide on a loop (RFC 5321 6.3, RFC 9228) and on fields to add (RFC 6409 8)."""

    received_count: int
    delivered_to: tuple[str, ...]
    """Values of Delivered-To, topmost first; no more than MAX_DELIVERED_TO."""
    names: frozenset[str] = frozenset()
    """Which of REMEMBERED the header has."""
    is_there: bool = True
    """The content has a header: a field or, in its first line, the empty line."""
    _mailboxes: frozenset[tuple[str, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Read once: a header has room for thousands, and is asked for each of a thousand recipients.
        object.__setattr__(self, "_mailboxes", frozenset(_mailboxes(self.delivered_to)))

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The summary of content in memory, or of its header alone."""
        return cls.of_pieces((content,))

    @classmethod
    def of_pieces(cls, pieces: Iterable[bytes]) -> Self:
        """The summary of content that comes in pieces of any size, of which no more is taken than needed."""
        reader = HeaderReader()
        received = 0
        delivered_to: list[str] = []
        names: set[str] = set()
        any_field = False
        for found in _fields(reader, pieces):
            any_field = True
            name = found.name
            if name == "received":
                received += 1
            elif name in REMEMBERED:
                names.add(name)
            elif name == "delivered-to" and len(delivered_to) < MAX_DELIVERED_TO:
                delivered_to.append(found.value)
        is_there = any_field or reader.begins_with_empty_line
        return cls(received, tuple(delivered_to), frozenset(names), is_there)

    def was_delivered_to(self, mailbox: Mailbox) -> bool:
        """Whether the message has been in this mailbox: a loop if it comes again."""
        return _folded(mailbox) in self._mailboxes


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
