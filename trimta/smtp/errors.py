"""The exceptions of an SMTP session: mistakes of the client, of the server, and of our own code."""

from __future__ import annotations

from typing import Self

from trimta.mail.reply import Reply


class SmtpError(Exception):
    """The base class of the exceptions of an SMTP session."""


class CommandRefusedError(SmtpError):
    """A client's command, or its response in AUTH, must be refused for its form; `reply` is the refusal."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.code} {reply.text}")
        self.reply = reply

    @classmethod
    def of(cls, code: int, status: str, *lines: str) -> Self:
        """The exception with the reply `Reply.of(code, status, *lines)`."""
        return cls(Reply.of(code, status, *lines))


class ProtocolError(SmtpError):
    """The peer has broken the protocol, or has closed the connection; the session can't go on."""


class ReplyError(ProtocolError):
    """A server has sent octets that are no reply (RFC 5321 4.2), or a reply that is too long."""


class LocalProtocolError(SmtpError):
    """A call of our own code was out of order: a bug, whatever the peer does."""
