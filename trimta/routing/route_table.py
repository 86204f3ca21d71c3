"""The table of routes: which route an address has."""

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
    """Routes by key: `RouteTable({"partner.test": …, ".corp.test": …, "*": …})`.

    A key is a full address, a domain or address literal, a ".suffix", which holds for every domain below it but not for
    itself, or "*", which must be there.  Letter case makes no difference.  RouteError, with its `key`, for any other
    key, and for two that are the same.
    """

    routes: Mapping[str, Route]
    """By their keys as the configuration writes them."""
    _addresses: dict[tuple[str, str], str] = field(init=False, repr=False, compare=False)
    _domains: dict[str, str] = field(init=False, repr=False, compare=False)
    """Domains, suffixes with their dot, and "*", each to its key as written."""

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
        """The route of an address: that of the full address, else of its domain, else of the longest suffix, else of
        "*".
        """
        specific = self.specific(mailbox)
        if specific is not None:
            return specific
        return self._matched(next(self._domains[name] for name in _suffixes(mailbox) if name in self._domains))

    def specific(self, mailbox: Mailbox) -> MatchedRoute | None:
        """The route of the full address, else of its exact domain; None where neither is a key.  Such a route comes
        before local mailboxes.
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
    """The keys for a domain that is none itself, the longest first: ".b.test", ".test" and "*" for "a.b.test"; only "*"
    for a literal, whose dots are no hierarchy.
    """
    if not mailbox.is_literal:
        rest = mailbox.domain_key
        while "." in rest:
            rest = rest.partition(".")[2]
            yield "." + rest
    yield "*"
