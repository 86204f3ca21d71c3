"""Local domains and local mailboxes: which addresses are local, and the mailbox of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from trimta.mail.address import POSTMASTER, AddressError, Mailbox, fold_local_part, parse_domain

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class LocalMailbox:
    """A mailbox of this server, in lower case."""

    user: str
    """The local part without the detail; never empty."""
    detail: str
    """The text behind the subaddress separator (RFC 5233); empty without one."""
    domain: str
    """The domain, as domain_key."""
    address: Mailbox = field(init=False, repr=False, compare=False)
    """The mailbox's address for Delivered-To: without the detail."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", Mailbox(self.user, self.domain))


@dataclass(frozen=True, slots=True)
class LocalDomains:
    """The local domains and users of the configuration.  Raises AddressError for a domain that is none."""

    domains: tuple[str, ...]
    """Domains or address literals in the configuration's order; the hostname is local, too."""
    hostname: str
    users: Literal["any"] | tuple[str, ...] = "any"
    """The local parts that have a mailbox, without quotes; postmaster always has one (RFC 5321 4.5.1)."""
    subaddress: str = "+"
    """The characters each of which separates user and detail (RFC 5233); empty for no subaddresses."""

    hostname_key: str = field(init=False, repr=False)
    _keys: frozenset[str] = field(init=False, repr=False)
    _users: frozenset[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        hostname_key = parse_domain(self.hostname)
        Mailbox(POSTMASTER, hostname_key)  # raises AddressError: the bare <postmaster> needs a full address
        object.__setattr__(self, "hostname_key", hostname_key)
        object.__setattr__(self, "_keys", frozenset({hostname_key, *map(parse_domain, self.domains)}))
        listed = None if self.users == "any" else frozenset({POSTMASTER, *map(fold_local_part, self.users)})
        object.__setattr__(self, "_users", listed)

    @property
    def keys(self) -> tuple[str, ...]:
        """The domain_key of every local domain, sorted."""
        return tuple(sorted(self._keys))

    @property
    def first(self) -> str:
        """The domain_key of names without a domain: that of the first local domain, else of the hostname."""
        return parse_domain(self.domains[0]) if self.domains else self.hostname_key

    def is_local(self, mailbox: Mailbox) -> bool:
        """Whether the domain of an address is local, as it is for the bare `<postmaster>`."""
        return not mailbox.domain or mailbox.domain_key in self._keys

    def domain_of(self, mailbox: Mailbox) -> str:
        """The domain_key of an address; the hostname's for the bare `<postmaster>`."""
        return mailbox.domain_key or self.hostname_key

    def names(self, local_part: str) -> Iterator[tuple[str, str]]:
        """The ways to read a local part as (user, detail), in lower case.

        `alice+lists` gives `("alice+lists", "")`, then `("alice", "lists")`.
        """
        whole = fold_local_part(local_part)
        yield whole, ""
        for index, character in enumerate(whole):
            if character in self.subaddress:
                yield whole[:index], whole[index + 1 :]
                return

    def mailbox_of(self, mailbox: Mailbox) -> LocalMailbox | None:
        """The mailbox of an address, without regard to aliases; None for an unknown user or a domain that is not local.

        A user of `users` whose name is the whole local part is preferred to one with a detail.
        """
        if not self.is_local(mailbox):
            return None
        names = [*self.names(mailbox.local_part)]
        candidates = names[-1:] if self._users is None else [name for name in names if name[0] in self._users]
        for user, detail in candidates:
            if user:
                try:
                    return LocalMailbox(user, detail, self.domain_of(mailbox))
                except AddressError:  # without the detail it needs quotes, for which there is no room
                    continue
        return None
