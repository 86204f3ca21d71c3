"""The Maildirs of local mailboxes.  None of them is a folder that a `maildir:` route captures into, or part of one.

Two paths may be one folder: symbolic links lead from the one to the other, or the file system knows no letter case.  So
links are followed, as far as they were there when the configuration was read, and letter case makes no difference.
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
    "domain": r"(?:[^%]+\.[^%]+|%5b.*%5d|%%[^%.]+)",  # as `domain_set_apart` gives it
    "detail": ".*",
}
"""What each word in braces may be in a path, as a regular expression, in lower case."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalMaildirs:
    """The Maildirs of local mailboxes.

    `maildir:` routes and local mailboxes share a name space where their templates are `mail/remote` and `mail/{user}`.
    A mailbox whose Maildir would be one that is captured into, or part of one, has the first letter of its name
    percent-encoded there: `mail/%72emote`.
    """

    template: str
    """The path of a Maildir, with {user}, {domain} and {detail} in it; absolute."""
    captures: tuple[str, ...] = ()
    """The templates of the Maildirs that routes capture into, with {domain} in them or not; absolute."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Symbolic links on the way to any of these Maildirs, each with the folder that it leads to; neither path goes over
    a link itself.
    """
    _captures: tuple[tuple[str, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_captures", tuple(self._steps(capture) for capture in self.captures))

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates of all Maildirs: of local mailboxes, then of those that routes capture into."""
        return (self.template, *self.captures)

    def path(self, mailbox: LocalMailbox) -> Path:
        """The Maildir of a mailbox."""
        return _path(self, mailbox)

    def may_meet(self, capture: str) -> bool:
        """Whether the Maildir of some mailbox might be one that is captured into by this template, or part of one."""
        without_detail = self.template.replace("{detail}", "")
        captured = self._steps(capture)
        return any(_meet(self._steps(template), captured) for template in (self.template, without_detail))

    def is_captured(self, path: str) -> bool:
        """Whether a folder is one that a route captures into, or part of one, or holds one as a part of its own."""
        steps = self._steps(path)
        return any(_meet(steps, captured) for captured in self._captures)

    def _steps(self, path: str) -> tuple[str, ...]:
        """The components of the folder that a path, or a template, leads to; in one letter case."""
        folder = "/"
        for name in path.split("/"):
            if name == "..":
                folder = posixpath.dirname(folder)
            elif name not in ("", "."):
                folder = posixpath.join(folder, name)
                folder = self.links.get(folder, folder)
        return tuple(folder.casefold().split("/")[1:])


@lru_cache(maxsize=1024)  # asked at RCPT and at the end of data, for the same few names
def _path(maildirs: LocalMaildirs, mailbox: LocalMailbox) -> Path:
    def path(user: str) -> str:
        return fill(
            maildirs.template, user=user, domain=component(mailbox.domain), detail=detail_component(mailbox.detail)
        )

    usual = path(component(mailbox.user))
    # A template takes one of these at most, unless it takes the whole folder of all mailboxes.
    others = map(path, itertools.islice(user_set_apart(mailbox.user), len(maildirs.captures) + 1))
    return Path(next((each for each in (usual, *others) if not maildirs.is_captured(each)), usual))


def _meet(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether two Maildirs might be the same folder, or one a folder of the other's messages."""
    if not all(_may_be_one(one, other) for one, other in zip(first, second, strict=False)):
        return False
    below = (first if len(first) > len(second) else second)[min(len(first), len(second)) :]
    return not below or any(_may_be_one(below[0], name) for name in MAILDIR_FOLDERS)


def _may_be_one(first: str, second: str) -> bool:
    """Whether two components, which may have words in braces, might be the same."""
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
    """A component of a template as a regular expression."""
    first, *rest = FIELD.split(template)  # text, word, text, word, text
    words = zip(rest[::2], rest[1::2], strict=True)
    return re.compile(re.escape(first) + "".join(_WORDS[word] + re.escape(text) for word, text in words), re.DOTALL)
