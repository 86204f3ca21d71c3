"""The client's side of a session, without I/O: from commands to octets, from octets to replies, each with its command.

The core knows the peer's extensions, and when the session can't go on.  The order of commands is the matter of
`outbound` and of the caller; so are time and I/O.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from trimta.smtp.commands import Command, Ehlo, Helo, StartTls
from trimta.smtp.errors import LocalProtocolError, ProtocolError
from trimta.smtp.extensions import Offered
from trimta.smtp.rendering import render_command
from trimta.smtp.reply_reader import ReplyReader

if TYPE_CHECKING:
    from trimta.mail.reply import Reply

CLOSING: Final = 421
"""The code of a reply that may take the place of any other, and ends the session (RFC 5321 3.8)."""


class PeerClosedError(ProtocolError):
    """The peer has closed the connection while a reply was due."""


class UnaskedError(ProtocolError):
    """The peer has sent octets that answer no command."""


class ClientConnection:
    """The session with one server: `send` renders a command, `receive_data` takes octets, `next_reply` gives a reply.

    Replies come in the order of the commands; the first is the greeting.  A reply that no command has asked for raises
    ProtocolError at the next `send`, since the replies before it may have been matched with wrong commands.
    """

    def __init__(self) -> None:
        self._reader = ReplyReader()
        self._eof = False
        self._unanswered: deque[Command | None] = deque([None])
        """The commands without a reply, oldest first; None stands for the greeting, content, or an AUTH response."""
        self.offered = Offered()
        """The extensions in the reply to the last EHLO or LHLO; none before it, after HELO, and after STARTTLS."""
        self.closing = False
        """Whether no command will be answered any more: the peer has said 421, broken the protocol, or closed."""

    @property
    def unanswered(self) -> int:
        """The number of replies that are still to come."""
        return len(self._unanswered)

    def send(self, command: Command, *, smtputf8: bool = False) -> bytes:
        """The octets of a command, whose reply is due from now on; `smtputf8` as in `render_command`.

        Raises ProtocolError if the peer has sent a reply that was not due, or has closed; LocalProtocolError after 421.
        """
        if self.closing:
            if self._eof:
                raise PeerClosedError("the connection was closed")
            raise LocalProtocolError("the conversation is over")
        if not self._unanswered:
            self._refuse_surplus()
        if isinstance(command, Ehlo | Helo):
            self.offered = Offered()
        self._unanswered.append(command)
        return render_command(command, smtputf8=smtputf8)

    def expect(self, replies: int = 1) -> None:
        """Note that replies are due to octets that are no command.

        These are the end of the content (in LMTP one reply for each accepted recipient), and a response in AUTH.
        """
        if not self._unanswered:
            self._refuse_surplus()
        self._unanswered.extend([None] * replies)

    def receive_data(self, data: bytes) -> None:
        """Take octets from the wire; b"" once the peer has closed."""
        if data:
            self._reader.feed(data)
        else:
            self._eof = True

    def next_reply(self) -> Reply | None:
        """The reply to the oldest command without one; None if more octets are needed.

        Raises ReplyError for octets that are no reply, PeerClosedError if the peer has closed before the reply's end.
        """
        if not self._unanswered:
            raise LocalProtocolError("no reply is expected")
        try:
            reply = self._reader.next()
        except ProtocolError:
            self.closing = True
            raise
        if reply is None and self._eof:
            self.closing = True
            reply = self._reader.cut_off()
            if reply is None:
                raise PeerClosedError("the connection was closed")
        if reply is None:
            return None
        return self._answered(reply)

    def cut_off(self) -> Reply | None:
        """The reply under way, when the time for its rest is over; None if its code is not certain."""
        self.closing = self._eof = True
        reply = self._reader.cut_off()
        return None if reply is None else self._answered(reply)

    def _answered(self, reply: Reply) -> Reply:
        command = self._unanswered.popleft()
        if reply.code == CLOSING:
            self.closing = True
        elif isinstance(command, Ehlo) and reply.klass == 2:
            self.offered = Offered.parse(reply)
        elif isinstance(command, StartTls) and reply.klass == 2:
            self._refuse_octets()
        return reply

    def start_tls_done(self) -> None:
        """Forget the peer's extensions after the handshake (RFC 3207 4.2).

        Raises UnaskedError if octets followed the 220 in the clear, which would count as replies under TLS.
        """
        self._refuse_octets()
        self.offered = Offered()

    @property
    def ready(self) -> bool:
        """Whether commands may be sent: the session goes on, and the peer has sent no reply that was not due."""
        return not (self.closing or (not self._unanswered and self._reader.surplus()))

    def _refuse_octets(self) -> None:
        if self._reader.pending:
            self.closing = True
            raise UnaskedError("the server said something before the TLS handshake")

    def _refuse_surplus(self) -> None:
        if not self._reader.surplus():
            return
        self.closing = True
        try:
            reply = self._reader.next()
        except ProtocolError as error:
            raise UnaskedError(f"the server said something unasked: {error}") from error
        raise UnaskedError(f"the server said something unasked: {reply or 'part of a reply'}")
