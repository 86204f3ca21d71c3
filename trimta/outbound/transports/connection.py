"""One connection to a next hop: from the connect over TLS and AUTH to as many transactions as it will bear."""

from __future__ import annotations

import ipaddress
import os
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, Self

import trio

from trimta.mail.outcome import Delivered
from trimta.mail.status import (
    BAD_CONNECTION,
    CRYPTOGRAPHIC_FAILURE,
    ENCRYPTION_NEEDED,
    NO_ANSWER,
    POLICY_TROUBLE,
    PROTOCOL_TROUBLE,
    SECURITY_UNSUPPORTED,
    EnhancedStatus,
)
from trimta.routing.routes import TlsPolicy
from trimta.runtime.tls import TlsError, opportunistic_context, trusting_nobody, verified_context
from trimta.runtime.wire import HandshakeError, Wire, WireError
from trimta.smtp.client import CLOSING, ClientConnection, PeerClosedError
from trimta.smtp.commands import Auth, Ehlo, Helo, Quit, Rset, StartTls
from trimta.smtp.errors import ProtocolError, ReplyError
from trimta.smtp.fallback import Fallback
from trimta.smtp.outbound import Listen, Say, SendChunk, SendData
from trimta.smtp.reply_meaning import ReplyStage, status_of
from trimta.smtp.sasl import challenge_of, client_exchange, render_response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trimta.config.model import Timeouts
    from trimta.mail.envelope import Recipient
    from trimta.mail.reply import Reply
    from trimta.outbound.egress import EgressPolicy
    from trimta.outbound.transports.outbound_content import Content, Octets
    from trimta.runtime.disk import Disk
    from trimta.runtime.transcript import Transcript
    from trimta.smtp.commands import Command
    from trimta.smtp.extensions import Offered
    from trimta.smtp.outbound import OutboundTransaction
    from trimta.smtp.sasl import Credentials

QUIT_LIMIT: Final = 1.0
"""Seconds for the answer to QUIT, and for a refusal after a broken send: nothing depends on them."""

BUFFER: Final = 64 * 1024
"""Octets that wait to be written together."""


class TroubleError(Exception):
    """This host can't be used now.  Another may: what is undecided goes there, else it is deferred with this."""

    def __init__(self, status: EnhancedStatus, text: str, *, smtp: bool = False, final: bool = False) -> None:
        super().__init__(text)
        self.status = status
        """Class 4."""
        self.smtp = smtp
        """The text is a reply of the peer."""
        self.final = final
        """Every other host would say the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to connect: an IP address and port, or a unix socket."""

    host: str
    """The peer's name: for TLS, logs and DSNs."""
    address: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Nobody can listen in between."""
        return self.path is not None or ipaddress.ip_address(self.address.partition("%")[0]).is_loopback

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        where = f"[{self.address}]:{self.port}"
        return where if self.host == self.address else f"{self.host} {where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to speak to a next hop: what its route says."""

    lmtp: bool = False
    tls: TlsPolicy = TlsPolicy.MAY
    implicit_tls: bool = False
    credentials: Credentials | None = None
    smarthost: bool = False
    """The route names the host: what it wants of us is for the route to say."""


