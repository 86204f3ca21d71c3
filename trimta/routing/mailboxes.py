"""Local mailboxes: which addresses are ours, whose mailbox they mean, and which Maildir that is.

A Maildir's path holds nothing from an address but `[a-z0-9._+=-]` and percent-encoded octets, without a leading dot, so
no name leaves the folder of its template, and two different names never get the same path component.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from trimta.mail.address import POSTMASTER, Mailbox, fold_local_part, parse_domain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FIELD: Final = re.compile(r"\{(\w+)\}")
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._+=-")
_MAILDIR_FOLDERS: Final = frozenset({"cur", "new", "tmp"})
_MAX_NAME: Final = 255  # octets of a file name: NAME_MAX of POSIX systems


@dataclass(frozen=True, slots=True)
class LocalMailbox:
    """A mailbox of this server, in lower case."""

    user: str
    """Without the detail; never empty."""
    detail: str
    """What follows the subaddress separator; empty where there is none."""
    domain: str
    """The domain_key."""

    @property
    def address(self) -> Mailbox:
        """The mailbox's address for Delivered-To: without the detail."""
        return Mailbox(self.user, self.domain)

    def maildir(self, template: str, captures: Iterable[str] = ()) -> str:
        """The path of its Maildir.  `captures`: templates of the Maildirs that `[routes]` writes to; a mailbox whose
        Maildir would be one of them, or part of one, has the first letter of its name percent-encoded there, which no
        other name has.
        """
        path = maildir_path(template, self.user, self.domain, self.detail)
        if not any(_are_one(path, capture, self.user) for capture in captures):
            return path
        return _fill(template, f"%{ord(_component(self.user)[0]):02X}{_component(self.user)[1:]}", self)


@dataclass(frozen=True, slots=True)
class LocalDomains:
    """What is local.  AddressError if a domain is not one."""

    domains: tuple[str, ...]
    """Domains or address literals in the configuration's order; the hostname is local besides them."""
    hostname: str
    users: Literal["any"] | tuple[str, ...] = "any"
    """Whose mailboxes there are: local parts (content).  postmaster has one always (RFC 5321 4.5.1)."""
    subaddress: str = "+"
    """The characters any of which separates user and detail (RFC 5233); empty: none does."""

    hostname_key: str = field(init=False, repr=False)
    _keys: frozenset[str] = field(init=False, repr=False)
    _users: frozenset[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        hostname_key = parse_domain(self.hostname)
        Mailbox(POSTMASTER, hostname_key)  # what the bare <postmaster> means must be an address
        object.__setattr__(self, "hostname_key", hostname_key)
        object.__setattr__(self, "_keys", frozenset({hostname_key, *map(parse_domain, self.domains)}))
        listed = None if self.users == "any" else frozenset({POSTMASTER, *map(fold_local_part, self.users)})
        object.__setattr__(self, "_users", listed)

    @property
    def keys(self) -> tuple[str, ...]:
        """The domain_key of every local domain, in an order that does not change."""
        return tuple(sorted(self._keys))

    @property
    def first(self) -> str:
        """The domain_key that a name alone belongs to: the first local domain, else the hostname."""
        return parse_domain(self.domains[0]) if self.domains else self.hostname_key

    def is_local(self, mailbox: Mailbox) -> bool:
        """Whether the domain is ours; the bare `<postmaster>` is."""
        return not mailbox.domain or mailbox.domain_key in self._keys

    def domain_of(self, mailbox: Mailbox) -> str:
        """The domain_key; the hostname's for the bare `<postmaster>`."""
        return mailbox.domain_key or self.hostname_key

    def names(self, local_part: str) -> Iterator[tuple[str, str]]:
        """The names that a local part may mean as (user, detail), in lower case: as a whole, then without its detail.

        `alice+lists` is `("alice+lists", "")`, then `("alice", "lists")`.
        """
        whole = fold_local_part(local_part)
        yield whole, ""
        for index, character in enumerate(whole):
            if character in self.subaddress:
                yield whole[:index], whole[index + 1 :]
                return

    def mailbox_of(self, mailbox: Mailbox) -> LocalMailbox | None:
        """The mailbox that an address means, aliases left aside; None where there is no such user, and for a domain
        that is not ours.  A listed user's whole name comes before a subaddress.
        """
        if not self.is_local(mailbox):
            return None
        names = [*self.names(mailbox.local_part)]
        candidates = names[-1:] if self._users is None else [name for name in names if name[0] in self._users]
        for user, detail in candidates:
            if user:
                return LocalMailbox(user, detail, self.domain_of(mailbox))
        return None


def template_fields(template: str) -> frozenset[str]:
    """The words in braces of a Maildir template, known or not."""
    return frozenset(_FIELD.findall(template))


def maildir_path(template: str, user: str, domain: str, detail: str) -> str:
    """The path of a Maildir: `maildir_path("mail/{user}", "../x", "dev.test", "")` is `mail/%2E.%2Fx`.

    ValueError for an empty user.
    """
    if not user:
        raise ValueError("a mailbox has a name")
    return _fill(template, _component(user), LocalMailbox(user, detail, domain))


def _fill(template: str, name: str, mailbox: LocalMailbox) -> str:
    values = {"user": name, "domain": _component(mailbox.domain), "detail": _detail(mailbox.detail)}
    return _FIELD.sub(lambda found: values.get(found[1], found[0]), template)


def _are_one(path: str, capture: str, user: str) -> bool:
    """Whether a mailbox's Maildir and one that is captured into would be the same folder, or one of them would be a
    folder of the other's messages.  A name without a dot is taken for no domain.
    """
    if "{domain}" in capture and "." not in user:
        return False
    domain = r"[^/]+"
    other = domain.join(re.escape(part) for part in posixpath.normpath(capture).split("{domain}"))
    own = posixpath.normpath(path)
    messages = f"/(?:{'|'.join(sorted(_MAILDIR_FOLDERS))})(?:/.*)?"
    if re.fullmatch(f"{other}(?:{messages})?", own, re.DOTALL):
        return True
    found = re.match(re.escape(own) + "(?:" + messages + ")$", posixpath.normpath(capture), re.DOTALL)
    return found is not None


def _component(name: str) -> str:
    encoded = "".join(
        chr(octet) if octet in _PLAIN and not (index == 0 and octet == ord(".")) else f"%{octet:02X}"
        for index, octet in enumerate(name.encode())
    )
    if len(encoded) <= _MAX_NAME:
        return encoded
    # No file system holds it.  "%%" does not occur in an encoded name, so this is nobody else's.
    return f"{encoded[:120]}%%{hashlib.sha256(name.encode()).hexdigest()}"


def _detail(detail: str) -> str:
    # In "mail/{user}/{detail}" these would be parts of the user's own Maildir.
    if detail in _MAILDIR_FOLDERS:
        return f"%{ord(detail[0]):02X}{detail[1:]}"
    return _component(detail)
