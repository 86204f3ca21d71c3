"""The events of the receiving side of a session, beside the commands."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.smtp.commands import Command

if TYPE_CHECKING:
    from trimta.mail.reply import Reply


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """The client's response to a 334 (RFC 4954 4), decoded from Base64."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ContentPiece:
    """A piece of the message in content form: LF line ends, or raw with BODY=BINARYMIME.  Needs no reply."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ContentEnd:
    """The end of the data, or of one chunk of BDAT."""

    last: bool
    """The message is complete.  False only for a BDAT without LAST."""
    size: int
    """Octets of the message as on the wire, unstuffed and with CRLF; before its end the octets of its chunks so far."""
    fault: Reply | None = None
    """The refusal that the message must get.  Pieces of its content were withheld, so it is not to be stored."""
    bare_lf: int | None = None
    """The number, from 1, of the first line that ended in LF alone, where that was accepted; only with `last`."""


@dataclass(frozen=True, slots=True)
class BadInput:
    """A line or chunk that is refused; the session answers with `reply`, or with a 421.  If `close`, the session is
    over once it is answered: what follows can't be told from commands.
    """

    reply: Reply
    close: bool = False


class Signal(enum.Enum):
    """The absence of an event, and what the caller does then."""

    NEED_DATA = "need data"
    """Send `data_to_send()`, then receive."""
    CLOSED = "closed"
    """Send `data_to_send()`, then close."""


NEED_DATA: Final = Signal.NEED_DATA
CLOSED: Final = Signal.CLOSED

SmtpEvent: TypeAlias = Command | AuthResponse | ContentPiece | ContentEnd | BadInput | Signal
"""What `next_event` returns; of the commands all but Bdat, whose octets come as ContentPiece and ContentEnd."""
