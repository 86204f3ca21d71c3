"""The order of commands (RFC 5321 4.1.4) as a table: which may come when, and where the conversation is then."""

from __future__ import annotations

import enum
from typing import Final

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


class State(enum.Enum):
    """Where the conversation is."""

    GREETING = "greeting"  # our 220 is due
    CONNECTED = "connected"  # no EHLO or HELO yet, or none since STARTTLS
    READY = "ready"  # no transaction
    MAIL_GIVEN = "mail given"  # MAIL, and no accepted RCPT
    RCPT_GIVEN = "rcpt given"
    DATA = "data"  # after the 354
    CHUNKS = "chunks"  # BDAT has begun, LAST has not come
    AUTH = "auth"  # after a 334
    TLS = "tls"  # after the 220 to STARTTLS
    CLOSED = "closed"


_ALWAYS: Final[tuple[type[Command], ...]] = (Noop, Help, Vrfy, Expn)  # RFC 5321 4.1.4: at any time
_COMMAND_STATES: Final = (State.CONNECTED, State.READY, State.MAIL_GIVEN, State.RCPT_GIVEN, State.CHUNKS)

NEXT: Final[dict[tuple[State, type[Command]], State]] = {
    **{(state, command): state for state in _COMMAND_STATES for command in _ALWAYS},
    **{(state, command): State.READY for state in _COMMAND_STATES for command in (Ehlo, Helo, Rset)},
    **{(state, Quit): State.CLOSED for state in _COMMAND_STATES},
    (State.CONNECTED, Rset): State.CONNECTED,
    (State.READY, Mail): State.MAIL_GIVEN,
    (State.READY, Etrn): State.READY,
    (State.READY, Auth): State.READY,
    (State.READY, StartTls): State.TLS,
    (State.MAIL_GIVEN, Rcpt): State.RCPT_GIVEN,
    (State.RCPT_GIVEN, Rcpt): State.RCPT_GIVEN,
    (State.RCPT_GIVEN, Data): State.DATA,
    (State.RCPT_GIVEN, Bdat): State.CHUNKS,
    (State.CHUNKS, Bdat): State.CHUNKS,
}
"""(state, command) to the state after a positive reply; any other reply leaves the state.  What is not here is 503."""
