"""The routing policy: where mail goes, who may relay, and why RCPT is refused for an address."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from trimta.mail.address import Mailbox
from trimta.mail.reply import Reply
from trimta.mail.status import NO_SUCH_MAILBOX, NOT_AUTHORIZED
from trimta.routing.destination import LocalDestination, ResolvedPath, RoutedMessage, Target, UnknownUser
from trimta.routing.networks import within
from trimta.routing.route_table import MatchedRoute, RouteTable
from trimta.routing.routes import HoldRoute, RejectRoute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trimta.mail.envelope import Recipient
    from trimta.routing.aliases import AliasTable
    from trimta.routing.destination import Destination
    from trimta.routing.local_maildirs import LocalMaildirs
    from trimta.routing.mailboxes import LocalDomains
    from trimta.routing.networks import IPNetwork
    from trimta.routing.retry_schedule import RetrySchedule

T = TypeVar("T")


KNOWN: Final = 256
"""Addresses, and clients, for which a policy remembers what it decided: most mail is for few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What one configuration decides about addresses and clients.  `config.build_policy.policy_of` makes it."""

    local: LocalDomains
    aliases: AliasTable
    routes: RouteTable
    relay_networks: tuple[IPNetwork, ...]
    """The networks whose clients may send to domains that are not local."""
    maildirs: LocalMaildirs
    retry: RetrySchedule

    _without_hold: RouteTable = field(init=False, repr=False)
    """The routes that say something else than `hold`, and `*`."""
    _resolved: dict[str, ResolvedPath] = field(init=False, repr=False, compare=False)
    """What `resolve` has returned, by the address as it is written: for addresses that exist and are no
    aliases.
    """
    _may_relay: dict[str, bool] = field(init=False, repr=False, compare=False)
    """What `may_relay` has returned, by the client."""

    def __post_init__(self) -> None:
        routes = self.routes.routes
        not_held = {key: route for key, route in routes.items() if key == "*" or not isinstance(route, HoldRoute)}
        object.__setattr__(self, "_without_hold", RouteTable(not_held))
        object.__setattr__(self, "_resolved", {})
        object.__setattr__(self, "_may_relay", {})

    @property
    def hostname(self) -> str:
        """The name of this server, as the configuration writes it."""
        return self.local.hostname

    @property
    def postmaster(self) -> Mailbox:
        """The address that always exists (RFC 5321 4.5.1)."""
        return Mailbox("postmaster", self.hostname)

    def may_relay(self, client: str | None) -> bool:
        """Whether a client may send to domains that are not local.  `client`: an IP address, or None for a client of a
        unix socket, which counts as a loopback address.
        """
        if client is None:
            return self.may_relay("127.0.0.1") or self.may_relay("::1")
        may_relay = self._may_relay.get(client)
        if may_relay is None:
            may_relay = within(ipaddress.ip_address(client.partition("%")[0]), self.relay_networks)
            _remember(self._may_relay, client, may_relay)
        return may_relay

    def destination(self, mailbox: Mailbox, *, skip_hold: bool = False) -> Destination:
        """The destination of an address, aliases left aside: a route for the address or its exact domain, else a local
        mailbox, else a route for a suffix or `*`.  `skip_hold`: as if no key but `*` said `hold`.
        """
        routes = self._without_hold if skip_hold else self.routes
        if not mailbox.domain:
            mailbox = self.postmaster
        specific = routes.specific(mailbox)
        if specific is not None:
            return specific
        if not self.local.is_local(mailbox):
            return routes.lookup(mailbox)
        local_mailbox = self.local.mailbox_of(mailbox)
        if local_mailbox is None:
            return UnknownUser()
        return LocalDestination(local_mailbox, self.maildirs.path(local_mailbox))

    def resolve(self, mailbox: Mailbox, known: dict[Mailbox, Target] | None = None) -> ResolvedPath:
        """The targets of an address, aliases expanded, each with its destination.  `known`: targets by their addresses,
        which are used again: recipients that are large aliases share their members.
        """
        written = str(mailbox)
        resolved = self._resolved.get(written)
        if resolved is not None:
            return resolved
        known = known or {}
        resolved = ResolvedPath(
            forward_path=mailbox,
            is_alias=self.aliases.matches(mailbox) is not None,
            targets=tuple(known.get(address) or self._target(address) for address in self.aliases.expand(mailbox)),
        )
        # Aliases may be large, and names that nobody has are without number.
        if not resolved.is_alias and not isinstance(resolved.targets[0].destination, UnknownUser):
            _remember(self._resolved, written, resolved)
        return resolved

    def _target(self, address: Mailbox) -> Target:
        domain = address.domain_key or self.local.hostname_key
        return Target(address=address, domain=domain, destination=self.destination(address))

    def refusal(self, resolved: ResolvedPath, *, may_relay: bool) -> Reply | None:
        """The negative reply to RCPT for a forward-path; None if it is accepted.  `may_relay`: whether the client may
        send to domains that are not local.  An alias is accepted wherever its targets are.
        """
        if resolved.is_alias:
            return None
        mailbox = resolved.forward_path
        match resolved.targets[0].destination:
            case LocalDestination():
                return None
            case UnknownUser():
                return Reply(550, (f"<{mailbox}>: no such user here",), NO_SUCH_MAILBOX.permanent)
            case MatchedRoute() if not may_relay:
                return Reply(550, (f"<{mailbox}>: relaying denied",), NOT_AUTHORIZED.permanent)
            case MatchedRoute(route=RejectRoute() as reject):
                return Reply(reject.code, (reject.text,), reject.status)
            case MatchedRoute():
                return None

    def route(self, recipients: Iterable[Recipient]) -> RoutedMessage:
        """The envelopes of a message that did not come by a session, for these recipients."""
        return RoutedMessage.of([(recipient, self.resolve(recipient.address)) for recipient in recipients])


def _remember(known: dict[str, T], key: str, value: T) -> None:
    """Keep a value; once there are KNOWN, those before are forgotten."""
    if len(known) >= KNOWN:
        known.clear()
    known[key] = value


def addresses(recipients: Iterable[Recipient]) -> list[str]:
    """The recipients' addresses, for the log."""
    return [str(recipient.address) for recipient in recipients]
