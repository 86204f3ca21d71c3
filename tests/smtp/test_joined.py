"""A client core joined to a server core without I/O: what one says, the other understands, however the octets fall."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.address import Mailbox
from trimta.mail.envelope import BodyKind, ByMode, DeliverBy, Envelope, Notify, OriginalRecipient, Recipient, Ret, Terms
from trimta.mail.outcome import Deferred, Delivered, Failed
from trimta.mail.reply import Reply
from trimta.smtp.client import ClientConnection
from trimta.smtp.commands import Auth, Data, Ehlo, Mail, Quit, Rcpt, Rset
from trimta.smtp.extensions import MailProtocol, Offer
from trimta.smtp.outbound import OutboundTransaction
from trimta.smtp.outbound_commands import ContentFacts
from trimta.smtp.outbound_steps import ReadReply, SendChunk, SendCommand, SendData
from trimta.smtp.sasl import Challenge, challenge_of, client_exchange, render_response, server_exchange
from trimta.smtp.server import ServerConnection
from trimta.smtp.server_events import CLOSED, NEED_DATA, AuthResponse, BadInput, ContentEnd, ContentPiece
from trimta.smtp.server_settings import AuthPolicy, ServerSettings
from trimta.smtp.transparency import DataEncoder, lf_to_crlf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trimta.smtp.extensions import Offered
    from trimta.smtp.sasl import ServerExchange

DONE = Reply.of(250, "2.0.0", "done")
NO = Reply.of(550, "5.1.1", "nobody")
LATER = Reply.of(450, "4.2.1", "later")


@dataclass
class Message:
    mail: Mail
    rcpts: list[Rcpt]
    body: bytes


@dataclass
class Server:
    """Accepts what it is not told to refuse, and keeps what it was given."""

    connection: ServerConnection
    replies: dict[Mailbox, Reply] = field(default_factory=dict)
    """To RCPT."""
    finals: dict[Mailbox, Reply] = field(default_factory=dict)
    """To the end of the message, by LMTP."""
    messages: list[Message] = field(default_factory=list)
    identity: tuple[str, str] | None = None
    body: bytes = b""
    exchange: ServerExchange | None = None

    def receive(self, data: bytes) -> bytes:
        connection = self.connection
        connection.receive_data(data)
        while (event := connection.next_event()) not in (NEED_DATA, CLOSED):
            match event:
                case Ehlo():
                    connection.reply(connection.ehlo_reply())
                case Rcpt(path):
                    connection.reply(self.replies.get(path, DONE))
                case Data():
                    connection.reply(Reply.of(354, "", "go ahead"))
                case ContentPiece(octets):
                    self.body += octets
                case ContentEnd(last=False):
                    connection.reply(DONE)
                case ContentEnd(fault=None):
                    transaction = connection.transaction
                    assert transaction is not None
                    self.messages.append(Message(transaction.mail, list(transaction.recipients), self.body))
                    self.body = b""
                    if connection.settings.protocol is MailProtocol.LMTP:
                        paths = [rcpt.forward_path for rcpt in transaction.recipients]
                        connection.reply_each([self.finals.get(path, DONE) for path in paths])
                    else:
                        connection.reply(DONE)
                case ContentEnd(fault=Reply() as fault):
                    connection.reply(fault)
                case Auth(mechanism, initial):
                    self.exchange = server_exchange(mechanism)
                    self.step(initial)
                case AuthResponse(response):
                    self.step(response)
                case BadInput(reply):
                    connection.reply(reply)
                case _:
                    connection.reply(DONE)
        return connection.data_to_send()

    def step(self, response: bytes | None) -> None:
        assert self.exchange is not None
        step = self.exchange.step(response)
        if isinstance(step, Challenge):
            self.connection.challenge(step.data)
        else:
            self.identity = (step.name, step.password)
            self.connection.authenticated(step.name)
            self.connection.reply(Reply.of(235, "2.7.0", "welcome"))


class Joined:
    """Both ends; octets go over in pieces of these sizes, over and over."""

    def __init__(self, server: Server, sizes: list[int]) -> None:
        self.server = server
        self.client = ClientConnection()
        self._sizes: Iterator[int] = itertools.cycle(sizes)
        server.connection.reply(Reply.of(220, "", "joined.test"))
        self._deliver(server.connection.data_to_send())
        assert self.hear().code == 220

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            size = next(self._sizes)
            yield data[:size]
            data = data[size:]

    def _deliver(self, data: bytes) -> None:
        for piece in self._pieces(data):
            self.client.receive_data(piece)

    def send(self, data: bytes) -> None:
        for piece in self._pieces(data):
            self._deliver(self.server.receive(piece))

    def hear(self) -> Reply:
        reply = self.client.next_reply()
        assert reply is not None
        return reply

    def perform(self, transaction: OutboundTransaction, content: bytes, *, binary: bool = False) -> None:
        """`content` in content form."""
        wire = content if binary else lf_to_crlf(content)
        encoder = DataEncoder()
        while (step := transaction.next_step()) is not None:
            match step:
                case SendCommand(command, smtputf8):
                    self.send(self.client.send(command, smtputf8=smtputf8))
                case SendData(replies, empty):
                    self.client.expect(replies)
                    self.send((b"" if empty else encoder.feed(content)) + encoder.finish())
                case SendChunk(size, _, replies):
                    self.client.expect(replies)
                    self.send(wire[:size])
                    wire = wire[size:]
                case ReadReply():
                    transaction.reply(self.hear())


ANSWERS = st.sampled_from([DONE, DONE, NO, LATER])
LOCAL_PARTS = st.text(st.sampled_from('abcXYZ019.+ ="\\@é漢;<>'), min_size=1, max_size=12)
DOMAINS = st.sampled_from(["x.test", "y.x.test", "[127.0.0.1]", "[IPv6:::1]", "bücher.test"])
MAILBOXES = st.builds(Mailbox, LOCAL_PARTS, DOMAINS)
NOTIFIES = (
    st.none()
    | st.just(frozenset({Notify.NEVER}))
    | st.frozensets(st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY]), min_size=1)
)
ORCPT_TEXTS = st.text(st.sampled_from("ab@+= ;\\é漢."), min_size=1)
ORCPTS = st.none() | st.builds(OriginalRecipient, st.sampled_from(["rfc822", "utf-8", "x-thing"]), ORCPT_TEXTS)
RECIPIENTS = st.builds(
    lambda address, notify, orcpt: Recipient(address=address, original=address, notify=notify, orcpt=orcpt),
    MAILBOXES,
    NOTIFIES,
    ORCPTS,
)
ENVELOPES = st.builds(
    Envelope,
    terms=st.builds(
        Terms,
        reverse_path=st.none() | MAILBOXES,
        smtputf8=st.booleans(),
        envid=st.none() | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=30),
        ret=st.none() | st.sampled_from(Ret),
        deliver_by=st.none() | st.builds(DeliverBy, st.just(0.0), st.just(ByMode.NOTIFY), st.booleans()),
    ),
    recipients=st.lists(RECIPIENTS, min_size=1, max_size=5, unique_by=lambda recipient: recipient.address).map(tuple),
)
LINES = [b"", b".", b"..", b".x", b"x", b"\xc3\xa9", b"\0", b"QUIT", b" ."]
TEXTS = st.lists(st.sampled_from(LINES)).map(b"\n".join)
PIECES = [b"\r", b"\n", b"\r\n", b".", b"\0", b"x", b"\xff", b"\r\n.\r\n", b"QUIT\r\n"]
RAW = st.lists(st.sampled_from(PIECES)).map(b"".join)
HIDEABLE = sorted(Offer().keywords - {"VRFY", "EXPN", "ETRN", "HELP"})


@settings(deadline=None, max_examples=100)
@given(
    ENVELOPES,
    TEXTS | RAW,
    st.booleans(),
    st.frozensets(st.sampled_from(HIDEABLE)),
    st.sampled_from([MailProtocol.SMTP, MailProtocol.LMTP]),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.lists(ANSWERS, min_size=5, max_size=5),
    st.lists(ANSWERS, min_size=5, max_size=5),
)
def test_any_envelope_and_body_arrive_the_same(
    envelope: Envelope,
    content: bytes,
    raw: bool,
    hide: frozenset[str],
    protocol: MailProtocol,
    sizes: list[int],
    answers: list[Reply],
    last_answers: list[Reply],
) -> None:
    lmtp = protocol is MailProtocol.LMTP
    replies = {recipient.address: answer for recipient, answer in zip(envelope.recipients, answers, strict=False)}
    finals = {recipient.address: answer for recipient, answer in zip(envelope.recipients, last_answers, strict=False)}
    listener = ServerSettings(hostname="joined.test", protocol=protocol, hide=hide)
    server = Server(ServerConnection(listener), replies, finals)
    joined = Joined(server, sizes)
    joined.send(joined.client.send(Ehlo("me.test", lmtp)))
    assert joined.hear().code == 250
    offered = joined.client.offered
    assert set(offered.keywords).isdisjoint(hide)

    binary = offered.binarymime and (raw or b"\r" in content)
    if not binary:
        content = content.replace(b"\r", b"")
    size = len(content) if binary else len(lf_to_crlf(content))
    facts = ContentFacts(size=size, eight_bit=not content.isascii(), binary=binary, utf8_header=not content.isascii())
    transaction = OutboundTransaction(envelope, facts, offered, lmtp=lmtp, seconds_left=5)
    joined.perform(transaction, content, binary=binary)

    # Every recipient has the outcome that its reply, or the lack of SMTPUTF8, means.
    assert transaction.undecided == transaction.further == []
    outcomes = {outcome.recipient.address: outcome for outcome in transaction.outcomes}
    assert set(outcomes) == {recipient.address for recipient in envelope.recipients}
    tried = [recipient for recipient in envelope.recipients if str(outcomes[recipient.address].status) != "5.6.7"]
    kinds = {DONE: Delivered, NO: Failed, LATER: Deferred}
    for recipient in tried:
        decisive = replies[recipient.address]
        if decisive is DONE and lmtp:
            decisive = finals[recipient.address]
        assert type(outcomes[recipient.address]) is kinds[decisive]
    if offered.smtputf8:
        assert len(tried) == len(envelope.recipients)

    # What was accepted arrived as it was.
    accepted = [recipient for recipient in tried if replies[recipient.address] is DONE]
    assert len(server.messages) == bool(accepted)
    for message in server.messages:
        assert message.mail.reverse_path == envelope.terms.reverse_path
        parameters = message.mail.parameters
        assert parameters.size == (size if offered.offers("SIZE") else None)
        if binary:
            assert parameters.body is BodyKind.BINARY
        terms = envelope.terms
        assert (parameters.envid, parameters.ret) == ((terms.envid, terms.ret) if offered.dsn else (None, None))
        assert (parameters.by is not None) == (terms.deliver_by is not None and offered.deliver_by is not None)
        assert [rcpt.forward_path for rcpt in message.rcpts] == [recipient.address for recipient in accepted]
        if offered.dsn:
            assert [(rcpt.notify, rcpt.orcpt) for rcpt in message.rcpts] == [
                (notify_said(envelope, recipient, offered, lmtp=lmtp), recipient.orcpt) for recipient in accepted
            ]
        ended = content if binary or offered.chunking or content.endswith(b"\n") or not content else content + b"\n"
        assert message.body == ended

    # The conversation goes on.
    if transaction.must_close:
        return
    if transaction.must_reset:
        joined.send(joined.client.send(Rset()))
        assert joined.hear().code == 250
    joined.send(joined.client.send(Mail(None)))
    assert joined.hear().code == 250
    joined.send(joined.client.send(Quit()))
    joined.hear()
    assert server.connection.next_event() is CLOSED


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["PLAIN", "LOGIN"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
)
def test_credentials_arrive_by_every_mechanism(mechanism: str, name: str, password: str, sizes: list[int]) -> None:
    server = Server(
        ServerConnection(ServerSettings(hostname="joined.test", auth=AuthPolicy.OPTIONAL, auth_in_clear=True))
    )
    joined = Joined(server, sizes)
    joined.send(joined.client.send(Ehlo("me.test")))
    joined.hear()
    assert joined.client.offered.auth == {"PLAIN", "LOGIN"}
    exchange = client_exchange({mechanism}, name, password)
    assert exchange is not None
    joined.send(joined.client.send(Auth(exchange.mechanism, exchange.initial())))
    while (reply := joined.hear()).klass == 3:
        joined.client.expect()
        joined.send(render_response(exchange.respond(challenge_of(reply))))
    assert reply.code == 235
    assert server.identity == (name, password)


NEVER = frozenset({Notify.NEVER})


def notify_said(envelope: Envelope, recipient: Recipient, offered: Offered, *, lmtp: bool) -> frozenset[Notify] | None:
    """As the client asked, but for a deadline that goes no further (RFC 2852 4.1.4.2)."""
    asked = recipient.notify
    if envelope.terms.deliver_by is None or offered.deliver_by is not None or lmtp or asked == NEVER:
        return asked
    return (frozenset({Notify.FAILURE}) if asked is None else asked) | {Notify.DELAY}
