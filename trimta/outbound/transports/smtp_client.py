"""The SMTP and LMTP client with its I/O (RFC 5321 2.1, RFC 2033): hosts -> addresses -> connection -> an outcome for
each recipient.

A host that can't be used now (no connection, a refusing greeting, TLS, a conversation that broke) leaves the recipients
without an outcome to the next address (RFC 5321 5.1).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import trio

from trimta.content.downgrade import CannotDowngrade
from trimta.mail.outcome import LocalCause, PeerReply
from trimta.mail.status import (
    BAD_CONFIGURATION,
    BAD_CONNECTION,
    CANNOT_CONVERT,
    NO_ANSWER,
    NON_ASCII_ADDRESS,
    SYSTEM_TROUBLE,
)
from trimta.outbound.egress import EgressDeniedError
from trimta.outbound.resolver import MxHosts, RoutingFailure
from trimta.outbound.transports.attempt import Attempt
from trimta.outbound.transports.client_conversation import HostUnusableError
from trimta.outbound.transports.client_settings import Endpoint, RouteSettings
from trimta.outbound.transports.connection import SmtpConnection
from trimta.routing.routes import HostRoute, MxRoute
from trimta.smtp.outbound import OutboundTransaction
from trimta.smtp.sasl import Credentials
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.mail.envelope import Recipient
    from trimta.outbound.resolver import Routing
    from trimta.outbound.transports.attempt import AttemptResult, OutboundMessage
    from trimta.outbound.transports.client_settings import ClientSettings
    from trimta.outbound.transports.outbound_content import FittedContent

REUSE_MESSAGES: Final = 100
"""Messages that go over one connection, and ..."""
REUSE_SECONDS: Final = 300.0
"""... seconds after which it takes no further one: no host should have to end the connection for us."""

REPORT_LIMIT: Final = 2.0
"""Seconds to report what was decided before a cancellation: one commit."""


class Report(Protocol):
    """The caller's side of a client that sends one message after the other."""

    async def __call__(
        self, message: OutboundMessage, result: AttemptResult, /, *, asks_for_next: bool
    ) -> OutboundMessage | None:
        """Take the result of a message, and give the next one if the client asks for it; None if there is none."""


class Hosts(Protocol):
    """The part of `resolver.Resolver` that a client needs."""

    async def resolve_mx(self, domain: str, *, port: int = 25) -> Routing:
        """The hosts that take mail for a domain."""

    async def resolve_host(self, name: str, *, port: int = 25) -> Routing:
        """The addresses of a route's host."""


