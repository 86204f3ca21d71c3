"""Destinations of addresses (local mailbox, unknown user, route), and the envelopes that a message has for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from trimta.mail.envelope import Notify
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import HoldRoute, next_hop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trimta.mail.address import Mailbox
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
class Target:
    """An address that a forward-path stands for once aliases are expanded, with its destination."""

    address: Mailbox
    domain: str
    """The address's domain_key; the hostname's for the bare `<postmaster>`."""
    destination: Destination

    @property
    def identity(self) -> Mailbox | LocalMailbox:
        """A value that is equal for two spellings of one recipient: the mailbox, where the destination is local."""
        return self.destination.mailbox if isinstance(self.destination, LocalDestination) else self.address


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPath:
    """A forward-path with the targets that mail for it goes to."""

    forward_path: Mailbox
    is_alias: bool
    targets: tuple[Target, ...]
    """At least one: the forward-path itself, where it is no alias."""


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
    """The envelopes of a message after aliases, one for each destination and domain."""

    envelopes: tuple[RoutedEnvelope, ...]
    expanded: tuple[Recipient, ...] = ()
    """The recipients that were an alias of several addresses, as the message had them."""

    @classmethod
    def of(cls, recipients: Sequence[tuple[Recipient, ResolvedPath]]) -> Self:
        """The envelopes of a message for these recipients: one for each local mailbox address, and one for each other
        domain and route.  A target that several recipients lead to is in one envelope, with the first of them.
        """
        if len(recipients) == 1 and not recipients[0][1].is_alias:  # as most messages have it
            recipient, resolved = recipients[0]
            (target,) = resolved.targets
            envelope = RoutedEnvelope(domain=target.domain, destination=target.destination, recipients=(recipient,))
            return cls(envelopes=(envelope,))
        groups: dict[tuple[str, Destination], list[Recipient]] = {}
        expanded: list[Recipient] = []
        seen: set[Mailbox | LocalMailbox] = set()
        for recipient, resolved in recipients:
            notify = recipient.notify
            if len(resolved.targets) > 1:
                expanded.append(recipient)
                notify = _without_success(notify)
            for target in resolved.targets:
                identity = target.identity
                if identity not in seen:
                    seen.add(identity)
                    members = groups.setdefault((target.domain, target.destination), [])
                    members.append(
                        replace(recipient, address=target.address, notify=notify) if resolved.is_alias else recipient
                    )
        envelopes = [
            RoutedEnvelope(domain=domain, destination=destination, recipients=tuple(members))
            for (domain, destination), members in groups.items()
        ]
        return cls(envelopes=tuple(envelopes), expanded=tuple(expanded))


def _without_success(notify: frozenset[Notify] | None) -> frozenset[Notify] | None:
    """NOTIFY of the addresses that an alias was expanded to: the `expanded` DSN has answered SUCCESS (RFC 3461
    5.2.7.3).
    """
    if notify is None:
        return None
    return (notify - {Notify.SUCCESS}) or frozenset({Notify.NEVER})
