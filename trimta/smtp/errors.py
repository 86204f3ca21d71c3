"""The exceptions of an SMTP conversation: the client's mistake, the server's, or our own."""

from __future__ import annotations

from typing import Self

from trimta.mail.reply import Reply


class SmtpError(Exception):
    """The base of the exceptions below."""


class CommandRefusedError(SmtpError):
    """A client's command, or its response in an AUTH exchange, that is refused for its form; `reply` answers it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.code} {reply.text}")
        self.reply = reply

    @classmethod
    def of(cls, code: int, status: str, *lines: str) -> Self:
        """The error with the reply `Reply.of(code, status, *lines)`."""
        return cls(Reply.of(code, status, *lines))


class ProtocolError(SmtpError):
    """A peer that does not speak SMTP, or breaks the conversation off: it can't go on."""


class ReplyError(ProtocolError):
    """A server's octets that are no reply (RFC 5321 4.2), or a reply without end."""


class LocalProtocolError(SmtpError):
    """A call of our own code that is out of order: a bug, never the peer's doing."""