class Dial(Protocol):
    """Makes a connection; what is not there raises OSError."""

    async def __call__(self, endpoint: Endpoint) -> trio.abc.Stream:
        """Connect; cancelled, it leaves nothing open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsContexts:
    """For peers whose certificate is not looked at, and for those whose is."""

    opportunistic: ssl.SSLContext
    verifying: ssl.SSLContext
    trouble: str = ""
    """Why `verifying` trusts nobody: what the environment names is of no use."""

    @classmethod
    def load(cls, ca: Path | None = None) -> Self:
        """Read the authorities; `tls.TlsError` if those of the configuration can't be had.  Blocks."""
        try:
            return cls(opportunistic=opportunistic_context(), verifying=verified_context(ca))
        except TlsError as cause:
            if ca is not None:
                raise
            # The environment's: mail that asks for no verification need not suffer from it.
            return cls(opportunistic=opportunistic_context(), verifying=trusting_nobody(), trouble=str(cause))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What all connections share."""

    hostname: str
    """What we say in EHLO."""
    timeouts: Timeouts
    egress: EgressPolicy
    tls: TlsContexts
    disk: Disk
    dial: Dial | None = None
    """How connections are made; None: TCP and unix sockets.  `egress` is asked before, in any case."""

    async def connect(self, endpoint: Endpoint) -> trio.abc.Stream:
        """EgressDeniedError, or OSError; the caller has the timeout."""
        if endpoint.path is None:
            self.egress.check(endpoint.host, endpoint.address, endpoint.port)
        if self.dial is not None:
            return await self.dial(endpoint)
        if endpoint.path is not None:
            return await self.egress.connect_unix(endpoint.path)
        return await self.egress.connect(endpoint.host, endpoint.address, endpoint.port)


class SmtpConnection:
    """Made by `open`.  `perform` carries out transactions; `quit` ends it, `aclose` at once and without a word."""

    def __init__(
        self, wire: Wire, endpoint: Endpoint, manner: Manner, sending: Sending, transcript: Transcript
    ) -> None:
        self._wire = wire
        self._core = ClientConnection()
        self._manner = manner
        self._sending = sending
        self._timeouts = sending.timeouts
        self._out = bytearray()
        self._on_first_octet: Callable[[], None] = lambda: None
        self._must_reset = False
        self._secrets: tuple[str, ...] = ()
        """What nobody may read, should the peer repeat it."""
        self._broken = False
        self._ehlo_refusal = ""
        self._send_failure: TroubleError | None = None
        self.endpoint = endpoint
        self.transcript = transcript
        """Where the dialogue is written down; the caller gives each message its own."""
        self.opened_at = trio.current_time()
        self.transactions = 0
        """How many have begun."""
        self.authenticated = False
        self.has_taken = False
        """Some recipient has been delivered to over it."""
        self._domains: set[str] = set()
        """Those of all recipients so far."""

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        manner: Manner,
        sending: Sending,
        transcript: Transcript,
        on_first_octet: Callable[[], None] = lambda: None,
    ) -> Self:
        """Connect, and go as far as the first MAIL may follow.

        TroubleError if the host is of no use now, EgressDeniedError if it may not be connected to.  With tls = "may" a
        handshake that fails is forgiven: a fresh connection does without TLS.
        """
        try:
            try:
                return await cls._open(endpoint, manner, manner.tls, sending, transcript, on_first_octet)
            except HandshakeError as error:
                transcript.note(f"TLS failed: {error}")
                if manner.tls is not TlsPolicy.MAY or manner.implicit_tls:
                    status = (
                        CRYPTOGRAPHIC_FAILURE.transient
                        if manner.tls is TlsPolicy.VERIFY
                        else SECURITY_UNSUPPORTED.transient
                    )
                    raise TroubleError(status, f"TLS with {endpoint} failed: {error}") from error
            transcript.note("trying again without TLS")
            return await cls._open(endpoint, manner, TlsPolicy.NONE, sending, transcript, on_first_octet)
        except ProtocolError as error:
            transcript.note(str(error))
            raise TroubleError(PROTOCOL_TROUBLE.transient, f"{endpoint}: {error}") from error

    @classmethod
    async def _open(
        cls,
        endpoint: Endpoint,
        manner: Manner,
        policy: TlsPolicy,
        sending: Sending,
        transcript: Transcript,
        on_first_octet: Callable[[], None],
    ) -> Self:
        transcript.note(f"connecting to {endpoint}")
        try:
            with trio.fail_after(sending.timeouts.connect):
                stream = await sending.connect(endpoint)
        except trio.TooSlowError:
            problem = f"no answer within {sending.timeouts.connect:g} s"
        except OSError as error:
            # Trio's own words repeat the address.
            problem = (os.strerror(error.errno) if error.errno else str(error)).lower()
        else:
            connection = cls(Wire(stream), endpoint, manner, sending, transcript)
            async with AsyncExitStack() as cleanup:
                cleanup.push_async_callback(connection.aclose)
                await connection._begin(policy, on_first_octet)
                cleanup.pop_all()
            return connection
        transcript.note(f"cannot connect: {problem}")
        raise TroubleError(NO_ANSWER.transient, f"cannot connect to {endpoint}: {problem}")

    @property
    def offered(self) -> Offered:
        """The peer's extensions."""
        return self._core.offered

    @property
    def lmtp(self) -> bool:
        """One reply for each recipient (RFC 2033)."""
        return self._manner.lmtp

    @property
    def fallback(self) -> Fallback:
        """What it does without."""
        manner = self._manner
        return Fallback(
            plain=not self._wire.tls,
            anonymous=manner.smarthost and manner.credentials is None,
            helo=self._ehlo_refusal,
        )

    @property
    def healthy(self) -> bool:
        """Another transaction can be carried out."""
        if self._broken or not self._core.ready or not self._wire.usable:
            return False
        limit = self.offered.limits.get("MAILMAX")
        return limit is None or self.transactions < limit

    # Up to the first MAIL.

    async def _begin(self, policy: TlsPolicy, on_first_octet: Callable[[], None]) -> None:
        self._on_first_octet = on_first_octet
        if self._manner.implicit_tls:
            await self._start_tls(policy)
        greeting = await self._hear(ReplyStage.GREETING)
        if greeting.klass != 2:
            raise _refused(greeting, ReplyStage.GREETING)
        await self._hello()
        if not self._manner.implicit_tls and policy is not TlsPolicy.NONE:
            await self._negotiate_tls(policy)
        if self._manner.credentials is not None:
            await self._authenticate(self._manner.credentials)

    async def _hello(self) -> None:
        """EHLO, else HELO; LHLO has no other."""
        hostname = self._sending.hostname
        reply = await self._ask(Ehlo(hostname, self._manner.lmtp), ReplyStage.HELO)
        if reply.klass == 5 and not self._manner.lmtp:
            self._ehlo_refusal = "" if reply.code in _UNKNOWN_COMMAND else reply.diagnostic
            reply = await self._ask(Helo(hostname), ReplyStage.HELO)
        if reply.klass != 2:
            raise _refused(reply, ReplyStage.HELO)

    async def _negotiate_tls(self, policy: TlsPolicy) -> None:
        """STARTTLS as the policy wants it (RFC 3207)."""
        if self.offered.starttls:
            try:
                reply = await self._ask(StartTls(), ReplyStage.STARTTLS)
                if reply.klass == 2:
                    await self._start_tls(policy)
                    self._core.start_tls_done()
                    await self._hello()  # with TLS 1.3 this is when a host says that it wanted another certificate
                    return
            except (TroubleError, ProtocolError) as error:
                if policy is not TlsPolicy.MAY and isinstance(error, TroubleError) and error.smtp:
                    raise  # the host's own words
                raise HandshakeError(str(error), untrusted=False) from error
            problem = f"refused STARTTLS: {reply}"
        else:
            problem = "does not offer STARTTLS"
        if policy is not TlsPolicy.MAY:
            status = CRYPTOGRAPHIC_FAILURE.transient if policy is TlsPolicy.VERIFY else SECURITY_UNSUPPORTED.transient
            raise TroubleError(status, f'{self.endpoint} {problem}; the route says tls = "{policy}"')

    async def _start_tls(self, policy: TlsPolicy) -> None:
        """The handshake.  HandshakeError if it fails, of whatever cause."""
        contexts = self._sending.tls
        context = contexts.verifying if policy is TlsPolicy.VERIFY else contexts.opportunistic
        try:
            with trio.fail_after(self._timeouts.command):
                await self._wire.start_tls(context, server_hostname=self.endpoint.host)
        except HandshakeError as error:
            if not error.untrusted or not contexts.trouble:
                raise
            raise HandshakeError(f"{error}: {contexts.trouble}", untrusted=True) from error
        except trio.TooSlowError:
            raise HandshakeError(f"no handshake within {self._timeouts.command:g} s", untrusted=False) from None
        self._on_first_octet()
        self.transcript.note(f"{self._wire.tls_version} {self._wire.tls_cipher}")

    async def _authenticate(self, credentials: Credentials) -> None:
        """AUTH PLAIN, else LOGIN (RFC 4954, 4616).  Whatever goes wrong is this server's fault, not the message's."""
        if not (self._wire.tls or self.endpoint.is_local):
            raise TroubleError(
                ENCRYPTION_NEEDED.transient, f"{self.endpoint}: credentials are not sent in clear; set tls on the route"
            )
        exchange = client_exchange(self.offered.auth, credentials.name, credentials.password)
        if exchange is None:
            raise TroubleError(
                POLICY_TROUBLE.transient, f"{self.endpoint} does not offer AUTH PLAIN or LOGIN", final=True
            )
        self._secrets = credentials.secrets
        reply = await self._ask(Auth(exchange.mechanism, exchange.initial()), ReplyStage.AUTH)
        while reply.klass == 3:
            try:
                answer = render_response(exchange.respond(challenge_of(reply)))
            except ProtocolError as error:
                raise TroubleError(PROTOCOL_TROUBLE.transient, f"{self.endpoint}: {error}", final=True) from error
            self._core.expect()
            self._out += answer
            self.transcript.client("***")
            reply = await self._hear(ReplyStage.AUTH)
        if reply.klass != 2:
            status = status_of(reply, ReplyStage.AUTH, klass=4)
            raise TroubleError(status, reply.diagnostic, smtp=True, final=reply.klass == 5)
        self.authenticated = True

    # Transactions.

    def admitted(self, recipients: Sequence[Recipient]) -> list[Recipient]:
        """Those among them whose domains this connection has room for (LIMITS RCPTDOMAINMAX, RFC 9422 4.3)."""
        limit = self.offered.limits.get("RCPTDOMAINMAX")
        if limit is None:
            return list(recipients)
        domains = self._domains.copy()
        found: list[Recipient] = []
        for recipient in recipients:
            domain = recipient.address.domain_key
            if domain in domains or len(domains) < limit:
                domains.add(domain)
                found.append(recipient)
        return found

    async def reset(self) -> None:
        """RSET, if the peer may hold an earlier transaction open.  To be called before each transaction, and before its
        OutboundTransaction is made, which has to know how much time is left when MAIL goes out.  TroubleError as
        `perform`.
        """
        if not self._must_reset:
            return
        self._broken = True  # until it has come out well
        try:
            reply = await self._ask(Rset(), ReplyStage.RSET)
        except ProtocolError as error:
            self.transcript.note(str(error))
            raise TroubleError(PROTOCOL_TROUBLE.transient, f"{self.endpoint}: {error}") from error
        if reply.klass != 2:
            raise _refused(reply, ReplyStage.RSET)
        self._must_reset = self._broken = False

    async def perform(self, transaction: OutboundTransaction, content: Content) -> None:
        """Carry out a transaction.  `content` is what its facts are about.

        TroubleError if it was cut short: what the transaction knows of its recipients is right then, too.
        """
        assert not self._must_reset
        self.transactions += 1
        self._domains.update(recipient.address.domain_key for recipient in transaction.undecided)
        self._broken = True  # until it has come out well
        try:
            self._must_reset = True
            await self._carry_out(transaction, content)
            self.has_taken = self.has_taken or any(isinstance(one, Delivered) for one in transaction.outcomes)
            self._must_reset = transaction.must_reset
            self._broken = transaction.must_close or self._send_failure is not None
        except TroubleError as trouble:
            transaction.lost(str(trouble))
            raise
        except ProtocolError as error:
            self.transcript.note(str(error))
            transaction.lost(str(error))
            raise TroubleError(PROTOCOL_TROUBLE.transient, f"{self.endpoint}: {error}") from error
        if transaction.ended is not None:
            raise _refused(transaction.ended, ReplyStage.MAIL)

    async def _carry_out(self, transaction: OutboundTransaction, content: Content) -> None:
        with ExitStack() as cleanup:
            chunks: Octets | None = None
            while (step := transaction.next_step()) is not None:
                match step:
                    case Say(command, smtputf8):
                        self._say(command, smtputf8=smtputf8)
                    case SendData(replies, empty=True):
                        self._core.expect(replies)
                        self._out += b".\r\n"
                        self.transcript.client(".")
                        await self._flush()
                    case SendData(replies):
                        self._core.expect(replies)
                        self.transcript.client(f"({content.wire_size} octets of content)")
                        octets = cleanup.enter_context(closing(content.for_data(self._sending.disk)))
                        await self._send_content(octets, None, transaction.sending_end)
                    case SendChunk(size, last, replies):
                        self._core.expect(replies)
                        self.transcript.client(f"({size} octets of content)")
                        if chunks is None:
                            chunks = cleanup.enter_context(closing(content.for_bdat(self._sending.disk)))
                        await self._send_content(chunks, size, transaction.sending_end if last else None)
                    case Listen(stage):
                        transaction.reply(await self._hear(stage))

    async def _send_content(self, content: Octets, size: int | None, before_end: Callable[[], None] | None) -> None:
        """Write `size` octets of content, or all there is.  A connection that breaks meanwhile is reported by whoever
        listens next: the peer may have said why it would not read on.
        """
        try:
            while size != 0 and (block := await content.take(size)):
                self._out += block
                if size is not None:
                    size -= len(block)
                # The last octets stay in the buffer: what is written below is what may finish the message.
                if len(self._out) >= BUFFER and size != 0 and not await content.at_end():
                    await self._flush()
            if size or (before_end is not None and not await content.at_end()):
                raise RuntimeError("the content has not the size that was said")
            if before_end is not None:
                before_end()
            await self._flush()
        except TroubleError as trouble:
            self._send_failure = trouble

    # Saying and hearing.

    async def _ask(self, command: Command, stage: ReplyStage) -> Reply:
        """Say one command and hear its reply."""
        self._say(command)
        return await self._hear(stage)

    def _say(self, command: Command, *, smtputf8: bool = False) -> None:
        """Put a command where it goes out with what follows; ProtocolError if the peer talks out of turn."""
        octets = self._core.send(command, smtputf8=smtputf8)
        self._out += octets
        text = octets.decode(errors="replace").rstrip()
        self.transcript.client(f"AUTH {command.mechanism} ***" if isinstance(command, Auth) else text)

    async def _flush(self) -> None:
        if not self._out:
            return
        octets = bytes(self._out)
        self._out.clear()
        try:
            with trio.fail_after(self._timeouts.data):  # RFC 5321 4.5.3.2.5
                await self._wire.send_all(octets)
        except trio.TooSlowError:
            raise self._trouble(f"nothing could be sent for {self._timeouts.data:g} s") from None
        except WireError as error:
            raise self._trouble(f"the connection broke while sending ({error})") from error

    async def _hear(self, stage: ReplyStage) -> Reply:
        """One reply, whole, in its time (RFC 5321 4.5.3.2)."""
        if self._send_failure is not None:
            return await self._last_words(self._send_failure)
        await self._flush()
        limit = self._limit(stage)
        try:
            with trio.fail_after(limit):
                reply = await self._next_reply()
        except trio.TooSlowError:
            # A message that was taken goes out a second time unless that is understood, however it was said.
            cut_off = self._core.cut_off() if stage is ReplyStage.BODY else None
            if cut_off is None:
                raise self._trouble(f"no reply within {limit:g} s ({_WAITED_FOR[stage]})") from None
            reply = self._heard(cut_off)
        except PeerClosedError:
            raise self._trouble(f"the connection was closed ({_WAITED_FOR[stage]})") from None
        except WireError as error:
            raise self._trouble(f"the connection broke: {error} ({_WAITED_FOR[stage]})") from error
        if reply.code == CLOSING and stage in _BEFORE_MAIL:
            raise _refused(reply, stage)
        return reply

    async def _next_reply(self) -> Reply:
        try:
            while (reply := self._core.next_reply()) is None:
                data = await self._wire.receive_some()
                if data:
                    self._on_first_octet()
                self._core.receive_data(data)
        except ReplyError as error:
            raise ReplyError(self._discreet(str(error))) from None
        return self._heard(reply)

    def _heard(self, reply: Reply) -> Reply:
        """Write a reply down, without what it repeats of our secrets."""
        if reply.klass != 3:  # a challenge is for the exchange, which has it as it came
            lines, received = (tuple(map(self._discreet, lines)) for lines in (reply.lines, reply.received))
            reply = replace(reply, lines=lines, received=received)
        self.transcript.server(str(reply))
        return reply

    def _discreet(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def _last_words(self, failure: TroubleError) -> Reply:
        """Why the peer stopped reading, if it said so."""
        try:
            with trio.move_on_after(QUIT_LIMIT):
                reply = await self._next_reply()
                if reply.klass in (4, 5):
                    return reply
        except (WireError, ProtocolError):
            pass
        raise failure

    def _limit(self, stage: ReplyStage) -> float:
        match stage:
            case ReplyStage.GREETING:
                return self._timeouts.greeting
            case ReplyStage.BODY | ReplyStage.CHUNK:
                return self._timeouts.data_done
            case _:
                return self._timeouts.command

    def _trouble(self, problem: str) -> TroubleError:
        self.transcript.note(problem)
        return TroubleError(BAD_CONNECTION.transient, f"{self.endpoint}: {problem}")

    # The end.

    async def quit(self) -> None:
        """Say QUIT and close; a peer that does not answer is not waited for longer than a second."""
        try:
            if not self._broken and self._core.ready and self._wire.usable:
                with trio.move_on_after(QUIT_LIMIT):
                    self._say(Quit())
                    await self._flush()
                    await self._next_reply()
        except (TroubleError, WireError, ProtocolError):
            pass
        finally:
            await self._wire.aclose()

    async def aclose(self) -> None:
        """Close without a word."""
        self._broken = True
        self._wire.usable = False
        await self._wire.aclose()


def _refused(reply: Reply, stage: ReplyStage) -> TroubleError:
    """A reply that is about us or about the host's state, not about a message: never more than a deferral."""
    return TroubleError(status_of(reply, stage, klass=4), reply.diagnostic, smtp=True)


_UNKNOWN_COMMAND: Final = frozenset({500, 501, 502, 504})
"""A host that says this to EHLO does not know it (RFC 5321 4.2.4); other refusals have other reasons."""

_BEFORE_MAIL: Final = frozenset(
    {ReplyStage.GREETING, ReplyStage.HELO, ReplyStage.STARTTLS, ReplyStage.AUTH, ReplyStage.RSET}
)

_WAITED_FOR: Final = {
    ReplyStage.GREETING: "waiting for the greeting",
    ReplyStage.HELO: "after EHLO",
    ReplyStage.STARTTLS: "after STARTTLS",
    ReplyStage.AUTH: "during AUTH",
    ReplyStage.MAIL: "after MAIL",
    ReplyStage.RCPT: "after RCPT",
    ReplyStage.DATA: "after DATA",
    ReplyStage.CHUNK: "after BDAT",
    ReplyStage.BODY: "after the end of the message",
    ReplyStage.RSET: "after RSET",
}
