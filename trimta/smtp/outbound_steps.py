"""The steps of an outbound transaction: what its caller is to send, or to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from trimta.smtp.commands import Command
    from trimta.smtp.reply_meaning import ReplyStage


@dataclass(frozen=True, slots=True)
class SendCommand:
    """Send a command; its reply is listened for in its turn."""

    command: Command
    smtputf8: bool = False
    """How addresses are rendered."""


@dataclass(frozen=True, slots=True)
class SendData:
    """Send the content dot-stuffed and its end; `replies` are due to it.

    `empty`: the end alone, since nobody is left to get the content.
    """

    replies: int
    empty: bool = False


@dataclass(frozen=True, slots=True)
class SendChunk:
    """Send the next `size` octets of the content, as they are on the wire.

    `last`: there are no more.  `replies` are due to it beside the one to its BDAT: LMTP answers for each recipient.
    """

    size: int
    last: bool
    replies: int = 0


@dataclass(frozen=True, slots=True)
class ReadReply:
    """Read one reply and give it to `reply`."""

    stage: ReplyStage


OutboundStep: TypeAlias = SendCommand | SendData | SendChunk | ReadReply
