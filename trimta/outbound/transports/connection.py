"""A connection to a host: connect, EHLO, TLS and AUTH, and then transactions, as many as both sides allow."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

import trio

from trimta.mail.outcome import Delivered, LocalCause, PeerReply
from trimta.mail.status import (
    CRYPTOGRAPHIC_FAILURE,
    ENCRYPTION_NEEDED,
    NO_ANSWER,
    POLICY_TROUBLE,
    PROTOCOL_TROUBLE,
    SECURITY_UNSUPPORTED,
)
from trimta.outbound.transports.client_conversation import ClientConversation, HostUnusableError, refusal
from trimta.routing.routes import TlsPolicy
from trimta.runtime.wire import HandshakeError, Wire
from trimta.smtp.commands import Auth, Ehlo, Helo, Rset, StartTls
from trimta.smtp.errors import ProtocolError
from trimta.smtp.fallback import Fallback
from trimta.smtp.outbound_steps import ReadReply, SendChunk, SendCommand, SendData
from trimta.smtp.reply_meaning import ReplyStage
from trimta.smtp.sasl import challenge_of, client_exchange, render_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.mail.envelope import Recipient
    from trimta.mail.reply import Reply
    from trimta.outbound.transports.client_settings import ClientSettings, Endpoint, RouteSettings
    from trimta.outbound.transports.outbound_content import FittedContent, WireOctets
    from trimta.runtime.transcript import Transcript
    from trimta.smtp.extensions import Offered
    from trimta.smtp.outbound import OutboundTransaction
    from trimta.smtp.sasl import Credentials


class SmtpConnection:
    """A connection to a host, made by `open`.

    `perform` carries out transactions; `quit` ends the connection with QUIT, `aclose` without.
    """

    def __init__(self, conversation: ClientConversation, route: RouteSettings, settings: ClientSettings) -> None:
        self._conversation = conversation
        self._route = route
        self._settings = settings
        self._must_reset = False
        """Whether the host may still have a transaction open."""
        self._broken = False
        """Whether the connection can't be used again, or a transaction is under way."""
        self._ehlo_refusal: Reply | None = None
        self.endpoint = conversation.endpoint
        self.opened_at = trio.current_time()
        """Trio's time, in seconds."""
        self.transactions = 0
        """The number of transactions that have begun."""
        self.authenticated = False
        self.has_taken = False
        """Whether a recipient has been delivered to over this connection."""
        self._domains: set[str] = set()
        """The domains of all recipients so far."""

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        route: RouteSettings,
        settings: ClientSettings,
        transcript: Transcript,
        on_first_octet: Callable[[], None] = lambda: None,
    ) -> Self:
        """Connect, and go on to where the first MAIL may follow.  `on_first_octet` is called once the host answers.

        Raises HostUnusableError if the host can't be used now, EgressDeniedError if it may not be connected to.  With
        tls = "may" a handshake may fail: then there is a second connection, without TLS.
        """
        try:
            try:
                return await cls._open(endpoint, route, route.tls, settings, transcript, on_first_octet)
            except HandshakeError as error:
                transcript.note(f"TLS failed: {error}")
                if route.tls is not TlsPolicy.MAY or route.implicit_tls:
                    condition = CRYPTOGRAPHIC_FAILURE if route.tls is TlsPolicy.VERIFY else SECURITY_UNSUPPORTED
                    cause = LocalCause(f"TLS with {endpoint} failed: {error}", endpoint.host)
                    raise HostUnusableError(condition.transient, cause) from error
            transcript.note("trying again without TLS")
            return await cls._open(endpoint, route, TlsPolicy.NONE, settings, transcript, on_first_octet)
        except ProtocolError as error:
            transcript.note(str(error))
            raise _protocol_trouble(endpoint, error) from error

    @classmethod
    async def _open(
        cls,
        endpoint: Endpoint,
        route: RouteSettings,
        policy: TlsPolicy,
        settings: ClientSettings,
        transcript: Transcript,
        on_first_octet: Callable[[], None],
    ) -> Self:
        transcript.note(f"connecting to {endpoint}")
        try:
            with trio.fail_after(settings.timeouts.connect):
                stream = await settings.connect(endpoint)
        except trio.TooSlowError:
            problem = f"no answer within {settings.timeouts.connect:g} s"
        except OSError as error:
            # The text of Trio's exception repeats the address.
            problem = (os.strerror(error.errno) if error.errno else str(error)).lower()
        else:
            conversation = ClientConversation(Wire(stream), endpoint, settings.timeouts, transcript, on_first_octet)
            connection = cls(conversation, route, settings)
            async with AsyncExitStack() as cleanup:
                cleanup.push_async_callback(connection.aclose)
                await connection._begin(policy)
                cleanup.pop_all()
            return connection
        transcript.note(f"cannot connect: {problem}")
        cause = LocalCause(f"cannot connect to {endpoint}: {problem}", endpoint.host)
        raise HostUnusableError(NO_ANSWER.transient, cause)

    @property
    def offered(self) -> Offered:
        """The host's extensions."""
        return self._conversation.core.offered

    @property
    def lmtp(self) -> bool:
        """Whether the host gives one reply for each recipient (RFC 2033)."""
        return self._route.lmtp

    @property
    def fallback(self) -> Fallback:
        """The means that the connection does without."""
        return Fallback(
            plain=not self._conversation.wire.tls,
            anonymous=self._route.smarthost and self._route.credentials is None,
            ehlo_refusal=self._ehlo_refusal,
        )

    @property
    def healthy(self) -> bool:
        """Whether another transaction can be carried out."""
        if self._broken or not self._conversation.can_ask:
            return False
        limit = self.offered.limits.get("MAILMAX")
        return limit is None or self.transactions < limit

    @property
    def transcript(self) -> Transcript:
        """Where the conversation is written down; the caller gives each message its own."""
        return self._conversation.transcript

    @transcript.setter
    def transcript(self, transcript: Transcript) -> None:
        self._conversation.transcript = transcript

    # Up to the first MAIL.

    async def _begin(self, policy: TlsPolicy) -> None:
        if self._route.implicit_tls:
            await self._start_tls(policy)
        greeting = await self._conversation.read_reply(ReplyStage.GREETING)
        if greeting.klass != 2:
            raise refusal(greeting, ReplyStage.GREETING, self.endpoint.host)
        await self._hello()
        if not self._route.implicit_tls and policy is not TlsPolicy.NONE:
            await self._negotiate_tls(policy)
        if self._route.credentials is not None:
            await self._authenticate(self._route.credentials)

    async def _hello(self) -> None:
        """EHLO, and HELO where that is refused (RFC 5321 4.1.4); in LMTP LHLO, which nothing replaces."""
        hostname = self._settings.hostname
        reply = await self._conversation.ask(Ehlo(hostname, self._route.lmtp), ReplyStage.HELO)
        if reply.klass == 5 and not self._route.lmtp:
            self._ehlo_refusal = None if reply.code in _UNKNOWN_COMMAND else reply
            reply = await self._conversation.ask(Helo(hostname), ReplyStage.HELO)
        if reply.klass != 2:
            raise refusal(reply, ReplyStage.HELO, self.endpoint.host)

    async def _negotiate_tls(self, policy: TlsPolicy) -> None:
        """STARTTLS as the route's policy says (RFC 3207)."""
        if self.offered.starttls:
            try:
                reply = await self._conversation.ask(StartTls(), ReplyStage.STARTTLS)
                if reply.klass == 2:
                    await self._start_tls(policy)
                    self._conversation.core.start_tls_done()
                    await self._hello()  # in TLS 1.3 a host says only now that it wanted another certificate
                    return
            except (HostUnusableError, ProtocolError) as error:
                is_reply = isinstance(error, HostUnusableError) and isinstance(error.cause, PeerReply)
                if policy is not TlsPolicy.MAY and is_reply:
                    raise  # the host's own words
                raise HandshakeError(str(error), untrusted=False) from error
            problem = f"refused STARTTLS: {reply}"
        else:
            problem = "does not offer STARTTLS"
        if policy is not TlsPolicy.MAY:
            condition = CRYPTOGRAPHIC_FAILURE if policy is TlsPolicy.VERIFY else SECURITY_UNSUPPORTED
            text = f'{self.endpoint} {problem}; the route says tls = "{policy}"'
            raise HostUnusableError(condition.transient, LocalCause(text, self.endpoint.host))

    async def _start_tls(self, policy: TlsPolicy) -> None:
        """The TLS handshake.  Raises HandshakeError if it fails, for whatever reason."""
        contexts = self._settings.tls
        wire = self._conversation.wire
        limit = self._settings.timeouts.command
        try:
            with trio.fail_after(limit):
                context = await contexts.verifying() if policy is TlsPolicy.VERIFY else contexts.opportunistic
                await wire.start_tls(context, server_hostname=self.endpoint.host)
        except HandshakeError as error:
            if not error.untrusted or not contexts.trouble:
                raise
            raise HandshakeError(f"{error}: {contexts.trouble}", untrusted=True) from error
        except trio.TooSlowError:
            raise HandshakeError(f"no handshake within {limit:g} s", untrusted=False) from None
        self._conversation.on_first_octet()
        self._conversation.transcript.note(f"{wire.tls_version} {wire.tls_cipher}")

    async def _authenticate(self, credentials: Credentials) -> None:
        """AUTH PLAIN, else LOGIN (RFC 4954, 4616).  Raises HostUnusableError if it fails, which is not the message's
        fault.
        """
        conversation = self._conversation
        if not (conversation.wire.tls or self.endpoint.is_local):
            text = f"{self.endpoint}: credentials are not sent in clear; set tls on the route"
            raise HostUnusableError(ENCRYPTION_NEEDED.transient, LocalCause(text, self.endpoint.host))
        exchange = client_exchange(self.offered.auth, credentials.name, credentials.password)
        if exchange is None:
            cause = LocalCause(f"{self.endpoint} does not offer AUTH PLAIN or LOGIN", self.endpoint.host)
            raise HostUnusableError(POLICY_TROUBLE.transient, cause, final=True)
        conversation.secrets = credentials.secrets
        reply = await conversation.ask(Auth(exchange.mechanism, exchange.initial()), ReplyStage.AUTH)
        while reply.klass == 3:
            try:
                response = render_response(exchange.respond(challenge_of(reply)))
            except ProtocolError as error:
                raise _protocol_trouble(self.endpoint, error, final=True) from error
            conversation.write_response(response)
            reply = await conversation.read_reply(ReplyStage.AUTH)
        if reply.klass != 2:
            raise refusal(reply, ReplyStage.AUTH, self.endpoint.host, final=reply.klass == 5)
        self.authenticated = True

    # Transactions.

    def admitted(self, recipients: Sequence[Recipient]) -> list[Recipient]:
        """The recipients whose domains this connection has room for (LIMITS RCPTDOMAINMAX, RFC 9422 4.3)."""
        limit = self.offered.limits.get("RCPTDOMAINMAX")
        if limit is None:
            return list(recipients)
        domains = self._domains.copy()
        admitted: list[Recipient] = []
        for recipient in recipients:
            domain = recipient.address.domain_key
            if domain in domains or len(domains) < limit:
                domains.add(domain)
                admitted.append(recipient)
        return admitted

    async def reset(self) -> None:
        """Send RSET if the host may hold an earlier transaction open.  Raises HostUnusableError as `perform`.

        To be called before each OutboundTransaction is made: that has to know how much time is left when MAIL goes out.
        """
        if not self._must_reset:
            return
        self._broken = True  # until all went well
        try:
            reply = await self._conversation.ask(Rset(), ReplyStage.RSET)
        except ProtocolError as error:
            self._conversation.transcript.note(str(error))
            raise _protocol_trouble(self.endpoint, error) from error
        if reply.klass != 2:
            raise refusal(reply, ReplyStage.RSET, self.endpoint.host)
        self._must_reset = self._broken = False

    async def perform(self, transaction: OutboundTransaction, content: FittedContent) -> None:
        """Carry out a transaction that was made with the facts of `content`.

        Raises HostUnusableError if the transaction was cut short; the outcomes that it has then hold.
        """
        assert not self._must_reset
        self.transactions += 1
        self._domains.update(recipient.address.domain_key for recipient in transaction.undecided)
        self._broken = True  # until all went well
        try:
            self._must_reset = True
            await self._carry_out(transaction, content)
            self.has_taken = self.has_taken or any(isinstance(outcome, Delivered) for outcome in transaction.outcomes)
            self._must_reset = transaction.must_reset
            self._broken = transaction.must_close or not self._conversation.sent_all
        except HostUnusableError as error:
            transaction.lost(str(error))
            raise
        except ProtocolError as error:
            self._conversation.transcript.note(str(error))
            transaction.lost(str(error))
            raise _protocol_trouble(self.endpoint, error) from error
        if transaction.ended is not None:
            raise refusal(transaction.ended, ReplyStage.MAIL, self.endpoint.host)

    async def _carry_out(self, transaction: OutboundTransaction, content: FittedContent) -> None:
        conversation, disk = self._conversation, self._settings.disk
        octets: WireOctets | None = None
        try:
            while (step := transaction.next_step()) is not None:
                match step:
                    case ReadReply(stage):
                        transaction.reply(await conversation.read_reply(stage))
                    case SendCommand(command, smtputf8):
                        conversation.write_command(command, smtputf8=smtputf8)
                    case SendData(replies, empty=True):
                        await conversation.send_empty(replies)
                    case SendData(replies):
                        conversation.expect_content(content.facts.size, replies)
                        octets = content.for_data(disk)
                        await conversation.send_content(octets, None, before_end=transaction.sending_end)
                    case SendChunk(size, last, replies):
                        conversation.expect_content(size, replies)
                        octets = octets or content.for_bdat(disk)
                        before_end = transaction.sending_end if last else None
                        await conversation.send_content(octets, size, before_end=before_end)
        finally:
            if octets is not None:
                octets.close()

    # The end.

    async def quit(self) -> None:
        """Send QUIT and close; a host that does not answer is waited for no longer than a second."""
        try:
            if not self._broken and self._conversation.can_ask:
                await self._conversation.quit()
        finally:
            await self._conversation.wire.aclose()

    async def aclose(self) -> None:
        """Close without QUIT."""
        self._broken = True
        self._conversation.wire.usable = False
        await self._conversation.wire.aclose()


def _protocol_trouble(endpoint: Endpoint, error: ProtocolError, *, final: bool = False) -> HostUnusableError:
    """The error for a host that does not keep to the protocol.  `final`: every other host would do the same."""
    cause = LocalCause(f"{endpoint}: {error}", endpoint.host)
    return HostUnusableError(PROTOCOL_TROUBLE.transient, cause, final=final)


_UNKNOWN_COMMAND: Final = frozenset({500, 501, 502, 504})
"""Codes by which a host refuses EHLO because it does not know it (RFC 5321 4.2.4)."""
