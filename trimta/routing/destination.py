"""Destinations: where the mail of an address goes, and the envelopes that a message has for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import HoldRoute, next_hop

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.mail.envelope import Recipient
    from trimta.routing.mailboxes import LocalMailbox

LOCAL_HOP: Final = "local"
"""The next hop of envelopes for local mailboxes, should they have to wait in the queue."""


@dataclass(frozen=True, slots=True)
class LocalDestination:
    """A local mailbox and its Maildir."""

    mailbox: LocalMailbox
    maildir: Path


@dataclass(frozen=True, slots=True)
class UnknownUser:
    """A local domain, which has no such mailbox."""


Destination: TypeAlias = LocalDestination | UnknownUser | MatchedRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedEnvelope:
    """An envelope with its destination, which all its recipients share."""

    domain: str
    """The domain_key of its recipients; the hostname's for the bare `<postmaster>`."""
    destination: Destination
    recipients: tuple[Recipient, ...]

    @property
    def next_hop(self) -> str:
        """The key under which the scheduler limits concurrency, as the queue keeps it."""
        if isinstance(self.destination, MatchedRoute):
            return next_hop(self.destination.route, self.domain)
        return LOCAL_HOP

    @property
    def is_held(self) -> bool:
        """Whether the route is `hold`: the envelope waits in the queue until the operator releases it."""
        return isinstance(self.destination, MatchedRoute) and isinstance(self.destination.route, HoldRoute)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedMessage:
    """The envelopes of a message after aliases, one for each destination."""

    envelopes: tuple[RoutedEnvelope, ...]
    expanded: tuple[Recipient, ...] = ()
    """The recipients that were an alias of several addresses, as the message had them."""
