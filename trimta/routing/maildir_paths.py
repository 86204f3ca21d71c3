"""The paths of Maildirs, made from a template such as `mail/{user}`.

A path holds nothing from an address but `[a-z0-9._+=-]` and percent-encoded octets, without a leading dot, so no name
leaves the folder of its template, and two different names never get the same path component.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAILDIR_FOLDERS: Final = frozenset({"cur", "new", "tmp"})
"""The folders of a Maildir that hold its messages."""

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._+=-")
"""The octets of a name that stand for themselves in a path."""

FIELD: Final = re.compile(r"\{(\w+)\}")
_MAX_NAME: Final = 255  # octets of a file name: NAME_MAX of POSIX systems


def template_fields(template: str) -> frozenset[str]:
    """The words in braces of a template, known or not."""
    return frozenset(FIELD.findall(template))


def maildir_path(template: str, user: str, domain: str, detail: str) -> str:
    """The path of a mailbox's Maildir: `maildir_path("mail/{user}", "../x", "dev.test", "")` is `mail/%2E.%2Fx`.

    ValueError for an empty user.
    """
    if not user:
        raise ValueError("a mailbox has a name")
    return fill(template, user=component(user), domain=component(domain), detail=detail_component(detail))


def fill(template: str, **components: str) -> str:
    """The template with the component of each name in its place; other words in braces stay."""
    return FIELD.sub(lambda word: components.get(word[1], word[0]), template)


def component(name: str) -> str:
    """A user or domain as one component of a path."""
    encoded = "".join(
        chr(octet) if octet in _PLAIN and not (index == 0 and octet == ord(".")) else f"%{octet:02X}"
        for index, octet in enumerate(name.encode())
    )
    if len(encoded) <= _MAX_NAME:
        return encoded
    # No file system holds it.  "%%" does not occur in an encoded name, so this is nobody else's.
    return f"{encoded[:120]}%%{hashlib.sha256(name.encode()).hexdigest()}"


def detail_component(detail: str) -> str:
    """A detail as one component of a path; in "mail/{user}/{detail}" it is no folder of the user's own Maildir."""
    if detail in MAILDIR_FOLDERS:
        return f"%{ord(detail[0]):02X}{detail[1:]}"
    return component(detail)


def user_set_apart(name: str) -> Iterator[str]:
    """Other path components for a user, one after the other without end.  No other user has any of them, in whatever
    letter case: `%72emote`, then `%%%%remote`.
    """
    usual = component(name)
    if usual[0] != "%":
        yield f"%{ord(usual[0]):02X}{usual[1:]}"
    for count in itertools.count(1 if usual[0] == "%" else 2):
        yield "%%" * count + usual


def domain_set_apart(name: str) -> str:
    """The path component of a domain where users have theirs: that of a domain with a dot, or of an address literal, is
    the usual one, a single label has "%%" before it, which is in no path component of a user.
    """
    return component(name) if "." in name or name.startswith("[") else f"%%{component(name)}"
