"""Copies for Maildirs: the same content, each with its own trace on top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimta.content.trace import delivered_to_field, return_path_field, x_original_to_field
from trimta.routing.destination import LocalDestination

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import Recipient
    from trimta.routing.destination import RoutedEnvelope
    from trimta.store.queue.values import StoredMessage


@dataclass(frozen=True, slots=True)
class Copy:
    """One file to be: its Maildir, what goes on top of the content, and for whom it is."""

    maildir: Path
    head: bytes
    """LF line ends."""
    domain: str
    next_hop: str
    recipients: tuple[Recipient, ...]


def copies_of(part: RoutedEnvelope, message: StoredMessage, capture: Path | None = None) -> list[Copy]:
    """The files that a part of a message becomes: in a local mailbox one for each recipient; in the Maildir `capture`
    of a route one for all of them, with a Delivered-To each, so that a Bcc shows.
    """
    if isinstance(part.destination, LocalDestination):
        maildir, mailbox = part.destination.maildir, part.destination.mailbox.address
        return [
            Copy(maildir, _head(message, [(recipient, mailbox)]), part.domain, part.next_hop, (recipient,))
            for recipient in part.recipients
        ]
    assert capture is not None, "only a local mailbox or a maildir: route has a Maildir"
    named = [(recipient, recipient.address) for recipient in part.recipients]
    return [Copy(capture, _head(message, named), part.domain, part.next_hop, part.recipients)]


def _head(message: StoredMessage, named: Sequence[tuple[Recipient, Mailbox]]) -> bytes:
    # Members of one list share the address that it was.
    originals = dict.fromkeys(
        x_original_to_field(recipient.original)
        for recipient, mailbox in named
        if str(recipient.original) != str(mailbox)
    )
    delivered = [delivered_to_field(mailbox) for _, mailbox in named]
    return b"".join((return_path_field(message.reverse_path), *originals, *delivered, message.trace))
