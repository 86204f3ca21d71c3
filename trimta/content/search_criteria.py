"""The criteria by which messages are searched: the mailbox they were delivered to, their sender, their subject."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from trimta.content.address_list import addresses
from trimta.content.header import decoded, fields
from trimta.mail.address import AddressError, Mailbox, fold_local_part, parse_local_part, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterable

NULL_PATH: Final = "<>"
"""The null reverse-path as a Return-Path field has it."""

_DELIVERED: Final = frozenset({"delivered-to", "x-original-to"})
_SENT: Final = frozenset({"return-path", "from"})
SEARCHED_FIELDS: Final = _DELIVERED | _SENT | {"subject"}
"""The names of the fields that criteria look at, in lower case."""


@dataclass(frozen=True, slots=True)
class AddressPattern:
    """An address, or a local part in any domain, to compare addresses with; the case of local parts is ignored."""

    local_part: str
    """The local part as `fold_local_part` returns it."""
    domain_key: str | None
    """The key of the domain; None: any domain."""

    @classmethod
    def parse(cls, text: str) -> AddressPattern:
        """Read `alice@dev.test` or `alice`.  Raises AddressError."""
        if "@" not in text:
            return cls(fold_local_part(parse_local_part(text)), None)
        return cls.of(parse_mailbox(text))

    @classmethod
    def of(cls, mailbox: Mailbox) -> AddressPattern:
        """The pattern that the address of this mailbox matches."""
        return cls(fold_local_part(mailbox.local_part), mailbox.domain_key)

    def matches(self, mailbox: Mailbox) -> bool:
        """Whether a mailbox has this address."""
        other = AddressPattern.of(mailbox)
        return self.local_part == other.local_part and self.domain_key in (None, other.domain_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCriteria:
    """The conditions that a message must meet, all of them; None is no condition."""

    to: AddressPattern | None = None
    """An address in Delivered-To or X-Original-To."""
    sender: AddressPattern | str | None = None
    """An address in Return-Path or From; NULL_PATH: the null reverse-path in Return-Path."""
    subject: str | None = None
    """A glob that the whole decoded Subject matches, case aside."""

    def matches(self, content: bytes) -> bool:
        """Whether a message with this header meets all conditions; what follows the header is not looked at."""
        header = [*fields(content)]
        if self.to is not None and not _named(self.to, (field.value for field in header if field.name in _DELIVERED)):
            return False
        if self.sender == NULL_PATH:
            if not any(field.name == "return-path" and field.value == NULL_PATH for field in header):
                return False
        elif isinstance(self.sender, AddressPattern) and not _named(
            self.sender, (field.value for field in header if field.name in _SENT)
        ):
            return False
        if self.subject is not None:
            subject = next((decoded(field.value) for field in header if field.name == "subject"), "")
            subject, glob = subject.lower(), self.subject.lower()
            return subject == glob or fnmatchcase(subject, glob)  # "[Shop] Welcome" matches itself, too
        return True


def _named(pattern: AddressPattern, values: Iterable[str]) -> bool:
    for value in values:
        try:
            if any(pattern.matches(mailbox) for mailbox in addresses(value, "invalid")):
                return True
        except AddressError:  # a field may have any value
            continue
    return False
