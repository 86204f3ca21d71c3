"""The reply to HELP (RFC 5321 4.1.1.8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimta.mail.reply import Reply
from trimta.smtp.parsing import VERBS

if TYPE_CHECKING:
    from trimta.smtp.extensions import Offer


def help_reply(offer: Offer, topic: str = "") -> Reply:
    """The reply to HELP: the commands on offer, or the syntax of the command `topic`; 504 for an unknown topic."""
    on_offer = {name: verb for name, verb in VERBS.items() if verb.belongs_to(offer.protocol) and verb.is_on(offer)}
    name = topic.strip().upper()
    if not name:
        return Reply.of(214, "2.0.0", "commands: " + " ".join(on_offer), "HELP and one of these shows its syntax")
    if name not in on_offer:
        return Reply.of(504, "5.5.4", "no help on that")
    return Reply.of(214, "2.0.0", on_offer[name].syntax)
