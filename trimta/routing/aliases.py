"""Aliases: local parts and addresses that stand for other addresses (RFC 5321 3.9.1).

The table is refused if it has a cycle, so every expansion ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.mail.address import AddressError, Mailbox, fold_local_part, parse_local_part, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trimta.routing.mailboxes import LocalDomains

_Name: TypeAlias = tuple[str, str | None]
"""The key by which aliases are compared: the folded local part, and the domain_key, or None for any local domain."""

_NOT_ADDRESSES: Final = ("|", "/", ":include:")


class AliasError(ValueError):
    """An alias that can't be used.  `key` is the alias as the configuration writes it; the message says the problem."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


class AliasCycle(AliasError):  # noqa: N818 - a cycle is what the configuration has
    """Aliases that lead back to themselves; the message names them: `a -> b -> a`."""


@dataclass(frozen=True, slots=True, eq=False)
class _Alias:
    key: str
    targets: tuple[Mailbox | str, ...]
    """A str is a local part, in the local domain of the address that is looked up."""
    itself: str | None
    """The target that equals the key: it stands for the mailbox of that name, and is not expanded again."""


@dataclass(frozen=True, slots=True)
class AliasTable:
    """The aliases of the configuration: `AliasTable({"team": ("alice", "carol@partner.test")}, local)`.

    A key is a full address in any domain, or a local part, which is an alias in every local domain and for every
    subaddress.  A target is a Mailbox or a text: a full address, or a local part, which stays in the local domain of
    the address that is looked up (the first local domain, if that address is not local): `team@dev.test` goes to
    `alice@dev.test`.  A target that equals its own key is the mailbox of that name.

    The look-up ignores case.  An alias for a full address is preferred to one for a local part, and an alias for the
    whole local part (`alice+lists`) to one for the user without the detail (`alice`).

    Raises AliasError for a key or target that is no address and for a key that occurs twice, AliasCycle for a cycle.
    """

    entries: Mapping[str, Sequence[Mailbox | str]]
    local: LocalDomains
    _aliases: dict[_Name, _Alias] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_aliases", {})
        for key, targets in self.entries.items():
            name = self._key(key)
            if name in self._aliases:
                raise AliasError(key, f"the same name as {self._aliases[name].key!r}")
            self._aliases[name] = self._alias(key, name, targets)
        self._check_cycles()

    def matches(self, mailbox: Mailbox) -> str | None:
        """The key of the alias for an address, as the configuration writes it; None if the address is no alias."""
        alias = self._find(mailbox)
        return None if alias is None else alias.key

    def members(self, mailbox: Mailbox) -> tuple[Mailbox, ...]:
        """The targets of the alias for an address, themselves not expanded; () if the address is no alias."""
        alias = self._find(mailbox)
        return () if alias is None else self._members(alias, mailbox)

    def expand(self, mailbox: Mailbox) -> tuple[Mailbox, ...]:
        """The addresses that an address stands for, with all aliases expanded.

        Each address is there once, in the order of the configuration.  An address that is no alias stands for itself.
        """
        leaves: dict[_Name, Mailbox] = {}
        expanded: set[Mailbox] = set()
        waiting = [(mailbox, False)]
        while waiting:
            address, is_leaf = waiting.pop()
            alias = None if is_leaf else self._find(address)
            if alias is None:
                leaves.setdefault(self._identity(address), address)
            elif address not in expanded:
                expanded.add(address)
                members = reversed(self._members(alias, address))
                waiting.extend((member, self._find(member) is alias) for member in members)
        return tuple(leaves.values())

    def _members(self, alias: _Alias, address: Mailbox) -> tuple[Mailbox, ...]:
        domain = self._domain_of_targets(address)
        return tuple(address if target is alias.itself else _at(target, domain) for target in alias.targets)

    def _domain_of_targets(self, address: Mailbox) -> str:
        """The domain of a target that is only a local part, in the alias for `address`."""
        return self.local.domain_of(address) if self.local.is_local(address) else self.local.first

    def _find(self, mailbox: Mailbox) -> _Alias | None:
        return next((self._aliases[name] for name in self._candidates(mailbox) if name in self._aliases), None)

    def _candidates(self, mailbox: Mailbox) -> Iterator[_Name]:
        """The keys under which an alias for an address may be, the preferred first."""
        if not self.local.is_local(mailbox):
            yield fold_local_part(mailbox.local_part), mailbox.domain_key
            return
        names = [name for name, _ in self.local.names(mailbox.local_part)]
        for domain in (self.local.domain_of(mailbox), None):
            for name in names:
                yield name, domain

    def _identity(self, mailbox: Mailbox) -> _Name:
        """The key by which expanded addresses are compared: local addresses without regard to case."""
        if self.local.is_local(mailbox):
            return fold_local_part(mailbox.local_part), self.local.domain_of(mailbox)
        return mailbox.local_part, mailbox.domain_key

    def _key(self, key: str) -> _Name:
        try:
            if _is_local_part(key):
                return fold_local_part(parse_local_part(key)), None
            mailbox = parse_mailbox(key)
        except AddressError as error:
            raise AliasError(key, f"an alias is a local part or an address: {error}") from error
        return fold_local_part(mailbox.local_part), mailbox.domain_key

    def _alias(self, key: str, name: _Name, targets: Sequence[Mailbox | str]) -> _Alias:
        if not targets:
            raise AliasError(key, 'expected one address or more; mail for nobody is a route: "discard"')
        parsed = [target if isinstance(target, Mailbox) else self._target(key, target) for target in targets]
        itself = next(
            (target for target in parsed if isinstance(target, str) and name == (fold_local_part(target), None)), None
        )
        return _Alias(key, tuple(parsed), itself)

    def _target(self, key: str, text: str) -> Mailbox | str:
        if text.startswith(_NOT_ADDRESSES) and "@" not in text:
            raise AliasError(key, f'{text!r} is no address; commands and files are routes: "pipe:", "maildir:"')
        try:
            return parse_local_part(text) if _is_local_part(text) else parse_mailbox(text)
        except AddressError as error:
            raise AliasError(key, f"{text!r} is neither an address nor a local part: {error}") from error

    def _check_cycles(self) -> None:
        """AliasCycle if an alias leads back to itself in a local domain: what a local part stands for depends on it.

        The walk is depth first, without recursion: a chain of aliases may be longer than Python's stack.
        """
        done: set[_Node] = set()
        for start in [(alias, domain) for alias in self._aliases.values() for domain in self.local.keys]:
            path: dict[_Node, Iterator[_Node]] = {}
            following: _Node | None = start
            while following is not None or path:
                if following is None:
                    done.add(path.popitem()[0])
                elif following in path:
                    nodes = [*path]
                    keys = [alias.key for alias, _ in [*nodes[nodes.index(following) :], following]]
                    raise AliasCycle(keys[0], f"a cycle: {' -> '.join(keys)}")
                elif following not in done:
                    path[following] = self._following(*following)
                following = next(path[next(reversed(path))], None) if path else None

    def _following(self, alias: _Alias, domain: str) -> Iterator[_Node]:
        """The other aliases that are targets of `alias` in a local domain."""
        for target in alias.targets:
            mailbox = _at(target, domain)
            following = self._find(mailbox)
            if following is not None and following is not alias:
                yield following, self._domain_of_targets(mailbox)


_Node: TypeAlias = tuple[_Alias, str]
"""An alias in a local domain."""


def _at(target: Mailbox | str, domain: str) -> Mailbox:
    return Mailbox(target, domain) if isinstance(target, str) else target


def _is_local_part(text: str) -> bool:
    # An address ends with its domain, never with a quote; a quoted local part may have an "@" inside the quotes.
    return "@" not in text or text.endswith('"')
