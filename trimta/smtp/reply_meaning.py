"""The outcome that a server's reply means for a recipient, with its enhanced status."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from trimta.mail.outcome import Deferred, Failed, cause_of
from trimta.mail.status import (
    BAD_CREDENTIALS,
    BAD_RECIPIENT_SYNTAX,
    BAD_SENDER_SYNTAX,
    ENCRYPTION_NEEDED,
    INVALID_ARGUMENTS,
    INVALID_COMMAND,
    MAILBOX_FULL,
    MAILBOX_MOVED,
    MAILBOX_TROUBLE,
    MESSAGE_TOO_BIG,
    NOT_ACCEPTING_MAIL,
    NULL_MX,
    POLICY_TROUBLE,
    PROTOCOL_TROUBLE,
    SYNTAX_ERROR,
    SYSTEM_FULL,
    SYSTEM_TROUBLE,
    TOO_BIG_FOR_MAILBOX,
    TOO_MANY_RECIPIENTS,
    UNDEFINED,
    WEAK_MECHANISM,
    EnhancedStatus,
    Subject,
)

if TYPE_CHECKING:
    from trimta.mail.envelope import Recipient
    from trimta.mail.reply import Reply


class ReplyStage(enum.StrEnum):
    """The command that a reply answers, or the greeting, or the end of the message."""

    GREETING = "greeting"
    HELO = "helo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CHUNK = "chunk"
    """A BDAT that is not the last."""
    BODY = "body"
    """The end of the data, or the last BDAT: the reply that decides."""
    RSET = "rset"


# Conditions for a server that sends no enhanced status, by the meaning that RFC 5321 4.2.3 gives a code.
# Other codes mean X.0.0: a 550 may be an unknown user or the server's policy, and a guess would mislead whoever handles
# bounces.
_BY_CODE: Final = {
    421: NOT_ACCEPTING_MAIL,
    450: MAILBOX_TROUBLE,
    451: SYSTEM_TROUBLE,
    452: SYSTEM_FULL,
    454: POLICY_TROUBLE,
    455: INVALID_ARGUMENTS,
    500: SYNTAX_ERROR,
    501: INVALID_ARGUMENTS,
    502: INVALID_COMMAND,
    503: INVALID_COMMAND,
    504: INVALID_ARGUMENTS,
    521: NOT_ACCEPTING_MAIL,
    530: POLICY_TROUBLE,
    534: WEAK_MECHANISM,
    535: BAD_CREDENTIALS,
    538: ENCRYPTION_NEEDED,
    551: MAILBOX_MOVED,
    552: MESSAGE_TOO_BIG,
    555: INVALID_ARGUMENTS,
    556: NULL_MX,
}

_BY_STAGE: Final = {
    (ReplyStage.GREETING, 554): NOT_ACCEPTING_MAIL,
    (ReplyStage.MAIL, 501): BAD_SENDER_SYNTAX,
    (ReplyStage.MAIL, 553): BAD_SENDER_SYNTAX,
    (ReplyStage.RCPT, 452): TOO_MANY_RECIPIENTS,
    (ReplyStage.RCPT, 501): BAD_RECIPIENT_SYNTAX,
    (ReplyStage.RCPT, 552): MAILBOX_FULL,
    (ReplyStage.RCPT, 553): BAD_RECIPIENT_SYNTAX,
}


def status_of(reply: Reply, stage: ReplyStage, *, klass: int | None = None) -> EnhancedStatus:
    """The enhanced status that a reply means: its own, unless its class disagrees with the code (RFC 2034 4), else that
    of the code at this stage.

    `klass` puts the status into another class: a 5yz about our credentials is no reason to fail the message.
    """
    if klass is None:
        klass = reply.klass
    if reply.status is not None and reply.status.klass == reply.klass:
        condition = reply.status.condition
    else:
        condition = _BY_STAGE.get((stage, reply.code)) or _BY_CODE.get(reply.code, UNDEFINED)
    return condition.in_class(klass)


def refusal(reply: Reply, stage: ReplyStage, recipient: Recipient, *, host: str) -> Deferred | Failed:
    """The outcome of a reply that does not take the recipient or the message (ValueError for 2yz).

    A reply that is neither 4yz nor 5yz is trouble of an unknown kind.  `host`: the name of the server.
    """
    cause = cause_of(reply, host)
    match reply.klass:
        case 2:
            raise ValueError(f"{reply.code} refuses nothing")
        case 4:
            return Deferred(recipient=recipient, status=status_of(reply, stage), cause=cause)
        case 5:
            status = status_of(reply, stage)
            of_content = _is_of_content(reply, stage, status)
            return Failed(recipient=recipient, status=status, cause=cause, of_content=of_content)
        case _:
            return Deferred(
                recipient=recipient,
                status=PROTOCOL_TROUBLE.transient,
                cause=cause,
                possibly_taken=stage is ReplyStage.BODY,
            )


def _is_of_content(reply: Reply, stage: ReplyStage, status: EnhancedStatus) -> bool:
    """Whether another content might have been taken: the server has seen this one, or refuses its size, its form (552:
    RFC 1870 6.1; X.2.3, X.3.4, X.6.Z: RFC 3463) or a parameter that MAIL has for it.
    """
    if stage in (ReplyStage.DATA, ReplyStage.CHUNK, ReplyStage.BODY) or reply.code == 552:
        return True
    if stage is ReplyStage.MAIL and reply.code in (501, 504, 555):
        return True
    return status.condition in (TOO_BIG_FOR_MAILBOX, MESSAGE_TOO_BIG) or status.subject == Subject.CONTENT


def says_too_many_recipients(reply: Reply) -> bool:
    """Whether a refused RCPT means no more than that this transaction is full (RFC 5321 4.5.3.1.10).

    RFC 821 had 552 for it, which is also the code of a full mailbox: an enhanced status tells them apart.
    """
    if reply.code not in (452, 552):
        return False
    return reply.status is None or reply.status.condition == TOO_MANY_RECIPIENTS
