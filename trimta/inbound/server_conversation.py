"""The conversation with one client: its octets in, our replies out, and the faults that are scripted between.

One task reads and writes; there is no other.  A wait for a client that owes us nothing is interrupted by shutdown.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import trio

from trimta.config.model import FaultStage
from trimta.inbound.scripted_faults import NULL_PATH
from trimta.mail.reply import Reply
from trimta.runtime.transcript import Transcript
from trimta.runtime.wire import WireError
from trimta.smtp.server_events import ContentEnd
from trimta.smtp.state import SessionState

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    from trimta.config.model import Fault
    from trimta.inbound.client_address import ClientAddress
    from trimta.inbound.scripted_faults import FaultSource
    from trimta.runtime.drain import Drain
    from trimta.runtime.events import Events
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.wire import Wire
    from trimta.smtp.commands import Mail
    from trimta.smtp.server import ServerConnection
    from trimta.smtp.server_events import SmtpEvent

FAREWELL_LIMIT: Final = 1.0
"""Seconds for a last reply: nothing depends on its being read."""

COUNTED: Final = frozenset({500, 501, 502, 503, 504, 521, 530, 535, 555})
"""Replies that count as a mistake of the client (`limits.errors`)."""

LARGE: Final = 16 * 1024
"""Octets received at once that keep other sessions waiting for noticeably longer than a command does."""

STOPPING: Final = Reply.of(421, "4.3.2", "the server is stopping")
_IDLE: Final = Reply.of(421, "4.4.2", "idle for too long")
_TOO_MANY_ERRORS: Final = Reply.of(421, "4.7.0", "too many errors")


class HungUp(Exception):  # noqa: N818 - no error: one side has hung up
    """The conversation ends here, without another reply."""


class ServerConversation:
    """A client's commands and our replies, over one wire."""

    def __init__(
        self,
        core: ServerConnection,
        wire: Wire,
        client: ClientAddress,
        *,
        clock: QueueClock,
        events: Events,
        drain: Drain,
        faults: FaultSource,
        tls_context: Callable[[], ssl.SSLContext | None],
        idle: float,
        max_errors: int,
    ) -> None:
        """`tls_context` returns that of the present certificate.  `idle`: seconds that a client may keep silent, or
        read nothing.  `max_errors`: mistakes after which the client is told 421.
        """
        self.core = core
        self.wire = wire
        self.client = client
        self.transcript = Transcript(clock.now)
        self.hanging_up = False
        """We end the connection while the client may still be talking."""
        self._events = events
        self._drain = drain
        self._faults = faults
        self.may_strike = faults.may_strike
        self._tls_context = tls_context
        self._idle = idle
        self._max_errors = max_errors
        self._errors = 0
        self._was_large = False
        """Whether the last octets were many, so that others now have more turns: one with a command waits less."""
        self._trio_time = trio.lowlevel.current_clock().current_time
        self._patience: float | None = None
        """When the client has been silent for too long, in Trio's time; None: its time begins when we wait for it."""

    # Octets.

    async def receive(self) -> None:
        """Send the replies that are kept together, and wait for octets.  A client that keeps silent for too long, or
        owes us nothing when we stop, gets a 421, and HungUp is raised.
        """
        core = self.core
        rest = self._send_now()
        if rest:
            await self._send_rest(rest)
        is_content = core.receiving_content
        is_idle = core.transaction is None
        await trio.lowlevel.checkpoint()  # others have their turn, and the client time to answer
        if self._was_large:
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        now = self._trio_time()
        if is_content or self._patience is None:  # each piece of content has its time; a command line has it as a whole
            self._patience = now + self._idle
        if now < self._patience and not (is_idle and self._drain.started):
            data = self.wire.receive_now()
            if data is not None:
                core.receive_data(data)
                self._was_large = len(data) >= LARGE
                return
        data = None
        farewell = _IDLE
        if is_idle:
            with self._drain.interruptible(self._patience) as wait:
                data = await self.wire.receive_some()
            if wait.cancelled_caught and self._drain.started:
                farewell = STOPPING
        else:
            with trio.move_on_at(self._patience):
                data = await self.wire.receive_some()
        if data is None:
            with trio.move_on_after(FAREWELL_LIMIT):
                await self.say_goodbye(farewell)
            raise HungUp(farewell.text)
        core.receive_data(data)

    async def flush(self) -> None:
        """Send the replies that are kept together.  HungUp if the client reads nothing."""
        rest = self._send_now()
        if rest:
            await self._send_rest(rest)

    def _send_now(self) -> bytes:
        """Send the replies that are kept together, as far as they find room at once; returns the rest."""
        octets = self.core.data_to_send()
        if not octets:
            return b""
        self._patience = None  # now it is the client's turn
        return self.wire.send_now(octets)

    async def _send_rest(self, rest: bytes) -> None:
        with trio.move_on_after(self._idle) as limit:
            await self.wire.send_all(rest)
        if limit.cancelled_caught:
            raise HungUp("the client reads nothing")

    async def start_tls(self) -> None:
        """Do the server's half of the handshake.  HungUp if the client takes too long."""
        context = self._tls_context()
        assert context is not None, "only a listener with TLS offers it"
        with trio.move_on_after(self._idle) as limit:
            await self.wire.start_tls(context, server_side=True)
        if limit.cancelled_caught:
            raise HungUp("the TLS handshake takes too long")
        self._patience = None
        self.transcript.note(f"TLS: {self.wire.tls_version} {self.wire.tls_cipher}")

    async def say_goodbye(self, reply: Reply) -> None:
        """Send a last reply, if the wire still takes one; the caller limits the time."""
        if self.wire.usable and self.core.state is not SessionState.CLOSED:
            self.core.reply(reply)
            with contextlib.suppress(WireError):
                await self.wire.send_all(self.core.data_to_send())

    # Replies.

    async def say(self, stage: FaultStage, reply: Reply) -> None:
        """Reply, unless a fault is scripted for this stage."""
        if self.may_strike(stage):
            fault = await self.fault(stage)
            if fault is not None:
                reply = await self.suffer(fault, reply)
        self.reply(reply)

    def reply(self, reply: Reply, *, counted: bool = True) -> None:
        """Queue a reply.  A client with too many mistakes gets 421 instead; `counted`: this may be one of them."""
        if counted and reply.code in COUNTED:
            self._errors += 1
            if self._errors >= self._max_errors:
                self._events.emit("rejected", client=str(self.client), reply=f"{_TOO_MANY_ERRORS}: {reply}")
                reply = _TOO_MANY_ERRORS
                self.hanging_up = True
        self.transcript.server(str(reply))
        self.core.reply(reply)

    def reply_each(self, replies: Sequence[Reply]) -> None:
        """Queue the replies to the end of a message: one, or in LMTP one for each recipient."""
        for reply in replies:
            self.transcript.server(str(reply))
        self.core.reply_each(replies)

    def note(self, event: SmtpEvent) -> None:
        """Write what the client said into the transcript."""
        if not isinstance(event, ContentEnd):
            self.transcript.client(self.core.line)
        elif event.last:
            self.transcript.client(f"({event.size} octets of content)")

    # Scripted faults.

    async def fault(
        self, stage: FaultStage, recipients: Sequence[str] | None = None, *, mail: Mail | None = None
    ) -> Fault | None:
        """The fault that strikes now.  `recipients` are those of the transaction, unless given; `mail` is a MAIL that
        has no reply yet.
        """
        if not self._faults.may_strike(stage):
            return None
        transaction = self.core.transaction
        if transaction is not None:
            mail = mail or transaction.mail
        if recipients is None:
            recipients = [] if transaction is None else [str(rcpt.forward_path) for rcpt in transaction.recipients]
        sender = None if mail is None else path_of(mail) or NULL_PATH
        return await self._faults.find(stage, client=self.client.host, sender=sender, recipients=recipients)

    async def suffer(self, fault: Fault, reply: Reply) -> Reply:
        """Do what the script says; returns the reply to give.  What the server would refuse stays refused."""
        self._events.emit("fault", client=str(self.client), stage=str(fault.stage))
        if fault.delay or fault.drop:
            await self.flush()  # the client gets what was said before
        if fault.delay:
            await trio.sleep(fault.delay)
        if fault.drop:
            self.wire.usable = False
            raise HungUp(f"scripted: dropped at {fault.stage}")
        if fault.reply is None or (fault.reply.code < 400 and reply.klass != 2):
            return reply
        scripted = Reply(fault.reply.code, (fault.reply.text,), fault.reply.status)
        self.hanging_up |= scripted.code == 421 or (fault.stage is FaultStage.CONNECT and scripted.klass != 2)
        return scripted


def path_of(mail: Mail) -> str:
    """The reverse-path of MAIL as text; empty for the null one."""
    return "" if mail.reverse_path is None else str(mail.reverse_path)
