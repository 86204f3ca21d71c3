"""What a program pipes into sendmail(1): its line ends, its end, its header, and the recipients that this names."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.content.header import fields, split_header, without_from_lines
from trimta.mail.address import AddressError, Mailbox, parse_local_part, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMED: Final = ("to", "cc", "bcc")
_RESENT: Final = ("resent-to", "resent-cc", "resent-bcc")
_DROPPED: Final = frozenset({"bcc", "resent-bcc", "return-path"})
"""Blind recipients are nobody else's business, with -t or without; Return-Path is final delivery's (RFC 5321 4.4)."""
_ADDRESSED: Final = frozenset(
    {
        *("from", "sender", "reply-to", "to", "cc"),
        *("resent-from", "resent-sender", "resent-reply-to", "resent-to", "resent-cc"),
        *("errors-to", "return-receipt-to", "disposition-notification-to", "mail-followup-to", "mail-reply-to"),
    }
)
"""Fields whose addresses get a domain where they have none."""
_MAX_NAME: Final = 998
"""Octets of a field's name: a line's."""

_WORD: Final = re.compile(
    r"""(?P<space>\s+)
    |   (?P<comment>\()
    |   (?P<special>[<>,;:@.])
    |   (?P<word>"(?:[^"\\]|\\.)*+" | \[[^\[\]]*+\] | [^\s"()<>\[\],;:@.]++)""",
    re.VERBOSE | re.DOTALL,
)
_APART: Final = re.compile(
    r"""(?P<comma>,) | "(?:[^"\\]|\\.)*+" | \((?:[^()\\]|\\.)*+\) | <[^<>]*+> | .""", re.VERBOSE | re.DOTALL
)
"""Where an address list can be taken apart though something in it is not closed."""
_IN_COMMENT: Final = re.compile(r"(?:[^()\\]|\\.)*+", re.DOTALL)


class BareCr(ValueError):  # noqa: N818 - the thing found has this name
    """A CR that no LF follows, in the line of this number."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line} has a carriage return that ends no line")
        self.line = line


class PipedText:
    """Turns what is piped in, a piece at a time, into content with LF line ends: CRLF is one, too.

    `dot_ends`: a line of a lone dot ends the message; `ended` is true then, and what follows is not looked at.
    """

    def __init__(self, *, dot_ends: bool) -> None:
        self.ended = False
        self._dot_ends = dot_ends
        self._kept = b""
        """What the next octets may give another meaning: a CR, a dot at the beginning of a line."""
        self._lines = 0
        self._at_line_start = True

    def feed(self, data: bytes) -> bytes:
        """Content as far as it is decided.  Raises BareCr."""
        if self.ended:
            return b""
        data = self._kept + data
        self._kept = b""
        if data.endswith(b"\r"):
            data, self._kept = data[:-1], b"\r"
        text = data.replace(b"\r\n", b"\n")
        if self._dot_ends:
            text = self._until_dot(text)
        found = text.find(b"\r")
        if found >= 0:
            raise BareCr(self._lines + text.count(b"\n", 0, found) + 1)
        self._lines += text.count(b"\n")
        if text:
            self._at_line_start = text.endswith(b"\n")
        return text

    def finish(self) -> bytes:
        """The rest, when there is nothing more to come.  Raises BareCr."""
        rest, self._kept = self._kept, b""
        if self.ended or rest in (b"", b"."):  # a dot in a last line that does not end is a lone dot, too
            return b""
        raise BareCr(self._lines + 1)

    def _until_dot(self, text: bytes) -> bytes:
        start = b"\n" + text if self._at_line_start else text
        shift = len(start) - len(text)
        found = start.find(b"\n.\n")
        if found >= 0:
            self.ended = True
            self._kept = b""
            return start[shift : found + 1]
        if start.endswith(b"\n."):
            self._kept = b"." + self._kept
            return start[shift:-1]
        return text


@dataclass(frozen=True, slots=True)
class NamedRecipients:
    """Whom a header names."""

    recipients: tuple[Mailbox, ...]
    bad: tuple[str, ...]
    """Elements that are no addresses: each with its field, and what is wrong with it."""


def has_whole_header(content: bytes) -> bool:
    """Whether nothing that follows `content` could still belong to its header."""
    _, rest = split_header(without_from_lines(content))
    return b"\n" in rest or len(rest) > _MAX_NAME


def mended(content: bytes, domain: str) -> bytes:
    """Content with a header as sendmail passes it on: an empty line between the last field and the text if there is
    none, addresses without a domain in `domain`, no From_ line, no field that names blind recipients.

    `content` begins with the header, LF line ends, and has all of it.
    """
    header, rest = split_header(without_from_lines(content))
    if header and rest and not rest.startswith(b"\n"):
        rest = (b"\n" if header.endswith(b"\n") else b"\n\n") + rest
    kept = [
        _qualified(field.raw, domain) if field.name in _ADDRESSED else field.raw
        for field in fields(header)
        if field.name not in _DROPPED
    ]
    return b"".join(kept) + rest


def named_recipients(content: bytes, domain: str) -> NamedRecipients:
    """The recipients in To, Cc and Bcc of content with LF line ends; if a Resent-To, -Cc or -Bcc is there, in those.

    A name without a domain belongs to `domain`.  One element that is no address does not keep the others from being.
    """
    found = [*fields(without_from_lines(content))]
    names = _RESENT if any(field.name in _RESENT for field in found) else _NAMED
    recipients: list[Mailbox] = []
    bad: list[str] = []
    for field in found:
        if field.name in names:
            wrong = _collect(field.value, domain, recipients)
            bad.extend(f"{field.name.title()}: {problem}" for problem in wrong)
    return NamedRecipients(tuple(dict.fromkeys(recipients)), tuple(bad))


def _collect(text: str, domain: str, recipients: list[Mailbox]) -> list[str]:
    """Add the mailboxes of an address list to `recipients`; returns what is wrong with its other elements."""
    try:
        recipients.extend([*addresses(text, domain)])
    except AddressError:
        pass  # taken apart, and looked at element by element
    else:
        return []
    wrong = []
    for part in _parts(text):
        try:
            recipients.extend(addresses(part, domain))
        except AddressError as error:
            named = str(error).startswith(("'", '"'))
            wrong.append(str(error) if named else f"{part.strip()!a}: {error}")
    return wrong


def _parts(text: str) -> Iterator[str]:
    """What stands between the commas of an address list."""
    start = 0
    for found in _APART.finditer(text):
        if found["comma"]:
            yield text[start : found.start()]
            start = found.end()
    yield text[start:]


def _qualified(raw: bytes, domain: str) -> bytes:
    """A field with "@domain" behind each address that is only a local part; as it is where it can't be read."""
    name, _, value = raw.partition(b":")
    text = value.decode(errors="surrogateescape")
    try:
        places = [*_bare_addresses(text)]
    except AddressError:
        return raw
    for place in reversed(places):
        text = f"{text[:place]}@{domain}{text[place:]}"
    return name + b":" + text.encode(errors="surrogateescape") if places else raw


