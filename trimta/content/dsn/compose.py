"""The composition of a DSN: a message to the sender of another message, in the form of RFC 3464 and 6522."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from trimta.content.date_time import date_time
from trimta.content.dsn.escaping import ascii_only, clean, header_field
from trimta.content.dsn.explanation import explanation
from trimta.content.dsn.multipart_report import multipart_report, report_part
from trimta.content.dsn.returned import RETURN_LIMIT, returned_from
from trimta.content.dsn.status_fields import delivery_status
from trimta.content.dsn.typed_names import addr_spec, host_name
from trimta.content.dsn.values import DsnKind
from trimta.content.header import fields
from trimta.first_use.pattern import pattern
from trimta.mail.outcome import Deferred, Delivered, Failed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from trimta.content.dsn.values import OriginalMessage, RecipientReport
    from trimta.mail.address import Mailbox
    from trimta.mail.outcome import Outcome

_SUBJECTS: Final = {
    DsnKind.FAILED: "Undelivered mail returned to sender",
    DsnKind.DELAYED: "Delayed mail: still being tried",
    DsnKind.DELIVERED: "Mail delivered",
    DsnKind.RELAYED: "Mail relayed, delivery is not confirmed",
    DsnKind.EXPANDED: "Mail sent on to the members of a list",
}

_MESSAGE_ID: Final = pattern(rb"[^:]+:[ \t\n]*(<[!-;=?A-~]{1,400}@[!-;=?A-~]{1,400}>)[ \t]*$", re.MULTILINE)
"""A Message-ID field with a msg-id that is followed by nothing in its line (RFC 5322 3.6.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedDsn:
    """A message from the null reverse-path, and what a host must offer to take it."""

    content: bytes
    """Header and body: LF line ends, no CR or NUL, no line over 998 octets."""
    eight_bit: bool
    """Whether it needs 8BITMIME."""
    smtputf8: bool
    """Whether it needs SMTPUTF8: the sender's address is UTF-8, or a header that it returns (RFC 6531 3.4)."""


def compose(
    *,
    kind: DsnKind,
    reports: Sequence[RecipientReport],
    original: OriginalMessage,
    addressee: Mailbox,
    now: datetime,
    hostname: str,
    message_id: str,
    limit: int = RETURN_LIMIT,
) -> ComposedDsn:
    """One DSN to `addressee` about the recipients in `reports`, whose outcomes are all of one kind.

    The addressee is the sender of `original`, or, where that came from the null reverse-path, a mailbox of this server.
    `now` has a time zone.  `hostname` is the name of this server, `message_id` the Message-ID of the DSN without angle
    brackets.  `limit` is how much of the original is returned at most, in octets.

    UTF-8 is used where the original was SMTPUTF8, or the addressee's own address is UTF-8, and something is not ASCII.

    Raises ValueError for no reports, and for an outcome that does not go with the kind.
    """
    if not reports:
        raise ValueError("a DSN is about one recipient or more")
    for report in reports:
        _check(kind, report.outcome)

    host = host_name(hostname)
    # A UTF-8 address can only be reached with SMTPUTF8, and then reads UTF-8.
    utf8 = original.terms.smtputf8 or not addressee.is_ascii
    returned = returned_from(original, kind, utf8=utf8, limit=limit)
    text = explanation(kind, reports, original, host=host, returns_message=returned.is_message)
    status_type, status = delivery_status(kind, reports, original, host=host, utf8=utf8)
    described = "Undelivered message" if returned.is_message else "Header of the message"
    content = multipart_report(
        [
            header_field("From", f"Mail Delivery System <MAILER-DAEMON@{host}>"),
            header_field("To", f"<{addr_spec(addressee, host, utf8=True)}>"),
            header_field("Subject", _SUBJECTS[kind]),
            header_field("Date", date_time(now)),
            header_field("Message-ID", f"<{ascii_only(clean(message_id)).strip('<>')}>"),
            *_references(returned.content),
            "Auto-Submitted: auto-replied",  # RFC 3834 5.2
        ],
        [
            report_part("text/plain; charset=utf-8", "Notification", text.encode()),
            report_part(status_type, "Delivery report", status),
            report_part(returned.media_type, described, returned.content),
        ],
        seed=message_id,
    )
    return ComposedDsn(
        content=content,
        eight_bit=not content.isascii(),
        smtputf8=not addressee.is_ascii or returned.is_global,
    )


def _check(kind: DsnKind, outcome: Outcome) -> None:
    match kind:
        case DsnKind.FAILED:
            goes = isinstance(outcome, Failed | Deferred)
        case DsnKind.DELAYED:
            goes = isinstance(outcome, Deferred)
        case DsnKind.DELIVERED | DsnKind.RELAYED | DsnKind.EXPANDED:
            goes = isinstance(outcome, Delivered)
        case _:
            assert_never(kind)
    if not goes:
        raise ValueError(f"{type(outcome).__name__} does not go with a DSN that says {kind.value}")


def _references(returned: bytes) -> list[str]:
    """The fields that make the DSN a reply to the message that it returns, if that has a well-formed Message-ID."""
    for field in fields(returned):
        match = _MESSAGE_ID.match(field.raw) if field.name == "message-id" else None
        if match is not None:
            message_id = match[1].decode("ascii")
            return [header_field("In-Reply-To", message_id), header_field("References", message_id)]
    return []
