"""Aliases: names that mean other addresses.  The table has no cycle, so every expansion ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta.mail.address import AddressError, Mailbox, fold_local_part, parse_local_part, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trimta.mail.mailboxes import LocalDomains

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
    targets: tuple[Mailbox, ...]
    itself: Mailbox | None
    """The target that is the key again: it stands for the address that was asked for, in whichever local domain."""


@dataclass(frozen=True, slots=True)
class AliasTable:
    """`AliasTable({"team": ("alice", "carol@partner.test")}, local)`.

    A key is a local part, which holds in every local domain and for every subaddress, or a full address in any domain.
    A target is a Mailbox or a text: a full address, or a local part at the first local domain.  A target that is its
    own key means the mailbox of that name.  AliasError or AliasCycle for entries that make no sense.  Looking up
    ignores case; a full address comes before a local part, and a name as a whole before its user without the detail.
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
                waiting.extend(
                    (asked if target is alias.itself else target, self._find(target) is alias)
                    for target in reversed(alias.targets)
                )
        return tuple(leaves.values())

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
        found: list[Mailbox] = []
        itself = None
        for target in targets:
            if isinstance(target, Mailbox):
                found.append(target)
                continue
            mailbox = self._target(key, target)
            if _is_local_part(target) and name == (fold_local_part(mailbox.local_part), None):
                itself = mailbox
            found.append(mailbox)
        return _Alias(key, tuple(found), itself)

    def _target(self, key: str, text: str) -> Mailbox:
        if text.startswith(_NOT_ADDRESSES) and "@" not in text:
            raise AliasError(key, f'{text!r} is no address; commands and files are routes: "pipe:", "maildir:"')
        try:
            return Mailbox(parse_local_part(text), self.local.first) if _is_local_part(text) else parse_mailbox(text)
        except AddressError as error:
            raise AliasError(key, f"{text!r} is neither an address nor a local part: {error}") from error

    def _check_cycles(self) -> None:
        done: set[_Alias] = set()
        for start in self._aliases.values():
            path: dict[_Alias, Iterator[_Alias]] = {}
            following: _Alias | None = start
            while following is not None or path:
                if following is None:
                    done.add(path.popitem()[0])
                elif following in path:
                    keys = [alias.key for alias in path]
                    keys = [*keys[keys.index(following.key) :], following.key]
                    raise AliasCycle(keys[0], f"a cycle: {' -> '.join(keys)}")
                elif following not in done:
                    path[following] = self._following(following)
                following = next(path[next(reversed(path))], None) if path else None

    def _following(self, alias: _Alias) -> Iterator[_Alias]:
        """The aliases that its targets are, but for itself."""
        for target in alias.targets:
            found = self._find(target)
            if found is not None and found is not alias:
                yield found


def _is_local_part(text: str) -> bool:
    # No addr-spec ends with a quote, and the "@" of a quoted local part is inside of it.
    return "@" not in text or text.endswith('"')