def _bare_addresses(text: str) -> Iterator[int]:
    """Where each address of a list ends that has no domain."""
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
    written = [word for word, _ in words]
    if "@" not in written:
        with contextlib.suppress(AddressError):
            parse_local_part(_joined(written))
            yield max(end for word, end in words if word != " ")


def addresses(text: str, domain: str) -> Iterator[Mailbox]:
    """The mailboxes of an address list (RFC 5322 3.4, 4.4): display names, comments and groups are left aside.

    A name without a domain belongs to `domain`.  Raises AddressError with the element that is none.
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


class _Element:
    """One element of an address list on its way."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._angle: list[str] | None = None
        self.in_angle = False

    def add(self, word: str) -> None:
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
        """What stands before a ":" is a phrase, not an address."""
        if self._angle is not None or "@" in self._words:
            raise AddressError(f"{_shown(self._angle or self._words)}: a ':' can't follow it")

    def mailbox(self, domain: str) -> Iterator[Mailbox]:
        """The mailbox, or nothing if the element is empty."""
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
    """Words and special characters, each with the place where it ends; white space and comments between them as " "."""
    position = 0
    while position < len(text):
        found = _WORD.match(text, position)
        if found is None:
            raise AddressError(f"a {text[position]!a} is not closed")
        position = found.end()
        if found.lastgroup == "comment":
            position = _comment_end(text, position)
        yield " " if found.lastgroup in ("space", "comment") else found[0], position


def _comment_end(text: str, position: int) -> int:
    """Behind the ")" of a comment, which may have others in it, whose content begins at the position."""
    depth = 1
    while depth:
        found = _IN_COMMENT.match(text, position)
        position = position if found is None else found.end()
        if position >= len(text):
            raise AddressError("a comment is not closed")
        depth += 1 if text[position] == "(" else -1
        position += 1
    return position


def _joined(words: list[str]) -> str:
    """Words of an addr-spec; white space round its dots and its "@" means nothing (RFC 5322 4.4)."""
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
