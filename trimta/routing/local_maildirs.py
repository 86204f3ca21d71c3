"""The Maildirs of local mailboxes, each apart from the Maildirs into which `maildir:` routes capture mail.

Two paths may lead to the same folder: through symbolic links, or on a file system without letter case.  So paths are
compared with the links resolved that existed when the configuration was read, and without regard to case.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trimta.routing.maildir_paths import FIELD, MAILDIR_FOLDERS, component, detail_component, fill, user_set_apart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trimta.routing.mailboxes import LocalMailbox

_WORDS: Final = {
    "user": ".+",
    "domain": r"(?:[^%]+\.[^%]+|%5b.*%5d|%%[^%.]+)",  # a result of `domain_set_apart`
    "detail": ".*",
}
"""The texts that may take the place of each word in braces, as regular expressions, in lower case."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalMaildirs:
    """The look-up of the Maildir of a local mailbox.

    Routes and mailboxes share names if their templates are, for example, `mail/remote` and `mail/{user}`.  A mailbox
    whose Maildir would be that of a route, or a part of it, has the first letter of its name percent-encoded:
    `mail/%72emote`.
    """

    template: str
    """The path of a Maildir, with {user}, {domain} and {detail} in it; absolute."""
    captures: tuple[str, ...] = ()
    """The templates of the routes' Maildirs, with or without {domain} in them; absolute."""
    links: Mapping[str, str] = field(default_factory=dict)
    """The symbolic links in the paths of all these Maildirs, each with the folder to which it leads.

    Neither of the two paths leads over another link.
    """
    _captures: tuple[tuple[str, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_captures", tuple(self._steps(capture) for capture in self.captures))

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates of all Maildirs: that of local mailboxes, then those of routes."""
        return (self.template, *self.captures)

    def path(self, mailbox: LocalMailbox) -> Path:
        """The Maildir of a mailbox."""
        return _path(self, mailbox)

    def may_meet(self, capture: str) -> bool:
        """Whether the Maildir of some mailbox may be that of a route with the template `capture`, or a part of it."""
        without_detail = self.template.replace("{detail}", "")
        captured = self._steps(capture)
        return any(_meet(self._steps(template), captured) for template in (self.template, without_detail))

    def is_captured(self, path: str) -> bool:
        """Whether a folder is the Maildir of a route, lies in its cur, new or tmp, or has it in its own."""
        steps = self._steps(path)
        return any(_meet(steps, captured) for captured in self._captures)

    def _steps(self, path: str) -> tuple[str, ...]:
        """The components of the folder to which a path or template leads, links resolved, in lower case."""
        folder = "/"
        for name in path.split("/"):
            if name == "..":
                folder = posixpath.dirname(folder)
            elif name not in ("", "."):
                folder = posixpath.join(folder, name)
                folder = self.links.get(folder, folder)
        return tuple(folder.casefold().split("/")[1:])


@lru_cache(maxsize=1024)  # called at RCPT and at the end of data, for the same few mailboxes
def _path(maildirs: LocalMaildirs, mailbox: LocalMailbox) -> Path:
    def path(user: str) -> str:
        return fill(
            maildirs.template, user=user, domain=component(mailbox.domain), detail=detail_component(mailbox.detail)
        )

    usual = path(component(mailbox.user))
    # Each route's template matches one of these at most, unless it matches all paths of the folder.
    others = map(path, itertools.islice(user_set_apart(mailbox.user), len(maildirs.captures) + 1))
    return Path(next((each for each in (usual, *others) if not maildirs.is_captured(each)), usual))


def _meet(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether two Maildirs may be the same folder, or one may lie in cur, new or tmp of the other."""
    if not all(_may_be_same(name, other) for name, other in zip(first, second, strict=False)):
        return False
    below = (first if len(first) > len(second) else second)[min(len(first), len(second)) :]
    return not below or any(_may_be_same(below[0], name) for name in MAILDIR_FOLDERS)


def _may_be_same(first: str, second: str) -> bool:
    """Whether two path components, which may have words in braces, may stand for the same name."""
    match FIELD.search(first), FIELD.search(second):
        case None, None:
            return first == second
        case None, _:
            return _pattern(second).fullmatch(first) is not None
        case _, None:
            return _pattern(first).fullmatch(second) is not None
        case _:
            return True


@lru_cache(maxsize=64)
def _pattern(template: str) -> re.Pattern[str]:
    """A regular expression for the names that a component of a template may stand for."""
    first, *rest = FIELD.split(template)  # text, word, text, word, text
    words = zip(rest[::2], rest[1::2], strict=True)
    return re.compile(re.escape(first) + "".join(_WORDS[word] + re.escape(text) for word, text in words), re.DOTALL)
