"""The sending side of one conversation: commands to octets, octets to replies, each reply matched with its command.

The core knows what the peer offers, and when the conversation can't go on.  Which command comes when is for `outbound`
and for the caller, as are time and I/O.
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
"""The reply that may stand in for any other, and ends the conversation (RFC 5321 3.8)."""


class PeerClosedError(ProtocolError):
    """The peer closed the connection while we had a right to a reply."""


class UnaskedError(ProtocolError):
    """The peer sent octets that answer no command of ours."""


class ClientConnection:
    """The conversation with one server: `send` gives the octets of a command, `receive_data` takes the server's octets,
    `next_reply` gives the answer to the oldest command without one.

    The greeting is expected from the start.  A reply that nothing asked for raises ProtocolError at the next `send`:
    whatever came before it may have been the answer to something else.
    """

    def __init__(self) -> None:
        self._reader = ReplyReader()
        self._eof = False
        self._unanswered: deque[Command | None] = deque([None])
        """Commands without an answer yet, oldest first; None is what is no command, the greeting to begin with."""
        self.offered = Offered()
        """The extensions in the reply to the last EHLO or LHLO; none before, after HELO, and after the start of TLS."""
        self.closing = False
        """The peer said 421, broke the protocol, or closed: no command will be answered any more."""

    @property
    def unanswered(self) -> int:
        """How many replies are still to come."""
        return len(self._unanswered)

    def send(self, command: Command, *, smtputf8: bool = False) -> bytes:
        """The octets of a command, one reply to which is expected from now on; `smtputf8` as in `render_command`.

        ProtocolError: the peer has already answered more than it was asked, or answers no more.
        """
        if self.closing:
            if self._eof:
                raise PeerClosedError("the connection was closed")
            raise LocalProtocolError("the conversation is over")
        if not self.unanswered:
            self._refuse_surplus()
        if isinstance(command, Ehlo | Helo):
            self.offered = Offered()
        self._unanswered.append(command)
        return render_command(command, smtputf8=smtputf8)

    def expect(self, replies: int = 1) -> None:
        """Replies are due to what is no command: the end of a body, in LMTP once for each accepted recipient; a
        response in the AUTH exchange.
        """
        if not self.unanswered:
            self._refuse_surplus()
        self._unanswered.extend([None] * replies)

    def receive_data(self, data: bytes) -> None:
        """Take octets from the wire; b"" is the end of them."""
        if data:
            self._reader.feed(data)
        else:
            self._eof = True

    def next_reply(self) -> Reply | None:
        """The answer to the oldest unanswered command; None: more octets are needed.

        Raises ProtocolError for what is no reply, PeerClosedError if the rest will not come.
        """
        if not self.unanswered:
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
        """The reply that has begun, when the time for the rest of it is over; None if nothing is certain."""
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
        """Begin anew under TLS: what was said before it does not count (RFC 3207 4.2).

        UnaskedError: octets followed the 220 in the clear, which would be taken for replies under TLS.
        """
        self._refuse_octets()
        self.offered = Offered()

    @property
    def ready(self) -> bool:
        """Commands may be sent: the conversation goes on, and the peer has said no more than it was asked."""
        return not (self.closing or (not self.unanswered and self._reader.surplus()))

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
