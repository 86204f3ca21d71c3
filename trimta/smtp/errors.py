"""What goes wrong in an SMTP conversation, by whose fault it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimta.mail.reply import Reply


class SmtpError(Exception):
    """Any of these."""


class CommandError(SmtpError):
    """The client's command can't be taken; `reply` is the answer to it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.code} {reply.text}")
        self.reply = reply


class ProtocolError(SmtpError):
    """The peer does not speak SMTP, or broke it off: the conversation can't go on."""


class ReplyError(ProtocolError):
    """What the server said is no reply (RFC 5321 4.2), or has no end."""


class LocalProtocolError(SmtpError):
    """Our own code used a connection out of order: a bug, never the peer's doing."""
