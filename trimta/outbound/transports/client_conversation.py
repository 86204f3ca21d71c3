"""A client's conversation with a host: commands and content out, replies in, none awaited longer than RFC 5321 says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from trimta.mail.outcome import LocalCause, cause_of
from trimta.mail.status import BAD_CONNECTION
from trimta.runtime.wire import WireError
from trimta.smtp.client import CLOSING, ClientConnection, PeerClosedError
from trimta.smtp.commands import Auth, Quit
from trimta.smtp.errors import ProtocolError, ReplyError
from trimta.smtp.reply_meaning import ReplyStage, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from trimta.config.model import TimeoutsSection
    from trimta.mail.outcome import Cause
    from trimta.mail.reply import Reply
    from trimta.mail.status import EnhancedStatus
    from trimta.outbound.transports.client_settings import Endpoint
    from trimta.outbound.transports.outbound_content import WireOctets
    from trimta.runtime.transcript import Transcript
    from trimta.runtime.wire import Wire
    from trimta.smtp.commands import Command

QUIT_LIMIT: Final = 1.0
"""Seconds for the answer to QUIT, and for a refusal after a broken send: nothing depends on them."""

BUFFER: Final = 64 * 1024
"""Octets that are gathered before they are written."""


class HostUnusableError(Exception):
    """A host can't be used now.  Recipients without an outcome are tried at the next host; where there is none they are
    deferred for the cause that is given here.
    """

    def __init__(self, status: EnhancedStatus, cause: Cause, *, final: bool = False) -> None:
        super().__init__(cause.diagnostic)
        self.status = status
        """Of class 4."""
        self.cause = cause
        """With the name of the host that gave it, if one did."""
        self.final = final
        """Whether the cause would be the same at every other host."""


def refusal(reply: Reply, stage: ReplyStage, host: str, *, final: bool = False) -> HostUnusableError:
    """The error for a negative reply that is about us or about the state of `host`, not about a message: never more
    than a deferral.  `final`: every other host would give the same reply.
    """
    return HostUnusableError(status_of(reply, stage, klass=4), cause_of(reply, host), final=final)


class ClientConversation:
    """Commands, content and replies over one wire, written down in a transcript.

    Commands wait in a buffer until a reply is read (`read_reply`), so that pipelined ones go out together (RFC 2920).
    A conversation that broke stays broken: its methods raise HostUnusableError.
    """

    def __init__(
        self,
        wire: Wire,
        endpoint: Endpoint,
        timeouts: TimeoutsSection,
        transcript: Transcript,
        on_first_octet: Callable[[], None] = lambda: None,
    ) -> None:
        self.wire = wire
        self.core = ClientConnection()
        self.endpoint = endpoint
        self.transcript = transcript
        """Where the conversation is written down; each message has its own."""
        self.on_first_octet = on_first_octet
        """Called when the host sends octets: it is there, and does something."""
        self.secrets: tuple[str, ...] = ()
        """Texts to be masked should the host repeat them."""
        self._timeouts = timeouts
        self._buffer = bytearray()
        self._send_failure: HostUnusableError | None = None

    @property
    def sent_all(self) -> bool:
        """Whether all content that was to be sent went out."""
        return self._send_failure is None

    @property
    def can_ask(self) -> bool:
        """Whether a command can be sent that will be answered."""
        return self.sent_all and self.core.ready and self.wire.usable

    async def ask(self, command: Command, stage: ReplyStage) -> Reply:
        """Send one command and wait for its reply.  Raises as `write_command` and `read_reply`."""
        self.write_command(command)
        return await self.read_reply(stage)

    def write_command(self, command: Command, *, smtputf8: bool = False) -> None:
        """Put a command into the buffer.  Raises ProtocolError if the host has sent a reply that nothing asked for."""
        octets = self.core.send(command, smtputf8=smtputf8)
        self._buffer += octets
        text = octets.decode(errors="replace").rstrip()
        self.transcript.client(f"AUTH {command.mechanism} ***" if isinstance(command, Auth) else text)

    def write_response(self, response: bytes) -> None:
        """Put a response of the AUTH exchange into the buffer (RFC 4954 4), CRLF included."""
        self.core.expect()
        self._buffer += response
        self.transcript.client("***")

    async def send_empty(self, replies: int) -> None:
        """Send the end of a message that is empty since no recipient was accepted."""
        self.core.expect(replies)
        self._buffer += b".\r\n"
        self.transcript.client(".")
        await self.flush()

    def expect_content(self, size: int, replies: int) -> None:
        """Note that `size` octets of content follow, to which that many replies are due."""
        self.core.expect(replies)
        self.transcript.client(f"({size} octets of content)")

    async def send_content(
        self, content: WireOctets, size: int | None, *, before_end: Callable[[], None] | None
    ) -> None:
        """Send `size` octets of content; None: all of it.  `before_end`, where the message ends with them, is called
        before the octets go out that may complete the message.

        A connection that breaks meanwhile is reported by the next `read_reply`: a reply may say why the host would not
        read on.
        """
        try:
            while size != 0 and (block := await content.take(size)):
                self._buffer += block
                if size is not None:
                    size -= len(block)
                # The last octets stay in the buffer: what is written below is what may complete the message.
                if len(self._buffer) >= BUFFER and size != 0 and not await content.at_end():
                    await self.flush()
            if size or (before_end is not None and not await content.at_end()):
                raise RuntimeError("the content has not the size that was said")
            if before_end is not None:
                before_end()
            await self.flush()
        except HostUnusableError as error:
            self._send_failure = error

    async def flush(self) -> None:
        """Write the buffer.  Raises HostUnusableError if the host takes nothing for `timeouts.data`, or closes."""
        if not self._buffer:
            return
        octets = bytes(self._buffer)
        self._buffer.clear()
        try:
            octets = self.wire.send_now(octets)
            if octets:
                with trio.fail_after(self._timeouts.data):  # RFC 5321 4.5.3.2.5
                    await self.wire.send_all(octets)
        except trio.TooSlowError:
            raise self._lost(f"nothing could be sent for {self._timeouts.data:g} s") from None
        except WireError as error:
            raise self._lost(f"the connection broke while sending ({error})") from error

    async def read_reply(self, stage: ReplyStage) -> Reply:
        """Write the buffer and wait for one reply, whole, as long as RFC 5321 4.5.3.2 says.

        Raises HostUnusableError if none comes, or if the host closes before the first MAIL; ProtocolError for octets
        that are no reply.
        """
        if self._send_failure is not None:
            return await self._parting_reply(self._send_failure)
        await self.flush()
        try:
            reply = self._received_reply()
            if reply is None:  # else no limit is needed, which costs much: replies to pipelined commands come together
                limit = self._limit(stage)
                with trio.move_on_after(limit):
                    reply = await self._next_reply()
                if reply is None:
                    reply = self._cut_off(stage, limit)
        except PeerClosedError:
            raise self._lost(f"the connection was closed ({_WAITED_FOR[stage]})") from None
        except WireError as error:
            raise self._lost(f"the connection broke: {error} ({_WAITED_FOR[stage]})") from error
        if reply.code == CLOSING and stage in _BEFORE_MAIL:
            raise refusal(reply, stage, self.endpoint.host)
        return reply

    async def quit(self) -> None:
        """Send QUIT and wait for its reply, for a second at most and whatever comes."""
        try:
            with trio.move_on_after(QUIT_LIMIT):
                self.write_command(Quit())
                await self.flush()
                if self._received_reply() is None:
                    await self._next_reply()
        except (HostUnusableError, WireError, ProtocolError):
            pass

    async def _next_reply(self) -> Reply:
        """The next reply, of which the octets received so far are only a part."""
        while True:
            data = await self.wire.receive_some()
            if data:
                self.on_first_octet()
            self.core.receive_data(data)
            reply = self._received_reply()
            if reply is not None:
                return reply

    def _cut_off(self, stage: ReplyStage, limit: float) -> Reply:
        """The reply that has come in part after `limit` seconds.  Raises HostUnusableError if it is not certain.

        A message that was taken goes out a second time unless the reply to it is understood, however it came.
        """
        cut_off = self.core.cut_off() if stage is ReplyStage.BODY else None
        if cut_off is None:
            raise self._lost(f"no reply within {limit:g} s ({_WAITED_FOR[stage]})")
        return self._noted(cut_off)

    def _received_reply(self) -> Reply | None:
        """The next reply, if it has been received as a whole."""
        try:
            reply = self.core.next_reply()
        except ReplyError as error:
            raise ReplyError(self._masked(str(error))) from None
        return None if reply is None else self._noted(reply)

    def _noted(self, reply: Reply) -> Reply:
        """A reply, noted in the transcript, without our secrets where the host repeats them."""
        if self.secrets and reply.klass != 3:  # a challenge is for the exchange, which has it as it came
            lines, received = (tuple(map(self._masked, lines)) for lines in (reply.lines, reply.received))
            reply = replace(reply, lines=lines, received=received)
        self.transcript.server(str(reply))
        return reply

    def _masked(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    async def _parting_reply(self, failure: HostUnusableError) -> Reply:
        """The reply by which a host that stopped reading says why.  Raises `failure` if there is none."""
        try:
            with trio.move_on_after(QUIT_LIMIT):
                reply = self._received_reply() or await self._next_reply()
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

    def _lost(self, problem: str) -> HostUnusableError:
        self.transcript.note(problem)
        cause = LocalCause(f"{self.endpoint}: {problem}", self.endpoint.host)
        return HostUnusableError(BAD_CONNECTION.transient, cause)


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
