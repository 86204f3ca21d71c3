"""One inbound conversation: the core says what the client wants, this decides, and answers.

One task reads and writes; there is no other.  Waiting for a client that owes us nothing is interrupted by shutdown;
taking responsibility for a message and saying so is not.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from trimta.config.model import ListenAuth, ListenTls, Stage
from trimta.inbound import vrfy_expn_etrn
from trimta.inbound.acceptance import accept
from trimta.inbound.incoming import Incoming, envelope_of, hold_refusal, read_header, stored_message
from trimta.inbound.scripted_faults import NULL_PATH, is_meant
from trimta.mail.address import AddressError, parse_domain
from trimta.mail.body import BodyForm
from trimta.mail.reply import Reply
from trimta.routing.destination import LocalDestination
from trimta.runtime.ids import new_id
from trimta.runtime.transcript import Transcript
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
    help_text,
)
from trimta.smtp.errors import CommandError
from trimta.smtp.extensions import FutureRelease, MailProtocol
from trimta.smtp.sasl import Challenge, ServerExchange, server_exchange
from trimta.smtp.server import (
    AuthPolicy,
    AuthResponse,
    BadInput,
    BareNewline,
    ContentEnd,
    ContentPiece,
    ServerConnection,
    ServerSettings,
    SessionState,
    Signal,
)
from trimta.store.queue.errors import QueueError
from trimta.store.spool import BodyDamagedError, SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.config.model import Fault, Listen
    from trimta.inbound.client import Peer
    from trimta.mail.address import Mailbox
    from trimta.runtime.wire import Wire
    from trimta.server.site import Site
    from trimta.smtp.server import MailTransaction, SmtpEvent

A = TypeVar("A")
T = TypeVar("T")

ACKNOWLEDGE_LIMIT: Final = 60.0
"""Seconds for taking a message over, shielded from shutdown: past it the disk hangs, and the client is better told."""

FAREWELL_LIMIT: Final = 1.0
"""Seconds for a last reply: nothing depends on its being read."""

MAX_WAITING: Final = 16 * 1024
"""Octets of replies that are kept together: what one client asks for must not fill the memory, nor keep the others
waiting.
"""

GUESS_DELAY: Final = 1.0
MAX_GUESS_DELAY: Final = 8.0
"""Seconds that a wrong password costs: the first of a session, and at most; each costs twice the one before."""

_COUNTED: Final = frozenset({500, 501, 502, 503, 504, 521, 530, 535, 555})
"""Replies that count as a mistake of the client (`limits.errors`)."""

_NO_ROOM: Final = Reply.of(452, "4.3.1", "no room to store the message now, try again later")
_GO_AHEAD: Final = Reply.of(354, "", "end data with <CR><LF>.<CR><LF>")
_STOPPING: Final = Reply.of(421, "4.3.2", "the server is stopping")
_IDLE: Final = Reply.of(421, "4.4.2", "idle for too long")
_TOO_MANY_ERRORS: Final = Reply.of(421, "4.7.0", "too many errors")
_BROKEN: Final = Reply.of(421, "4.3.0", "internal error, try again later")


class _Cut(Exception):  # noqa: N818 - no error: somebody has hung up
    """The conversation ends here, without a word."""


class Session:
    """A connection that was accepted, until it ends.  The configuration of its beginning holds to its end."""

    def __init__(self, site: Site, listen: Listen, wire: Wire, peer: Peer) -> None:
        self._site = site
        self._listen = listen
        self._wire = wire
        self._peer = peer
        self._policy = site.policy
        self._config = site.config
        self._idle = self._config.timeouts.idle
        self._connection = ServerConnection(_settings(site, listen, peer), tls=listen.tls is ListenTls.IMPLICIT)
        self._transcript = Transcript(site.clock.now)
        self._incoming: Incoming | None = None
        self._exchange: ServerExchange | None = None
        self._errors = 0
        self._wrong_passwords = 0
        self._messages = 0
        self._patience = 0.0
        """When the client has been silent for too long, in Trio's time."""
        self._hanging_up = False
        """We end it while the client may still be talking."""
        self._begun = 0.0
        """When the transaction's MAIL came, on the queue's clock."""
        self._may_send = False
        """The client has leave to send content: its DATA, or its first BDAT, was not refused."""

    async def run(self) -> None:
        """Talk until one side ends it.  What the client breaks ends the session, never the server."""
        self._site.events.emit("connect", client=str(self._peer))
        try:
            if self._listen.tls is ListenTls.IMPLICIT:
                await self._start_tls()
            await self._greet()
            await self._converse()
        except (_Cut, WireError) as end:
            self._site.events.emit("lost", client=str(self._peer), reason=str(end))
        except trio.Cancelled:
            with trio.move_on_after(FAREWELL_LIMIT, shield=True):  # else: the client does not know that it is to retry
                await self._say_goodbye(_STOPPING)
            raise
        except Exception:
            with trio.move_on_after(FAREWELL_LIMIT, shield=True):
                await self._say_goodbye(_BROKEN)
            raise
        finally:
            with trio.move_on_after(FAREWELL_LIMIT, shield=True):  # else: a file is left in the spool until a start
                await self._discard()
            self._site.events.emit("disconnect", client=str(self._peer), messages=self._messages)
            with trio.move_on_after(FAREWELL_LIMIT, shield=True):  # TLS says goodbye; a cancelled session closes, too
                await self._wire.aclose()

    # The conversation.

    async def _greet(self) -> None:
        config, crowd = self._config, self._site.crowd
        greeting = Reply.of(220, "", f"{config.hostname} {_name(self._connection.settings.protocol)} trimta")
        if crowd.is_crowded_by(self._peer, config.limits):
            greeting = Reply.of(421, "4.7.0", "too many connections from your address")
        elif crowd.is_full(config.limits):
            greeting = Reply.of(421, "4.3.2", "too many connections, try again later")
        elif self._site.drain.started:
            greeting = _STOPPING
        if greeting.code != 220:
            self._site.events.emit("rejected", client=str(self._peer), reply=str(greeting))
        await self._say(Stage.CONNECT, greeting)

    async def _converse(self) -> None:
        self._be_patient()
        while True:
            event = self._connection.next_event()
            match event:
                case Signal.NEED_DATA:
                    await self._flush()
                    await self._receive()
                case Signal.CLOSED:
                    await self._flush()
                    if self._hanging_up:
                        await self._wire.linger(FAREWELL_LIMIT)
                    return
                case ContentPiece(data):
                    await self._store(data)
                case _:
                    self._note(event)
                    await self._answer(event)
                    if self._connection.transaction is None:
                        self._may_send = False
                        await self._discard()
                    if self._connection.waiting > MAX_WAITING:
                        await self._flush()
                    self._be_patient()

    async def _answer(self, event: SmtpEvent) -> None:
        connection = self._connection
        match event:
            case Ehlo():
                await self._say(Stage.HELO, connection.ehlo_reply())
            case Helo():
                await self._say(Stage.HELO, connection.helo_reply())
            case Mail():
                self._note_tolerated(event)
                await self._mail(event)
            case Rcpt():
                self._note_tolerated(event)
                await self._rcpt(event)
            case Data():
                self._may_send = True
                await self._say(Stage.DATA, _GO_AHEAD)
            case ContentEnd():
                await self._body_end(event)
            case Rset() | Noop():
                self._reply(Reply.of(250, "2.0.0", "ok"))
            case Quit():
                await self._say(Stage.QUIT, Reply.of(221, "2.0.0", f"{self._config.hostname} closing connection"))
            case Vrfy(string, utf8):
                self._reply(vrfy_expn_etrn.vrfy(self._policy, string, may_relay=self._may_relay, utf8=utf8))
            case Expn(string, utf8):
                self._reply(vrfy_expn_etrn.expn(self._policy, string, utf8=utf8))
            case Help(topic):
                self._reply(help_text(connection.offer, topic))
            case Etrn(node):
                await self._etrn(node)
            case StartTls():
                self._reply(Reply.of(220, "2.0.0", "ready to start TLS"))
                await self._flush()
                await self._start_tls()
                connection.start_tls_done()
            case Auth(mechanism, initial):
                self._exchange = server_exchange(mechanism, lenient=self._config.auth.any)
                await self._authenticate(initial)
            case AuthResponse(data):
                await self._authenticate(data)
            case BadInput(reply, close):
                if close:
                    self._hanging_up = True
                    self._site.events.emit("rejected", client=str(self._peer), reply=str(reply))
                self._reply(reply)
            case _:
                raise AssertionError(f"an event that is none of ours: {event}")

    # Octets.

    async def _receive(self) -> None:
        """Wait for octets.  A client that keeps silent for too long, or owes us nothing when we stop, gets a 421."""
        connection = self._connection
        if connection.receiving_body:
            self._be_patient()  # each piece of content has its time; a command line has it as a whole
        data: bytes | None = None
        farewell = _IDLE
        if connection.transaction is None:
            with self._site.drain.interruptible(self._patience) as wait:
                data = await self._wire.receive_some()
            if wait.cancelled_caught and self._site.drain.started:
                farewell = _STOPPING
        else:
            with trio.move_on_at(self._patience):
                data = await self._wire.receive_some()
        if data is None:
            with trio.move_on_after(FAREWELL_LIMIT):
                await self._say_goodbye(farewell)
            raise _Cut(farewell.text)
        connection.receive_data(data)

    async def _say_goodbye(self, reply: Reply) -> None:
        """A last reply, if there is still a way for it; the caller limits the time."""
        if self._wire.usable and self._connection.state is not SessionState.CLOSED:
            self._connection.reply(reply)
            with contextlib.suppress(WireError):
                await self._wire.send_all(self._connection.data_to_send())

    async def _flush(self) -> None:
        octets = self._connection.data_to_send()
        if octets:
            with trio.move_on_after(self._idle) as limit:
                await self._wire.send_all(octets)
            if limit.cancelled_caught:
                raise _Cut("the client reads nothing")
            self._be_patient()  # now it is the client's turn

    async def _start_tls(self) -> None:
        with trio.move_on_after(self._idle) as limit:
            await self._wire.start_tls(self._site.tls_context, server_side=True)
        if limit.cancelled_caught:
            raise _Cut("the TLS handshake takes too long")
        self._transcript.note(f"TLS: {self._wire.tls_version} {self._wire.tls_cipher}")

    def _be_patient(self) -> None:
        self._patience = trio.current_time() + self._idle

    # Replies.

    async def _say(self, stage: Stage, reply: Reply) -> None:
        """Reply, unless a scripted fault has other plans."""
        fault = self._fault(stage)
        if fault is not None:
            reply = await self._suffer(fault, reply)
        self._reply(reply)

    def _reply(self, reply: Reply, *, counted: bool = True) -> None:
        """Queue a reply.  One too many mistakes are answered with 421; `counted`: it may be about one."""
        if counted and reply.code in _COUNTED:
            self._errors += 1
            if self._errors >= self._config.limits.errors:
                self._site.events.emit("rejected", client=str(self._peer), reply=f"{_TOO_MANY_ERRORS}: {reply}")
                reply = _TOO_MANY_ERRORS
                self._hanging_up = True
        self._transcript.server(str(reply))
        self._connection.reply(reply)

    def _note(self, event: SmtpEvent) -> None:
        if not isinstance(event, ContentEnd):
            self._transcript.client(self._connection.line)
        elif event.last:
            self._transcript.client(f"({event.size} octets of content)")

    def _note_tolerated(self, command: Mail | Rcpt) -> None:
        for problem in command.tolerated:
            command_line = self._connection.line
            self._site.events.emit("client_fault", client=str(self._peer), problem=problem, command=command_line)

    # Scripted trouble.

    def _fault(self, stage: Stage, recipients: Sequence[str] | None = None) -> Fault | None:
        transaction = self._connection.transaction
        sender = None if transaction is None else _path(transaction.mail) or NULL_PATH
        if recipients is None:
            recipients = [] if transaction is None else [str(rcpt.forward_path) for rcpt in transaction.recipients]
        return self._site.faults.find(stage, client=self._peer.client, sender=sender, recipients=recipients)

    async def _suffer(self, fault: Fault, reply: Reply) -> Reply:
        """Do what the script says; returns the reply to give.  What we would have refused is refused in any case."""
        self._site.events.emit("fault", client=str(self._peer), stage=str(fault.stage))
        if fault.delay or fault.drop:
            await self._flush()  # the client gets what was said before
        if fault.delay:
            await trio.sleep(fault.delay)
        if fault.drop:
            self._wire.usable = False
            raise _Cut(f"scripted: dropped at {fault.stage}")
        if fault.reply is None or (fault.reply.code < 400 and reply.klass != 2):
            return reply
        scripted = Reply(fault.reply.code, (fault.reply.text,), fault.reply.status)
        self._hanging_up |= scripted.code == 421 or (fault.stage is Stage.CONNECT and scripted.klass != 2)
        return scripted

    # The transaction.

    @property
    def _may_relay(self) -> bool:
        client = None if self._peer.is_unix else self._peer.client
        return self._connection.identity is not None or self._policy.may_relay(client)

    async def _discard(self) -> None:
        """Forget the content that has come: a large file is removed in a thread."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None and not incoming.spool.in_memory:
            with trio.move_on_after(FAREWELL_LIMIT):  # nothing depends on it
                await self._site.disk.run(incoming.spool.discard)

    async def _mail(self, mail: Mail) -> None:
        self._begun = self._site.clock.now()
        refusal = self._sender_refusal(mail) or hold_refusal(mail.parameters, begun=self._begun)
        if refusal is not None:
            self._refused(mail, refusal)
            return
        fault = self._site.faults.find(Stage.MAIL, client=self._peer.client, sender=_path(mail) or NULL_PATH)
        reply = Reply.of(250, "2.1.0", f"{_named(mail.reverse_path)}sender ok")
        if fault is not None:
            reply = await self._suffer(fault, reply)
        if reply.klass == 2:
            self._reply(reply)
        else:
            self._refused(mail, reply)

    def _sender_refusal(self, mail: Mail) -> Reply | None:
        """On a submission listener nobody writes who is neither authenticated nor in `relay.networks` (RFC 6409 4.3),
        nor under the name of another who has a password here (6.1).
        """
        identity = self._connection.identity
        if self._connection.settings.protocol is not MailProtocol.SUBMISSION:
            return None
        if not self._may_relay:
            return Reply.of(530, "5.7.0", "authentication required")
        if identity is None or mail.reverse_path is None:
            return None
        destination = self._policy.destination(mail.reverse_path)
        if not isinstance(destination, LocalDestination):
            return None
        owner = destination.mailbox.user
        users = {name.lower().partition("@")[0] for name in self._config.auth.users}
        if owner in users and owner != identity.lower().partition("@")[0]:
            return Reply.of(550, "5.7.1", f"<{mail.reverse_path}> is not yours, {identity}")
        return None

    async def _rcpt(self, rcpt: Rcpt) -> None:
        address = rcpt.forward_path
        limits = self._config.limits
        fault = self._fault(Stage.RCPT, [str(address)])
        reply = Reply.of(250, "2.1.5", f"{_named(address)}recipient ok")
        if len(self._transaction.recipients) >= limits.recipients:
            reply = Reply.of(452, "4.5.3", f"too many recipients: {limits.recipients} a message at most")
        else:
            reply = self._policy.refusal(address, may_relay=self._may_relay) or reply
        if fault is not None:
            reply = await self._suffer(fault, reply)
        if reply.klass == 2:
            self._reply(reply)
        else:
            self._refused(rcpt, reply)

    def _refused(self, command: Mail | Rcpt, reply: Reply) -> None:
        transaction = self._connection.transaction
        mail = command if isinstance(command, Mail) else transaction.mail if transaction else None
        self._site.events.emit(
            "rejected",
            client=str(self._peer),
            sender=f"<{_path(mail)}>" if mail else None,
            to=str(command.forward_path) if isinstance(command, Rcpt) else None,
            reply=str(reply),
        )
        self._reply(reply, counted=isinstance(command, Mail))

    # Content.

    async def _store(self, data: bytes) -> None:
        """Take a piece of the message: into memory, and beyond a limit onto the disk."""
        if self._incoming is None:
            self._incoming = Incoming(new_id(), self._spool_writer())
        incoming = self._incoming
        if incoming.trouble is not None:
            return
        try:
            if incoming.spool.needs_disk:
                with trio.fail_after(ACKNOWLEDGE_LIMIT):
                    await self._on_disk(incoming, incoming.spool.append, data)
            else:
                incoming.spool.append(data)
        except trio.TooSlowError:
            reason = f"not stored within {ACKNOWLEDGE_LIMIT:g} s"
        except OSError as cause:
            reason = str(cause)
            await self._discard()
        else:
            return
        self._site.events.emit("disk_trouble", id=incoming.id, reason=reason)
        self._incoming = Incoming(incoming.id, self._spool_writer(), trouble=_NO_ROOM)

    def _spool_writer(self) -> SpoolWriter:
        return SpoolWriter(self._site.spool, form=BodyForm.of(self._transaction.body))

    async def _on_disk(self, incoming: Incoming, function: Callable[[A], T], argument: A) -> T:
        """Work on the spool file, which belongs to its thread if we are cancelled meanwhile."""
        try:
            return await self._site.disk.run_or_leave(function, argument, left=incoming.spool.discard)
        except trio.Cancelled:
            self._incoming = None
            raise

    async def _body_end(self, end: ContentEnd) -> None:
        incoming = self._incoming
        if end.fault is not None:
            self._rejected(end.fault)
            self._reply(end.fault)
        elif incoming is not None and incoming.trouble is not None:
            self._reply(incoming.trouble)
        elif (refusal := await self._refusal_to_send()) is not None:
            self._rejected(refusal)
            self._reply(refusal)
        elif not end.last:
            self._reply(Reply.of(250, "2.0.0", f"{end.size} octets received"))
        else:
            await self._take_over(end)

    async def _refusal_to_send(self) -> Reply | None:
        """BDAT asks for no leave, so what is scripted for DATA strikes when the first chunk is here (RFC 3030)."""
        fault = None if self._may_send else self._fault(Stage.DATA)
        self._may_send = True
        reply = _GO_AHEAD if fault is None else await self._suffer(fault, _GO_AHEAD)
        return None if reply is _GO_AHEAD else reply

    def _rejected(self, reply: Reply) -> None:
        """A whole message is refused: tell the log."""
        sender = f"<{_path(self._transaction.mail)}>"
        to = [str(rcpt.forward_path) for rcpt in self._transaction.recipients]
        self._site.events.emit("rejected", client=str(self._peer), sender=sender, to=to, reply=str(reply))

    async def _take_over(self, end: ContentEnd) -> None:
        """The message is complete: make it ours, and say so."""
        incoming = self._incoming or Incoming(new_id(), self._spool_writer())
        self._incoming = incoming
        if end.bare_lf is not None:
            self._site.events.emit("client_fault", id=incoming.id, problem="bare LF", line=end.bare_lf)
        fault = self._fault(Stage.BODY)
        if fault is not None:
            reply = await self._suffer(fault, Reply.of(250, "2.0.0", "ok"))
            if reply.klass != 2:
                self._rejected(reply)
                self._reply(reply)
                return
        replies: list[Reply] = []
        fault = None
        began = trio.current_time()
        with self._site.drain.shielded(ACKNOWLEDGE_LIMIT) as shield:  # else: kept but not acknowledged, sent twice
            replies = await self._accept(incoming)
            if any(reply.klass == 2 for reply in replies):
                fault = self._fault(Stage.COMMITTED)
            if fault is None:
                await self._acknowledge(incoming.id, replies)
        if shield.cancelled_caught:
            if replies:
                raise _Cut("the client reads nothing")
            took = trio.current_time() - began
            self._site.events.emit("disk_trouble", id=incoming.id, reason=f"not stored within {took:.1f} s")
            await trio.lowlevel.checkpoint_if_cancelled()  # at the end of the server, which has a word of its own
            lmtp = self._connection.settings.protocol is MailProtocol.LMTP
            await self._acknowledge(incoming.id, [_NO_ROOM] * (len(self._transaction.recipients) if lmtp else 1))
            return
        if fault is not None:
            await self._acknowledge(incoming.id, await self._suffer_committed(fault, replies))

    async def _suffer_committed(self, fault: Fault, replies: Sequence[Reply]) -> Sequence[Reply]:
        """The message is stored, and the client learns something else; in LMTP about the recipients that are meant."""
        done = next(reply for reply in replies if reply.klass == 2)
        scripted = await self._suffer(fault, done)
        if scripted is done:
            return replies
        if len(replies) == 1:
            return [scripted]
        return [
            scripted if reply.klass == 2 and is_meant(fault, str(rcpt.forward_path)) else reply
            for rcpt, reply in zip(self._transaction.recipients, replies, strict=True)
        ]

    async def _acknowledge(self, message_id: str, replies: Sequence[Reply]) -> None:
        for reply in replies:
            self._transcript.server(str(reply))
        self._remember(message_id)
        self._connection.reply_each(replies)
        await self._flush()

    def _remember(self, message_id: str) -> None:
        """The dialogue so far belongs to this message."""
        self._site.history.note_dialogue(message_id, self._transcript.lines)
        self._transcript = Transcript(self._site.clock.now)

    async def _accept(self, incoming: Incoming) -> list[Reply]:
        """Take responsibility; one reply for SMTP, one for each recipient for LMTP."""
        site, spool = self._site, incoming.spool
        lmtp = self._connection.settings.protocol is MailProtocol.LMTP
        due = len(self._transaction.recipients) if lmtp else 1
        try:
            body = spool.finish() if spool.in_memory else await self._on_disk(incoming, SpoolWriter.finish, spool)
            header = await read_header(body, site.disk)
        except (OSError, BodyDamagedError) as cause:
            site.events.emit("disk_trouble", id=incoming.id, reason=str(cause))
            return [_NO_ROOM] * due
        summary = header.summary
        if summary.received_count > self._config.limits.hops:
            refusal = Reply.of(554, "5.4.6", f"{summary.received_count} Received fields: this message is in a loop")
            self._rejected(refusal)
            return [refusal] * due
        now = site.clock.now()
        envelope = envelope_of(self._transaction, begun=min(self._begun, now), now=now)  # the clock may be set back
        message = stored_message(
            incoming.id,
            envelope,
            body,
            header,
            connection=self._connection,
            peer=self._peer,
            hostname=self._config.hostname,
            arrived=now,
            cipher_suite=self._wire.cipher_suite,
        )
        self._remember(incoming.id)
        try:
            refused = await accept(site, message, envelope, summary, policy=self._policy, queue_failed_copies=not lmtp)
        except QueueError as cause:
            site.events.emit("queue_trouble", id=incoming.id, reason=str(cause))
            return [_NO_ROOM] * due
        self._messages += 1
        done = Reply.of(250, "2.6.0", f"queued as {incoming.id}")
        if not lmtp:
            return [done]
        return [
            Reply.of(451, "4.2.0", f"{_named(recipient.original, ':')}{refused[recipient]}")
            if recipient in refused
            else Reply.of(250, "2.6.0", f"{_named(recipient.original)}queued as {incoming.id}")
            for recipient in envelope.recipients
        ]

    @property
    def _transaction(self) -> MailTransaction:
        """What the client agreed on with us, where the core says that there is one."""
        found = self._connection.transaction
        assert found is not None
        return found

    # Other commands.

    async def _authenticate(self, response: bytes | None) -> None:
        assert self._exchange is not None
        try:
            step = self._exchange.step(response)
        except CommandError as error:
            self._reply(error.reply)
            return
        if isinstance(step, Challenge):
            self._transcript.server("334")
            self._connection.challenge(step.data)
            return
        if await self._site.hashing.run(self._site.authenticator.verify, step.name, step.password):
            self._connection.authenticated(step.name)
            self._site.events.emit("authenticated", client=str(self._peer), user=step.name)
            self._reply(Reply.of(235, "2.7.0", "authentication succeeded"))
            return
        self._site.events.emit("wrong_password", client=str(self._peer), user=step.name)
        delay = min(GUESS_DELAY * 2**self._wrong_passwords, MAX_GUESS_DELAY)
        self._wrong_passwords += 1
        await trio.sleep(delay if self._site.delays_guesses else 0)
        self._reply(Reply.of(535, "5.7.8", "name or password is wrong"))

    async def _etrn(self, node: str) -> None:
        """Start the queue of a domain (RFC 1985)."""
        if not self._may_relay:
            self._reply(Reply.of(459, "4.7.1", "you may not start this queue"))
            return
        if node.startswith("#"):
            self._reply(Reply.of(459, "4.5.0", "queues have no names here"))
            return
        try:
            domain = parse_domain(node.removeprefix("@"))
        except AddressError as error:
            self._reply(Reply.of(501, "5.5.4", str(error)))
            return
        now = self._site.clock.now()
        subdomains = node.startswith("@")
        try:
            count = await self._site.queue.run(
                lambda queue: queue.operator.retry_domain(domain, now, subdomains=subdomains)
            )
        except QueueError as cause:
            self._site.events.emit("queue_trouble", reason=str(cause))
            self._reply(Reply.of(458, "4.3.0", "the queue can't be read now"))
            return
        self._site.scheduler.wake()
        if count:
            self._reply(Reply.of(253, "2.0.0", f"{count} pending messages for {domain} started"))
        else:
            self._reply(Reply.of(251, "2.0.0", f"no messages waiting for {domain}"))


def _settings(site: Site, listen: Listen, peer: Peer) -> ServerSettings:
    config = site.config
    protocol = MailProtocol(listen.protocol.value)
    return ServerSettings(
        hostname=config.hostname,
        protocol=protocol,
        size_limit=config.limits.message_size,
        max_recipients=config.limits.recipients,
        starttls=listen.tls is ListenTls.STARTTLS,
        # "required" stays so where a reload took the last user away: then nobody gets in, not everybody.
        auth=AuthPolicy(listen.auth.value)
        if config.auth.any or config.auth.users or listen.auth is ListenAuth.REQUIRED
        else AuthPolicy.NONE,
        auth_in_clear=config.auth.insecure or peer.is_loopback,
        future_release=_future_release(site) if protocol is MailProtocol.SUBMISSION else None,
        hide=listen.hide,
        bare_newline=BareNewline(config.limits.bare_newline.value),
    )


def _future_release(site: Site) -> FutureRelease:
    """A message may be held for as long as one may wait in the queue."""
    lifetime = site.config.queue.lifetime
    moment = datetime.fromtimestamp(site.clock.now(), UTC) + timedelta(seconds=lifetime)
    return FutureRelease(int(lifetime), moment.replace(microsecond=0))


def _name(protocol: MailProtocol) -> str:
    return "LMTP" if protocol is MailProtocol.LMTP else "ESMTP"


def _path(mail: Mail) -> str:
    return "" if mail.reverse_path is None else str(mail.reverse_path)


def _named(mailbox: Mailbox | None, mark: str = "") -> str:
    """An address, a mark and a space to begin a reply with; nothing for one beyond ASCII (RFC 6531 3.7.4)."""
    if mailbox is None:
        return f"<>{mark} "
    return f"<{mailbox.wire(smtputf8=False)}>{mark} " if mailbox.is_ascii else ""
