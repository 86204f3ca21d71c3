"""The values that `transaction` makes of a client's message: content so far, envelope, message with trace fields."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING

from trimta.content.missing_fields import missing_fields
from trimta.content.trace import received_field, with_protocol
from trimta.mail.envelope import DeliverBy, Envelope, Recipient, Terms
from trimta.mail.reply import Reply
from trimta.smtp.extensions import MailProtocol, zoned_datetime
from trimta.store.queue.values import StoredMessage

if TYPE_CHECKING:
    from trimta.content.header_summary import HeaderSummary
    from trimta.inbound.client_address import ClientAddress
    from trimta.smtp.commands import MailParameters
    from trimta.smtp.mail_transaction import MailTransaction
    from trimta.smtp.server import ServerConnection
    from trimta.store.spool import Body, SpoolWriter


@dataclass(slots=True)
class Incoming:
    """Content while it comes in."""

    id: str
    spool: SpoolWriter
    trouble: Reply | None = None
    """Why it can't be kept; the rest of it is still read."""


def hold_refusal(parameters: MailParameters, *, begun: float) -> Reply | None:
    """Why MAIL, said at `begun`, is refused for its hold: the deadline of BY would pass meanwhile (RFC 4865 5.2.2)."""
    by = parameters.by
    hold = parameters.hold_for
    if hold is None and parameters.hold_until is not None:
        hold = math.ceil(parameters.hold_until.timestamp() - begun)
    if by is None or hold is None or hold <= 0 or hold <= by.seconds:
        return None
    return Reply.of(501, "5.5.4", "the message would be held beyond its BY")


def envelope_of(transaction: MailTransaction, *, begun: float, now: float) -> Envelope:
    """What a client agreed on, in seconds since the epoch.

    `begun`: the moment of MAIL, which BY counts from (RFC 2852 4).  So does HOLDFOR: RFC 4865 5.2.2 compares the two at
    MAIL, so that they have one beginning.  A hold that is over `now` is none.
    """
    mail = transaction.mail
    given = mail.parameters
    hold_until, hold_request = None, ""
    if given.hold_for is not None:
        hold_until, hold_request = begun + given.hold_for, f"for;{given.hold_for}"
    elif given.hold_until is not None:
        hold_until, hold_request = given.hold_until.timestamp(), f"until;{zoned_datetime(given.hold_until)}"
    by = given.by
    return Envelope(
        terms=Terms(
            reverse_path=mail.reverse_path,
            body=transaction.body,
            smtputf8=transaction.smtputf8,
            envid=given.envid,
            ret=given.ret,
            deliver_by=None if by is None else DeliverBy(begun + by.seconds, by.mode, by.trace),
            hold_until=hold_until if hold_until is not None and hold_until > now else None,
            hold_request=hold_request,
        ),
        recipients=tuple(
            Recipient(address=rcpt.forward_path, original=rcpt.forward_path, notify=rcpt.notify, orcpt=rcpt.orcpt)
            for rcpt in transaction.recipients
        ),
    )


def stored_message(
    message_id: str,
    envelope: Envelope,
    body: Body,
    header: HeaderSummary,
    *,
    connection: ServerConnection,
    client: ClientAddress,
    hostname: str,
    arrived: float,
    cipher_suite: str = "",
) -> StoredMessage:
    """The message with its trace: Received, and on a submission listener the fields that are missing in `header`, the
    content's.  `arrived` is on the queue's clock; the Received field shows the wall's.  `cipher_suite`: the TLS
    session's, by its registered name; empty without TLS.
    """
    protocol = connection.settings.protocol
    second = int(time.time())
    date = _local_date(second, time.localtime(second).tm_gmtoff)
    trace = received_field(
        helo=connection.helo,
        client=client.trace,
        by=hostname,
        protocol=with_protocol(
            esmtp=connection.esmtp,
            lmtp=protocol is MailProtocol.LMTP,
            tls=connection.tls,
            auth=connection.identity is not None,
            utf8=envelope.terms.smtputf8,
        ),
        id=message_id,
        for_=envelope.recipients[0].original if len(envelope.recipients) == 1 else None,
        date=date,
        cipher_suite=cipher_suite,
    )
    if protocol is MailProtocol.SUBMISSION:
        trace += missing_fields(
            header, author=envelope.terms.reverse_path, message_id=f"{message_id}@{hostname}", date=date
        )
    by = "" if connection.identity is None else f" as {connection.identity}"
    return StoredMessage(
        id=message_id,
        arrived=arrived,
        terms=envelope.terms,
        content=body,
        trace=trace,
        origin=f"{client}{by} ({connection.helo})",
        helo=connection.helo,
    )


@lru_cache(maxsize=4)  # a busy server has many messages in each second
def _local_date(second: int, offset: int) -> datetime:
    """A moment, in seconds since the epoch, as a date with the offset of the machine's zone, in seconds."""
    return datetime.fromtimestamp(second, timezone(timedelta(seconds=offset)))
