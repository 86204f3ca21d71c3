"""The client's side of one mail transaction, without I/O: the order of commands, and the outcome of each recipient.

The caller asks `next_step`, does it, and hands every reply to `reply`:

    while (step := transaction.next_step()) is not None:
        match step:
            case SendCommand(command): ...    # may wait in a buffer until the next ReadReply or content (RFC 2920)
            case SendData() | SendChunk(): ...
            case ReadReply(stage): transaction.reply(...)

Afterwards each recipient has an outcome, or is in `further` (the peer takes no more of them in one transaction), or in
`undecided` (the conversation ended before a reply told anything of the recipient).  A caller whose connection breaks
calls `lost`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from trimta.mail.outcome import Deferred, Delivered, Failed, Handover, LocalCause, PeerReply
from trimta.mail.status import (
    BAD_CONNECTION,
    MESSAGE_TOO_BIG,
    NON_ASCII_ADDRESS,
    NOT_CAPABLE,
    EnhancedStatus,
)
from trimta.smtp.client import CLOSING
from trimta.smtp.commands import Bdat, Data
from trimta.smtp.errors import LocalProtocolError, ProtocolError
from trimta.smtp.fallback import Fallback
from trimta.smtp.outbound_commands import OutboundCommands
from trimta.smtp.outbound_steps import ReadReply, SendChunk, SendCommand, SendData
from trimta.smtp.reply_meaning import ReplyStage, refusal, says_too_many_recipients, status_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from trimta.mail.envelope import Envelope, Recipient
    from trimta.mail.outcome import Cause, Outcome
    from trimta.mail.reply import Reply
    from trimta.smtp.commands import Command
    from trimta.smtp.extensions import Offered
    from trimta.smtp.outbound_commands import ContentFacts
    from trimta.smtp.outbound_steps import OutboundStep

WINDOW: Final = 100
"""Commands without a reply, at most.

