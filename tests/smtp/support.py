"""A session that takes whatever the receiving core reports, and what clients say to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimta.mail.reply import Reply
from trimta.smtp.commands import (
    Auth,
    Data,
    Ehlo,
    Helo,
    Help,
    Quit,
    StartTls,
)
from trimta.smtp.extensions import MailProtocol
from trimta.smtp.reply_reader import ReplyReader
from trimta.smtp.server import ServerConnection
from trimta.smtp.server_events import CLOSED, NEED_DATA, AuthResponse, BadInput, ContentEnd, ContentPiece, SmtpEvent
from trimta.smtp.server_settings import ServerSettings
from trimta.smtp.state import SessionState

if TYPE_CHECKING:
    from collections.abc import Callable

OK = Reply.of(250, "2.0.0", "ok")
GREETING = Reply.of(220, "", "mx.dev.test ESMTP")


class Peer:
    """A session that says yes to everything, and remembers."""

    def __init__(
        self,
        policy: Callable[[SmtpEvent], Reply | None] | None = None,
        *,
        tls: bool = False,
        handshake: bool = True,
        **kw: Any,
    ) -> None:
        """`policy`: replies other than yes.  `handshake`: TLS is done as soon as STARTTLS is answered."""
        self.connection = ServerConnection(ServerSettings(hostname="mx.dev.test", **kw), tls=tls)
        self.policy = policy
        self.handshake = handshake
        self.events: list[SmtpEvent] = []
        self.messages: list[bytes] = []
        self.ends: list[ContentEnd] = []
        self.closed = False
        self.body = b""
        self.reader = ReplyReader()
        self.connection.reply(GREETING)
        self.replies()

    def replies(self) -> list[str]:
        self.reader.feed(self.connection.data_to_send())
        out = []
        while (reply := self.reader.next()) is not None:
            out.append(f"{reply.code} {reply.status}" if reply.status else str(reply.code))
        return out

    def say(self, octets: bytes | str, pieces: int = 0) -> list[str]:
        """What is answered to some octets: "250 2.0.0", ..."""
        if isinstance(octets, str):
            octets = octets.encode()
        for start in range(0, len(octets), pieces or len(octets)):
            self.connection.receive_data(octets[start : start + (pieces or len(octets))])
            self.run()
        return self.replies()

    def run(self) -> None:
        while self.connection.state is not SessionState.TLS:
            event = self.connection.next_event()
            if event is CLOSED:
                self.closed = True
            if event in (CLOSED, NEED_DATA):
                return
            self.answer(event)

    def answer(self, event: SmtpEvent) -> None:  # noqa: C901 - a script: one case for each event
        connection = self.connection
        if not isinstance(event, ContentPiece):
            self.events.append(event)
        reply = self.policy(event) if self.policy else None
        match event:
            case ContentPiece(data):
                self.body += data
            case _ if reply is not None:
                connection.reply(reply)
            case ContentEnd():
                self.ends.append(event)
                if event.last and event.fault is None:
                    self.messages.append(self.body)
                if event.last or event.fault:
                    self.body = b""
                connection.reply(event.fault or Reply.of(250, "2.6.0", "queued"))
            case BadInput(bad):
                connection.reply(bad)
            case Ehlo():
                connection.reply(connection.ehlo_reply())
            case Helo():
                connection.reply(connection.helo_reply())
            case Data():
                connection.reply(Reply.of(354, "", "go on"))
            case Auth(_, None):
                connection.challenge(b"Username:")
            case Auth() | AuthResponse():
                connection.authenticated("alice")
                connection.reply(Reply.of(235, "2.7.0", "welcome"))
            case StartTls():
                connection.reply(Reply.of(220, "2.0.0", "go on"))
                if self.handshake:
                    connection.start_tls_done()
            case Quit():
                connection.reply(Reply.of(221, "2.0.0", "bye"))
            case Help():
                connection.reply(Reply.of(214, "2.0.0", "help"))
            case _:
                connection.reply(OK)


MAIL = "MAIL FROM:<a@dev.test>\r\n"
RCPT = "RCPT TO:<b@dev.test>\r\n"
DONE = "250 2.0.0"
QUEUED = "250 2.6.0"
BAD_ORDER = "503 5.5.1"


def started(greeting: str = "EHLO c\r\n", **kw: Any) -> Peer:
    peer = Peer(**kw)
    assert peer.say(greeting) == ["250"]
    return peer


def in_transaction(parameters: str = "", **kw: Any) -> Peer:
    lmtp = kw.get("protocol") is MailProtocol.LMTP
    peer = started("LHLO c\r\n" if lmtp else "EHLO c\r\n", **kw)
    assert peer.say(f"MAIL FROM:<a@dev.test>{parameters}\r\n{RCPT}") == [DONE, DONE]
    return peer
