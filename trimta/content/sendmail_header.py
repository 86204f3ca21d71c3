"""The header of a message that sendmail(1) accepts: the recipients that it names for `-t`, and the form in which it is
passed on.

Content has LF line ends here and begins with the header, which may be headed by From_ lines of an mbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.content.address_list import readable_addresses, with_domains
from trimta.content.header import begins_from_line, fields, split_header, without_from_lines
from trimta.mail.address import AddressError
from trimta.mail.limits import MAX_TEXT_LINE

if TYPE_CHECKING:
    from trimta.content.header import Field
    from trimta.mail.address import Mailbox

_NAMED: Final = ("to", "cc", "bcc")
_RESENT: Final = ("resent-to", "resent-cc", "resent-bcc")
_DROPPED: Final = frozenset({"bcc", "resent-bcc", "return-path"})
"""Fields that are not passed on, with `-t` or without: nobody else may see blind recipients, and Return-Path is added
at final delivery (RFC 5321 4.4).
"""
_ADDRESSED: Final = frozenset(
    {
        *("from", "sender", "reply-to", "to", "cc"),
        *("resent-from", "resent-sender", "resent-reply-to", "resent-to", "resent-cc"),
        *("errors-to", "return-receipt-to", "disposition-notification-to", "mail-followup-to", "mail-reply-to"),
    }
)
"""Fields whose addresses get a domain where they have none."""


@dataclass(frozen=True, slots=True)
class HeaderRecipients:
    """The recipients that a header names."""

    recipients: tuple[Mailbox, ...]
    problems: tuple[str, ...]
    """The elements that are no addresses, each as text with the name of its field and the reason."""


def has_whole_header(content: bytes) -> bool:
    """Whether no octets that follow `content` can still belong to its header."""
    header, rest = split_header(without_from_lines(content))
    if not header and begins_from_line(rest):
        return False
    return b"\n" in rest or len(rest) > MAX_TEXT_LINE


def passed_on(content: bytes, domain: str) -> bytes:
    """Content with the header in the form in which sendmail passes it on: an empty line behind the last field if there
    is none, `domain` in addresses without a domain, no From_ lines, no Bcc and Return-Path.

    `content` has the whole header.
    """
    header, rest = split_header(without_from_lines(content))
    if header and rest and not rest.startswith(b"\n"):
        rest = (b"\n" if header.endswith(b"\n") else b"\n\n") + rest
    kept = [
        _qualified(field, domain) if field.name in _ADDRESSED else field.raw
        for field in fields(header)
        if field.name not in _DROPPED
    ]
    return b"".join(kept) + rest


def header_recipients(content: bytes, domain: str) -> HeaderRecipients:
    """The recipients in To, Cc and Bcc fields; in Resent-To, Resent-Cc and Resent-Bcc if there is one of these.

    A name without a domain belongs to `domain`.  An element that is no address does not keep the others from being
    recipients.
    """
    all_fields = [*fields(without_from_lines(content))]
    names = _RESENT if any(field.name in _RESENT for field in all_fields) else _NAMED
    recipients: list[Mailbox] = []
    problems: list[str] = []
    for field in all_fields:
        if field.name in names:
            readable = readable_addresses(field.value, domain)
            recipients += readable.mailboxes
            problems += [f"{field.name.title()}: {problem}" for problem in readable.problems]
    return HeaderRecipients(tuple(dict.fromkeys(recipients)), tuple(problems))


def _qualified(field: Field, domain: str) -> bytes:
    """A field with a domain in each of its addresses; as it is where it can't be read."""
    name, _, value = field.raw.partition(b":")
    try:
        text = with_domains(value.decode(errors="surrogateescape"), domain)
    except AddressError:
        return field.raw
    return name + b":" + text.encode(errors="surrogateescape")
