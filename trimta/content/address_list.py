"""Address lists (RFC 5322 3.4, 4.4): the mailboxes in the value of a To, Cc or From field and of others like them.

A name without a domain is an address in a domain that the caller gives.  Values are text, in which octets that are not
UTF-8 are surrogates.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.first_use.pattern import pattern
from trimta.mail.address import AddressError, Mailbox, parse_local_part, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD: Final = pattern(
    r"""(?P<space>\s+)
    |   (?P<comment>\()
    |   (?P<special>[<>,;:@.])
    |   (?P<word>"(?:[^"\\]|\\.)*+" | \[[^\[\]]*+\] | [^\s"()<>\[\],;:@.]++)""",
    re.VERBOSE | re.DOTALL,
)
_APART: Final = pattern(
    r"""(?P<comma>,) | "(?:[^"\\]|\\.)*+" | \((?:[^()\\]|\\.)*+\) | <[^<>]*+> | .""", re.VERBOSE | re.DOTALL
)
"""The next step in taking a list apart at its commas, which is possible even if a quote or a bracket is not closed."""
_IN_COMMENT: Final = pattern(r"(?:[^()\\]|\\.)*+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ReadableAddresses:
    """The mailboxes of an address list as far as it can be read."""

    mailboxes: tuple[Mailbox, ...]
    problems: tuple[str, ...]
    """The elements that are no addresses, each as text with the reason."""


def addresses(text: str, domain: str) -> Iterator[Mailbox]:
    """The mailboxes of an address list, without display names, comments and names of groups.

    A name without a domain belongs to `domain`.  Raises AddressError, which names the element that is no address.
    """
    element = _Element()
    for word, _ in _words(text):
        if element.in_angle or word not in (",", ";", ":"):
            element.add(word)
            continue
        if word == ":":
            element.check_group_name()
        else:
            yield from element.mailbox(domain)
        element = _Element()
    yield from element.mailbox(domain)


def readable_addresses(text: str, domain: str) -> ReadableAddresses:
    """The mailboxes of an address list in which some elements may be no addresses; nothing is raised."""
    try:
        return ReadableAddresses((*addresses(text, domain),), ())
    except AddressError:
        pass  # the list is taken apart, and read element by element
    mailboxes: list[Mailbox] = []
    problems: list[str] = []
    for element in _elements(text):
        try:
            mailboxes.extend(addresses(element, domain))
        except AddressError as error:
            named = str(error).startswith(("'", '"'))
            problems.append(str(error) if named else f"{element.strip()!a}: {error}")
    return ReadableAddresses(tuple(mailboxes), tuple(problems))


def with_domains(text: str, domain: str) -> str:
    """An address list, folding included, with "@domain" behind each address that is only a local part.

    Raises AddressError where it can't be read.
    """
    for place in reversed([*_bare_addresses(text)]):
        text = f"{text[:place]}@{domain}{text[place:]}"
    return text


def _elements(text: str) -> Iterator[str]:
    """The text between the commas of an address list, well-formed or not."""
    start = 0
    for match in _APART.finditer(text):
        if match["comma"]:
            yield text[start : match.start()]
            start = match.end()
    yield text[start:]


def _bare_addresses(text: str) -> Iterator[int]:
    """The position behind each address of a list that has no domain."""
    phrase: list[tuple[str, int]] = []
    angle: list[tuple[str, int]] | None = None
    in_angle = False
    for word, end in [*_words(text), (",", 0)]:
        if in_angle and word != ">":
            assert angle is not None
            angle.append((word, end))
        elif word == "<":
            angle, in_angle = [], True
        elif word == ">":
            in_angle = False
        elif word in (",", ";"):
            yield from _end_without_domain(phrase if angle is None else angle)
            phrase, angle = [], None
        elif word == ":":  # the name of a group
            phrase, angle = [], None
        else:
            phrase.append((word, end))


def _end_without_domain(words: list[tuple[str, int]]) -> Iterator[int]:
    """The position behind an address, if it is a local part without a domain."""
    written = [word for word, _ in words]
    if "@" not in written:
        with contextlib.suppress(AddressError):
            parse_local_part(_joined(written))
            yield max(end for word, end in words if word != " ")


class _Element:
    """An element of an address list while it is read."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._angle: list[str] | None = None
        self.in_angle = False

    def add(self, word: str) -> None:
        """Take the next word.  Raises AddressError for a word behind the ">" of an address."""
        if self.in_angle:
            assert self._angle is not None
            self.in_angle = word != ">"
            if self.in_angle:
                self._angle.append(word)
        elif word == "<" and self._angle is None:
            self._angle, self.in_angle = [], True
        elif self._angle is None or word != " ":
            self._words.append(word)
            if self._angle is not None:
                raise AddressError(f"{_shown(self._angle)}: a comma is missing after it")

    def check_group_name(self) -> None:
        """Raises AddressError if an address stands before a ":", where the name of a group may be."""
        if self._angle is not None or "@" in self._words:
            raise AddressError(f"{_shown(self._angle or self._words)}: a ':' can't follow it")

    def mailbox(self, domain: str) -> Iterator[Mailbox]:
        """The mailbox, or nothing if the element is empty.  Raises AddressError if it is no address."""
        if self.in_angle:
            raise AddressError("the '>' after an address is missing")
        words = self._words if self._angle is None else self._angle
        text = _joined(words)
        if not text and self._angle is None:
            return
        try:
            if text and "@" not in words:
                yield Mailbox(parse_local_part(text), domain)
            else:
                yield parse_mailbox(text if self._angle is None else f"<{text}>")
        except AddressError as error:
            raise AddressError(f"{_shown(words or ['<>'])}: {error}") from error


def _words(text: str) -> Iterator[tuple[str, int]]:
    """The words and special characters of a list, each with its end position; white space and comments are " "."""
    position = 0
    while position < len(text):
        match = _WORD.match(text, position)
        if match is None:
            raise AddressError(f"a {text[position]!a} is not closed")
        position = match.end()
        if match.lastgroup == "comment":
            position = _comment_end(text, position)
        yield " " if match.lastgroup in ("space", "comment") else match[0], position


def _comment_end(text: str, position: int) -> int:
    """The position behind the ")" of a comment whose content begins at `position`; comments may be nested."""
    depth = 1
    while depth:
        match = _IN_COMMENT.match(text, position)
        position = position if match is None else match.end()
        if position >= len(text):
            raise AddressError("a comment is not closed")
        depth += 1 if text[position] == "(" else -1
        position += 1
    return position


def _joined(words: list[str]) -> str:
    """The addr-spec that these words make; white space around its dots and its "@" is dropped (RFC 5322 4.4)."""
    joined = ""
    gap = False
    for word in words:
        if word == " ":
            gap = bool(joined)
            continue
        if gap and word not in ".@:," and joined[-1] not in ".@:,":
            joined += " "
        joined += word
        gap = False
    return joined


def _shown(words: list[str]) -> str:
    return ascii(_joined(words))
