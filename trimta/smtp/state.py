"""The states of an SMTP session as its server sees them, and every move between them (RFC 5321 4.1.4).

The table `NEXT` has every possible move.  A command moves the session when it is accepted, that is when its reply is
positive; all other moves are an `Occurrence`.  Only `SessionMachine.move` sets a state.
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
    """The state of a session: what the server does next, or what the next octets of the client are."""

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

    __hash__ = object.__hash__  # members are equal by identity; Enum's own hash is Python code, run in every look-up


class Occurrence(enum.Enum):
    """A reason for a move other than an accepted command."""

    GREETED = "greeted"
    """The server has sent the greeting, 220."""
    REFUSED = "refused"
    """A command, another line, a response in AUTH or a chunk got a 4yz or 5yz; or the client did, in place of 220."""
    CHALLENGED = "challenged"
    """AUTH, or a response in it, was answered with 334."""
    CHUNK_TAKEN = "chunk taken"
    """A BDAT without LAST was answered with 250."""
    MESSAGE_ANSWERED = "message answered"
    """The end of the content was answered, with 250 or a refusal."""
    HANDSHAKE_DONE = "handshake done"
    """The TLS handshake has succeeded."""
    INPUT_ENDED = "input ended"
    """The client has closed its side, and all that it sent was answered."""
    HUNG_UP = "hung up"
    """The server has sent 421, or has refused content whose end can't be told from commands behind it."""

    __hash__ = object.__hash__  # as above


Move: TypeAlias = type[Command] | Occurrence
"""The reason for a move: the class of an accepted command, or an Occurrence."""

ALWAYS: Final[tuple[type[Command], ...]] = (Noop, Help, Vrfy, Expn)
"""The commands that may come "at any time during a session" (RFC 5321 4.1.4), and don't change its state."""

BETWEEN_COMMANDS: Final = (
    SessionState.CONNECTED,
    SessionState.READY,
    SessionState.MAIL_GIVEN,
    SessionState.RCPT_GIVEN,
    SessionState.CHUNKS,
)
"""The states in which the next line is a command."""

WITHIN_CONTENT: Final = frozenset({SessionState.DATA, SessionState.CHUNK})
"""The states in which the next octets are content."""

READING: Final = frozenset({*BETWEEN_COMMANDS, *WITHIN_CONTENT, SessionState.AUTH})
"""The states in which the server reads from the client."""

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
"""The state after each (state, move).  A command without a move here is out of order: 503 (RFC 5321 4.1.4)."""


class SessionMachine:
    """The state of one session, which only the moves of NEXT change."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = SessionState.GREETING

    def may(self, command: type[Command]) -> bool:
        """Whether a command is in order in the present state."""
        return (self.state, command) in NEXT

    def hint(self, command: type[Command], *, lmtp: bool) -> str:
        """The text of a 503, which tells a client what must come before its command."""
        match self.state:
            case SessionState.CONNECTED:
                return "LHLO first" if lmtp else "EHLO or HELO first"
            case SessionState.READY:
                return "MAIL first"
            case SessionState.MAIL_GIVEN if command in (Data, Bdat):
                return "RCPT first"
            case SessionState.CHUNKS:
                return "a message has begun: BDAT or RSET"
            case _:
                return "MAIL was given already" if command is Mail else "not in a transaction"

    def move(self, move: Move) -> None:
        """Go to the state after a move.  Raises LocalProtocolError for a move that the present state does not have."""
        after = NEXT.get((self.state, move))
        if after is None:
            raise LocalProtocolError(f"{self.state} has no move {move}")
        self.state = after
