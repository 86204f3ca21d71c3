"""Delivery status notifications: which are due (RFC 3461 4.1, 5.2), and what they look like (RFC 3464, 6522, 6533).

`reports_due` says which outcomes the sender asked to hear of, `compose` makes one DSN of all reports of one kind: a
multipart/report with a part in plain words, the machine's part, and the message or its header.  Nothing that came from
the network (replies, ENVID, ORCPT, HELO, addresses) can add a field or a line: control characters are escaped.

UTF-8 is used where the message was SMTPUTF8 and something is not ASCII: message/global-delivery-status,
message/global or message/global-headers.  Else the machine's part is ASCII, with a UTF-8 address in the form of RFC
6533 3 (`\\x{E9}`) and other text with Python's escapes (`\\xe9`).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final, assert_never

from trimta.content.dsn.escaping import (
    addr_spec,
    ascii_only,
    clean,
    escape,
    field,
    host_name,
    mta_name,
    typed_address,
    typed_orcpt,
)
from trimta.content.dsn.report import DsnKind, Report, status_of
from trimta.content.dsn.words import words
from trimta.mail.envelope import Notify, Ret
from trimta.mail.limits import MAX_TEXT_LINE
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover, PeerReply

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import Recipient, ReversePath, Terms
    from trimta.mail.outcome import Outcome

__all__ = ["RETURN_LIMIT", "ComposedDsn", "DsnKind", "Report", "Returned"]
__all__ += ["compose", "is_due", "may_be_reported", "reports_due"]

RETURN_LIMIT: Final = 64 * 1024  # octets of the message that a DSN returns at most
PREAMBLE: Final = "This is a delivery report in MIME format (RFC 3464)."
MEMBER: Final = "X-Trimta-Actual-Recipient"  # where an alias sent what was accepted for Final-Recipient

_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")
_MESSAGE_ID: Final = re.compile(
    rb"^message-id:(?:[ \t]|\n[ \t])*(<[!-;=?A-~]{1,400}@[!-;=?A-~]{1,400}>)[ \t]*$", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The message that a DSN is about: our trace fields and the content, from its beginning."""

    head: bytes
    """LF line ends, or as it came where the message is BINARYMIME.  More than the limit of `compose` is not needed."""

    whole: bool
    """Nothing of the message comes after `head`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedDsn:
    """A message to the sender, from the null reverse-path."""

    content: bytes
    """Header and body, LF line ends, no CR or NUL, no line over 998 octets."""

    eight_bit: bool
    """It wants BODY=8BITMIME."""

    smtputf8: bool
    """Its header is UTF-8, because the sender's address is, or a header that it returns: it wants SMTPUTF8 (RFC 6531
    3.4).
    """


# -- what is due ----------------------------------------------------------------------------------------------------

_EVENTS: Final = {
    DsnKind.FAILED: Notify.FAILURE,
    DsnKind.DELAYED: Notify.DELAY,
    DsnKind.DELIVERED: Notify.SUCCESS,
    DsnKind.RELAYED: Notify.SUCCESS,
    DsnKind.EXPANDED: Notify.SUCCESS,
}


def may_be_reported(reverse_path: ReversePath) -> bool:
    """Whether there is anybody to tell: never about a message from `<>`, a DSN among others (RFC 5321 4.5.5)."""
    return reverse_path is not None


def is_due(kind: DsnKind, recipient: Recipient) -> bool:
    """Whether the sender wants this kind of DSN for this recipient."""
    return recipient.wants(_EVENTS[kind])


def reports_due(
    outcomes: Iterable[Outcome], *, expired: bool = False, warn: bool = False, traced: bool = False
) -> dict[DsnKind, tuple[Outcome, ...]]:
    """The outcomes that a DSN is due for, by kind; one DSN tells of all that are in one tuple.

    `expired`: a deferral is the last one, hence a failure.  `warn`: a deferral is late enough for the delay warning,
    which was not sent before.  `traced`: DELIVERBY asked for a `relayed` DSN at every relay.  That one, and the one
    about a host that will not keep the deadline, only NOTIFY=NEVER forbids (RFC 2852 4.1.4).  An EXPANDED report is of
    who expands a recipient, so none comes from here.
    """
    due: dict[DsnKind, list[Outcome]] = {}
    for outcome in outcomes:
        kind = _kind(outcome, expired=expired, warn=warn, traced=traced)
        if kind is None:
            continue
        if is_due(kind, outcome.recipient) or _is_owed(kind, outcome, traced=traced):
            due.setdefault(kind, []).append(outcome)
    return {kind: tuple(found) for kind, found in due.items()}


def _kind(outcome: Outcome, *, expired: bool, warn: bool, traced: bool) -> DsnKind | None:
    match outcome:
        case Failed():
            return DsnKind.FAILED
        case Deferred():
            if expired:
                return DsnKind.FAILED
            return DsnKind.DELAYED if warn else None
        case Delivered(handover=Handover.FINAL):
            return DsnKind.DELIVERED
        case Delivered(handover=Handover.RELAYED) | Delivered(deadline_dropped=True):
            return DsnKind.RELAYED
        case Delivered():
            return DsnKind.RELAYED if traced else None
        case _:
            assert_never(outcome)


def _is_owed(kind: DsnKind, outcome: Outcome, *, traced: bool) -> bool:
    """Whether DELIVERBY wants a `relayed` DSN that NOTIFY did not ask for."""
    if kind is not DsnKind.RELAYED or not isinstance(outcome, Delivered):
        return False
    asked = outcome.recipient.notify
    return (traced or outcome.deadline_dropped) and (asked is None or Notify.NEVER not in asked)


# -- the whole DSN --------------------------------------------------------------------------------------------------

_SUBJECTS: Final = {
    DsnKind.FAILED: "Undelivered mail returned to sender",
    DsnKind.DELAYED: "Delayed mail: still being tried",
    DsnKind.DELIVERED: "Mail delivered",
    DsnKind.RELAYED: "Mail relayed, delivery is not confirmed",
    DsnKind.EXPANDED: "Mail sent on to the members of a list",
}


def compose(
    *,
    kind: DsnKind,
    reports: Sequence[Report],
    addressee: Mailbox,
    terms: Terms,
    returned: Returned,
    arrived: datetime,
    now: datetime,
    hostname: str,
    message_id: str,
    queue_id: str = "",
    received_from: str = "",
    limit: int = RETURN_LIMIT,
) -> ComposedDsn:
    """One DSN to `addressee` about `reports`, all of them of one kind, of a message with `terms`.

    The addressee is the message's sender, or, for a message from the null reverse-path, somebody here.
    `message_id` is the new Message-ID without angle brackets, `queue_id` the id of the message that it is about,
    `received_from` the HELO name of the client that gave it to us.  `now` and `arrived` have a time zone.

    The message is returned whole in a failure DSN unless RET=HDRS was said (RFC 3461 4.3), it is over `limit` octets,
    or its octets do not travel as text: a NUL, a bare CR, a line over 998 octets.  Else its header is returned, cut at
    `limit`.  ValueError for no reports, and for an outcome that does not go with the kind.
    """
    if not reports:
        raise ValueError("a DSN is about one recipient or more")
    for report in reports:
        _check(kind, report.outcome)

    host = host_name(hostname)
    # A UTF-8 address can only be reached with SMTPUTF8, and then reads UTF-8.
    utf8 = terms.smtputf8 or not addressee.is_ascii
    original = returned.head.replace(b"\r\n", b"\n")
    header = header_of(original[:limit], whole=returned.whole and len(original) <= limit)

    full = kind is DsnKind.FAILED and terms.ret is not Ret.HEADERS and returned.whole
    if full and len(original) <= limit and _is_text(original):
        body, described = original, "Undelivered message"
    else:
        full = False
        body, described = header, "Header of the message"

    told = words(
        kind,
        reports,
        arrived=arrived,
        host=host,
        queue_id=queue_id,
        follows="the message" if full else "the header of the message",
        traced=terms.deliver_by is not None and terms.deliver_by.trace,
    )

    def machines_part(*, utf8: bool) -> str:
        return "\n".join(_status_fields(kind, reports, terms, arrived, host, queue_id, received_from, utf8=utf8))

    status, status_type = machines_part(utf8=utf8), "message/global-delivery-status"
    if status.isascii():
        # In this type an ASCII address of type utf-8 is written otherwise: RFC 6533 3.
        status, status_type = machines_part(utf8=False), "message/delivery-status"
    returned_type = _returned_type(body, full=full) if utf8 else _returned_type(b"", full=full)
    parts = [
        part("text/plain; charset=utf-8", "Notification", told.encode()),
        part(status_type, "Delivery report", status.encode()),
        part(returned_type, described, body),
    ]
    fields = [
        field("From", f"Mail Delivery System <MAILER-DAEMON@{host}>"),
        field("To", f"<{addr_spec(addressee, host, utf8=True)}>"),
        field("Subject", _SUBJECTS[kind]),
        field("Date", format_datetime(now)),
        field("Message-ID", f"<{ascii_only(clean(message_id)).strip('<>')}>"),
    ]
    if (found := _MESSAGE_ID.search(header)) is not None:
        fields += [field("In-Reply-To", found[1].decode("ascii")), field("References", found[1].decode("ascii"))]
    fields.append("Auto-Submitted: auto-replied")
    content = assemble(fields, parts, seed=message_id)
    return ComposedDsn(
        content=content,
        eight_bit=not content.isascii(),
        smtputf8=not addressee.is_ascii or returned_type.startswith("message/global"),
    )


def assemble(fields: Sequence[str], parts: Sequence[bytes], *, seed: str) -> bytes:
    """A multipart/report (RFC 6522): these fields, those of MIME, and the parts.  `seed` makes the boundary, so that
    the same arguments give the same octets.
    """
    boundary = _boundary(seed, parts)
    mime = [
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\n boundary="{boundary}"',
    ]
    if not all(part.isascii() for part in parts):
        mime.append("Content-Transfer-Encoding: 8bit")
    delimiter = f"--{boundary}".encode()
    return b"".join(
        [
            "\n".join([*fields, *mime, "", PREAMBLE, "", ""]).encode(),
            *(delimiter + b"\n" + part + b"\n" for part in parts),
            delimiter + b"--\n",
        ]
    )


def _check(kind: DsnKind, outcome: Outcome) -> None:
    match kind:
        case DsnKind.FAILED:
            good = isinstance(outcome, Failed | Deferred)
        case DsnKind.DELAYED:
            good = isinstance(outcome, Deferred)
        case DsnKind.DELIVERED | DsnKind.RELAYED | DsnKind.EXPANDED:
            good = isinstance(outcome, Delivered)
        case _:
            assert_never(kind)
    if not good:
        raise ValueError(f"{type(outcome).__name__} does not go with a DSN that says {kind.value}")


def part(content_type: str, description: str, body: bytes, *, encoding: str = "") -> bytes:
    """One part; `encoding`: what `body` is encoded in already."""
    encoding = encoding or ("7bit" if body.isascii() else "8bit")
    head = (
        f"Content-Type: {content_type}\nContent-Description: {description}\nContent-Transfer-Encoding: {encoding}\n\n"
    )
    return head.encode() + body


def _boundary(message_id: str, parts: Sequence[bytes]) -> str:
    """A boundary that no part holds: made of the Message-ID, so that the same arguments give the same DSN."""
    seeds = (f"{count} {message_id}".encode("utf-8", "backslashreplace") for count in itertools.count())
    candidates = (f"=_trimta_{hashlib.sha256(seed).hexdigest()[:24]}" for seed in seeds)
    return next(one for one in candidates if not any(one.encode() in part for part in parts))


# -- the machine's part (RFC 3464 2) --------------------------------------------------------------------------------


def _status_fields(
    kind: DsnKind,
    reports: Sequence[Report],
    terms: Terms,
    arrived: datetime,
    host: str,
    queue_id: str,
    received_from: str,
    *,
    utf8: bool,
) -> list[str]:
    """The fields of the message, then those of each recipient, each group behind an empty line."""
    plain = (lambda text: text) if utf8 else ascii_only

    def line(name: str, value: str) -> str:
        return field(name, plain(escape(value)))

    lines: list[str] = []
    if terms.envid is not None:
        lines.append(line("Original-Envelope-Id", clean(terms.envid)))
    lines.append(line("Reporting-MTA", mta_name(host)))
    if received_from:
        lines.append(line("Received-From-MTA", mta_name(received_from)))
    lines.append(line("Arrival-Date", format_datetime(arrived)))
    if terms.deliver_by is not None:
        deadline = datetime.fromtimestamp(terms.deliver_by.deadline, UTC).astimezone(arrived.tzinfo)
        lines.append(line("Deliver-By-Date", format_datetime(deadline)))  # RFC 2852 5
    if terms.hold_request:
        lines.append(line("Future-Release-Request", clean(terms.hold_request)))  # RFC 4865 5.1.2
    if queue_id:
        lines.append(line("X-Trimta-Id", clean(queue_id)))
    for report in reports:
        outcome = report.outcome
        recipient = outcome.recipient
        lines.append("")
        if recipient.orcpt is not None:
            lines.append(line("Original-Recipient", typed_orcpt(recipient.orcpt, utf8=utf8)))
        lines += [
            line("Final-Recipient", typed_address(recipient.original, host, utf8=utf8)),
            line("Action", kind.value),
            line("Status", str(status_of(kind, outcome))),
        ]
        if outcome.cause.host:
            lines.append(line("Remote-MTA", mta_name(outcome.cause.host)))
        if outcome.cause.diagnostic:
            diagnostic_type = "smtp" if isinstance(outcome.cause, PeerReply) else "x-trimta"
            lines.append(line("Diagnostic-Code", f"{diagnostic_type}; {clean(outcome.cause.diagnostic)}"))
        if report.last_attempt is not None:
            lines.append(line("Last-Attempt-Date", format_datetime(report.last_attempt)))
        if kind is DsnKind.DELAYED and report.retry_until is not None:
            lines.append(line("Will-Retry-Until", format_datetime(report.retry_until)))
        if recipient.original != recipient.address:  # not Final-Recipient, which is what we accepted: RFC 3464 2.3.2
            lines.append(line(MEMBER, typed_address(recipient.address, host, utf8=utf8)))
    lines.append("")
    return lines


# -- the returned part (RFC 3461 6.2, RFC 6522 3) -------------------------------------------------------------------


def _returned_type(returned: bytes, *, full: bool) -> str:
    """message/global where a header of it, or of a part of it, is UTF-8 (RFC 6532 3.7); else what it was before."""
    headers = b"".join(_headers_in(returned)) if full else returned
    if not headers.isascii() and _is_utf8(headers):
        return "message/global" if full else "message/global-headers"
    return "message/rfc822" if full else "text/rfc822-headers"


def _headers_in(message: bytes) -> Iterable[bytes]:
    """Its header, and what stands where a part has its header: behind a line that may be a delimiter."""
    inside, behind_delimiter = True, False
    for line in message.split(b"\n"):
        inside = bool(line) and (inside or (behind_delimiter and _FIELD.match(line) is not None))
        behind_delimiter = line.startswith(b"--")
        if inside:
            yield line + b"\n"


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_text(content: bytes) -> bool:
    """Whether it can be part of a text message as it is (RFC 2045 2.8)."""
    return (
        b"\0" not in content
        and b"\r" not in content
        and all(len(line) <= MAX_TEXT_LINE for line in content.split(b"\n"))
    )


def header_of(message: bytes, *, whole: bool) -> bytes:
    """The header, up to the blank line or the first line that is no field; nothing of the body, whatever is wrong.

    What cannot travel as text is mended: a CR or NUL becomes "?", a line over 998 octets is folded.
    """
    lines: list[bytes] = []
    rest = message.split(b"\n")
    if not whole:
        rest.pop()  # cut in the middle, or empty
    for line in rest:
        if not line or not (_FIELD.match(line) or (lines and line[:1] in b" \t")):
            break
        clean = line.replace(b"\r", b"?").replace(b"\0", b"?")
        while len(clean) > MAX_TEXT_LINE:
            cut = MAX_TEXT_LINE - 1
            while cut > MAX_TEXT_LINE - 5 and clean[cut] & 0xC0 == 0x80:  # not within a character
                cut -= 1
            lines.append(clean[:cut])
            clean = b" " + clean[cut:]
        lines.append(clean)
    return b"".join(line + b"\n" for line in lines)
