"""Delivery status notifications: which are due (RFC 3461 4.1, 5.2), and what they look like (RFC 3464, 6522, 6533).

`reports_due` says which outcomes the sender asked to hear of, `compose` makes one DSN of all reports of one kind: a
multipart/report with a part in plain words, the machine's part, and the message or its header.  Nothing that came from
the network (replies, ENVID, ORCPT, HELO, addresses) can add a field or a line: control characters are escaped.

UTF-8 is used where the message was SMTPUTF8 and something is not ASCII: message/global-delivery-status,
message/global or message/global-headers.  Else the machine's part is ASCII, with a UTF-8 address in the form of RFC
6533 3 (`\\x{E9}`) and other text with Python's escapes (`\\xe9`).
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import re
import textwrap
from dataclasses import dataclass
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final, assert_never

from trimta.mail.envelope import Notify, Ret
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover
from trimta.mail.status import EnhancedStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import Envelope, OriginalRecipient, Recipient, ReversePath
    from trimta.mail.outcome import Outcome

RETURN_LIMIT: Final = 64 * 1024  # octets of the message that a DSN returns at most
EXPIRED: Final = EnhancedStatus(4, 4, 7)  # delivery time expired: RFC 3463 3.5

_MAX_LINE: Final = 998  # octets without the line end: RFC 5322 2.1.1
_MAX_TEXT: Final = 6 * 1024  # characters of a diagnostic: 4 KiB of what a command said, and which one it was
_MAX_WORD: Final = 900  # octets: a longer one is broken, so that every line can be folded; no address is as long
_WIDTH: Final = 76
_REPLY: Final = re.compile(r"[2-5][0-9]{2}(?:[ -]|$)", re.ASCII)
_ADDR_TYPE: Final = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)
_NOT_QCHAR: Final = re.compile(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 3
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")
_MESSAGE_ID: Final = re.compile(
    rb"^message-id:(?:[ \t]|\n[ \t])*(<[!-;=?A-~]{1,400}@[!-;=?A-~]{1,400}>)[ \t]*$", re.IGNORECASE | re.MULTILINE
)


class DsnKind(enum.StrEnum):
    """What a DSN tells; the value is the Action field (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a DSN tells of one recipient.  Moments have a time zone."""

    outcome: Outcome
    """Failed, or Deferred and expired, for FAILED; Deferred for DELAYED; else Delivered."""

    last_attempt: datetime
    retry_until: datetime | None = None
    """When a delayed message is given up."""


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
    """Its header is UTF-8, because the sender's address is: it wants SMTPUTF8."""


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
    which was not sent before.  `traced`: DELIVERBY asked for a `relayed` DSN at every relay, which only NOTIFY=NEVER
    forbids (RFC 2852).  An EXPANDED report is of who expands a recipient, so none comes from here.
    """
    due: dict[DsnKind, list[Outcome]] = {}
    for outcome in outcomes:
        kind = _kind(outcome, expired=expired, warn=warn, traced=traced)
        if kind is None:
            continue
        asked = outcome.recipient.notify
        if is_due(kind, outcome.recipient) or (
            traced and kind is DsnKind.RELAYED and (asked is None or Notify.NEVER not in asked)
        ):
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
        case Delivered(handover=Handover.RELAYED):
            return DsnKind.RELAYED
        case Delivered():
            return DsnKind.RELAYED if traced else None
        case _:
            assert_never(outcome)


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
    envelope: Envelope,
    returned: Returned,
    arrived: datetime,
    now: datetime,
    hostname: str,
    message_id: str,
    queue_id: str = "",
    received_from: str = "",
    limit: int = RETURN_LIMIT,
) -> ComposedDsn:
    """One DSN to the sender of `envelope` about `reports`, all of them of one kind.

    `message_id` is the new Message-ID without angle brackets, `queue_id` the id of the message that it is about,
    `received_from` the HELO name of the client that gave it to us.  `now` and `arrived` have a time zone.

    The message is returned whole in a failure DSN unless RET=HDRS was said (RFC 3461 4.3), it is over `limit` octets,
    or its octets do not travel as text: a NUL, a bare CR, a line over 998 octets.  Else its header is returned, cut at
    `limit`.  ValueError for no reports, for an outcome that does not go with the kind, and for a null reverse-path.
    """
    sender = envelope.reverse_path
    if sender is None or not may_be_reported(sender):
        raise ValueError("nobody is told about a message from the null reverse-path")
    if not reports:
        raise ValueError("a DSN is about one recipient or more")
    for report in reports:
        _check(kind, report.outcome)

    host = _ascii(_clean(hostname))
    # A UTF-8 sender can only be reached with SMTPUTF8, and then reads UTF-8.
    utf8 = envelope.smtputf8 or not sender.is_ascii
    original = returned.head.replace(b"\r\n", b"\n")
    header = _header_of(original[:limit], whole=returned.whole and len(original) <= limit)

    full = kind is DsnKind.FAILED and envelope.ret is not Ret.HEADERS and returned.whole
    if full and len(original) <= limit and _is_text(original):
        body, described = original, "Undelivered message"
    else:
        full = False
        body, described = header, "Header of the message"

    status = "\n".join(_status_fields(kind, reports, envelope, arrived, host, queue_id, received_from, utf8=utf8))
    status_type = "message/delivery-status" if status.isascii() else "message/global-delivery-status"
    parts = [
        _part(
            "text/plain; charset=utf-8", "Notification", _words(kind, reports, arrived, host, queue_id, full).encode()
        ),
        _part(status_type, "Delivery report", status.encode()),
        _part(_returned_type(header, full=full, utf8=utf8), described, body),
    ]
    boundary = _boundary(message_id, parts)

    fields = [
        _field("From", f"Mail Delivery System <MAILER-DAEMON@{host}>"),
        _field("To", f"<{_addr_spec(sender, host, utf8=True)}>"),
        _field("Subject", _SUBJECTS[kind]),
        _field("Date", format_datetime(now)),
        _field("Message-ID", f"<{_ascii(_clean(message_id)).strip('<>')}>"),
    ]
    if (found := _MESSAGE_ID.search(header)) is not None:
        fields += [_field("In-Reply-To", found[1].decode("ascii")), _field("References", found[1].decode("ascii"))]
    fields += [
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\n boundary="{boundary}"',
    ]
    if not all(part.isascii() for part in parts):
        fields.append("Content-Transfer-Encoding: 8bit")

    delimiter = f"--{boundary}".encode()
    content = b"".join(
        [
            "\n".join([*fields, "", "This is a delivery report in MIME format (RFC 3464).", "", ""]).encode(),
            *(delimiter + b"\n" + part + b"\n" for part in parts),
            delimiter + b"--\n",
        ]
    )
    return ComposedDsn(content=content, eight_bit=not content.isascii(), smtputf8=not sender.is_ascii)


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


def _part(content_type: str, description: str, body: bytes) -> bytes:
    encoding = "7bit" if body.isascii() else "8bit"
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
    envelope: Envelope,
    arrived: datetime,
    host: str,
    queue_id: str,
    received_from: str,
    *,
    utf8: bool,
) -> list[str]:
    """The fields of the message, then those of each recipient, each group behind an empty line."""
    plain = (lambda text: text) if utf8 else _ascii

    def field(name: str, value: str) -> str:
        return _field(name, plain(_escape(value)))

    lines: list[str] = []
    if envelope.envid is not None:
        lines.append(field("Original-Envelope-Id", _clean(envelope.envid)))
    lines.append(field("Reporting-MTA", f"dns; {host}"))
    if received_from:
        lines.append(field("Received-From-MTA", f"dns; {_clean(received_from)}"))
    lines.append(field("Arrival-Date", format_datetime(arrived)))
    if queue_id:
        lines.append(field("X-Trimta-Id", _clean(queue_id)))
    for report in reports:
        outcome = report.outcome
        recipient = outcome.recipient
        lines.append("")
        if recipient.orcpt is not None:
            lines.append(field("Original-Recipient", _typed_orcpt(recipient.orcpt, utf8=utf8)))
        elif recipient.original != recipient.address:
            lines.append(field("Original-Recipient", _typed(recipient.original, host, utf8=utf8)))
        lines += [
            field("Final-Recipient", _typed(recipient.address, host, utf8=utf8)),
            field("Action", kind.value),
            field("Status", str(_status(kind, outcome))),
        ]
        if outcome.host:
            lines.append(field("Remote-MTA", f"dns; {_clean(outcome.host)}"))
        if outcome.diagnostic:
            said = "smtp" if _is_reply(outcome) else "x-trimta"
            lines.append(field("Diagnostic-Code", f"{said}; {_clean(outcome.diagnostic)}"))
        lines.append(field("Last-Attempt-Date", format_datetime(report.last_attempt)))
        if kind is DsnKind.DELAYED and report.retry_until is not None:
            lines.append(field("Will-Retry-Until", format_datetime(report.retry_until)))
    lines.append("")
    return lines


def _status(kind: DsnKind, outcome: Outcome) -> EnhancedStatus:
    """A deferral that fails did so because its time was over, whatever the last reply said."""
    return EXPIRED if kind is DsnKind.FAILED and isinstance(outcome, Deferred) else outcome.status


def _is_reply(outcome: Outcome) -> bool:
    """Whether the diagnostic is a peer's SMTP reply."""
    smtp = bool(outcome.host) if isinstance(outcome, Delivered) else outcome.smtp
    return smtp and _REPLY.match(outcome.diagnostic) is not None


def _addr_spec(mailbox: Mailbox, host: str, *, utf8: bool) -> str:
    """The address; the bare postmaster is at this host (RFC 5321 4.5.1)."""
    if not mailbox.domain:
        return f"{mailbox.local_part}@{host}"
    return mailbox.wire(smtputf8=utf8 and not mailbox.is_ascii)


def _typed(mailbox: Mailbox, host: str, *, utf8: bool) -> str:
    """Address with type: `rfc822`, or `utf-8` where its local part is (RFC 6533 3)."""
    if mailbox.is_ascii:
        return f"rfc822; {_addr_spec(mailbox, host, utf8=False)}"
    address = _addr_spec(mailbox, host, utf8=True)
    return f"utf-8; {address if utf8 else _xtext(address)}"


def _typed_orcpt(orcpt: OriginalRecipient, *, utf8: bool) -> str:
    addr_type = orcpt.addr_type if _ADDR_TYPE.fullmatch(orcpt.addr_type) else "unknown"
    address = orcpt.address
    if not address.isascii():
        addr_type = "utf-8" if addr_type.lower() == "rfc822" else addr_type
        address = address if utf8 else _xtext(address)
    return f"{addr_type}; {address}"


def _xtext(address: str) -> str:
    """utf-8-addr-xtext of RFC 6533 3."""
    return _NOT_QCHAR.sub(lambda found: f"\\x{{{ord(found[0]):X}}}", address)


# -- the part in plain words ----------------------------------------------------------------------------------------

_OPENING: Final = {
    DsnKind.FAILED: "Your message could not be delivered to {who}. It is not tried again.",
    DsnKind.DELAYED: "Your message is not yet delivered to {who}. It is still being tried: you need not send it again.",
    DsnKind.DELIVERED: "Your message has been delivered to {who}.",
    DsnKind.RELAYED: "Your message has been handed on for {who}, to a server that does not confirm deliveries. "
    "Expect no further report, unless the delivery fails.",
    DsnKind.EXPANDED: "Your message to {who} has been sent on to all members. Expect no report of each of them.",
}

_ADVICE: Final = {
    (1, 0): "Check the address.",
    (1, 1): "There is no such mailbox: check the address for typing mistakes.",
    (1, 2): "There is no such mail domain: check what stands behind the @ for typing mistakes.",
    (1, 3): "The address is not well formed: check it for typing mistakes.",
    (1, 6): "The mailbox has moved and left no address behind: ask its owner for the new one.",
    (1, 10): "This domain takes no mail at all (null MX): use another address.",
    (2, 1): "The mailbox is closed at the moment: reach its owner in another way.",
    (2, 2): "The mailbox is full: tell its owner in another way, and send the message again later.",
    (2, 3): "The message is too large for this mailbox: send a smaller one.",
    (3, 4): "The message is too large for the receiving system: send a smaller one.",
    (4, 4): "No mail server was found for this domain: check what stands behind the @.",
    (4, 6): "The message goes round in circles: the postmaster of the recipient's domain has to mend the forwarding.",
    (4, 7): "Delivery was not possible in the time allowed: send the message again later, or reach the recipient in "
    "another way.",
    (6, 3): "The receiving system cannot take 8-bit content, and this message may not be converted: send it in 7 bits.",
    (6, 7): "The receiving system cannot take addresses that are not ASCII: use another address.",
    (7, 1): "The receiving system does not let you send to this address: ask its postmaster.",
}

_ADVICE_BY_SUBJECT: Final = {
    1: "Check the address.",
    2: "Something is wrong with the mailbox: reach its owner in another way.",
    5: "The two mail systems do not understand each other: show this report to your postmaster.",
    6: "The receiving system does not like the form of the message: change it, or show this report to your postmaster.",
    7: "The receiving system refuses the message by its rules: ask its postmaster, and show this report.",
}


def _words(kind: DsnKind, reports: Sequence[Report], arrived: datetime, host: str, queue_id: str, full: bool) -> str:
    who = "the recipient below" if len(reports) == 1 else f"the {len(reports)} recipients below"
    lines = [f"This is the mail server at {host}.", "", *_wrap(_OPENING[kind].format(who=who))]
    for report in reports:
        lines += ["", *_words_about(kind, report, host)]
    known = f" Its id in the log of this server is {_clean(queue_id)}." if queue_id else ""
    follows = "the message" if full else "the header of the message"
    lines += ["", *_wrap(f"The message arrived here on {format_datetime(arrived)}.{known}")]
    lines += ["", *_wrap(f"Below are a report for machines and {follows}."), ""]
    return "\n".join(lines)


def _words_about(kind: DsnKind, report: Report, host: str) -> list[str]:
    outcome = report.outcome
    recipient = outcome.recipient
    address = _addr_spec(recipient.address, host, utf8=True)
    origin = ""
    if recipient.original != recipient.address:
        origin = f", which <{_addr_spec(recipient.original, host, utf8=True)}> stands for"
    lines = _wrap(_escape(f"<{address}>{origin}"))
    if outcome.diagnostic:
        source = f"{outcome.host or 'The server'} said" if _is_reply(outcome) else "What happened"
        lines += _wrap(_clean(f"{source}: {outcome.diagnostic}"), indent="    ")
    if kind is DsnKind.FAILED:
        status = _status(kind, outcome)
        advice = _ADVICE.get((status.subject, status.detail)) or _ADVICE_BY_SUBJECT.get(
            status.subject, "Show this report to the postmaster of the recipient's domain."
        )
        lines += _wrap(f"What to do: {advice}", indent="    ")
    elif kind is DsnKind.DELAYED and report.retry_until is not None:
        until = format_datetime(report.retry_until)
        lines += _wrap(f"It is tried until {until}; you are told if it fails.", indent="    ")
    return lines


def _wrap(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        " ".join(_breakable(text)),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


# -- the returned part (RFC 3461 6.2, RFC 6522 3) -------------------------------------------------------------------


def _returned_type(header: bytes, *, full: bool, utf8: bool) -> str:
    if utf8 and not header.isascii() and _is_utf8(header):
        return "message/global" if full else "message/global-headers"
    return "message/rfc822" if full else "text/rfc822-headers"


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_text(content: bytes) -> bool:
    """Whether it can be part of a text message as it is (RFC 2045 2.8)."""
    return (
        b"\0" not in content and b"\r" not in content and all(len(line) <= _MAX_LINE for line in content.split(b"\n"))
    )


def _header_of(message: bytes, *, whole: bool) -> bytes:
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
        while len(clean) > _MAX_LINE:
            cut = _MAX_LINE - 1
            while cut > _MAX_LINE - 5 and clean[cut] & 0xC0 == 0x80:  # not within a character
                cut -= 1
            lines.append(clean[:cut])
            clean = b" " + clean[cut:]
        lines.append(clean)
    return b"".join(line + b"\n" for line in lines)


# -- text from the network ------------------------------------------------------------------------------------------


def _clean(text: str) -> str:
    """Free text as one line: white space becomes single spaces, then as `_escape`."""
    return _escape(" ".join(text[: _MAX_TEXT + 1].split()))


def _escape(text: str) -> str:
    """One line of printable characters, not over _MAX_TEXT of the input; what is not printable (controls, direction
    marks, lone surrogates) is escaped.
    """
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + " ..."
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text


def _breakable(text: str) -> list[str]:
    """The words between single spaces, none over _MAX_WORD octets."""
    words: list[str] = []
    for word in text.split(" "):
        if len(word.encode()) <= _MAX_WORD:
            words.append(word)
        else:
            step = _MAX_WORD if word.isascii() else _MAX_WORD // 4
            words += [word[start : start + step] for start in range(0, len(word), step)]
    return words


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _field(name: str, value: str) -> str:
    """A field of clean text, without its last line end; folded at spaces (RFC 5322 2.2.3), but not behind a type as in
    `rfc822; address`.
    """
    line, lines = f"{name}:", []
    for index, word in enumerate(_breakable(value)):
        may_fold = index > 1 or (index == 1 and len(line) > _WIDTH // 2)
        if may_fold and word and line.strip() and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = ""
        line += f" {word}"
    return "\n".join([*lines, line])
