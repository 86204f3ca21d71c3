"""SMTP events, which `smtp.server` gives to a session, beside commands: AUTH responses, content and its end, input to
refuse, and the signals to receive octets or to close.
"""

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
    """A piece of the content: text with LF line ends, or raw octets with BODY=BINARYMIME.  Needs no reply."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ContentEnd:
    """The end of the content after DATA, or of one chunk of BDAT (RFC 3030)."""

    last: bool
    """Whether the message is complete; False only for a BDAT without LAST."""
    size: int
    """Octets of the content on the wire, before dot-stuffing; before its end, octets of the chunks so far."""
    fault: Reply | None = None
    """The refusal that the message must get; pieces of its content were left out, so it must not be stored."""
    bare_lf: int | None = None
    """The number, from 1, of the first line that ended in LF alone, if such lines are accepted; only with `last`."""


@dataclass(frozen=True, slots=True)
class BadInput:
    """A line or chunk that must be refused; the session answers with `reply`, or with a 421.

    With `close` the session ends after the answer, since the octets that follow can't be told from commands.
    """

    reply: Reply
    close: bool = False


class Signal(enum.Enum):
    """The absence of an event, by its reason."""

    NEED_DATA = "need data"
    """The caller is to send `data_to_send()`, then to receive octets."""
    CLOSED = "closed"
    """The caller is to send `data_to_send()`, then to close the connection."""


NEED_DATA: Final = Signal.NEED_DATA
CLOSED: Final = Signal.CLOSED

SmtpEvent: TypeAlias = Command | AuthResponse | ContentPiece | ContentEnd | BadInput | Signal
"""A result of `next_event`: any command but Bdat, whose octets come as ContentPiece and ContentEnd, or an event."""
