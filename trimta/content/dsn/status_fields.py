"""The second part of a DSN: fields for programs; Diagnostic-Code has the peer's reply or a local cause (RFC 3464 2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from trimta.content.date_time import date_time
from trimta.content.dsn.escaping import ascii_only, clean, escape, header_field
from trimta.content.dsn.typed_names import mta_name, typed_address, typed_orcpt
from trimta.content.dsn.values import DsnKind, status_of
from trimta.mail.outcome import PeerReply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimta.content.dsn.values import OriginalMessage, RecipientReport

ACTUAL_RECIPIENT: Final = "X-Trimta-Actual-Recipient"
"""The field for the address that an alias made of the one in Final-Recipient, which is the address that was accepted
(RFC 3464 2.3.2).
"""

DELIVERY_STATUS: Final = "message/delivery-status"
GLOBAL_DELIVERY_STATUS: Final = "message/global-delivery-status"


def delivery_status(
    kind: DsnKind, reports: Sequence[RecipientReport], original: OriginalMessage, *, host: str, utf8: bool
) -> tuple[str, bytes]:
    """The media type of the part and its body, with LF line ends.

    `host` is the name of this server in ASCII.  With `utf8` the part is message/global-delivery-status where something
    is not ASCII (RFC 6533 4); else it is ASCII, with a UTF-8 address in the form of RFC 6533 3 (`\\x{E9}`) and other
    text with Python's escapes (`\\xe9`).
    """
    if utf8:
        body = _groups(kind, reports, original, host=host, utf8=True)
        if not body.isascii():
            return GLOBAL_DELIVERY_STATUS, body.encode()
    # Also where all of it is ASCII: here an ASCII address of type utf-8 is written otherwise (RFC 6533 3).
    return DELIVERY_STATUS, _groups(kind, reports, original, host=host, utf8=False).encode()


def _groups(
    kind: DsnKind, reports: Sequence[RecipientReport], original: OriginalMessage, *, host: str, utf8: bool
) -> str:
    """The fields of the message, then those of each recipient, with an empty line before each group."""
    lines = _message_fields(original, host=host, utf8=utf8)
    for report in reports:
        lines += ["", *_recipient_fields(kind, report, host=host, utf8=utf8)]
    return "\n".join([*lines, ""])


def _message_fields(original: OriginalMessage, *, host: str, utf8: bool) -> list[str]:
    """The per-message fields (RFC 3464 2.2)."""
    terms, arrived = original.terms, original.arrived
    lines: list[str] = []
    if terms.envid is not None:
        lines.append(_field("Original-Envelope-Id", clean(terms.envid), utf8=utf8))
    lines.append(_field("Reporting-MTA", mta_name(host), utf8=utf8))
    if original.received_from:
        lines.append(_field("Received-From-MTA", mta_name(original.received_from), utf8=utf8))
    lines.append(_field("Arrival-Date", date_time(arrived), utf8=utf8))
    if terms.deliver_by is not None:
        deadline = datetime.fromtimestamp(terms.deliver_by.deadline, UTC).astimezone(arrived.tzinfo)
        lines.append(_field("Deliver-By-Date", date_time(deadline), utf8=utf8))  # RFC 2852 5
    if terms.hold_request:
        lines.append(_field("Future-Release-Request", clean(terms.hold_request), utf8=utf8))  # RFC 4865 5.1.2
    if original.queue_id:
        lines.append(_field("X-Trimta-Id", clean(original.queue_id), utf8=utf8))
    return lines


def _recipient_fields(kind: DsnKind, report: RecipientReport, *, host: str, utf8: bool) -> list[str]:
    """The per-recipient fields (RFC 3464 2.3)."""
    outcome = report.outcome
    recipient, cause = outcome.recipient, outcome.cause
    lines: list[str] = []
    if recipient.orcpt is not None:
        lines.append(_field("Original-Recipient", typed_orcpt(recipient.orcpt, utf8=utf8), utf8=utf8))
    lines += [
        _field("Final-Recipient", typed_address(recipient.original, host, utf8=utf8), utf8=utf8),
        _field("Action", kind.value, utf8=utf8),
        _field("Status", str(status_of(kind, outcome)), utf8=utf8),
    ]
    if cause.host:
        lines.append(_field("Remote-MTA", mta_name(cause.host), utf8=utf8))
    if cause.diagnostic:
        diagnostic_type = "smtp" if isinstance(cause, PeerReply) else "x-trimta"
        lines.append(_field("Diagnostic-Code", f"{diagnostic_type}; {clean(cause.diagnostic)}", utf8=utf8))
    if report.last_attempt is not None:
        lines.append(_field("Last-Attempt-Date", date_time(report.last_attempt), utf8=utf8))
    if kind is DsnKind.DELAYED and report.retry_until is not None:
        lines.append(_field("Will-Retry-Until", date_time(report.retry_until), utf8=utf8))
    if recipient.original != recipient.address:
        lines.append(_field(ACTUAL_RECIPIENT, typed_address(recipient.address, host, utf8=utf8), utf8=utf8))
    return lines


def _field(name: str, value: str, *, utf8: bool) -> str:
    text = escape(value)
    return header_field(name, text if utf8 else ascii_only(text))
