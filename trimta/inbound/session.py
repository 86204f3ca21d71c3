"""One inbound session: it takes SMTP events from `smtp.server`, the core, and has each answered.

One task reads and writes; there is no other.  Waiting for a client that owes us nothing is interrupted by shutdown;
taking responsibility for a message and saying so is not.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, assert_never

import trio

from trimta.config.model import FaultStage, ListenTls
from trimta.inbound import vrfy_expn_etrn
from trimta.inbound.connection_counts import Admission
from trimta.inbound.server_conversation import FAREWELL_LIMIT, STOPPING, HungUp
from trimta.mail.reply import Reply
from trimta.runtime.wire import WireError
from trimta.smtp.commands import (
    Auth,
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
from trimta.smtp.extensions import FutureRelease, MailProtocol
from trimta.smtp.help import help_reply
from trimta.smtp.server_events import CLOSED, NEED_DATA, AuthResponse, BadInput, ContentEnd, ContentPiece
from trimta.smtp.server_settings import AuthPolicy, ServerSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trimta.config.model import Configuration, ListenSection
    from trimta.inbound.authentication import Authentication
    from trimta.inbound.client_address import ClientAddress
    from trimta.inbound.server_conversation import ServerConversation
    from trimta.inbound.transaction import Transactions
    from trimta.inbound.vrfy_expn_etrn import QueueStarter
    from trimta.runtime.drain import Drain
    from trimta.runtime.events import Events
    from trimta.runtime.services import Services
    from trimta.smtp.server_events import SmtpEvent

MAX_WAITING: Final = 16 * 1024
"""Octets of replies that are kept together: what one client asks for must not fill the memory, nor keep the others
waiting.
"""

_BROKEN: Final = Reply.of(421, "4.3.0", "internal error, try again later")


class Session:
    """A connection that was accepted, until it ends.  The configuration of its beginning holds to its end."""

    def __init__(
        self,
        services: Services,
        listen: ListenSection,
        conversation: ServerConversation,
        *,
        transaction: Transactions,
        authentication: Authentication,
        queue_starter: QueueStarter,
        admission: Callable[[], Admission],
        drain: Drain,
        events: Events,
    ) -> None:
        self._policy = services.policy
        self._configuration = services.configuration
        self._listen = listen
        self._conversation = conversation
        self._core = conversation.core
        self._client = str(conversation.client)
        self._transaction = transaction
        self._authentication = authentication
        self._queue_starter = queue_starter
        self._admission = admission
        self._drain = drain
        self._events = events

    async def run(self) -> None:
        """Talk until one side ends it.  What the client breaks ends the session, never the server."""
        conversation = self._conversation
        self._events.emit("connect", client=self._client)
        try:
            if self._listen.tls is ListenTls.IMPLICIT:
                await conversation.start_tls()
            await self._greet()
            await self._converse()
        except (HungUp, WireError) as end:
            self._events.emit("lost", client=self._client, reason=str(end))
        except trio.Cancelled:
            with trio.move_on_after(FAREWELL_LIMIT, shield=True):  # else: the client does not know that it is to retry
                await conversation.say_goodbye(STOPPING)
            raise
        except Exception:
            with trio.move_on_after(FAREWELL_LIMIT, shield=True):
                await conversation.say_goodbye(_BROKEN)
            raise
        finally:
            if self._transaction.has_begun:
                with trio.move_on_after(FAREWELL_LIMIT, shield=True):  # else: a file is left in the spool until a start
                    await self._transaction.forget()
            self._events.emit("disconnect", client=self._client, messages=self._transaction.messages)
            if not conversation.wire.close_now():
                with trio.move_on_after(FAREWELL_LIMIT, shield=True):  # TLS says goodbye, also when cancelled
                    await conversation.wire.aclose()

    async def _greet(self) -> None:
        name = "LMTP" if self._core.settings.protocol is MailProtocol.LMTP else "ESMTP"
        greeting = Reply.of(220, "", f"{self._configuration.hostname} {name} trimta")
        admission = self._admission()
        if admission is Admission.CROWDED:
            greeting = Reply.of(421, "4.7.0", "too many connections from your address")
        elif admission is Admission.FULL:
            greeting = Reply.of(421, "4.3.2", "too many connections, try again later")
        elif self._drain.started:
            greeting = STOPPING
        if greeting.code != 220:
            self._events.emit("rejected", client=self._client, reply=str(greeting))
        await self._conversation.say(FaultStage.CONNECT, greeting)

    async def _converse(self) -> None:
        core, conversation = self._core, self._conversation
        while True:
            event = core.next_event()
            if event is NEED_DATA:
                await conversation.receive()
            elif event is CLOSED:
                await conversation.flush()
                if conversation.hanging_up:
                    await conversation.wire.linger(FAREWELL_LIMIT)
                return
            elif isinstance(event, ContentPiece):
                await self._transaction.store(event.data)
            else:
                conversation.note(event)
                await self._answer(event)
                if core.transaction is None and self._transaction.has_begun:
                    await self._transaction.forget()
                if core.waiting > MAX_WAITING:
                    await conversation.flush()
                    await trio.lowlevel.checkpoint()

    async def _answer(self, event: SmtpEvent) -> None:
        """Answer what the client said."""
        conversation = self._conversation
        match event:
            case Mail() | Rcpt() | Data() | ContentEnd():
                await self._answer_in_transaction(event)
            case Vrfy() | Expn() | Help() | Etrn():
                conversation.reply(await self._information(event))
            case Ehlo():
                await conversation.say(FaultStage.HELO, self._core.ehlo_reply())
            case Helo():
                await conversation.say(FaultStage.HELO, self._core.helo_reply())
            case Rset() | Noop():
                conversation.reply(Reply.of(250, "2.0.0", "ok"))
            case Quit():
                farewell = Reply.of(221, "2.0.0", f"{self._configuration.hostname} closing connection")
                await conversation.say(FaultStage.QUIT, farewell)
            case StartTls():
                conversation.reply(Reply.of(220, "2.0.0", "ready to start TLS"))
                await conversation.flush()
                await conversation.start_tls()
                self._core.start_tls_done()
            case Auth(mechanism, initial):
                await self._authentication.begin(mechanism, initial, lenient=self._configuration.auth.any)
            case AuthResponse(data):
                await self._authentication.go_on(data)
            case BadInput(reply, close):
                if close:
                    conversation.hanging_up = True
                    self._events.emit("rejected", client=self._client, reply=str(reply))
                conversation.reply(reply)
            case _:
                raise AssertionError(f"an event that is none of ours: {event}")

    def _answer_in_transaction(self, event: Mail | Rcpt | Data | ContentEnd) -> Awaitable[None]:
        match event:
            case Mail():
                return self._transaction.mail(event)
            case Rcpt():
                return self._transaction.rcpt(event)
            case Data():
                return self._transaction.data()
            case ContentEnd():
                return self._transaction.end_of_content(event)
            case _:
                assert_never(event)

    async def _information(self, command: Vrfy | Expn | Help | Etrn) -> Reply:
        """The reply to a command that changes nothing in the session."""
        may_relay = self._transaction.may_relay
        match command:
            case Vrfy(string, utf8):
                return vrfy_expn_etrn.vrfy(self._policy, string, may_relay=may_relay, utf8=utf8)
            case Expn(string, utf8):
                return vrfy_expn_etrn.expn(self._policy, string, utf8=utf8)
            case Help(topic):
                return help_reply(self._core.offer, topic)
            case Etrn(node):
                return await self._queue_starter.etrn(node, may_relay=may_relay)
            case _:
                assert_never(command)


def server_settings(
    configuration: Configuration, listen: ListenSection, client: ClientAddress, *, now: float
) -> ServerSettings:
    """What a listener offers to a client.  `now` is on the queue's clock: a hold is counted from it."""
    return ServerSettings(
        hostname=configuration.hostname,
        protocol=listen.protocol,
        size_limit=configuration.limits.message_size,
        max_recipients=configuration.limits.recipients,
        starttls=listen.tls is ListenTls.STARTTLS,
        # "required" stays so where a reload took the last user away: then nobody gets in, not everybody.
        auth=listen.auth
        if configuration.auth.any or configuration.auth.users or listen.auth is AuthPolicy.REQUIRED
        else AuthPolicy.NONE,
        auth_in_clear=configuration.auth.insecure or client.is_loopback,
        future_release=_future_release(configuration, now) if listen.protocol is MailProtocol.SUBMISSION else None,
        hide=listen.hide,
        bare_newline=configuration.limits.bare_newline,
    )


def _future_release(configuration: Configuration, now: float) -> FutureRelease:
    """FUTURERELEASE (RFC 4865): a message may be held for as long as one may wait in the queue."""
    lifetime = configuration.queue.lifetime
    moment = datetime.fromtimestamp(now, UTC) + timedelta(seconds=lifetime)
    return FutureRelease(int(lifetime), moment.replace(microsecond=0))
