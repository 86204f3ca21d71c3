"""The paths of Maildirs, made from a template such as `mail/{user}`.

Names from addresses are put in as `[a-z0-9._+=-]` and percent-encoded octets, without a leading dot.  So no name leads
out of the template's folder, and two different names never get the same path component.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

MAILDIR_FOLDERS: Final = frozenset({"cur", "new", "tmp"})
"""The folders of a Maildir that hold its messages."""

_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._+=-")
"""The octets of a name that stand for themselves in a path."""

FIELD: Final = pattern(r"\{(\w+)\}")
_MAX_NAME: Final = 255  # octets of a file name: NAME_MAX of POSIX systems


def template_fields(template: str) -> frozenset[str]:
    """The words in braces of a template, known or not."""
    return frozenset(FIELD.findall(template))


def maildir_path(template: str, user: str, domain: str, detail: str) -> str:
    """The path of a mailbox's Maildir: `maildir_path("mail/{user}", "../x", "dev.test", "")` is `mail/%2E.%2Fx`.

    Raises ValueError for an empty user.
    """
    if not user:
        raise ValueError("a mailbox has a name")
    return fill(template, user=component(user), domain=component(domain), detail=detail_component(detail))


def fill(template: str, **components: str) -> str:
    """The template with words in braces replaced by the path components of these names; other words stay."""
    return FIELD.sub(lambda word: components.get(word[1], word[0]), template)


def component(name: str) -> str:
    """A user or domain as one component of a path."""
    encoded = "".join(
        chr(octet) if octet in _PLAIN and not (index == 0 and octet == ord(".")) else f"%{octet:02X}"
        for index, octet in enumerate(name.encode())
    )
    if len(encoded) <= _MAX_NAME:
        return encoded
    import hashlib

    # Too long for a file name.  "%%" does not occur in an encoded name, so no other name has this component.
    return f"{encoded[:120]}%%{hashlib.sha256(name.encode()).hexdigest()}"


def detail_component(detail: str) -> str:
    """A detail as one component of a path, never cur, new or tmp: in "mail/{user}/{detail}" these are the user's."""
    if detail in MAILDIR_FOLDERS:
        return f"%{ord(detail[0]):02X}{detail[1:]}"
    return component(detail)


def user_set_apart(name: str) -> Iterator[str]:
    """Other path components for a user, without end: `%72emote`, then `%%%%remote`.

    No other user has any of them, in any letter case.
    """
    usual = component(name)
    if usual[0] != "%":
        yield f"%{ord(usual[0]):02X}{usual[1:]}"
    for count in itertools.count(1 if usual[0] == "%" else 2):
        yield "%%" * count + usual


def domain_set_apart(name: str) -> str:
    """The path component of a domain in a folder that has users' components, too.

    A domain that is a single label gets "%%" before it, which no user's component has; other domains, and address
    literals, have their usual component.
    """
    return component(name) if "." in name or name.startswith("[") else f"%%{component(name)}"
