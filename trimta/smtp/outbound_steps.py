"""The steps of an outbound transaction: octets that the caller is to send, or a reply that it is to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from trimta.smtp.commands import Command
    from trimta.smtp.reply_meaning import ReplyStage


@dataclass(frozen=True, slots=True)
class SendCommand:
    """Send a command; a later ReadReply asks for its reply."""

    command: Command
    smtputf8: bool = False
    """Whether addresses are rendered with UTF-8 (see `render_command`)."""


@dataclass(frozen=True, slots=True)
class SendData:
    """Send the content dot-stuffed, and its end; `replies` is the number of replies that are due to it.

    `empty`: send the end only, since no recipient is left.
    """

    replies: int
    empty: bool = False


@dataclass(frozen=True, slots=True)
class SendChunk:
    """Send the next `size` octets of the content, as they are on the wire.

    `last`: whether these are the last.  `replies`: the number of replies beyond the one to BDAT: LMTP sends one for
    each recipient.
    """

    size: int
    last: bool
    replies: int = 0


@dataclass(frozen=True, slots=True)
class ReadReply:
    """Read one reply and pass it to `OutboundTransaction.reply`."""

    stage: ReplyStage


OutboundStep: TypeAlias = SendCommand | SendData | SendChunk | ReadReply
