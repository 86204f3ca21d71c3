"""The first part of a DSN: what happened, and what the sender can do, in plain words (RFC 6522 3)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from trimta.content.date_time import date_time
from trimta.content.dsn.escaping import clean, escape, wrap
from trimta.content.dsn.typed_names import addr_spec
from trimta.content.dsn.values import DsnKind, status_of
from trimta.mail.outcome import Delivered, Handover, PeerReply
from trimta.mail.status import (
    ADDRESS_TROUBLE,
    BAD_RECIPIENT_SYNTAX,
    CANNOT_CONVERT,
    MAILBOX_DISABLED,
    MAILBOX_FULL,
    MAILBOX_MOVED,
    MESSAGE_TOO_BIG,
    NO_SUCH_DOMAIN,
    NO_SUCH_MAILBOX,
    NON_ASCII_ADDRESS,
    NOT_AUTHORIZED,
    NULL_MX,
    ROUTING_LOOP,
    TIME_EXPIRED,
    TOO_BIG_FOR_MAILBOX,
    UNROUTABLE,
    Condition,
    EnhancedStatus,
    Subject,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trimta.content.dsn.values import OriginalMessage, RecipientReport

_OPENING: Final = {
    DsnKind.FAILED: "Your message could not be delivered to {recipients}. It is not tried again.",
    DsnKind.DELAYED: "Your message is not yet delivered to {recipients}. {state}: you need not send it again.",
    DsnKind.DELIVERED: "Your message has been delivered to {recipients}.",
    DsnKind.RELAYED: "Your message has been handed on for {recipients}, which is not yet its delivery.",
    DsnKind.EXPANDED: "Your message to {recipients} has been sent on to all members. Expect no report of each of them.",
}

_ADVICE: Final[Mapping[Condition, str]] = {
    ADDRESS_TROUBLE: "Check the address.",
    NO_SUCH_MAILBOX: "There is no such mailbox: check the address for typing mistakes.",
    NO_SUCH_DOMAIN: "There is no such mail domain: check what stands behind the @ for typing mistakes.",
    BAD_RECIPIENT_SYNTAX: "The address is not well formed: check it for typing mistakes.",
    MAILBOX_MOVED: "The mailbox has moved and left no address behind: ask its owner for the new one.",
    NULL_MX: "This domain takes no mail at all (null MX): use another address.",
    MAILBOX_DISABLED: "The mailbox is closed at the moment: reach its owner in another way.",
    MAILBOX_FULL: "The mailbox is full: tell its owner in another way, and send the message again later.",
    TOO_BIG_FOR_MAILBOX: "The message is too large for this mailbox: send a smaller one.",
    MESSAGE_TOO_BIG: "The message is too large for the receiving system: send a smaller one.",
    UNROUTABLE: "No mail server was found for this domain: check what stands behind the @.",
    ROUTING_LOOP: "The message goes round in circles: the postmaster of the recipient's domain has to mend the "
    "forwarding.",
    TIME_EXPIRED: "Delivery was not possible in the time allowed: send the message again later, or reach the "
    "recipient in another way.",
    CANNOT_CONVERT: "The receiving system cannot take 8-bit content, and this message may not be converted: send it "
    "in 7 bits.",
    NON_ASCII_ADDRESS: "The receiving system cannot take addresses that are not ASCII: use another address.",
    NOT_AUTHORIZED: "The receiving system does not let you send to this address: ask its postmaster.",
}

_ADVICE_BY_SUBJECT: Final[Mapping[int, str]] = {
    Subject.ADDRESS: "Check the address.",
    Subject.MAILBOX: "Something is wrong with the mailbox: reach its owner in another way.",
    Subject.PROTOCOL: "The two mail systems do not understand each other: show this report to your postmaster.",
    Subject.CONTENT: "The receiving system does not like the form of the message: change it, or show this report to "
    "your postmaster.",
    Subject.POLICY: "The receiving system refuses the message by its rules: ask its postmaster, and show this report.",
}


_HELD: Final = "It is held at this server, and not given up"
_TRIED: Final = "It is still being tried"


def explanation(
    kind: DsnKind,
    reports: Sequence[RecipientReport],
    original: OriginalMessage,
    *,
    host: str,
    returns_message: bool,
) -> str:
    """The text of the part.  `host` is the name of this server; `returns_message`: the whole message is returned, not
    only its header.
    """
    held = any(report.retry_until is None for report in reports)
    lines = _opening(kind, len(reports), host=host, held=held)
    for report in reports:
        lines += ["", *_about_recipient(kind, report, host, traced=original.is_traced)]
    known = f" Its id in the log of this server is {clean(original.queue_id)}." if original.queue_id else ""
    lines += ["", *wrap(f"The message arrived here on {date_time(original.arrived)}.{known}")]
    follows = "the message" if returns_message else "the header of the message"
    lines += ["", *wrap(f"Below are a report for machines and {follows}."), ""]
    return "\n".join(lines)


def _opening(kind: DsnKind, recipients: int, *, host: str, held: bool) -> list[str]:
    """The first lines: what happened to how many recipients.  `held`: nothing is tried at present."""
    recipients_below = "the recipient below" if recipients == 1 else f"the {recipients} recipients below"
    opening = _OPENING[kind].format(recipients=recipients_below, state=_HELD if held else _TRIED)
    return [f"This is the mail server at {host}.", "", *wrap(opening)]


def _about_recipient(kind: DsnKind, report: RecipientReport, host: str, *, traced: bool) -> list[str]:
    outcome = report.outcome
    recipient = outcome.recipient
    address = addr_spec(recipient.original, host, utf8=True)
    meaning = ""
    if recipient.original != recipient.address:
        meaning = f", which stands for <{addr_spec(recipient.address, host, utf8=True)}>"
    lines = wrap(escape(f"<{address}>{meaning}"))
    cause = outcome.cause
    if cause.diagnostic:
        source = f"{cause.host or 'The server'} said" if isinstance(cause, PeerReply) else "What happened"
        lines += wrap(clean(f"{source}: {cause.diagnostic}"), indent="    ")
    if kind is DsnKind.FAILED:
        lines += wrap(f"What to do: {advice(status_of(kind, outcome))}", indent="    ")
    elif kind is DsnKind.DELAYED and report.retry_until is not None:
        until = date_time(report.retry_until)
        lines += wrap(f"It is tried until {until}; you are told if it fails.", indent="    ")
    elif kind is DsnKind.RELAYED and isinstance(outcome, Delivered):
        lines += wrap(_prospect(outcome, traced=traced), indent="    ")
    return lines


def _prospect(outcome: Delivered, *, traced: bool) -> str:
    """The reports that the sender may still expect about a message that another server has taken."""
    late = "It does not know the time that you set for the delivery, which may come later. "
    if outcome.handover is Handover.PASSED_ON or traced:
        further = "It was told which reports you want, and sends them."
    else:
        further = "It does not confirm deliveries: expect no further report, unless the delivery fails."
    return f"{late if outcome.deadline_dropped else ''}{further}"


def advice(status: EnhancedStatus) -> str:
    """What the sender can do about a recipient that failed with this status, in one sentence or two."""
    return _ADVICE.get(status.condition) or _ADVICE_BY_SUBJECT.get(
        status.subject, "Show this report to the postmaster of the recipient's domain."
    )


def short_explanation(
    kind: DsnKind, message: Mapping[str, str], recipients: Sequence[Mapping[str, str]], *, returns_header: bool
) -> str:
    """The text of a shorter DSN, made from the fields of its second part, `message` and those of each recipient.

    `returns_header`: the header of the message is returned, too.
    """
    host = message.get("Reporting-MTA", "").partition("; ")[2]
    lines = _opening(kind, len(recipients), host=host, held="Will-Retry-Until" not in recipients[0])
    for group in recipients:
        lines += ["", *wrap(f"<{group.get('Final-Recipient', '').partition('; ')[2]}>")]
        diagnostic = group.get("Diagnostic-Code", "").partition("; ")[2]
        if diagnostic:
            host = group.get("Remote-MTA", "").partition("; ")[2]
            source = f"{host} said" if host and group["Diagnostic-Code"].startswith("smtp;") else "What happened"
            lines += wrap(f"{source}: {diagnostic}", indent="    ")
        if kind is DsnKind.FAILED:
            with contextlib.suppress(ValueError):
                lines += wrap(f"What to do: {advice(EnhancedStatus.parse(group.get('Status', '')))}", indent="    ")
    if "X-Trimta-Id" in message:
        lines += ["", *wrap(f"Your message has the id {message['X-Trimta-Id']} in the log of this server.")]
    follows = "a report for machines and the header of the message" if returns_header else "a report for machines"
    lines += ["", *wrap(f"Below is {follows}; a longer report of this server was refused by yours."), ""]
    return "\n".join(lines)
