"""The line numbers of the keys in a TOML document, for messages about keys whose values are wrong.

tomli tells the line of a syntax error, but not that of a valid key.  This module is used only after a mistake was
noticed, on a document that tomli has accepted, or on the part before a syntax error.  So nothing is checked again: one
pass over the tokens, in time and memory linear in the length of the document.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import tomli

from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

KeyPath: TypeAlias = tuple[str | int, ...]
"""The place of a value: keys of tables and indexes of arrays, from the top: ("listen", 1, "hide", 0)."""

_TOKEN: Final = pattern(
    r'''
      (?P<string> """(?:[^\\]|\\.)*?"{3,5} | \'{3}.*?\'{3,5} | "(?:[^"\\\n]|\\.)*" | '[^'\n]*' )
    | (?P<comment> \#[^\n]* )
    | (?P<newline> \n )
    | (?P<space> [\ \t\r]+ )
    | (?P<mark> [\[\]{},=.] )
    | (?P<bare> [^\s\[\]{},=.\#"']+ )
    | (?P<other> . )
    ''',
    re.VERBOSE | re.DOTALL,
)


def locate(document: str) -> dict[KeyPath, int]:
    """The line (from 1) on which each key, table and array element of a valid TOML document begins, by its path."""
    return Locator(document).run()


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of `path`, or of the innermost table, array or key around it that is in the document; else 1."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Token(NamedTuple):
    text: str
    line: int


class Locator:
    """Walks through the statements of a TOML document and notes their lines."""

    def __init__(self, document: str) -> None:
        self._tokens = _tokens(document)
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._tables: dict[KeyPath, int] = {}
        """The number of tables that each array of tables has so far."""

    def run(self) -> dict[KeyPath, int]:
        """The line of each path of the document."""
        table: KeyPath = ()
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token.text == "\n":
                self._at += 1
            elif token.text == "[":
                table = self._header()
            else:
                self._value(self._key(table))
        return self._lines

    def _header(self) -> KeyPath:
        """Pass over `[table]` or `[[array]]` and note the keys in it; returns the path of the table that it opens."""
        line = self._tokens[self._at].line
        self._at += 1
        array = self._next_is("[")
        self._at += array
        keys = self._dotted()
        self._at += 1 + array
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self._note((*path, key), line)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        path = self._note((*path, keys[-1]), line)
        if array:
            self._tables[path] = self._tables.get(path, 0) + 1
            path = self._note((*path, self._tables[path] - 1), line)
        return path

    def _key(self, path: KeyPath) -> KeyPath:
        """Pass over `a.b =` and note ("a",) and ("a", "b") below `path`; returns the path of the whole key."""
        line = self._tokens[self._at].line
        for key in self._dotted():
            path = self._note((*path, key), line)
        self._at += 1
        return path

    def _dotted(self) -> list[str]:
        """Pass over a key, `a."b".c`, and return its parts without quotes."""
        keys: list[str] = []
        while True:
            text = self._tokens[self._at].text
            keys.append(_unquoted(text))
            self._at += 1
            if not self._next_is("."):
                return keys
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        """Pass over a value and note the elements and keys in it.

        A stack takes the place of recursion: arrays and inline tables may nest deeper than Python's stack.
        """
        stack: list[tuple[KeyPath, int]] = []  # the open arrays (with the index of their next element) and tables (-1)
        while True:
            # The next token begins a value.
            token = self._tokens[self._at]
            if token.text in ("[", "{"):
                self._at += 1
                stack.append((path, 0 if token.text == "[" else -1))
            else:
                while self._at < len(self._tokens) and self._tokens[self._at].text not in _ENDS:
                    self._at += 1
            # The last token ended a value, or opened an array or table: go to the next value of the innermost of these.
            while stack:
                self._skip("\n", ",")
                container, index = stack[-1]
                if self._next_is("]") or self._next_is("}"):
                    self._at += 1
                    stack.pop()
                    continue
                if index < 0:
                    path = self._key(container)
                else:
                    stack[-1] = (container, index + 1)
                    path = self._note((*container, index), self._tokens[self._at].line)
                break
            if not stack:
                return

    def _note(self, path: KeyPath, line: int) -> KeyPath:
        self._lines.setdefault(path, line)
        return path

    def _next_is(self, text: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at].text == text

    def _skip(self, *texts: str) -> None:
        while self._at < len(self._tokens) and self._tokens[self._at].text in texts:
            self._at += 1


_ENDS: Final = ("\n", ",", "]", "}")


def _tokens(document: str) -> list[_Token]:
    tokens: list[_Token] = []
    line = 1
    for match in _TOKEN.finditer(document):
        text = match.group()
        if match.lastgroup not in ("comment", "space"):
            tokens.append(_Token(text, line))
        line += text.count("\n")
    return tokens


def _unquoted(key: str) -> str:
    if key.startswith("'"):
        return key[1:-1]
    if key.startswith('"'):
        return str(tomli.loads(f"key = {key}")["key"])
    return key
