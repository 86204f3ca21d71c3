"""Outcomes and DSNs for tests, and the parts of a DSN as a program for reading mail sees them."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, Final

from trimta.content.dsn.compose import ComposedDsn, compose
from trimta.content.dsn.values import DsnKind, OriginalMessage, RecipientReport
from trimta.mail.address import Mailbox, parse_mailbox
from trimta.mail.envelope import ByMode, DeliverBy, Notify, Recipient, Ret, Terms
from trimta.mail.outcome import Cause, Deferred, Delivered, Failed, Handover, LocalCause, Outcome, PeerReply
from trimta.mail.reply import Reply
from trimta.mail.status import NO_ANSWER, NO_SUCH_MAILBOX, EnhancedStatus

ARRIVED: Final = datetime(2024, 2, 29, 12, 0, 0, tzinfo=UTC)
NOW: Final = ARRIVED + timedelta(hours=4)
UNTIL: Final = ARRIVED + timedelta(days=5)
SENDER: Final = parse_mailbox("alice@dev.test")
HEADER: Final = (
    b"Received: from app by localhost;\n Thu, 29 Feb 2024 12:00:00 +0000\nFrom: alice@dev.test\n"
    b"Message-ID: <one@dev.test>\nSubject: hi\n"
)
MESSAGE: Final = HEADER + b"\nHello Bob\n--\nsecret body\n"
UTF8_MESSAGE: Final = HEADER.replace(b"hi", "Grüße".encode()) + "\nHallo Jörg\n".encode()
ASKED: Final = DeliverBy((ARRIVED + timedelta(hours=1)).timestamp(), ByMode.NOTIFY)


def recipient(address: str = "bob@x.test", **rest: Any) -> Recipient:
    mailbox = parse_mailbox(address)
    return Recipient(**{"address": mailbox, "original": mailbox, **rest})


def replied(line: str = "550 5.1.1 no such user", host: str = "mx.x.test") -> PeerReply:
    return PeerReply(Reply.read([line]), host)


def failed(
    to: Recipient | None = None, cause: Cause | None = None, status: EnhancedStatus = NO_SUCH_MAILBOX.permanent
) -> Failed:
    return Failed(recipient=to or recipient(), status=status, cause=cause or replied())


def deferred(to: Recipient | None = None, cause: Cause | None = None) -> Deferred:
    cause = cause or LocalCause("connection refused", "mx.x.test")
    return Deferred(recipient=to or recipient(), status=NO_ANSWER.transient, cause=cause)


LOCALLY: Final = LocalCause("delivered to the mailbox")


def delivered(
    to: Recipient | None = None,
    handover: Handover = Handover.FINAL,
    *,
    cause: Cause = LOCALLY,
    deadline_dropped: bool = False,
) -> Delivered:
    return Delivered(
        recipient=to or recipient(),
        status=EnhancedStatus(2, 1, 5),
        cause=cause,
        handover=handover,
        deadline_dropped=deadline_dropped,
    )


OUTCOMES: Final[dict[DsnKind, Outcome]] = {
    DsnKind.FAILED: failed(),
    DsnKind.DELAYED: deferred(),
    DsnKind.DELIVERED: delivered(),
    DsnKind.RELAYED: delivered(handover=Handover.RELAYED, cause=replied("250 2.0.0 ok")),
    DsnKind.EXPANDED: delivered(recipient("team@dev.test"), cause=LocalCause("sent on to 3 members")),
}


def make(
    *outcomes: Outcome,
    kind: DsnKind = DsnKind.FAILED,
    content: bytes = MESSAGE,
    whole: bool = True,
    addressee: Mailbox = SENDER,
    ret: Ret | None = None,
    smtputf8: bool = False,
    envid: str | None = None,
    deliver_by: DeliverBy | None = None,
    hold_request: str = "",
    queue_id: str = "Q1",
    received_from: str = "",
    **rest: Any,
) -> ComposedDsn:
    outcomes = outcomes or (OUTCOMES[kind],)
    return compose(
        **{
            "kind": kind,
            "reports": [RecipientReport(outcome=outcome, last_attempt=NOW, retry_until=UNTIL) for outcome in outcomes],
            "addressee": addressee,
            "original": OriginalMessage(
                head=content,
                whole=whole,
                terms=Terms(
                    reverse_path=SENDER,
                    ret=ret,
                    smtputf8=smtputf8,
                    envid=envid,
                    deliver_by=deliver_by,
                    hold_request=hold_request,
                ),
                arrived=ARRIVED,
                queue_id=queue_id,
                received_from=received_from,
            ),
            "now": NOW,
            "hostname": "mail.dev.test",
            "message_id": "dsn-1@mail.dev.test",
            **rest,
        }
    )


def parse(dsn: ComposedDsn) -> tuple[EmailMessage, EmailMessage, EmailMessage, EmailMessage]:
    """The DSN and its three parts, without any defect, in the limits of RFC 5322."""
    assert b"\r" not in dsn.content
    assert b"\0" not in dsn.content
    assert max(map(len, dsn.content.split(b"\n"))) <= 998
    assert dsn.eight_bit is not dsn.content.isascii()
    whole = email.message_from_bytes(dsn.content.replace(b"\n", b"\r\n"), policy=email.policy.default)
    assert isinstance(whole, EmailMessage)
    for part in whole.walk():
        assert part.defects == []
    for name, value in whole.items():
        if dsn.smtputf8 is False:
            assert value.defects == (), name
    parts = whole.get_payload()
    assert isinstance(parts, list)
    first, second, third = (part for part in parts if isinstance(part, EmailMessage))
    return whole, first, second, third


def groups(dsn: ComposedDsn) -> list[dict[str, str]]:
    """The fields of the machine's part: of the message, then of each recipient."""
    body = dsn.content.split(b"Content-Description: Delivery report\n")[1].split(b"\n\n", 1)[1].split(b"\n\n--=_")[0]
    result = []
    for group in body.decode().split("\n\n"):
        unfolded = group.strip("\n").replace("\n ", " ").split("\n")
        fields = dict(line.split(": ", 1) for line in unfolded)
        assert len(fields) == len(unfolded)
        result.append(fields)
    return result


def returned(dsn: ComposedDsn) -> bytes:
    """The octets of the third part."""
    boundary = dsn.content.split(b'boundary="')[1].split(b'"')[0]
    part = dsn.content.split(b"\n--" + boundary)[3]
    return part.split(b"\n\n", 1)[1]


def asks(*notify: Notify) -> Recipient:
    return recipient(notify=frozenset(notify))
