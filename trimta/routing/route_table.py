"""The table of routes, `[routes]` of the configuration, and the look-up of an address in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trimta.mail.address import AddressError, fold_local_part, parse_domain, parse_mailbox
from trimta.routing.routes import RouteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trimta.mail.address import Mailbox
    from trimta.routing.routes import Route


@dataclass(frozen=True, slots=True)
class MatchedRoute:
    """A route, and the key of `[routes]` that the address matched (or the operator's `--via`)."""

    key: str = field(compare=False)
    route: Route


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The routes of a configuration: `RouteTable({"partner.test": …, ".corp.test": …, "*": …})`.

    A key is a full address, a domain or address literal, a ".suffix", which means every domain below it but not the
    domain itself, or "*", which must be there.  Letter case makes no difference.  Raises RouteError, with its `key`,
    for any other key, and for two equal keys.
    """

    routes: Mapping[str, Route]
    """The routes, by their keys as the configuration writes them."""
    _addresses: dict[tuple[str, str], str] = field(init=False, repr=False, compare=False)
    _domains: dict[str, str] = field(init=False, repr=False, compare=False)
    """The key of each domain, suffix (with its dot) and "*", as the configuration writes it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_addresses", {})
        object.__setattr__(self, "_domains", {})
        for key in self.routes:
            name = _table_key(key)
            same = self._domains.get(name) if isinstance(name, str) else self._addresses.get(name)
            if same is not None:
                raise RouteError(f"{key!r} is the same as {same!r}", key=key)
            if isinstance(name, str):
                self._domains[name] = key
            else:
                self._addresses[name] = key
        if "*" not in self._domains:
            raise RouteError('"*" is missing: where mail for every other domain goes', key="*")

    def lookup(self, mailbox: Mailbox) -> MatchedRoute:
        """The route of an address: for the full address, else for its domain, else for the longest suffix, else "*"."""
        specific = self.specific(mailbox)
        if specific is not None:
            return specific
        return self._matched(next(self._domains[name] for name in _suffixes(mailbox) if name in self._domains))

    def specific(self, mailbox: Mailbox) -> MatchedRoute | None:
        """The route for the full address, else for its exact domain; None if neither is a key.

        Such a route is preferred to a local mailbox.
        """
        key = self._addresses.get((fold_local_part(mailbox.local_part), mailbox.domain_key))
        if key is None:
            key = self._domains.get(mailbox.domain_key)
        return None if key is None else self._matched(key)

    def _matched(self, key: str) -> MatchedRoute:
        return MatchedRoute(key, self.routes[key])


def _table_key(key: str) -> str | tuple[str, str]:
    try:
        if key == "*":
            return key
        if key.startswith("."):
            suffix = parse_domain(key[1:])
            if suffix.startswith("["):
                raise AddressError("an address literal has no domains below it")
            return f".{suffix}"
        if "@" in key:
            mailbox = parse_mailbox(key)
            return fold_local_part(mailbox.local_part), mailbox.domain_key
        return parse_domain(key)
    except AddressError as error:
        expected = 'expected an address, a domain, a ".suffix" or "*"'
        hint = f' (did you mean "{key[1:]}"?)' if key.startswith("*.") else ""
        raise RouteError(f"found {key!r}: {error}; {expected}{hint}", key=key) from error


def _suffixes(mailbox: Mailbox) -> Iterator[str]:
    """The suffixes of an address's domain, the longest first: ".b.test", ".test" and "*" for "a.b.test".

    An address literal has only "*", since its dots are no hierarchy.
    """
    if not mailbox.is_literal:
        rest = mailbox.domain_key
        while "." in rest:
            rest = rest.partition(".")[2]
            yield "." + rest
    yield "*"