class SmtpClient:
    """A client for one next hop, which sends messages one after the other, over one connection where it lasts."""

    def __init__(
        self,
        route: MxRoute | HostRoute,
        domain: str,
        settings: ClientSettings,
        hosts: Hosts,
        *,
        recipients_per_transaction: int = 100,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`domain`: the domain_key of the recipients, whose MX records an `MxRoute` asks for.  `now`: seconds since
        the epoch, which the deadlines of DELIVERBY are compared with.
        """
        self._route = route
        self._domain = domain
        self._settings = settings
        self._hosts = hosts
        self._max_recipients = recipients_per_transaction
        self._now = now
        self._connection: SmtpConnection | None = None
        self._attempt: Attempt | None = None
        """The attempt that is being made."""
        self._opening = trio.CancelScope()
        self.silent_since: float | None = None
        """Trio's time since which a new connection has been waiting for the first octet of its host; None: there is no
        such connection.  A host that is silent gives way to others.
        """

    async def run(self, first: OutboundMessage, report: Report) -> None:
        """Send `first`, report its result, and go on with the messages that `report` gives while the connection is
        healthy, `REUSE_MESSAGES` and `REUSE_SECONDS` at most.

        A cancelled call reports the outcomes that it has, if any, and closes the connection.
        """
        message: OutboundMessage | None = first
        count = 0
        try:
            while message is not None:
                result = await self.send(message)
                count += 1
                message = await report(message, result, asks_for_next=count < REUSE_MESSAGES and self._is_reusable())
        finally:
            if self._attempt is not None:
                await self._report_cut_short(self._attempt, report)  # noqa: ASYNC102 - it shields itself
            await self.aclose()

    async def _report_cut_short(self, attempt: Attempt, report: Report) -> None:
        result = attempt.result
        if not result.outcomes:
            return
        result.cut_short = True
        result.unusable = HostUnusableError(BAD_CONNECTION.transient, LocalCause("the attempt was cut short"))
        result.transcript = attempt.transcript.lines
        with trio.CancelScope(shield=True) as scope:  # else: recipients who have the message get it again
            scope.deadline = trio.current_time() + REPORT_LIMIT
            await report(attempt.message, result, asks_for_next=False)

    async def send(self, message: OutboundMessage) -> AttemptResult:
        """Make one attempt, over the connection that is open or a new one, which stays open.

        It never takes longer than `timeouts.delivery`.
        """
        attempt = self._attempt = Attempt(message, self._now)
        result = attempt.result
        limit = self._settings.timeouts.delivery
        with trio.move_on_after(limit) as scope:
            try:
                await self._try_hosts(attempt)
            except BodyDamagedError as error:
                result.damaged = error
                await self._drop()
            except OSError as error:  # of the spool: those of the network are HostUnusableError by now
                cause = LocalCause(f"the message cannot be read: {error.strerror or error}")
                attempt.defer(SYSTEM_TROUBLE.transient, cause)
                await self._drop()
        if scope.cancelled_caught:
            self.silent_since = None
            await self._drop()
            result.denied = None
            attempt.keep_put_off()
            cause = LocalCause(f"the attempt took longer than {limit:g} s")
            result.unusable = HostUnusableError(BAD_CONNECTION.transient, cause)
            attempt.defer(BAD_CONNECTION.transient, cause)
        result.transcript = attempt.transcript.lines
        self._attempt = None
        return result

    def give_way(self) -> None:
        """Leave a host that has sent nothing yet, for the sake of other mail: the next address is tried, if there is
        one.  A host that has sent something is not left.
        """
        if self.silent_since is not None:
            self.silent_since = None
            self._opening.cancel()

    async def aclose(self) -> None:
        """Send QUIT, if there is a connection that can still carry it, and close."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.quit()

    # Hosts and addresses.

    async def _try_hosts(self, attempt: Attempt) -> None:
        result = attempt.result
        if self._connection is not None:
            # The host may have closed it by now; then the attempt goes on as if there had been no connection.
            await self._use_connection(self._connection, attempt)
            if attempt.is_decided:
                return
            result.unusable = None
        try:
            route = await self._route_settings()
            endpoints = await self._endpoints()
        except HostUnusableError as error:
            result.unusable = error
            attempt.defer(error.status, error.cause)
            return
        if isinstance(endpoints, RoutingFailure):
            attempt.end_without_hosts(endpoints)
            return
        for endpoint in endpoints:
            if endpoint in attempt.answered:
                continue  # over the connection that was open; the host would answer the same again
            attempt.take_up_again()
            await self._try_endpoint(endpoint, route, attempt)
            if attempt.is_decided or (result.unusable is not None and result.unusable.final):
                break
        attempt.conclude()

    async def _try_endpoint(self, endpoint: Endpoint, route: RouteSettings, attempt: Attempt) -> None:
        """Connect and send, again each time that the host ends the connection early but has taken some recipients."""
        while attempt.undecided:
            undecided, delivered = len(attempt.undecided), attempt.delivered
            attempt.begin_with(endpoint)
            try:
                connection = await self._connect(endpoint, route, attempt)
            except HostUnusableError as error:
                attempt.result.unusable = error
                return
            except EgressDeniedError as error:
                attempt.transcript.note(str(error))
                attempt.result.denied = attempt.result.denied or error
                return
            if not await self._use_connection(connection, attempt) and attempt.delivered == delivered:
                return
            attempt.result.unusable = None
            if len(attempt.undecided) == undecided:
                return

    async def _connect(self, endpoint: Endpoint, route: RouteSettings, attempt: Attempt) -> SmtpConnection:
        """A new connection in the place of the present one.  Raises HostUnusableError or EgressDeniedError."""
        if self.silent_since is None:
            self.silent_since = trio.current_time()
        try:
            await self.aclose()
            with trio.CancelScope() as self._opening:
                self._connection = await SmtpConnection.open(
                    endpoint, route, self._settings, attempt.transcript, self._on_first_octet
                )
                return self._connection
        finally:
            self.silent_since = None
        cause = LocalCause(f"{endpoint} said nothing, and gave way to other mail", endpoint.host)
        raise HostUnusableError(NO_ANSWER.transient, cause)

    async def _endpoints(self) -> list[Endpoint] | RoutingFailure:
        """The endpoints of all hosts, in the order in which they are to be tried."""
        route = self._route
        if isinstance(route, MxRoute):
            routing = await self._hosts.resolve_mx(self._domain, port=route.port)
        elif route.unix_path is not None:
            return [Endpoint(host="localhost", path=Path(route.unix_path))]
        else:
            routing = await self._hosts.resolve_host(route.host, port=route.port)
        if not isinstance(routing, MxHosts):
            return routing
        return [
            Endpoint(host=host.name, address=address, port=host.port)
            for host in routing.hosts
            for address in host.addresses
        ]

    async def _route_settings(self) -> RouteSettings:
        route = self._route
        if isinstance(route, MxRoute):
            return RouteSettings(tls=route.tls)
        credentials = None
        if route.username is not None and route.password_file is not None:
            credentials = Credentials(route.username, await self._password(route.password_file))
        return RouteSettings(
            lmtp=route.protocol == "lmtp",
            tls=route.tls,
            implicit_tls=route.implicit_tls,
            credentials=credentials,
            smarthost=True,
        )

    async def _password(self, path: Path) -> str:
        try:
            return (await self._settings.disk.run(path.read_text, encoding="utf-8")).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            cause = LocalCause(f"password_file {path} cannot be read: {reason}")
            raise HostUnusableError(BAD_CONFIGURATION.transient, cause, final=True) from error

    # One connection.

    async def _use_connection(self, connection: SmtpConnection, attempt: Attempt) -> bool:
        """Carry out as many transactions as the recipients need; False if the host turned out to be unusable."""
        endpoint = connection.endpoint
        attempt.begin_with(endpoint)
        if connection.transcript is not attempt.transcript:
            attempt.transcript.note(f"on the open connection to {endpoint}")
            connection.transcript = attempt.transcript
        message = attempt.message
        try:
            content = await message.content.fitted(
                connection.offered, self._settings.disk, smtputf8=message.envelope.terms.smtputf8
            )
        except CannotDowngrade as error:
            return self._refuse_content(connection, attempt, error)
        while connection.healthy and (admitted := connection.admitted(attempt.undecided)):
            try:
                await connection.reset()
                if not await self._perform(connection, attempt, admitted, content):
                    break
            except HostUnusableError as error:
                attempt.result.unusable = error
                return False
        if not attempt.undecided:
            attempt.answered.add(endpoint)
        return True

    def _refuse_content(self, connection: SmtpConnection, attempt: Attempt, error: CannotDowngrade) -> bool:
        """Fail all recipients, since the content can't be put into a form that the host takes.  False, as of
        `_use_connection`, where the host refused EHLO for now: what it takes is not known.
        """
        host = connection.endpoint.host
        if attempt.message.envelope.terms.smtputf8 and not connection.offered.smtputf8:
            condition, text = NON_ASCII_ADDRESS, f"{host} does not offer SMTPUTF8, which this message needs"
        else:
            condition = CANNOT_CONVERT
            text = f"{host} cannot take this content, and re-encoding it is no way out: {error}"
        refusal = connection.fallback.ehlo_refusal
        if refusal is not None:
            attempt.result.unusable = HostUnusableError(condition.transient, PeerReply(refusal, host))
            return False
        attempt.fail(condition.permanent, LocalCause(text, host), of_content=True)
        return True

    async def _perform(
        self, connection: SmtpConnection, attempt: Attempt, recipients: Sequence[Recipient], content: FittedContent
    ) -> bool:
        """Carry out one transaction for as many recipients as it takes; False if a new connection may take more."""
        envelope = attempt.message.envelope
        by = envelope.terms.deliver_by
        transaction = OutboundTransaction(
            envelope.to(recipients),
            content.facts,
            connection.offered,
            lmtp=connection.lmtp,
            host=connection.endpoint.host,
            seconds_left=None if by is None else by.deadline - self._now(),
            max_recipients=min(self._max_recipients, attempt.room or self._max_recipients),
            fallback=connection.fallback,
            authenticated=connection.authenticated,
        )
        try:
            await connection.perform(transaction, content)
        finally:
            transaction.lost("the attempt was cut short")
            spent = transaction.full and connection.has_taken
            if not spent:
                attempt.note(transaction, recipients)
        return not spent

    def _is_reusable(self) -> bool:
        connection = self._connection
        return (
            connection is not None and connection.healthy and trio.current_time() - connection.opened_at < REUSE_SECONDS
        )

    async def _drop(self) -> None:
        """Close the connection without QUIT: it is broken."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    def _on_first_octet(self) -> None:
        self.silent_since = None
