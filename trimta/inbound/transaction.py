"""The mail transactions of a session: answers to MAIL, RCPT and content, until `acceptance` takes the message over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import trio

from trimta.config.model import FaultStage
from trimta.inbound.incoming import Incoming, envelope_of, hold_refusal, stored_message
from trimta.inbound.scripted_faults import is_meant
from trimta.inbound.server_conversation import FAREWELL_LIMIT, HungUp, path_of
from trimta.mail.body import BodyForm
from trimta.mail.reply import Reply
from trimta.mail.status import EnhancedStatus
from trimta.routing.destination import LocalDestination
from trimta.runtime.ids import new_id
from trimta.runtime.stored_header import read_header
from trimta.smtp.commands import Mail, Rcpt
from trimta.smtp.extensions import MailProtocol
from trimta.store.queue.errors import QueueError
from trimta.store.spool import BodyDamagedError, SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from trimta.config.model import Fault
    from trimta.inbound.acceptance import Acceptance
    from trimta.inbound.server_conversation import ServerConversation
    from trimta.mail.address import Mailbox
    from trimta.routing.destination import ResolvedPath, Target
    from trimta.runtime.disk import Disk
    from trimta.runtime.drain import Drain
    from trimta.runtime.events import Events
    from trimta.runtime.message_log import DialogueLog
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.services import Services
    from trimta.smtp.mail_transaction import MailTransaction
    from trimta.smtp.server_events import ContentEnd

A = TypeVar("A")
T = TypeVar("T")

ACKNOWLEDGE_LIMIT: Final = 60.0
"""Seconds for taking a message over, shielded from shutdown: past it the disk hangs, and the client is better told."""

GO_AHEAD: Final = Reply.of(354, "", "end data with <CR><LF>.<CR><LF>")
QUEUED: Final = EnhancedStatus.parse("2.6.0")
NO_ROOM: Final = Reply.of(452, "4.3.1", "no room to store the message now, try again later")


class Transactions:
    """The transactions of one session, one after the other."""

    def __init__(
        self,
        services: Services,
        conversation: ServerConversation,
        *,
        clock: QueueClock,
        disk: Disk,
        spool: Path,
        events: Events,
        drain: Drain,
        message_log: DialogueLog,
        acceptance: Acceptance,
    ) -> None:
        """`services` are those of the session's beginning, which hold to its end; `spool` is the folder of large
        content.
        """
        self.messages = 0
        """Messages taken over so far."""
        self.has_begun = False
        """Whether there was a MAIL since the last `forget`."""
        self._policy = services.policy
        self._configuration = services.configuration
        self._conversation = conversation
        self._clock = clock
        self._disk = disk
        self._spool = spool
        self._events = events
        self._drain = drain
        self._message_log = message_log
        self._acceptance = acceptance
        self._incoming: Incoming | None = None
        self._begun = 0.0
        """When MAIL came, on the queue's clock."""
        self._resolved: list[ResolvedPath] = []
        """The forward-paths of the accepted RCPTs, in their order."""
        self._targets: dict[Mailbox, Target] = {}
        """The targets of the accepted RCPTs that were aliases, by their addresses."""
        self._has_relay_address: bool | None = None
        """Whether the client's address is in `relay.networks`; None: not asked for yet."""
        self._may_send = False
        """The client has leave to send content: its DATA, or its first BDAT, was not refused."""

    @property
    def may_relay(self) -> bool:
        """Whether the client is authenticated, or in `relay.networks`."""
        if self._conversation.core.identity is not None:
            return True
        if self._has_relay_address is None:
            client = self._conversation.client
            self._has_relay_address = self._policy.may_relay(None if client.is_unix else client.host)
        return self._has_relay_address

    @property
    def _agreed(self) -> MailTransaction:
        """What the client agreed on with us, where the core says that there is a transaction."""
        transaction = self._conversation.core.transaction
        assert transaction is not None
        return transaction

    async def forget(self) -> None:
        """The transaction is over: content that has come is discarded."""
        self.has_begun = False
        self._may_send = False
        self._resolved = []
        self._targets = {}
        await self._discard()

    async def _discard(self) -> None:
        """Discard content; a large file in a thread."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None and not incoming.spool.in_memory:
            with trio.move_on_after(FAREWELL_LIMIT):  # nothing depends on it
                await self._disk.run(incoming.spool.discard)

    # MAIL and RCPT.

    async def mail(self, mail: Mail) -> None:
        """Answer MAIL."""
        self._note_tolerated(mail)
        self.has_begun = True
        self._begun = self._clock.now()
        refusal = self._sender_refusal(mail) or hold_refusal(mail.parameters, begun=self._begun)
        if refusal is not None:
            self._refuse(mail, refusal)
            return
        fault = await self._conversation.fault(FaultStage.MAIL, mail=mail)
        reply = Reply.of(250, "2.1.0", f"{_named(mail.reverse_path)}sender ok")
        if fault is not None:
            reply = await self._conversation.suffer(fault, reply)
        if reply.klass == 2:
            self._conversation.reply(reply)
        else:
            self._refuse(mail, reply)

    def _sender_refusal(self, mail: Mail) -> Reply | None:
        """On a submission listener nobody writes who is neither authenticated nor in `relay.networks` (RFC 6409 4.3),
        nor under the name of another who has a password here (6.1).
        """
        core = self._conversation.core
        identity = core.identity
        if core.settings.protocol is not MailProtocol.SUBMISSION:
            return None
        if not self.may_relay:
            return Reply.of(530, "5.7.0", "authentication required")
        if identity is None or mail.reverse_path is None:
            return None
        destination = self._policy.destination(mail.reverse_path)
        if not isinstance(destination, LocalDestination):
            return None
        owner = destination.mailbox.user
        users = {name.lower().partition("@")[0] for name in self._configuration.auth.users}
        if owner in users and owner != identity.lower().partition("@")[0]:
            return Reply.of(550, "5.7.1", f"<{mail.reverse_path}> is not yours, {identity}")
        return None

    async def rcpt(self, rcpt: Rcpt) -> None:
        """Answer RCPT."""
        self._note_tolerated(rcpt)
        address = rcpt.forward_path
        limit = self._configuration.limits.recipients
        fault = await self._conversation.fault(FaultStage.RCPT, [str(address)])
        resolved = None
        if len(self._agreed.recipients) >= limit:
            reply = Reply.of(452, "4.5.3", f"too many recipients: {limit} a message at most")
        else:
            resolved = self._policy.resolve(address, self._targets)
            accepted = Reply.of(250, "2.1.5", f"{_named(address)}recipient ok")
            reply = self._policy.refusal(resolved, may_relay=self.may_relay) or accepted
        if fault is not None:
            reply = await self._conversation.suffer(fault, reply)
        if reply.klass == 2:
            assert resolved is not None, "no fault accepts what the limit refuses"
            self._resolved.append(resolved)
            if resolved.is_alias:
                self._targets.update((target.address, target) for target in resolved.targets)
            self._conversation.reply(reply)
        else:
            self._refuse(rcpt, reply)

    def _note_tolerated(self, command: Mail | Rcpt) -> None:
        """Log the mistakes in a command that the parser put up with."""
        conversation = self._conversation
        for problem in command.tolerated:
            self._events.emit(
                "client_fault", client=str(conversation.client), problem=problem, command=conversation.core.line
            )

    def _refuse(self, command: Mail | Rcpt, reply: Reply) -> None:
        """Refuse a command, and log it."""
        agreed = self._conversation.core.transaction
        mail = command if isinstance(command, Mail) else agreed.mail if agreed else None
        self._events.emit(
            "rejected",
            client=str(self._conversation.client),
            sender=f"<{path_of(mail)}>" if mail else None,
            to=str(command.forward_path) if isinstance(command, Rcpt) else None,
            reply=str(reply),
        )
        self._conversation.reply(reply, counted=isinstance(command, Mail))

    # Content.

    async def data(self) -> None:
        """Answer DATA."""
        self._may_send = True
        await self._conversation.say(FaultStage.DATA, GO_AHEAD)

    async def store(self, data: bytes) -> None:
        """Keep a piece of the content: in memory, and beyond a limit on the disk."""
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
        self._events.emit("disk_trouble", id=incoming.id, reason=reason)
        self._incoming = Incoming(incoming.id, self._spool_writer(), trouble=NO_ROOM)

    def _spool_writer(self) -> SpoolWriter:
        return SpoolWriter(self._spool, form=BodyForm.of(self._agreed.body), counts_lines=False)

    async def _on_disk(self, incoming: Incoming, function: Callable[[A], T], argument: A) -> T:
        """Work on the spool file, which belongs to its thread if we are cancelled meanwhile."""
        try:
            return await self._disk.run_or_leave(function, argument, left=incoming.spool.discard)
        except trio.Cancelled:
            self._incoming = None
            raise

    async def end_of_content(self, end: ContentEnd) -> None:
        """Answer the end of DATA, or of a chunk of BDAT."""
        conversation = self._conversation
        incoming = self._incoming
        if end.fault is not None:
            self._log_rejected(end.fault)
            conversation.reply(end.fault)
        elif incoming is not None and incoming.trouble is not None:
            conversation.reply(incoming.trouble)
        elif (refusal := await self._refusal_to_send()) is not None:
            self._log_rejected(refusal)
            conversation.reply(refusal)
        elif not end.last:
            conversation.reply(Reply.of(250, "2.0.0", f"{end.size} octets received"))
        else:
            await self._take_over(end)

    async def _refusal_to_send(self) -> Reply | None:
        """BDAT asks for no leave, so what is scripted for DATA strikes when the first chunk is here (RFC 3030)."""
        fault = None if self._may_send else await self._conversation.fault(FaultStage.DATA)
        self._may_send = True
        reply = GO_AHEAD if fault is None else await self._conversation.suffer(fault, GO_AHEAD)
        return None if reply is GO_AHEAD else reply

    def _log_rejected(self, reply: Reply) -> None:
        """Log that a whole message is refused."""
        sender = f"<{path_of(self._agreed.mail)}>"
        to = [str(rcpt.forward_path) for rcpt in self._agreed.recipients]
        self._events.emit("rejected", client=str(self._conversation.client), sender=sender, to=to, reply=str(reply))

    async def _take_over(self, end: ContentEnd) -> None:
        """The message is complete: make it ours, and say so."""
        incoming = self._incoming or Incoming(new_id(), self._spool_writer())
        self._incoming = incoming
        if end.bare_lf is not None:
            self._events.emit("client_fault", id=incoming.id, problem="bare LF", line=end.bare_lf)
        fault = await self._conversation.fault(FaultStage.BODY)
        if fault is not None:
            reply = await self._conversation.suffer(fault, Reply.of(250, "2.0.0", "ok"))
            if reply.klass != 2:
                self._log_rejected(reply)
                self._conversation.reply(reply)
                return
        replies: list[Reply] = []
        fault = None
        began = trio.current_time()
        with self._drain.shielded(ACKNOWLEDGE_LIMIT) as shield:  # else: kept but not acknowledged, sent twice
            replies = await self._accept(incoming, end.size)
            if self._conversation.may_strike(FaultStage.COMMITTED) and any(reply.klass == 2 for reply in replies):
                fault = await self._conversation.fault(FaultStage.COMMITTED)
            if fault is None:
                await self._acknowledge(incoming.id, replies)
        if shield.cancelled_caught:
            if replies:
                raise HungUp("the client reads nothing")
            took = trio.current_time() - began
            self._events.emit("disk_trouble", id=incoming.id, reason=f"not stored within {took:.1f} s")
            await trio.lowlevel.checkpoint_if_cancelled()  # at the end of the server, which has a word of its own
            lmtp = self._conversation.core.settings.protocol is MailProtocol.LMTP
            await self._acknowledge(incoming.id, [NO_ROOM] * (len(self._agreed.recipients) if lmtp else 1))
            return
        if fault is not None:
            await self._acknowledge(incoming.id, await self._suffer_committed(fault, replies))

    async def _suffer_committed(self, fault: Fault, replies: Sequence[Reply]) -> Sequence[Reply]:
        """The message is stored, and the client learns something else; in LMTP about the recipients that are meant."""
        done = next(reply for reply in replies if reply.klass == 2)
        scripted = await self._conversation.suffer(fault, done)
        if scripted is done:
            return replies
        if len(replies) == 1:
            return [scripted]
        return [
            scripted if reply.klass == 2 and is_meant(fault, str(rcpt.forward_path)) else reply
            for rcpt, reply in zip(self._agreed.recipients, replies, strict=True)
        ]

    async def _acknowledge(self, message_id: str, replies: Sequence[Reply]) -> None:
        self._conversation.reply_each(replies)
        self._remember(message_id)
        await self._conversation.flush()

    def _remember(self, message_id: str) -> None:
        """Note the transcript so far under this message."""
        self._message_log.note_dialogue(message_id, self._conversation.transcript.take())

    async def _accept(self, incoming: Incoming, wire_size: int) -> list[Reply]:
        """Take responsibility for the message; returns one reply for SMTP, one for each recipient for LMTP.

        `wire_size`: the octets of its content on the wire, dots not doubled.
        """
        conversation, spool = self._conversation, incoming.spool
        lmtp = conversation.core.settings.protocol is MailProtocol.LMTP
        due = len(self._agreed.recipients) if lmtp else 1
        try:
            if spool.in_memory:
                body = spool.finish(wire_size)
            else:
                body = await self._on_disk(incoming, lambda spool: spool.finish(wire_size), spool)
            header = await read_header(body, self._disk)
        except (OSError, BodyDamagedError) as cause:
            self._events.emit("disk_trouble", id=incoming.id, reason=str(cause))
            return [NO_ROOM] * due
        if header.received_count > self._configuration.limits.hops:
            refusal = Reply.of(554, "5.4.6", f"{header.received_count} Received fields: this message is in a loop")
            self._log_rejected(refusal)
            return [refusal] * due
        now = self._clock.now()
        envelope = envelope_of(self._agreed, begun=min(self._begun, now), now=now)  # the clock may be set back
        message = stored_message(
            incoming.id,
            envelope,
            body,
            header,
            connection=conversation.core,
            client=conversation.client,
            hostname=self._configuration.hostname,
            arrived=now,
            cipher_suite=conversation.wire.cipher_suite,
        )
        self._remember(incoming.id)
        try:
            refused = await self._acceptance.accept(
                message, envelope, header, self._resolved, queue_failed_copies=not lmtp
            )
        except QueueError as cause:
            self._events.emit("queue_trouble", id=incoming.id, reason=str(cause))
            return [NO_ROOM] * due
        self.messages += 1
        if not lmtp:
            return [Reply(250, (f"queued as {incoming.id}",), QUEUED)]  # said once: not by `of`, which remembers
        return [
            Reply.of(451, "4.2.0", f"{_named(recipient.original, ':')}{refused[recipient]}")
            if recipient in refused
            else Reply.of(250, "2.6.0", f"{_named(recipient.original)}queued as {incoming.id}")
            for recipient in envelope.recipients
        ]


def _named(mailbox: Mailbox | None, mark: str = "") -> str:
    """An address, a mark and a space to begin a reply with; nothing for one beyond ASCII (RFC 6531 3.7.4)."""
    if mailbox is None:
        return f"<>{mark} "
    return f"<{mailbox.wire(smtputf8=False)}>{mark} " if mailbox.is_ascii else ""
