"""The receiving side of a conversation: octets in, events out; replies in, octets out (RFC 5321, 2033, 6409).

    connection = ServerConnection(settings)
    connection.reply(Reply.of(220, "", "mx.dev.test ESMTP"))
    while True:
        match connection.next_event():
            case Signal.NEED_DATA: send(connection.data_to_send()); connection.receive_data(receive())
            case Signal.CLOSED: send(connection.data_to_send()); return
            case ContentPiece(data): ...                   # no reply
            case ContentEnd() as end: connection.reply(...) # one reply, in LMTP one per recipient
            case Mail() as mail: connection.reply(...)      # and so on, one reply per event

The core knows the protocol: framing, syntax, order, extensions, limits of size.  Policy is the session's: who may send
what to whom, passwords, how many mistakes are too many.  What a client gets wrong comes out as BadInput with its reply,
which the session passes on, or replaces by a 421.
"""

from __future__ import annotations

import base64
import enum
from dataclasses import dataclass, field
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
from trimta.smtp.errors import CommandError, LocalProtocolError
from trimta.smtp.events import (
    CLOSED,
    NEED_DATA,
    AuthResponse,
    BadInput,
    ContentEnd,
    ContentPiece,
    Signal,
    SmtpEvent,
)
from trimta.smtp.extensions import FutureRelease, MailProtocol, Offer
from trimta.smtp.foreign import BEGINNING, foreign_protocol
from trimta.smtp.incoming_content import IncomingChunk, IncomingContent
from trimta.smtp.lines import Line, LineBuffer, Unfit
from trimta.smtp.parsing import KNOWN_VERBS, chunk_size, is_bdat, parse_command, verb_of
from trimta.smtp.sasl import MECHANISMS, decode_response
from trimta.smtp.state import Occurrence, SessionMachine, SessionState
from trimta.smtp.transparency import DataDecoder, TextDecoder

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = [
    "CLOSED",
    "NEED_DATA",
    "AuthPolicy",
    "AuthResponse",
    "BadInput",
    "BareNewline",
    "ContentEnd",
    "ContentPiece",
    "MailTransaction",
    "ServerConnection",
    "ServerSettings",
    "SessionState",
    "Signal",
    "SmtpEvent",
]


class AuthPolicy(enum.StrEnum):
    """What a listener thinks of AUTH."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


class BareNewline(enum.StrEnum):
    """What happens to content in which a line ends in LF alone."""

    ACCEPT = "accept"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What one listener is to one client."""

    hostname: str
    protocol: MailProtocol = MailProtocol.SMTP
    size_limit: int = 0
    """Octets of a message as on the wire; 0: no limit."""
    max_recipients: int = 0
    """What LIMITS says, 0 for nothing; to count recipients is the session's."""
    starttls: bool = False
    """STARTTLS is configured."""
    auth: AuthPolicy = AuthPolicy.NONE
    auth_in_clear: bool = False
    """This client may use AUTH without TLS."""
    mechanisms: tuple[str, ...] = MECHANISMS
    future_release: FutureRelease | None = None
    """None: not offered; used for submission only.  The core reads no clock: a HOLDUNTIL may be past."""
    hide: frozenset[str] = frozenset()
    """EHLO keywords that are neither offered nor accepted."""
    bare_newline: BareNewline = BareNewline.ACCEPT


