"""Aliases: names that mean other addresses.  The table has no cycle, so every expansion ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.mail.address import AddressError, Mailbox, fold_local_part, parse_local_part, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trimta.routing.mailboxes import LocalDomains

_Name: TypeAlias = tuple[str, str | None]
"""A key for comparing: the folded local part, and the domain_key or None for a local part in any local domain."""

_NOT_ADDRESSES: Final = ("|", "/", ":include:")


class AliasError(ValueError):
    """An alias that means nothing.  `key` is the alias as the configuration writes it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


class AliasCycle(AliasError):  # noqa: N818 - the thing found has this name
    """Aliases that mean each other; the message names them: `a -> b -> a`."""


@dataclass(frozen=True, slots=True, eq=False)
class _Alias:
    key: str
    targets: tuple[Mailbox | str, ...]
    """A str is a local part, in the local domain that was asked for."""
    itself: str | None
    """The target that is the key again: it stands for the address that was asked for."""


@dataclass(frozen=True, slots=True)
class AliasTable:
    """`AliasTable({"team": ("alice", "carol@partner.test")}, local)`.

    A key is a local part, which holds in every local domain and for every subaddress, or a full address in any domain.
    A target is a Mailbox or a text: a full address, or a local part, which stays in the local domain of the address
    that was asked for (the first local domain, where that is not local): `team@dev.test` goes to `alice@dev.test`.  A
    target that is its own key means the mailbox of that name.  AliasError or AliasCycle for entries that make no sense.
    Looking up ignores case; a full address comes before a local part, and a name as a whole before its user without the
    detail.
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
        """The key of the alias for an address, as the configuration writes it; None where there is none."""
        alias = self._find(mailbox)
        return None if alias is None else alias.key

    def members(self, mailbox: Mailbox) -> tuple[Mailbox, ...]:
        """What the alias for an address says, one step and no further; () where there is none."""
        alias = self._find(mailbox)
        return () if alias is None else self._members(alias, mailbox)

    def expand(self, mailbox: Mailbox) -> tuple[Mailbox, ...]:
        """The addresses that an address means in the end, each once, in the order of the configuration; itself where it
        is no alias.
        """
        leaves: dict[_Name, Mailbox] = {}
        seen: set[Mailbox] = set()
        waiting = [(mailbox, False)]
        while waiting:
            asked, is_leaf = waiting.pop()
            alias = None if is_leaf else self._find(asked)
            if alias is None:
                leaves.setdefault(self._identity(asked), asked)
            elif asked not in seen:
                seen.add(asked)
                members = reversed(self._members(alias, asked))
                waiting.extend((member, self._find(member) is alias) for member in members)
        return tuple(leaves.values())

    def _members(self, alias: _Alias, asked: Mailbox) -> tuple[Mailbox, ...]:
        domain = self._domain_of_targets(asked)
        return tuple(asked if target is alias.itself else _at(target, domain) for target in alias.targets)

    def _domain_of_targets(self, asked: Mailbox) -> str:
        """Where a target is that is only a local part."""
        return self.local.domain_of(asked) if self.local.is_local(asked) else self.local.first

    def _find(self, mailbox: Mailbox) -> _Alias | None:
        return next((self._aliases[name] for name in self._candidates(mailbox) if name in self._aliases), None)

    def _candidates(self, mailbox: Mailbox) -> Iterator[_Name]:
        if not self.local.is_local(mailbox):
            yield fold_local_part(mailbox.local_part), mailbox.domain_key
            return
        names = [name for name, _ in self.local.names(mailbox.local_part)]
        for domain in (self.local.domain_of(mailbox), None):
            for name in names:
                yield name, domain

    def _identity(self, mailbox: Mailbox) -> _Name:
        """What makes two leaves one: local ones are compared without case."""
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
        found = [target if isinstance(target, Mailbox) else self._target(key, target) for target in targets]
        itself = next(
            (target for target in found if isinstance(target, str) and name == (fold_local_part(target), None)), None
        )
        return _Alias(key, tuple(found), itself)

    def _target(self, key: str, text: str) -> Mailbox | str:
        if text.startswith(_NOT_ADDRESSES) and "@" not in text:
            raise AliasError(key, f'{text!r} is no address; commands and files are routes: "pipe:", "maildir:"')
        try:
            return parse_local_part(text) if _is_local_part(text) else parse_mailbox(text)
        except AddressError as error:
            raise AliasError(key, f"{text!r} is neither an address nor a local part: {error}") from error

    def _check_cycles(self) -> None:
        """Of every alias in every local domain: what a local part means depends on it."""
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
        """The aliases that its targets are, but for itself."""
        for target in alias.targets:
            mailbox = _at(target, domain)
            found = self._find(mailbox)
            if found is not None and found is not alias:
                yield found, self._domain_of_targets(mailbox)


_Node: TypeAlias = tuple[_Alias, str]
"""An alias in a local domain."""


def _at(target: Mailbox | str, domain: str) -> Mailbox:
    return Mailbox(target, domain) if isinstance(target, str) else target


def _is_local_part(text: str) -> bool:
    # No addr-spec ends with a quote, and the "@" of a quoted local part is inside of it.
    return "@" not in text or text.endswith('"')