Commands and replies under way must fit into the socket buffers, else each side would wait for the other to read (RFC
2920 3.1).
"""

COMPLETE: Final = Fallback()

CHUNK: Final = 1024 * 1024
"""Octets of a chunk: so many that the wait for its reply costs little, so few that a refusal comes early."""


class OutboundTransaction:
    """The dialogue about one envelope from MAIL to the last reply.

    Binary content for a peer without BINARYMIME and CHUNKING raises LocalProtocolError: the caller must re-encode it.
    """

    def __init__(
        self,
        envelope: Envelope,
        facts: ContentFacts,
        offered: Offered,
        *,
        lmtp: bool = False,
        host: str = "",
        seconds_left: float | None = None,
        max_recipients: int = WINDOW,
        fallback: Fallback = COMPLETE,
        authenticated: bool = False,
    ) -> None:
        """`seconds_left`: seconds from now, just before MAIL, to the deadline of `terms.deliver_by`; None without one.
        `host`: the peer's name, for outcomes.  `authenticated`: whether the client has used AUTH.
        """
        if facts.binary and not (offered.binarymime and offered.chunking):
            raise LocalProtocolError("binary content to a peer that cannot take it")
        self._terms = envelope.terms
        self._facts = facts
        self._offered = offered
        self._lmtp = lmtp
        self._host = host
        self._fallback = fallback
        self._commands = OutboundCommands(
            envelope.terms, facts, offered, lmtp=lmtp, seconds_left=seconds_left, authenticated=authenticated
        )

        self.outcomes: list[Outcome] = []
        """The outcomes so far, in the order in which they were decided."""
        self.further: list[Recipient] = []
        """Recipients to be tried at once in another transaction on this connection; never all of them."""
        self.ended: Reply | None = None
        """The 421 that ended the session."""
        self.must_reset = False
        """Whether the peer may still have this transaction open, so that RSET must precede the next MAIL."""
        self.must_close = False
        """Whether the number of replies still to come is unknown, so that the connection can't be used again."""

        self.room: int | None = None
        """The number of recipients that the peer took before it said "too many"; None if it did not."""
        self._refused_otherwise = False

        fit = self._fail_unfit(envelope.recipients)
        limit = min(max_recipients, offered.limits.get("RCPTMAX") or max_recipients)
        self.further.extend(fit[limit:])
        self._waiting = dict(enumerate(fit[:limit]))
        """The recipients without an outcome, by their numbers in this transaction."""
        self._accepted: list[int] = []
        """The numbers of the recipients whose RCPT was accepted."""
        self._unanswered: deque[tuple[ReplyStage, int]] = deque()
        """The MAIL and RCPT commands without a reply yet, with the numbers of recipients."""
        self._mail_refused = False
        self._in_doubt = False
        self._dialogue = self._run()
        self._reply_is_due = False
        self._step: OutboundStep | None = None
        self._advance(None)

    # For the caller.

    def next_step(self) -> OutboundStep | None:
        """The next step; None when the transaction is over."""
        if self._reply_is_due:
            raise LocalProtocolError("a reply is due")
        step = self._step
        if isinstance(step, ReadReply):
            self._reply_is_due = True
        elif step is not None:
            self._advance(None)
        return step

    def reply(self, reply: Reply) -> None:
        """Take the reply that the last step asked for.  Raises ProtocolError if it is no answer to the command."""
        if not self._reply_is_due:
            raise LocalProtocolError("no reply is due")
        self._reply_is_due = False
        if reply.code == CLOSING:
            self.ended = reply
            self._in_doubt = False
            self._stop()
        else:
            self._advance(reply)

    def sending_end(self) -> None:
        """Note that the last octets of the content go out now: from here on the peer may have taken the message."""
        self._in_doubt = True

    def lost(self, problem: str) -> None:
        """End the transaction, since the connection is gone.  Recipients of a message that the peer may have taken are
        deferred; the others stay undecided.  `problem`: what happened, for people.
        """
        if self._in_doubt:
            cause = LocalCause(problem, self._host)
            self.outcomes.extend(
                Deferred(recipient=recipient, status=BAD_CONNECTION.transient, cause=cause, possibly_taken=True)
                for recipient in self._waiting.values()
            )
            self._waiting.clear()
        self._stop()

    @property
    def full(self) -> bool:
        """Whether the peer took no recipient and called all of them too many: it may count over all transactions."""
        return self.room == 0 and not (self._accepted or self._refused_otherwise)

    @property
    def undecided(self) -> list[Recipient]:
        """Recipients without an outcome that are not in `further`."""
        return list(self._waiting.values())

    # Outcomes that need no command.

    def _fail_unfit(self, recipients: Sequence[Recipient]) -> list[Recipient]:
        """Fail the recipients for which the offer rules the message out; return the others."""
        ruled_out = self._commands.unfit(self._peer)
        terms = self._terms
        utf8_message = (terms.smtputf8 and self._facts.utf8_header) or (
            terms.reverse_path is not None and not terms.reverse_path.is_ascii
        )
        fit: list[Recipient] = []
        for recipient in recipients:
            needs_smtputf8 = utf8_message or not recipient.address.is_ascii
            if ruled_out is not None:
                self._fail(recipient, *ruled_out, of_content=ruled_out[0] == MESSAGE_TOO_BIG.permanent)
            elif needs_smtputf8 and not self._offered.smtputf8:
                text = f"{self._peer} does not offer SMTPUTF8, which this message needs"
                self._fail(recipient, NON_ASCII_ADDRESS.permanent, text, of_content=recipient.address.is_ascii)
            else:
                fit.append(recipient)
        inside = self._facts.utf8_inside and self._offered.smtputf8  # RFC 6531 3.4; elsewhere it is encoded
        self._smtputf8 = utf8_message or inside or any(not recipient.address.is_ascii for recipient in fit)
        return fit

    def _outcome_of(self, reply: Reply, stage: ReplyStage, recipient: Recipient) -> Outcome:
        outcome = refusal(reply, stage, recipient, host=self._host)
        if isinstance(outcome, Failed) and self._fallback.excuses(reply, stage):
            return _put_off(outcome, outcome.cause)
        return outcome

    def _fail(self, recipient: Recipient, status: EnhancedStatus, problem: str, *, of_content: bool = False) -> None:
        """Fail a recipient; where EHLO was refused, so that the offer is not known, a missing extension defers it."""
        cause = LocalCause(problem, self._host)
        failed = Failed(recipient=recipient, status=status, cause=cause, of_content=of_content)
        ehlo_refusal = self._fallback.ehlo_refusal
        if ehlo_refusal is not None and status in (NOT_CAPABLE.permanent, NON_ASCII_ADDRESS.permanent):
            self.outcomes.append(_put_off(failed, PeerReply(ehlo_refusal, self._host)))
        else:
            self.outcomes.append(failed)

    @property
    def _peer(self) -> str:
        return self._host or "the next host"

    # The dialogue.

    def _run(self) -> Generator[OutboundStep, Reply | None, None]:
        if not self._waiting:
            return
        yield from self._send_command(self._commands.mail(smtputf8=self._smtputf8), ReplyStage.MAIL, -1)
        for number, recipient in list(self._waiting.items()):
            if self._mail_refused:
                break
            yield from self._send_command(self._commands.rcpt(recipient), ReplyStage.RCPT, number)
        if self._offered.chunking:
            yield from self._send_chunks()
        else:
            yield from self._send_data()

    def _send_command(
        self, command: Command, stage: ReplyStage, number: int
    ) -> Generator[OutboundStep, Reply | None, None]:
        yield SendCommand(command, self._smtputf8)
        self._unanswered.append((stage, number))
        if not self._offered.pipelining or len(self._unanswered) >= WINDOW:
            yield from self._read_replies()

    def _read_replies(self) -> Generator[OutboundStep, Reply | None, None]:
        """Read replies until MAIL and the RCPTs sent so far are answered."""
        while self._unanswered:
            stage, number = self._unanswered.popleft()
            reply = yield from _read_reply(stage)
            if stage is ReplyStage.MAIL:
                self._take_mail_reply(reply)
            elif not self._mail_refused:
                self._take_rcpt_reply(reply, number)

    def _take_mail_reply(self, reply: Reply) -> None:
        if reply.klass == 2:
            self.must_reset = True
            return
        self._mail_refused = True
        rest, self.further = self.further, []
        self._refuse(self._waiting, reply, ReplyStage.MAIL)
        self.outcomes.extend(self._outcome_of(reply, ReplyStage.MAIL, recipient) for recipient in rest)

    def _take_rcpt_reply(self, reply: Reply, number: int) -> None:
        if reply.klass == 2:
            self._accepted.append(number)
            return
        if not says_too_many_recipients(reply):
            self._refused_otherwise = True
        elif self.room is None:
            self.room = len(self._accepted)
        if self._accepted and says_too_many_recipients(reply):
            self.further.append(self._waiting.pop(number))
        else:
            self._refuse([number], reply, ReplyStage.RCPT)

    def _send_data(self) -> Generator[OutboundStep, Reply | None, None]:
        if not self._offered.pipelining or self._mail_refused:
            yield from self._read_replies()
            if not self._accepted:
                return
        yield SendCommand(Data())
        yield from self._read_replies()
        reply = yield from _read_reply(ReplyStage.DATA, positive=3)
        if reply.klass == 3:
            yield from self._send_after_go_ahead()
        else:
            self._refuse(self._accepted, reply, ReplyStage.DATA)

    def _send_after_go_ahead(self) -> Generator[OutboundStep, Reply | None, None]:
        if self._accepted:
            yield SendData(replies=len(self._accepted) if self._lmtp else 1)
            yield from self._read_final_replies()
            return
        # A pipelined DATA got its 354 though nobody is left: a lone dot brings the dialogue back (RFC 2920 3.1).
        if self._lmtp:
            yield SendData(replies=0, empty=True)
            self.must_close = True  # a reply for each of no recipients: none, or one from a server that miscounts
        else:
            yield SendData(replies=1, empty=True)
            yield _READ[ReplyStage.BODY]
        self.must_reset = False

    def _send_chunks(self) -> Generator[OutboundStep, Reply | None, None]:
        # BDAT waits for the replies to RCPT, though it need not.  It costs no round trip more than DATA does, and a
        # connection that breaks up to here leaves no doubt: the peer has no message.
        yield from self._read_replies()
        if not self._accepted:
            return
        size, sent = self._facts.size, 0
        while size - sent > CHUNK:
            yield SendCommand(Bdat(CHUNK, last=False))
            yield SendChunk(CHUNK, last=False)
            sent += CHUNK
            reply = yield from _read_reply(ReplyStage.CHUNK)
            if reply.klass != 2:
                self._refuse(self._accepted, reply, ReplyStage.CHUNK)
                return
        yield SendCommand(Bdat(size - sent, last=True))
        yield SendChunk(size - sent, last=True, replies=len(self._accepted) - 1 if self._lmtp else 0)
        yield from self._read_final_replies()

    def _read_final_replies(self) -> Generator[OutboundStep, Reply | None, None]:
        """The reply that takes the message over or not: one, or in LMTP one for each accepted recipient."""
        if self._lmtp:
            for number in self._accepted:
                reply = yield from _read_reply(ReplyStage.BODY, strict=False)
                self._decide([number], reply)
        else:
            reply = yield from _read_reply(ReplyStage.BODY)
            self._decide(self._accepted, reply)
        self.must_reset = False

    def _decide(self, numbers: Iterable[int], reply: Reply) -> None:
        if reply.klass != 2:
            self._refuse(numbers, reply, ReplyStage.BODY)
            return
        # An LMTP server without DSN puts the message into a mailbox and reports nothing.
        without_dsn = Handover.FINAL if self._lmtp else Handover.RELAYED
        handover = Handover.PASSED_ON if self._offered.dsn else without_dsn
        for number in numbers:
            self.outcomes.append(
                Delivered(
                    recipient=self._waiting.pop(number),
                    status=status_of(reply, ReplyStage.BODY),
                    cause=PeerReply(reply, self._host),
                    handover=handover,
                    deadline_dropped=self._commands.deadline_dropped,
                )
            )

    def _refuse(self, numbers: Iterable[int], reply: Reply, stage: ReplyStage) -> None:
        for number in list(numbers):
            self.outcomes.append(self._outcome_of(reply, stage, self._waiting.pop(number)))

    def _advance(self, reply: Reply | None) -> None:
        try:
            self._step = self._dialogue.send(reply)
        except StopIteration:
            self._step = None

    def _stop(self) -> None:
        self._dialogue.close()
        self._step = None
        self._reply_is_due = False


def _put_off(failed: Failed, cause: Cause) -> Deferred:
    """The failure as a deferral, for another cause."""
    return Deferred(recipient=failed.recipient, status=failed.status.condition.transient, cause=cause)


def _read_reply(
    stage: ReplyStage, *, positive: int = 2, strict: bool = True
) -> Generator[OutboundStep, Reply | None, Reply]:
    """The reply to a command of `stage`.  `positive`: the class that lets the dialogue go on.

    A reply of a class that SMTP does not know is a refusal: it is about one recipient, and others have their own.
    Raises ProtocolError, if `strict`, for a 2yz where 3yz is due, and the other way round.
    """
    reply = yield _READ[stage]
    assert reply is not None
    if strict and reply.klass in (2, 3) and reply.klass != positive:
        raise ProtocolError(f"{reply} is no answer to {_ASKED[stage]}")
    return reply


_READ: Final = {stage: ReadReply(stage) for stage in ReplyStage}

_ASKED: Final = {
    ReplyStage.MAIL: "MAIL",
    ReplyStage.RCPT: "RCPT",
    ReplyStage.DATA: "DATA",
    ReplyStage.CHUNK: "BDAT",
    ReplyStage.BODY: "the end of the message",
}
