"""Delivery to one next hop by SMTP or LMTP: hosts -> addresses -> connection -> an outcome for each recipient.

Trouble with a host (no connection, a refusing greeting, TLS, a broken or closing conversation) and a reply that says
"not now" (4yz) send who is left to the next address (RFC 5321 5.1).  A refusal for good is an answer, and stays; so
does a deferral where the peer may have taken the message over, since another host would make it two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from trimta.content.downgrade import CannotDowngrade
from trimta.mail.outcome import Deferred, Delivered, Failed
from trimta.mail.status import (
    BAD_CONFIGURATION,
    BAD_CONNECTION,
    CANNOT_CONVERT,
    NO_ANSWER,
    NON_ASCII_ADDRESS,
    SYSTEM_TROUBLE,
    EnhancedStatus,
)
from trimta.outbound.egress import EgressDeniedError
from trimta.outbound.resolver import MxHosts, RoutingFailure
from trimta.outbound.transports.connection import Endpoint, Manner, SmtpConnection, TroubleError
from trimta.routing.routes import HostRoute, MxRoute
from trimta.runtime.transcript import Transcript
from trimta.smtp.outbound import OutboundTransaction
from trimta.smtp.sasl import Credentials
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Protocol

    from trimta.mail.envelope import Envelope, Recipient
    from trimta.mail.outcome import Outcome
    from trimta.outbound.resolver import Routing
    from trimta.outbound.transports.connection import Sending
    from trimta.outbound.transports.outbound_content import Content
    from trimta.smtp.outbound import ContentFacts

    class Hosts(Protocol):
        """What a delivery asks of `resolver.Resolver`."""

        async def resolve_mx(self, domain: str, *, port: int = 25) -> Routing:
            """The hosts that take mail for a domain."""

        async def resolve_host(self, name: str, *, port: int = 25) -> Routing:
            """The addresses of a route's host."""


REUSE_MESSAGES: Final = 100
REUSE_SECONDS: Final = 300.0
"""How long a connection is kept for further messages: no peer should have to end it for us."""

REPORT_LIMIT: Final = 2.0
"""Seconds to report what was decided before a cancellation: one commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One envelope, to be tried once."""

    id: str
    envelope: Envelope
    """With the recipients that are to be tried now; at least one."""
    content: Content


@dataclass(slots=True)
class Attempt:
    """What became of a job.

    Each recipient has one outcome, unless `held`, `damaged` or `cut_short` is set: those without stay in the queue
    then, held or due, or go where damaged entries go.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    held: EgressDeniedError | None = None
    """`[egress] allow` had room for none of the hosts; this is the first of them."""
    damaged: BodyDamagedError | None = None
    """The message can't be read any more."""
    trouble: TroubleError | None = None
    """No host could be used to the end: the next hop is better left alone for a while."""
    cut_short: bool = False
    """The delivery was cancelled: recipients without an outcome are still to be tried, as if nothing had been."""
    host: str = ""
    """The last one that was tried, with its address."""
    transcript: list[tuple[float, str]] = field(default_factory=list)
    """The dialogue, in bounded lines without secrets and bodies, each with its time."""


Report: TypeAlias = "Callable[[Job, Attempt], Awaitable[None]]"
More: TypeAlias = "Callable[[], Awaitable[Job | None]]"


