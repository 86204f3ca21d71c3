"""Text of a DSN, escaped: nothing that came from the network (replies, ENVID, ORCPT, HELO) can add a field or a line.

Control characters are escaped, and long words are broken, so that every line can be folded within the limits of RFC
5322.
"""

from __future__ import annotations

import textwrap
from typing import Final

from trimta.first_use.pattern import pattern

_MAX_TEXT: Final = 6 * 1024  # characters of a diagnostic: 4 KiB of what a command wrote, and the command's name
_MAX_WORD: Final = 900  # octets: a longer one is broken, so that every line can be folded; no address is as long
_WIDTH: Final = 76
_NOT_QCHAR: Final = pattern(r"[^!-*,-<>-\[\]-~]")  # RFC 6533 3


def clean(text: str) -> str:
    """Free text as one line: each run of white space becomes one space, and the rest is treated as by `escape`."""
    return escape(" ".join(text[: _MAX_TEXT + 1].split()))


def escape(text: str) -> str:
    """One line of printable characters: the first _MAX_TEXT of `text`, of which those that are not printable (controls,
    direction marks, lone surrogates) are written as Python's escapes.
    """
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + " ..."
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text


def ascii_only(text: str) -> str:
    """Text in which characters beyond ASCII are written as Python's escapes (`\\xe9`)."""
    return text.encode("ascii", "backslashreplace").decode("ascii")


def utf8_xtext(address: str) -> str:
    """An address as utf-8-addr-xtext of RFC 6533 3 (`\\x{E9}`)."""
    return _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)


def wrap(text: str, indent: str = "") -> list[str]:
    """Lines of plain text of at most 76 characters, unless a word is longer; each begins with `indent`."""
    return textwrap.wrap(
        " ".join(_breakable(text)),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def header_field(name: str, value: str) -> str:
    """A header field of clean text, without its last line end.  It is folded at spaces (RFC 5322 2.2.3), but not behind
    a type as in `rfc822; address`.
    """
    line, lines = f"{name}:", []
    for index, word in enumerate(_breakable(value)):
        may_fold = index > 1 or (index == 1 and len(line) > _WIDTH // 2)
        if may_fold and word and line.strip() and len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = ""
        line += f" {word}"
    return "\n".join([*lines, line])


def _breakable(text: str) -> list[str]:
    """The words between single spaces, none over _MAX_WORD octets."""
    words: list[str] = []
    for word in text.split(" "):
        if len(word.encode()) <= _MAX_WORD:
            words.append(word)
        else:
            step = _MAX_WORD if word.isascii() else _MAX_WORD // 4
            words += [word[start : start + step] for start in range(0, len(word), step)]
    return words
