"""The core of a session's receiving side: octets in, SMTP events out; replies in, octets out (RFC 5321, 2033, 6409).

    connection = ServerConnection(settings)
    connection.reply(Reply.of(220, "", "mx.dev.test ESMTP"))
    while True:
        match connection.next_event():
            case Signal.NEED_DATA: send(connection.data_to_send()); connection.receive_data(receive())
            case Signal.CLOSED: send(connection.data_to_send()); return
            case ContentPiece(data): ...                     # no reply
            case ContentEnd() as end: connection.reply(...)  # one reply, in LMTP one for each recipient
            case Mail() as mail: connection.reply(...)       # and so on, one reply for each event

The core knows the protocol: framing, syntax, order, extensions, limits of size.  Policy is its caller's: who may send
what to whom, passwords, how many mistakes are too many.  A client's mistake comes out as BadInput with its reply, which
the caller passes on, or replaces by a 421.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from trimta.mail.envelope import BodyKind
from trimta.mail.reply import Reply
from trimta.smtp.commands import (
    Auth,
    Bdat,
    Command,
    Data,
    Ehlo,
    Etrn,
    Expn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Vrfy,
)
from trimta.smtp.errors import CommandRefusedError, LocalProtocolError
from trimta.smtp.extensions import MailProtocol
from trimta.smtp.foreign import foreign_protocol, is_smtp
from trimta.smtp.incoming_content import ChunkedContent, DataContent, DiscardedChunk, IncomingContent
from trimta.smtp.lines import LineBuffer, Unfit
from trimta.smtp.mail_transaction import MailTransaction
from trimta.smtp.parsing import KNOWN_VERBS, CommandLine, chunk_size, is_bdat, parse_command
from trimta.smtp.redaction import SECRET, Redaction
from trimta.smtp.sasl import decode_response
from trimta.smtp.server_events import (
    CLOSED,
    NEED_DATA,
    AuthResponse,
    BadInput,
    ContentEnd,
    ContentPiece,
    SmtpEvent,
)
from trimta.smtp.server_settings import AuthPolicy, BareNewline, ServerSettings
from trimta.smtp.state import READING, WITHIN_CONTENT, Occurrence, SessionMachine, SessionState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimta.smtp.extensions import Offer

_AUTHENTICATED: Final = KNOWN_VERBS - {"EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "NOOP", "RSET", "HELP", "QUIT"}
"""The verbs that a client may not use before AUTH at a listener that requires AUTH (RFC 4954 4)."""


class ServerConnection:
    """The session of one client.

    `next_event` and `reply` alternate: every event but ContentPiece and the signals needs one reply before the next
    event is returned, so that replies keep the order of commands.  LocalProtocolError is raised for calls out of order.
    """

    def __init__(self, settings: ServerSettings, *, tls: bool = False) -> None:
        """`tls`: whether the connection has TLS from the start."""
        self.settings = settings
        self.tls = tls
        self.identity: str | None = None
        """The name under which the client has authenticated."""
        self.helo = ""
        """The argument of the last EHLO, HELO or LHLO."""
        self.esmtp = False
        """Whether the last of EHLO, LHLO and HELO was not HELO."""
        self.transaction: MailTransaction | None = None
        """The mail transaction, from an accepted MAIL to the reply to the content's end, RSET, EHLO or HELO."""
        self.line = ""
        """The last command line, for transcripts: without credentials, escaped where it is not printable."""
        self.offer: Offer = settings.offer(tls=tls, extended=True)
        """The extensions that are offered and accepted now."""
        self._machine = SessionMachine()
        self._redaction = Redaction()
        self._input = LineBuffer()
        self._output = b""
        self._eof = False
        self._unanswered: SmtpEvent | None = None
        self._utf8 = False
        """Whether the reply to the last command may have UTF-8."""
        self._typed = False
        """Whether the last command line ended in a bare LF, as a person types it."""
        self._content: IncomingContent | None = None
        """The content under way, in the states DATA, CHUNK and CHUNKS."""
        self._discarded: DiscardedChunk | None = None

    # For the caller

    @property
    def state(self) -> SessionState:
        """The state of the session."""
        return self._machine.state

    @property
    def receiving_content(self) -> bool:
        """Whether the next octets of the client are content and not a command line."""
        return self._machine.state in WITHIN_CONTENT or self._discarded is not None

    def ehlo_reply(self) -> Reply:
        """The reply to EHLO or LHLO: 250, the server's name, the extensions."""
        return self.settings.ehlo_reply(tls=self.tls)

    def helo_reply(self) -> Reply:
        """The reply to HELO: 250, the server's name."""
        return Reply.of(250, "", self.settings.hostname)

    # Octets

    def receive_data(self, data: bytes) -> None:
        """Take octets from the wire; b"" once the client has closed its side."""
        if self._machine.state is SessionState.TLS:
            raise LocalProtocolError("octets between STARTTLS and its handshake")
        if not data:
            self._eof = True
        elif self._machine.state is not SessionState.CLOSED:
            self._input.feed(data)

    def data_to_send(self) -> bytes:
        """Take the octets of all replies since the last call."""
        data, self._output = self._output, b""
        return data

    @property
    def waiting(self) -> int:
        """The number of octets that `data_to_send` would return."""
        return len(self._output)

    # Events

    def next_event(self) -> SmtpEvent:
        """The next event of the client.  Raises LocalProtocolError if the event before has no reply yet."""
        state = self._machine.state
        if self._unanswered is not None or state not in READING:
            if state is SessionState.CLOSED:
                return CLOSED
            raise LocalProtocolError(f"next_event() while a reply is due: {state}, {self._unanswered}")
        within_content = state in WITHIN_CONTENT or self._discarded is not None
        event = self._next_content() if within_content else self._next_line()
        if event is None:
            if not self._eof:
                return NEED_DATA
            self._machine.move(Occurrence.INPUT_ENDED)
            return CLOSED
        if not isinstance(event, ContentPiece):
            self._unanswered = event
        return event

    def _next_content(self) -> SmtpEvent | None:
        discarded = self._discarded
        if discarded is None:
            assert self._content is not None
            return self._content.next(self._input)
        refused = discarded.next(self._input)
        if refused is not None:
            self._discarded = None
        return refused

    def _next_line(self) -> SmtpEvent | None:
        line = self._input.line()
        if line is None:
            return None
        if isinstance(line, bytes):
            return self._read_line(line)
        foreign = self._foreign(line.octets, whole=False)
        return foreign if foreign is not None or line.unfit is None else self._unfit(line.unfit, line.octets)

    def _foreign(self, octets: bytes, *, whole: bool) -> BadInput | None:
        """The end of a session in another protocol, by a whole line, or by the beginning of one, whose end may never
        come.
        """
        secret = self._machine.state is SessionState.AUTH
        text = foreign_protocol(octets, whole=whole, secret=secret)
        if text is None:
            return None
        self.line = SECRET if secret else self._redaction.beginning(octets)
        return _bad(421, "4.7.0", text, close=True)

    def _unfit(self, unfit: Unfit, beginning: bytes) -> BadInput:
        self.line = f"({unfit.value})"
        if unfit is Unfit.TOO_LONG:
            return _bad(500, "5.5.6", "line too long", close=is_bdat(beginning))
        return _bad(421, "4.7.0", "line too long", close=True)

    # Commands

    def _read_line(self, octets: bytes) -> SmtpEvent | None:
        """The event of a command line, which is given with its line end."""
        line = CommandLine(octets.removesuffix(b"\n").removesuffix(b"\r"))
        in_auth = self._machine.state is SessionState.AUTH
        if in_auth or not is_smtp(line):
            foreign = self._foreign(line.octets, whole=True)
            if foreign is not None or in_auth:
                return foreign or self._read_auth_response(line.octets)
        self._typed = not octets.endswith(b"\r\n")
        self.line = self._redaction.command(line)
        if self._typed and line.verb in ("DATA", "BDAT") and len(self._input):
            # A server before this one may have seen content here, and no DATA: SMTP smuggling.
            return _bad(503, "5.5.0", f"{line.verb} ended by a bare LF, with more behind it", close=True)
        self._utf8 = False
        try:
            command = self._parse(line)
        except CommandRefusedError as error:
            return self._discard_chunk(line.octets, error.reply) if is_bdat(line.octets) else BadInput(error.reply)
        if isinstance(command, Bdat):
            return self._begin_chunk(command)
        if isinstance(command, StartTls) and len(self._input):
            return _bad(503, "5.5.1", "nothing may follow STARTTLS before the handshake", close=True)
        return command

    def _parse(self, line: CommandLine) -> Command:
        """The command on a line.  Raises CommandRefusedError, also for a command that is out of order."""
        if self.identity is None and self.settings.auth is AuthPolicy.REQUIRED and line.verb in _AUTHENTICATED:
            raise CommandRefusedError.of(530, "5.7.0", "authentication required")
        if line.verb == "STARTTLS" and self.tls and not self.settings.hides("STARTTLS"):
            raise CommandRefusedError.of(503, "5.5.1", "TLS is active already")
        command = parse_command(line, self.offer)
        if not self._machine.may(type(command)):
            raise self._out_of_order(command)
        match command:
            case Data() if self.transaction is not None and self.transaction.body is BodyKind.BINARY:
                raise CommandRefusedError.of(503, "5.5.1", "BODY=BINARYMIME needs BDAT")  # RFC 3030 3
            case Vrfy() | Expn():  # the only replies that may have UTF-8: RFC 6531 3.7.4
                self._utf8 = command.smtputf8
            case StartTls() | Bdat() if not self.esmtp:
                raise CommandRefusedError.of(503, "5.5.1", "EHLO first")
            case Auth() if self.identity is not None:
                raise CommandRefusedError.of(503, "5.5.1", "authenticated already")
        return command

    def _out_of_order(self, command: Command) -> CommandRefusedError:
        transaction, lmtp = self.transaction, self.settings.protocol is MailProtocol.LMTP
        if isinstance(command, Auth) and self.identity is not None:
            return CommandRefusedError.of(503, "5.5.1", "authenticated already")
        only_refused = transaction is not None and transaction.refused and not transaction.recipients
        if isinstance(command, Data | Bdat) and only_refused and not lmtp:
            return CommandRefusedError.of(554, "5.5.1", "no valid recipients")
        return CommandRefusedError.of(503, "5.5.1", self._machine.hint(type(command), lmtp=lmtp))

    def _read_auth_response(self, line: bytes) -> SmtpEvent:
        self.line = SECRET
        response = line.rstrip(b" \t")
        if response == b"*":
            return _bad(501, "5.7.0", "authentication cancelled")
        try:
            return AuthResponse(decode_response(response))
        except CommandRefusedError as error:
            return BadInput(error.reply)

    # Content

    def _begin_data(self) -> None:
        self._content = DataContent(
            typed=self._typed,
            size_limit=self.settings.size_limit,
            reject_bare_lf=self.settings.bare_newline is BareNewline.REJECT,
        )

    def _begin_chunk(self, command: Bdat) -> SmtpEvent | None:
        """Begin the chunk that follows a BDAT; returns its first event."""
        content = self._content
        if content is None:
            assert self.transaction is not None
            content = self._content = ChunkedContent(
                binary=self.transaction.body is BodyKind.BINARY,
                size_limit=self.settings.size_limit,
                reject_bare_lf=self.settings.bare_newline is BareNewline.REJECT,
            )
        assert isinstance(content, ChunkedContent)
        content.begin_chunk(command.size, last=command.last)
        self._machine.move(Bdat)
        return self._next_content()

    def _discard_chunk(self, line: bytes, refusal: Reply) -> SmtpEvent | None:
        """Refuse a BDAT, once its chunk was dropped; the session ends if the length of the chunk is not known."""
        size = chunk_size(line)
        if size is None:
            return BadInput(refusal, close=True)
        self._discarded = DiscardedChunk(size, refusal)
        return self._next_content()

    # Replies

    def reply(self, reply: Reply) -> None:
        """Answer the last event, or give the greeting.

        To the end of a message in LMTP the reply is given once for each recipient.  A 421 may be said at any time, and
        ends the session; so does a greeting that is not 220.
        """
        event, self._unanswered = self._unanswered, None
        if event is None:
            state = self._machine.state
            if state is SessionState.CLOSED or (state is not SessionState.GREETING and reply.code != 421):
                raise LocalProtocolError(f"a reply to nothing: {reply}")
        octets = self._render(reply)
        if isinstance(event, ContentEnd) and reply.code != 421:
            octets *= self._replies_due(event)
        self._output += octets
        self._move(event, reply)

    def reply_each(self, replies: Sequence[Reply]) -> None:
        """Answer the end of the content: one reply for each accepted recipient in LMTP, exactly one in SMTP."""
        event = self._unanswered
        if not isinstance(event, ContentEnd) or len(replies) != self._replies_due(event):
            raise LocalProtocolError(f"{len(replies)} replies to {event}")
        self._unanswered = None
        self._output += b"".join(map(self._render, replies))
        self._move(event, next((reply for reply in replies if reply.code == 421), replies[0]))

    def challenge(self, data: bytes) -> None:
        """Answer AUTH or AuthResponse with 334 and a challenge, given as octets that are not in Base64."""
        self.reply(Reply.of(334, "", base64.b64encode(data).decode("ascii")))

    def authenticated(self, identity: str) -> None:
        """Note the name under which the client has authenticated; must be called before the 235."""
        self.identity = identity

    def start_tls_done(self) -> None:
        """Begin anew after the handshake that STARTTLS asked for: all that the client said before is forgotten
        (RFC 3207 4.2).
        """
        if self._machine.state is not SessionState.TLS:
            raise LocalProtocolError("a handshake without STARTTLS")
        self._machine.move(Occurrence.HANDSHAKE_DONE)
        self.tls = True
        self.identity = None
        self._greeted_as("", esmtp=False)

    def _replies_due(self, end: ContentEnd) -> int:
        if end.last and self.settings.protocol is MailProtocol.LMTP:
            assert self.transaction is not None
            return len(self.transaction.recipients)
        return 1

    def _render(self, reply: Reply) -> bytes:
        return reply.render(enhanced="ENHANCEDSTATUSCODES" in self.offer.keywords, utf8=self._utf8)

    # Moves

    def _move(self, event: SmtpEvent | None, reply: Reply) -> None:
        """Make the move that the reply to an event means; without an event, the reply is the greeting."""
        machine = self._machine
        if reply.code == 421:
            machine.move(Occurrence.HUNG_UP)
        elif 200 <= reply.code < 400:
            self._move_on(event, reply)
        else:
            self._move_after_refusal(event)
        if machine.state is SessionState.CLOSED:
            self._input.clear()

    def _move_on(self, event: SmtpEvent | None, reply: Reply) -> None:
        """Make the move that a positive reply means."""
        move = self._machine.move
        match event:
            case Mail():
                move(Mail)
                self.transaction = MailTransaction(event)
            case Rcpt():
                move(Rcpt)
                assert self.transaction is not None
                self.transaction.recipients.append(event)
            case Data():
                if reply.code != 354:
                    raise LocalProtocolError(f"the reply to DATA is 354 or a refusal, not {reply}")
                move(Data)
                self._begin_data()
            case ContentEnd(last=last, fault=fault):
                if fault is not None:
                    raise LocalProtocolError(f"{reply} to a message with the fault {fault}")
                move(Occurrence.MESSAGE_ANSWERED if last else Occurrence.CHUNK_TAKEN)
                if last:
                    self._end_transaction()
            case Helo(domain) | Ehlo(domain):
                move(type(event))
                self._greeted_as(domain, esmtp=isinstance(event, Ehlo))
            case Rset():
                move(Rset)
                self._end_transaction()
            case Quit() | Noop() | Vrfy() | Expn() | Help() | Etrn() | StartTls():
                move(type(event))
            case Auth() | AuthResponse():
                self._move_after_auth(reply)
            case None:
                move(Occurrence.GREETED if reply.code < 300 else Occurrence.REFUSED)
            case _:
                self._move_after_refusal(event)

    def _move_after_refusal(self, event: SmtpEvent | None) -> None:
        move = self._machine.move
        match event:
            case BadInput(close=True):
                move(Occurrence.HUNG_UP)
            case ContentEnd(last=last):
                move(Occurrence.MESSAGE_ANSWERED if last else Occurrence.REFUSED)
                self._end_transaction()
            case Quit():  # whatever the reply, the client leaves
                move(Quit)
            case Rcpt():
                assert self.transaction is not None
                self.transaction.refused += 1
                move(Occurrence.REFUSED)
            case _:
                move(Occurrence.REFUSED)

    def _move_after_auth(self, reply: Reply) -> None:
        if reply.code == 334:
            self._machine.move(Occurrence.CHALLENGED)
        elif self.identity is None:
            raise LocalProtocolError("a positive reply to AUTH without authenticated()")
        else:
            self._machine.move(Auth)

    def _greeted_as(self, domain: str, *, esmtp: bool) -> None:
        self.helo, self.esmtp = domain, esmtp
        # Before EHLO the reply says that EHLO is missing, not what its reply would have offered.
        self.offer = self.settings.offer(tls=self.tls, extended=esmtp or not domain)
        self._end_transaction()

    def _end_transaction(self) -> None:
        self.transaction = None
        self._content = None


def _bad(code: int, status: str, text: str, *, close: bool = False) -> BadInput:
    return BadInput(Reply.of(code, status, text), close)