class SmtpDelivery:
    """Carries jobs for one next hop, one after the other, over one connection where it lasts."""

    def __init__(
        self,
        route: MxRoute | HostRoute,
        domain: str,
        sending: Sending,
        hosts: Hosts,
        *,
        recipients_per_transaction: int = 100,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`domain`: the recipients' (its `domain_key`), not asked of a `HostRoute`.  `now`: seconds since the
        epoch, which the deadlines of DELIVERBY are compared with.
        """
        self._route = route
        self._domain = domain
        self._sending = sending
        self._hosts = hosts
        self._max_recipients = recipients_per_transaction
        self._now = now
        self._connection: SmtpConnection | None = None
        self._run: _Run | None = None
        """The attempt that is being made."""
        self._opening = trio.CancelScope()
        self.silent_since: float | None = None
        """Trio's time since which a fresh connection has been waiting for the peer's very first octet; None: it is
        not.  Who is silent gives way to others.
        """

    async def run(self, first: Job, more: More, report: Report) -> None:
        """Try `first`, report it, and go on with what `more` gives while the connection is healthy, `REUSE_MESSAGES`
        and `REUSE_SECONDS` at most.  `more` gives None when there is nothing else for this next hop.

        Cancelled, it reports what is decided already, if anything is, and closes the connection.
        """
        job: Job | None = first
        count = 0
        try:
            while job is not None:
                attempt = await self.attempt(job)
                await report(job, attempt)
                count += 1
                job = await more() if count < REUSE_MESSAGES and self._is_reusable() else None
        finally:
            if self._run is not None and job is not None:
                await self._report_cut_short(job, self._run, report)  # noqa: ASYNC102 - it shields itself
            await self.aclose()

    async def _report_cut_short(self, job: Job, run: _Run, report: Report) -> None:
        if not run.attempt.outcomes:
            return
        run.attempt.cut_short = True
        run.attempt.trouble = TroubleError(BAD_CONNECTION.transient, "the attempt was cut short")
        run.attempt.transcript = run.transcript.lines
        with trio.CancelScope(shield=True) as scope:  # else: recipients who have the message get it again
            scope.deadline = trio.current_time() + REPORT_LIMIT
            await report(job, run.attempt)

    async def attempt(self, job: Job) -> Attempt:
        """Try one job, over the connection that is open or a new one, which stays open.

        It never takes longer than `timeouts.delivery`.
        """
        run = self._run = _Run(job, self._now)
        limit = self._sending.timeouts.delivery
        with trio.move_on_after(limit) as scope:
            try:
                await self._try(run)
            except BodyDamagedError as error:
                run.attempt.damaged = error
                await self._drop()
            except OSError as error:  # of the spool: those of the network are trouble by now
                run.defer(SYSTEM_TROUBLE.transient, f"the message cannot be read: {error.strerror or error}")
                await self._drop()
        if scope.cancelled_caught:
            self.silent_since = None
            await self._drop()
            run.attempt.held = None
            run.keep_answers()
            run.attempt.trouble = TroubleError(BAD_CONNECTION.transient, f"the attempt took longer than {limit:g} s")
            run.defer(BAD_CONNECTION.transient, str(run.attempt.trouble))
        run.attempt.transcript = run.transcript.lines
        self._run = None
        return run.attempt

    def give_way(self) -> None:
        """Leave a peer that has said nothing yet, for the sake of others: the next address is tried, if there is one.
        Nothing happens to one that talks.
        """
        if self.silent_since is not None:
            self.silent_since = None
            self._opening.cancel()

    async def aclose(self) -> None:
        """QUIT, if there is a connection that is fit for it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.quit()

    # Hosts and addresses.

    async def _try(self, run: _Run) -> None:
        if self._connection is not None:
            # It may have been closed by now; then the job goes on as if there had been none.
            await self._visit(self._connection.endpoint, run)
            if run.is_decided:
                return
            run.attempt.trouble = None
        try:
            manner = await self._manner()
            endpoints = await self._endpoints()
        except TroubleError as trouble:
            run.attempt.trouble = trouble
            run.defer(trouble.status, str(trouble))
            return
        if isinstance(endpoints, RoutingFailure):
            run.transcript.note(endpoints.text)
            run.give_up(endpoints)
            return
        for endpoint in endpoints:
            if endpoint in run.heard:
                continue  # over the connection that was open; it would say the same again
            run.reconsider()
            await self._connect_and_visit(endpoint, manner, run)
            if run.is_decided or (run.attempt.trouble is not None and run.attempt.trouble.final):
                break
        self._conclude(run)

    async def _connect_and_visit(self, endpoint: Endpoint, manner: Manner, run: _Run) -> None:
        """As often as the peer ends a connection with recipients still to come, but has taken some of them."""
        while run.undecided:
            before, taken = len(run.undecided), run.taken
            run.tries(endpoint)
            if self.silent_since is None:
                self.silent_since = trio.current_time()
            try:
                await self.aclose()
                with trio.CancelScope() as self._opening:
                    self._connection = await SmtpConnection.open(
                        endpoint, manner, self._sending, run.transcript, self._heard
                    )
                if self._opening.cancelled_caught:
                    raise TroubleError(NO_ANSWER.transient, f"{endpoint} said nothing, and gave way to other mail")
            except TroubleError as trouble:
                run.attempt.trouble = trouble
                return
            except EgressDeniedError as denied:
                run.transcript.note(str(denied))
                run.attempt.held = run.attempt.held or denied
                return
            finally:
                self.silent_since = None
            if not await self._visit(endpoint, run) and run.taken == taken:
                return
            run.attempt.trouble = None
            if len(run.undecided) == before:
                return

    def _conclude(self, run: _Run) -> None:
        """What is to become of recipients that no host said anything about."""
        attempt = run.attempt
        run.keep_answers()
        if not run.undecided:
            attempt.held = None
            return
        if attempt.trouble is not None:
            # A host that may be tried was tried: it may be back next time, and nothing has to be decided by people.
            attempt.held = None
            run.defer(attempt.trouble.status, str(attempt.trouble), host=run.host, smtp=attempt.trouble.smtp)
        elif attempt.held is None:
            run.defer(NO_ANSWER.transient, "no host took the message")

    async def _endpoints(self) -> list[Endpoint] | RoutingFailure:
        """Every address of every host, in order."""
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

    async def _manner(self) -> Manner:
        route = self._route
        if isinstance(route, MxRoute):
            return Manner(tls=route.tls)
        credentials = None
        if route.username is not None and route.password_file is not None:
            credentials = Credentials(route.username, await self._password(route.password_file))
        return Manner(
            lmtp=route.protocol == "lmtp",
            tls=route.tls,
            implicit_tls=route.implicit_tls,
            credentials=credentials,
            smarthost=True,
        )

    async def _password(self, path: Path) -> str:
        try:
            return (await self._sending.disk.run(path.read_text, encoding="utf-8")).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise TroubleError(
                BAD_CONFIGURATION.transient, f"password_file {path} cannot be read: {reason}", final=True
            ) from error

    # One connection.

    async def _visit(self, endpoint: Endpoint, run: _Run) -> bool:
        """As many transactions as the recipients need; False if there was trouble with the host."""
        connection = self._connection
        assert connection is not None
        run.tries(endpoint)
        if connection.transcript is not run.transcript:
            run.transcript.note(f"on the open connection to {endpoint}")
            connection.transcript = run.transcript
        try:
            content, facts = await run.job.content.fitted(
                connection.offered, self._sending.disk, smtputf8=run.job.envelope.smtputf8
            )
        except CannotDowngrade as error:
            if run.job.envelope.smtputf8 and not connection.offered.smtputf8:
                status, text = (
                    NON_ASCII_ADDRESS.permanent,
                    f"{endpoint.host} does not offer SMTPUTF8, which this message needs",
                )
            else:
                status = CANNOT_CONVERT.permanent
                text = f"{endpoint.host} cannot take this content, and re-encoding it is no way out: {error}"
            if connection.fallback.helo:  # nobody knows what it can take
                status = status.condition.transient
                run.attempt.trouble = TroubleError(status, connection.fallback.helo, smtp=True)
                return False
            run.fail(status, text, host=endpoint.host, of_content=True)
            return True
        while connection.healthy and (admitted := connection.admitted(run.undecided)):
            try:
                await connection.reset()
                if not await self._perform(connection, run, admitted, content, facts):
                    break
            except TroubleError as trouble:
                run.attempt.trouble = trouble
                return False
        if not run.undecided:
            run.heard.add(endpoint)
        return True

    async def _perform(
        self,
        connection: SmtpConnection,
        run: _Run,
        recipients: Sequence[Recipient],
        content: Content,
        facts: ContentFacts,
    ) -> bool:
        """One transaction for as many recipients as it takes; False if a fresh connection may take more."""
        by = run.job.envelope.deliver_by
        transaction = OutboundTransaction(
            run.job.envelope.to(recipients),
            facts,
            connection.offered,
            lmtp=connection.lmtp,
            host=connection.endpoint.host,
            seconds_left=None if by is None else by.deadline - self._now(),
            max_recipients=min(self._max_recipients, run.room or self._max_recipients),
            fallback=connection.fallback,
            authenticated=connection.authenticated,
        )
        try:
            await connection.perform(transaction, content)
        finally:
            transaction.lost("the attempt was cut short")
            spent = transaction.full and connection.has_taken
            if not spent:
                run.take(transaction, recipients)
        return not spent

    def _is_reusable(self) -> bool:
        connection = self._connection
        return (
            connection is not None and connection.healthy and trio.current_time() - connection.opened_at < REUSE_SECONDS
        )

    async def _drop(self) -> None:
        """Close what is open without a word: it is broken, or about to be replaced."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    def _heard(self) -> None:
        self.silent_since = None


class _Run:
    """One attempt while it is made."""

    def __init__(self, job: Job, now: Callable[[], float]) -> None:
        self.job = job
        self.attempt = Attempt()
        self.transcript = Transcript(now)
        self.undecided: list[Recipient] = list(job.envelope.recipients)
        self.host = ""
        """The name of the last host that was tried."""
        self.heard: set[Endpoint] = set()
        """Who has given an answer about every recipient that was left."""
        self.taken = 0
        """How many recipients have been delivered to."""
        self.room: int | None = None
        """How many recipients at once the last host took, where it said that there were too many."""
        self._put_off: dict[Recipient, Deferred] = {}
        """What the last host said to whom it did not refuse for good."""

    def tries(self, endpoint: Endpoint) -> None:
        """The next host."""
        if self.attempt.host != str(endpoint):
            self.room = None
        self.host = endpoint.host
        self.attempt.host = str(endpoint)

    def take(self, transaction: OutboundTransaction, recipients: Sequence[Recipient]) -> None:
        """What a transaction for these recipients came to.  A 4yz reply is no last word while there are other hosts
        (RFC 5321 5.1).
        """
        for outcome in transaction.outcomes:
            if isinstance(outcome, Deferred) and outcome.smtp:
                self._put_off[outcome.recipient] = outcome
            else:
                self._put_off.pop(outcome.recipient, None)
                self.attempt.outcomes.append(outcome)
                self.taken += isinstance(outcome, Delivered)
        self.room = transaction.room or self.room
        others = {*self.undecided}.difference(recipients)
        self.undecided = [
            *transaction.undecided,
            *transaction.further,
            *(recipient for recipient in self.undecided if recipient in others),
        ]

    @property
    def is_decided(self) -> bool:
        """Nobody is left for another host."""
        return not (self.undecided or self._put_off)

    def reconsider(self) -> None:
        """The next host may take whom the one before put off."""
        waiting = {*self.undecided, *self._put_off}
        self.undecided = [recipient for recipient in self.job.envelope.recipients if recipient in waiting]

    def keep_answers(self) -> None:
        """There is no other host: whom one has put off is deferred with what it said."""
        self.attempt.outcomes.extend(self._put_off.values())
        self.undecided = [recipient for recipient in self.undecided if recipient not in self._put_off]
        if self._put_off:
            self.attempt.trouble = None  # the destination talks
        self._put_off = {}

    def defer(self, status: EnhancedStatus, diagnostic: str, *, host: str = "", smtp: bool = False) -> None:
        """Defer everybody about whom nothing is known."""
        self.attempt.outcomes.extend(
            Deferred(recipient=recipient, status=status, diagnostic=diagnostic, host=host, smtp=smtp)
            for recipient in self.undecided
        )
        self.undecided = []

    def fail(self, status: EnhancedStatus, diagnostic: str, *, host: str = "", of_content: bool = False) -> None:
        """The same, for good."""
        self.attempt.outcomes.extend(
            Failed(recipient=recipient, status=status, diagnostic=diagnostic, host=host, of_content=of_content)
            for recipient in self.undecided
        )
        self.undecided = []

    def give_up(self, failure: RoutingFailure) -> None:
        """There is no host."""
        if failure.status.klass == 5:
            self.fail(failure.status, failure.text)
        else:
            self.defer(failure.status, failure.text)