_UNAUTHENTICATED: Final = frozenset({"EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "NOOP", "RSET", "HELP", "QUIT"})
"""What a client may say where authentication is required and has not been done."""


@dataclass(slots=True)
class MailTransaction:
    """What a client has agreed on with us since MAIL."""

    mail: Mail
    recipients: list[Rcpt] = field(default_factory=list)
    """The accepted ones, in their order."""
    refused: int = 0
    """How many were not."""

    @property
    def body(self) -> BodyKind:
        """What MAIL declared."""
        return self.mail.parameters.body or BodyKind.SEVEN_BIT

    @property
    def smtputf8(self) -> bool:
        """Said with MAIL, or implied by an address."""
        return self.mail.parameters.smtputf8 or any(_is_utf8(rcpt) for rcpt in self.recipients)


class ServerConnection:
    """One conversation with one client.

    `next_event` and `reply` alternate: every event but ContentPiece and the signals wants one reply before the next
    event comes out, so that replies cannot change order; LocalProtocolError if the caller forgets.
    """

    def __init__(self, settings: ServerSettings, *, tls: bool = False) -> None:
        """`tls`: the connection is encrypted from the start."""
        self.settings = settings
        self._machine = SessionMachine()
        self.tls = tls
        self.identity: str | None = None
        """Who the client has proved to be."""
        self.helo = ""
        """What the client calls itself, since its last EHLO, HELO or LHLO."""
        self.esmtp = False
        """It said EHLO or LHLO."""
        self.transaction: MailTransaction | None = None
        """Since an accepted MAIL, until the reply to the end of the message, RSET, EHLO or HELO."""
        self.line = ""
        """The last command line, for transcripts: without credentials, escaped where it is not printable."""
        self._secrets = False
        self._input = LineBuffer()
        self._output = bytearray()
        self._eof = False
        self._unanswered: SmtpEvent | None = None
        self._utf8 = False
        self._typed = False
        """The last command line ended in a bare LF."""
        self._body: IncomingContent | None = None
        self._chunk: IncomingChunk | None = None
        """The chunk that is coming in, that of a refused BDAT too."""
        self._offer = self._make_offer()

    # What the session reads

    @property
    def state(self) -> SessionState:
        """Where the session is."""
        return self._machine.state

    @property
    def offer(self) -> Offer:
        """What is offered and accepted now."""
        return self._offer

    @property
    def receiving_body(self) -> bool:
        """The next octets are content, not a command line."""
        return self._machine.state is SessionState.DATA or self._chunk is not None

    def ehlo_reply(self) -> Reply:
        """The reply to EHLO or LHLO: 250, our name, the extensions."""
        return Reply.of(250, "", self.settings.hostname, *self._make_offer(extended=True).lines())

    def helo_reply(self) -> Reply:
        """The reply to HELO."""
        return Reply.of(250, "", self.settings.hostname)

    # Octets

    def receive_data(self, data: bytes) -> None:
        """Take octets from the wire; b"" says that no more will come."""
        if self._machine.state is SessionState.TLS:
            raise LocalProtocolError("octets between STARTTLS and its handshake")
        if not data:
            self._eof = True
        elif self._machine.state is not SessionState.CLOSED:
            self._input.feed(data)

    def data_to_send(self) -> bytes:
        """Take the octets of all replies since the last call."""
        data = bytes(self._output)
        self._output.clear()
        return data

    @property
    def waiting(self) -> int:
        """How many octets `data_to_send` would take."""
        return len(self._output)

    # Events

    def next_event(self) -> SmtpEvent:
        """What the client says next.  LocalProtocolError if the event before wants a reply."""
        state = self._machine.state
        if state is SessionState.CLOSED:
            return CLOSED
        if self._unanswered is not None or state is SessionState.GREETING or state is SessionState.TLS:
            raise LocalProtocolError(f"next_event() while a reply is due: {state}, {self._unanswered}")
        event = self._next()
        if event is None:
            if not self._eof:
                return NEED_DATA
            self._machine.move(Occurrence.INPUT_ENDED)
            return CLOSED
        if not isinstance(event, ContentPiece):
            self._unanswered = event
        return event

    def _next(self) -> SmtpEvent | None:
        while True:
            if self._machine.state is SessionState.DATA:
                return self._next_data()
            if self._chunk is not None:
                return self._next_chunk(self._chunk)
            beginning = self._input.beginning(BEGINNING)
            line = self._input.line()
            foreign = self._foreign(beginning, line)
            if foreign is not None:
                return foreign
            match line:
                case None:
                    return None
                case Unfit():
                    self.line = f"({line.value})"
                    return self._unfit(line, beginning)
                case Line():
                    event = self._read_line(line)
            if event is not None:
                return event

    def _foreign(self, beginning: bytes, line: Line | Unfit | None) -> BadInput | None:
        """The end of a conversation that is none of SMTP; told from the beginning of a line, too, since its end may
        never come.
        """
        octets = line.octets if isinstance(line, Line) else beginning
        secret = self._machine.state is SessionState.AUTH
        text = foreign_protocol(octets, whole=isinstance(line, Line), secret=secret)
        if text is None:
            return None
        self.line = "***" if secret else _printable(octets, secret=self._secrets)
        return _bad(421, "4.7.0", text, close=True)

    def _unfit(self, line: Unfit, beginning: bytes) -> BadInput:
        if line is Unfit.TOO_LONG:
            return _bad(500, "5.5.6", "line too long", close=is_bdat(beginning))
        return _bad(421, "4.7.0", "line too long", close=True)

    def _read_line(self, line: Line) -> SmtpEvent | None:
        if self._machine.state is SessionState.AUTH:
            self.line = "***"
            return self._read_auth_response(line.octets)
        self._typed = not line.crlf
        verb = verb_of(line.octets)
        # A client that does not wait sends its password after an AUTH that was refused, too.
        self._secrets = line.octets[:4].upper() == b"AUTH" or (self._secrets and verb not in KNOWN_VERBS)
        self.line = _printable(line.octets, secret=self._secrets)
        if verb in ("DATA", "BDAT") and not line.crlf and len(self._input):
            # A server before us may have seen content here, and so no DATA: SMTP smuggling.
            return _bad(503, "5.5.0", f"{verb} ended by a bare LF, with more behind it", close=True)
        self._utf8 = False
        try:
            command = self._parse(line.octets, verb)
        except CommandError as error:
            if is_bdat(line.octets):
                return self._swallow(line.octets, error.reply)
            return BadInput(error.reply)
        if isinstance(command, Bdat):
            self._begin_chunk(command)
            return None
        if isinstance(command, StartTls) and len(self._input):
            return _bad(503, "5.5.1", "nothing may follow STARTTLS before the handshake", close=True)
        return command

    def _parse(self, line: bytes, verb: str) -> Command:
        """The command, if it may come now; CommandError."""
        required = self.settings.auth is AuthPolicy.REQUIRED and self.identity is None
        if required and verb in KNOWN_VERBS - _UNAUTHENTICATED:
            raise CommandError.of(530, "5.7.0", "authentication required")
        if verb == "STARTTLS" and self.tls and "STARTTLS" not in {keyword.upper() for keyword in self.settings.hide}:
            raise CommandError.of(503, "5.5.1", "TLS is active already")
        command = parse_command(line, self._offer)
        if isinstance(command, Vrfy | Expn):  # the only replies that may have UTF-8: RFC 6531 3.7.4
            self._utf8 = command.smtputf8
        self._check_order(command)
        return command

    def _check_order(self, command: Command) -> None:
        transaction = self.transaction
        if self._machine.state is SessionState.MAIL_GIVEN and isinstance(command, Data | Bdat):
            if transaction is not None and transaction.refused and self.settings.protocol is not MailProtocol.LMTP:
                raise CommandError.of(554, "5.5.1", "no valid recipients")
            raise CommandError.of(503, "5.5.1", "RCPT first")
        if isinstance(command, Auth) and self.identity is not None:
            raise CommandError.of(503, "5.5.1", "authenticated already")
        if not self._machine.may(type(command)):
            raise CommandError.of(503, "5.5.1", self._order_hint(command))
        if isinstance(command, StartTls | Bdat) and not self.esmtp:
            raise CommandError.of(503, "5.5.1", "EHLO first")
        binary = transaction is not None and transaction.body is BodyKind.BINARY
        if isinstance(command, Data) and binary:
            raise CommandError.of(503, "5.5.1", "BODY=BINARYMIME needs BDAT")  # RFC 3030 3

    def _order_hint(self, command: Command) -> str:
        state = self._machine.state
        if state is SessionState.CONNECTED:
            return "LHLO first" if self.settings.protocol is MailProtocol.LMTP else "EHLO or HELO first"
        if state is SessionState.READY:
            return "MAIL first"
        if state is SessionState.CHUNKS:
            return "a message has begun: BDAT or RSET"
        return "MAIL was given already" if isinstance(command, Mail) else "not in a transaction"

    def _read_auth_response(self, line: bytes) -> SmtpEvent:
        line = line.rstrip(b" \t")
        if line == b"*":
            return _bad(501, "5.7.0", "authentication cancelled")
        try:
            return AuthResponse(decode_response(line))
        except CommandError as error:
            return BadInput(error.reply)

    # Content

    def _next_data(self) -> SmtpEvent | None:
        assert self._body is not None
        decoder = self._body.decoder
        assert isinstance(decoder, DataDecoder)
        if not decoder.done:
            if not len(self._input):
                return None
            content = decoder.feed(self._input.take())
            self._input.give_back(decoder.leftover)
            if content and not self._body.unfit:
                return ContentPiece(content)
            if not decoder.done:
                return None
        return self._body.end(last=True)

    def _begin_chunk(self, command: Bdat) -> None:
        if self._body is None:
            assert self.transaction is not None
            self._body = self._new_body(TextDecoder() if self.transaction.body is not BodyKind.BINARY else None)
        self._machine.move(Bdat)
        self._body.announce(command.size)
        self._chunk = IncomingChunk(command.size, command.last)

    def _swallow(self, line: bytes, refusal: Reply) -> SmtpEvent | None:
        """A BDAT is refused: its octets are no commands, and must not be read as such."""
        size = chunk_size(line)
        if size is not None:
            self._chunk = IncomingChunk(size, last=True, refusal=refusal)
            return None
        return BadInput(refusal, close=True)

    def _next_chunk(self, chunk: IncomingChunk) -> SmtpEvent | None:
        if chunk.left:
            if not len(self._input):
                return None
            data = self._input.take(chunk.left)
            chunk.left -= len(data)
            if chunk.refusal is None:
                assert self._body is not None
                content = self._body.feed(data)
                if content:
                    return ContentPiece(content)
            if chunk.left:
                return None
        if chunk.refusal is not None:
            self._chunk = None
            return BadInput(chunk.refusal)
        assert self._body is not None
        if chunk.last and not chunk.finished:
            chunk.finished = True
            content = self._body.finish()
            if content:
                return ContentPiece(content)
        self._chunk = None
        return self._body.end(last=chunk.last)

    def _new_body(self, decoder: TextDecoder | None) -> IncomingContent:
        return IncomingContent(decoder, self.settings.size_limit, self.settings.bare_newline is BareNewline.REJECT)

    # Replies

    def reply(self, reply: Reply) -> None:
        """Answer the last event, or give the greeting.

        To the end of a message in LMTP it is given once for each recipient.  A 421 may be said at any time, and ends
        the conversation; so does a greeting that is not 220.
        """
        event, self._unanswered = self._unanswered, None
        state = self._machine.state
        if event is None and state is not SessionState.GREETING and reply.code != 421:
            raise LocalProtocolError(f"a reply to nothing: {reply}")
        if state is SessionState.CLOSED:
            raise LocalProtocolError(f"a reply after the end: {reply}")
        each = self._replies_due(event) if reply.code != 421 else 1
        for _ in range(each):
            self._output += self._render(reply)
        self._move(event, reply)

    def reply_each(self, replies: Sequence[Reply]) -> None:
        """Answer the end of a message: one reply for each accepted recipient in LMTP, exactly one in SMTP."""
        event = self._unanswered
        if not isinstance(event, ContentEnd) or len(replies) != self._replies_due(event):
            raise LocalProtocolError(f"{len(replies)} replies to {event}")
        self._unanswered = None
        for reply in replies:
            self._output += self._render(reply)
        self._move(event, next((reply for reply in replies if reply.code == 421), replies[0]))

    def challenge(self, data: bytes) -> None:
        """Answer AUTH or AuthResponse with 334 and a challenge."""
        self.reply(Reply.of(334, "", base64.b64encode(data).decode("ascii")))

    def authenticated(self, identity: str) -> None:
        """The client has proved who it is; to be said before the 235."""
        self.identity = identity

    def start_tls_done(self) -> None:
        """The handshake after STARTTLS is done: all that the client said before is forgotten (RFC 3207 4.2)."""
        if self._machine.state is not SessionState.TLS:
            raise LocalProtocolError("a handshake without STARTTLS")
        self.tls = True
        self.identity = None
        self.helo, self.esmtp = "", False
        self._machine.move(Occurrence.HANDSHAKE_DONE)
        self._offer = self._make_offer()
        self._reset()

    def _replies_due(self, event: SmtpEvent | None) -> int:
        if self.settings.protocol is MailProtocol.LMTP and isinstance(event, ContentEnd) and event.last:
            assert self.transaction is not None
            return len(self.transaction.recipients)
        return 1

    def _render(self, reply: Reply) -> bytes:
        return reply.render(enhanced=self._offer.offers("ENHANCEDSTATUSCODES"), utf8=self._utf8)

    def _move(self, event: SmtpEvent | None, reply: Reply) -> None:
        """The move that the reply to an event makes; without an event, the greeting."""
        positive = reply.klass in (2, 3)
        match event:
            case _ if reply.code == 421:
                self._machine.move(Occurrence.HUNG_UP)
            case None:
                self._machine.move(Occurrence.GREETED if reply.klass == 2 else Occurrence.REFUSED)
            case BadInput(close=True):
                self._machine.move(Occurrence.HUNG_UP)
            case ContentEnd():
                self._move_after_content(event, reply, positive=positive)
            case Auth() | AuthResponse():
                self._move_after_auth(reply, positive=positive)
            case Quit():  # whatever it is answered with: the client has gone
                self._machine.move(Quit)
            case Data() if positive:
                if reply.code != 354:
                    raise LocalProtocolError(f"the reply to DATA is 354 or a refusal, not {reply}")
                self._machine.move(Data)
                self._body = self._new_body(DataDecoder(typed=self._typed))
            case (
                Helo() | Ehlo() | Mail() | Rcpt() | Rset() | Noop() | Vrfy() | Expn() | Help() | Etrn() | StartTls()
            ) if positive:
                self._machine.move(type(event))
                self._carry_out(event)
            case Rcpt():
                assert self.transaction is not None
                self.transaction.refused += 1
                self._machine.move(Occurrence.REFUSED)
            case _:
                self._machine.move(Occurrence.REFUSED)
        if self._machine.state is SessionState.CLOSED:
            self._input.clear()

    def _move_after_content(self, end: ContentEnd, reply: Reply, *, positive: bool) -> None:
        if positive and end.fault is not None:
            raise LocalProtocolError(f"{reply} to a message with the fault {end.fault}")
        if positive and not end.last:
            self._machine.move(Occurrence.CHUNK_TAKEN)
            return
        self._machine.move(Occurrence.MESSAGE_ANSWERED if end.last else Occurrence.REFUSED)
        self._reset()

    def _move_after_auth(self, reply: Reply, *, positive: bool) -> None:
        if reply.code == 334:
            self._machine.move(Occurrence.CHALLENGED)
        elif not positive:
            self._machine.move(Occurrence.REFUSED)
        elif self.identity is None:
            raise LocalProtocolError("a positive reply to AUTH without authenticated()")
        else:
            self._machine.move(Auth)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Helo(domain) | Ehlo(domain):
                self.helo, self.esmtp = domain, isinstance(command, Ehlo)
                self._offer = self._make_offer()
                self._reset()
            case Rset():
                self._reset()
            case Mail():
                self.transaction = MailTransaction(command)
            case Rcpt():
                assert self.transaction is not None
                self.transaction.recipients.append(command)
            case _:
                pass

    def _reset(self) -> None:
        self.transaction = None
        self._body = None

    def _make_offer(self, *, extended: bool | None = None) -> Offer:
        settings = self.settings
        wanted = settings.auth is not AuthPolicy.NONE
        in_reach = self.tls or settings.auth_in_clear
        return Offer(
            protocol=settings.protocol,
            hide=settings.hide,
            size_limit=settings.size_limit,
            max_recipients=settings.max_recipients,
            future_release=settings.future_release,
            starttls=settings.starttls and not self.tls,
            auth=settings.mechanisms if wanted and in_reach else (),
            auth_behind_tls=wanted and not in_reach,
            # Before EHLO what matters is that it is missing, not what it would have allowed.
            extended=self.esmtp or not self.helo if extended is None else extended,
        )


def _bad(code: int, status: str, text: str, *, close: bool = False) -> BadInput:
    return BadInput(Reply.of(code, status, text), close)


def _is_utf8(rcpt: Rcpt) -> bool:
    return not (rcpt.forward_path.local_part.isascii() and rcpt.forward_path.domain.isascii())


def _printable(line: bytes, *, secret: bool) -> str:
    text = line.decode(errors="backslashreplace")
    if secret:
        words = text.split()
        known = 0
        if words[:1] and words[0].upper() == "AUTH":  # nor is it shown in place of the mechanism, or joined to the verb
            known = 2 if len(words) > 1 and words[1].upper() in (words[1], *MECHANISMS) else 1
        text = " ".join([*words[:known], *(["***"] if len(words) > known else [])])
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
