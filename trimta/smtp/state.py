"""The states of an SMTP session as its server sees them, and every move between them (RFC 5321 4.1.4).

`NEXT` is the whole of it: what is not there cannot happen.  A command moves the session by being accepted, which is
when its reply is positive; whatever else moves it is an `Occurrence`.  Only `SessionMachine.move` sets a state.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

from trimta.smtp.commands import (
    Auth,
    Bdat,
    Command,
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
from trimta.smtp.errors import LocalProtocolError


class SessionState(enum.Enum):
    """Where a session is: what the server does next, or what the next octets of the client are."""

    GREETING = "greeting"  # the server's 220 is due
    CONNECTED = "connected"  # no EHLO or HELO yet, or none since STARTTLS
    READY = "ready"  # no mail transaction
    MAIL_GIVEN = "mail given"  # MAIL, and no accepted RCPT
    RCPT_GIVEN = "rcpt given"
    DATA = "data"  # after the 354: octets are content
    CHUNK = "chunk"  # after BDAT: octets are content
    CHUNKS = "chunks"  # between a BDAT without LAST and the next BDAT
    AUTH = "auth"  # after a 334: the line is a response
    TLS = "tls"  # after the 220 to STARTTLS: the handshake
    CLOSED = "closed"

    __hash__ = object.__hash__  # a member is equal to itself alone; Enum's own hash is Python code, in every look-up


class Occurrence(enum.Enum):
    """What moves a session beside a command that is accepted."""

    GREETED = "greeted"
    """The server has said 220."""
    REFUSED = "refused"
    """A command, a line that is none, a response to AUTH or a chunk has got its 4yz or 5yz; or so has the client, in
    place of the greeting."""
    CHALLENGED = "challenged"
    """AUTH, or a response to it, is answered with 334."""
    CHUNK_TAKEN = "chunk taken"
    """A BDAT without LAST is answered with 250."""
    MESSAGE_ANSWERED = "message answered"
    """The end of the message has its reply, be it 250 or a refusal."""
    HANDSHAKE_DONE = "handshake done"
    """TLS is active."""
    INPUT_ENDED = "input ended"
    """The client has closed its side, and all that it sent is answered."""
    HUNG_UP = "hung up"
    """The server has said 421, or has refused what can't be told from the commands behind it."""

    __hash__ = object.__hash__  # as above


Move: TypeAlias = type[Command] | Occurrence
"""A command that is accepted, by its class, or an Occurrence."""

ALWAYS: Final[tuple[type[Command], ...]] = (Noop, Help, Vrfy, Expn)
"""RFC 5321 4.1.4: "at any time during a session", and without a consequence for it."""

BETWEEN_COMMANDS: Final = (
    SessionState.CONNECTED,
    SessionState.READY,
    SessionState.MAIL_GIVEN,
    SessionState.RCPT_GIVEN,
    SessionState.CHUNKS,
)
"""The states in which the next line is a command."""

READING: Final = (*BETWEEN_COMMANDS, SessionState.DATA, SessionState.CHUNK, SessionState.AUTH)
"""The states in which the client may speak."""

NEXT: Final[dict[tuple[SessionState, Move], SessionState]] = {
    (SessionState.GREETING, Occurrence.GREETED): SessionState.CONNECTED,
    (SessionState.GREETING, Occurrence.REFUSED): SessionState.CLOSED,
    **{(state, command): state for state in BETWEEN_COMMANDS for command in ALWAYS},
    **{(state, command): SessionState.READY for state in BETWEEN_COMMANDS for command in (Ehlo, Helo, Rset)},
    **{(state, Quit): SessionState.CLOSED for state in BETWEEN_COMMANDS},
    **{(state, Occurrence.REFUSED): state for state in BETWEEN_COMMANDS},
    (SessionState.CONNECTED, Rset): SessionState.CONNECTED,
    (SessionState.READY, Etrn): SessionState.READY,
    (SessionState.READY, StartTls): SessionState.TLS,
    (SessionState.TLS, Occurrence.HANDSHAKE_DONE): SessionState.CONNECTED,
    (SessionState.READY, Auth): SessionState.READY,
    (SessionState.READY, Occurrence.CHALLENGED): SessionState.AUTH,
    (SessionState.AUTH, Occurrence.CHALLENGED): SessionState.AUTH,
    (SessionState.AUTH, Auth): SessionState.READY,
    (SessionState.AUTH, Occurrence.REFUSED): SessionState.READY,
    (SessionState.READY, Mail): SessionState.MAIL_GIVEN,
    (SessionState.MAIL_GIVEN, Rcpt): SessionState.RCPT_GIVEN,
    (SessionState.RCPT_GIVEN, Rcpt): SessionState.RCPT_GIVEN,
    (SessionState.RCPT_GIVEN, Data): SessionState.DATA,
    (SessionState.DATA, Occurrence.MESSAGE_ANSWERED): SessionState.READY,
    (SessionState.RCPT_GIVEN, Bdat): SessionState.CHUNK,
    (SessionState.CHUNK, Occurrence.CHUNK_TAKEN): SessionState.CHUNKS,
    (SessionState.CHUNK, Occurrence.REFUSED): SessionState.READY,  # RFC 3030 2: a BDAT that failed ends the transaction
    (SessionState.CHUNK, Occurrence.MESSAGE_ANSWERED): SessionState.READY,
    (SessionState.CHUNKS, Bdat): SessionState.CHUNK,
    **{(state, Occurrence.INPUT_ENDED): SessionState.CLOSED for state in READING},
    **{
        (state, Occurrence.HUNG_UP): SessionState.CLOSED
        for state in (SessionState.GREETING, *READING, SessionState.TLS)
    },
}
"""(state, move) to the state after it.  A command whose move is not here is out of order: 503 (RFC 5321 4.1.4)."""


class SessionMachine:
    """The state of one session, moved by NEXT alone."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = SessionState.GREETING

    def may(self, command: type[Command]) -> bool:
        """Whether a command is in order now."""
        return (self.state, command) in NEXT

    def hint(self, command: type[Command], *, lmtp: bool) -> str:
        """What a client that sends a command out of order should know, as the text of a 503."""
        match self.state:
            case SessionState.CONNECTED:
                return "LHLO first" if lmtp else "EHLO or HELO first"
            case SessionState.READY:
                return "MAIL first"
            case SessionState.CHUNKS:
                return "a message has begun: BDAT or RSET"
            case _:
                return "MAIL was given already" if command is Mail else "not in a transaction"

    def move(self, move: Move) -> None:
        """Go to the state after the move.  LocalProtocolError for a move that the state does not have."""
        after = NEXT.get((self.state, move))
        if after is None:
            raise LocalProtocolError(f"{self.state} has no move {move}")
        self.state = after
