"""Mistakes in the syntax of TOML: the line, what was found there, what is expected instead.

tomli says where it stopped, in words for programmers; for a key that stands twice it does not say which, nor where the
first is.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trimta.config.errors import ConfigError
from trimta.config.locate import Locator
from trimta.config.reader import key_text
from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    import tomli

    from trimta.config.locate import KeyPath

STATEMENT: Final = "expected key = value, or [table]"
_SHOWN: Final = 40
"""Characters of the document that an error shows, at most."""

_EXPECTED: Final = (
    ("Invalid value", 'expected a value: "text" in quotes, a number, true, false, [an array] or { a = "table" }'),
    ("Expected '=' after a key", 'expected "=" behind the key, which stands in quotes if it has spaces in it'),
    ("Unclosed array", 'expected "," or "]" in the array'),
    ("Unclosed inline table", 'expected "," or "}" in the inline table'),
    ("Expected ']' at", 'expected "]" behind the name of the table'),
    ("Expected ']]' at", 'expected "]]" behind the name of the table'),
    ("Expected newline", "expected the end of the line; a text stands in quotes"),
    ("Invalid initial character for a key", 'expected a key: letters, digits, "_" and "-", or anything in quotes'),
    ("Invalid statement", STATEMENT),
)
"""The expected texts, by the beginning of tomli's message, whose position is that of the mistake."""

_IN_TEXT: Final = (
    ("Unterminated string", "found a text without its end", "expected the closing quotes"),
    ('Expected "\'"', "found a text without its end", "expected the closing '"),
    ("Expected \"'''\"", "found a text without its end", "expected the closing '''"),
    ("Illegal character '\\n'", "found the end of the line in a text", 'expected the closing ", or """ on both sides'),
    (
        "Unescaped '\\'",
        'found a "\\" in a text that begins no escape',
        "expected \"\\\\\" for the character itself, or 'single quotes' round the text",
    ),
)
_WORD: Final = pattern(r"[\w.+\-:@/%]+")
_HEADER: Final = pattern(r"^[ \t]*\[+[ \t\"']*(?P<name>\w*)", re.MULTILINE)
_QUOTES: Final = "“”„‘’«»"


def explain(error: tomli.TOMLDecodeError) -> ConfigError:
    """The mistake at which tomli stopped, with its line, the text there, and what is expected."""
    document = error.doc  # with LF line ends, whatever the file has
    if error.msg.startswith(("Cannot ", "Duplicate ")):
        repeated = _repeated(document[: error.pos])
        if repeated is not None:
            return repeated
    column = f" (column {error.colno})"
    for begins, problem, expected in _IN_TEXT:
        if error.msg.startswith(begins):
            return ConfigError(error.lineno, "", "", f"not TOML: {problem}{column}", expected)
    problem = _problem_at(document, error.pos)
    for begins, expected in _EXPECTED:
        if error.msg.startswith(begins):
            if any(quote in problem for quote in _QUOTES):
                expected = 'expected straight quotes: "…"'
            elif begins == "Invalid value" and problem.lower() in ("found true", "found false"):
                expected = f"expected {problem[6:].lower()}"
            return ConfigError(error.lineno, "", "", f"not TOML: {problem}{column}", expected)
    return ConfigError(error.lineno, "", "", f"not TOML: {error.msg}{column}", STATEMENT)


def _problem_at(document: str, position: int) -> str:
    """The word or character at a position, as a phrase: "found yes"."""
    if position >= len(document):
        return "found the end of the file"
    if document[position] == "\n":
        return "found the end of the line"
    if _may_be_secret(document, position):
        return "found something else"
    for word in _WORD.finditer(document, document.rfind("\n", 0, position) + 1):
        if word.start() <= position < word.end():
            return f"found {word[0][:_SHOWN]}"
        if word.start() > position:
            break
    return f"found {document[position]}"


def _may_be_secret(document: str, position: int) -> bool:
    """Whether a position is in [auth], in a table or inline, where a password without quotes may be."""
    line = document.rfind("\n", 0, position) + 1
    *_, table = ["", *(header["name"] for header in _HEADER.finditer(document, 0, line))]
    return table.startswith("auth") or "auth" in document[line:position]


@dataclass(frozen=True, slots=True)
class _Conflict:
    """A name that is defined, or would be, a second time."""

    path: KeyPath
    line: int
    header: str
    """How the table is written, brackets included, if it is one that is defined now."""
    earlier: KeyPath
    """The same path, or the part of it that has another meaning already."""
    earlier_line: int
    earlier_kind: str


def _repeated(document: str) -> ConfigError | None:
    """The mistake at the end of a document if a name is defined there for the second time; else None."""
    finder = _Finder(document)
    with contextlib.suppress(IndexError):  # the document ends in the middle of the statement
        finder.run()
    conflict = finder.conflict
    if conflict is None:
        return None
    table = key_text(conflict.path[:-1], indexes=False)
    where = f"on line {conflict.earlier_line}"
    problem, expected = f"found a second time (it stands {where} as well)", "expected it once"
    if conflict.earlier != conflict.path:
        earlier = key_text(conflict.earlier, indexes=False)
        problem = f"found a key inside {earlier}, which has its value {where}"
        expected = "expected the one or the other"
    elif conflict.header.startswith("[["):
        other = "one bracket" if conflict.earlier_kind == "table" else "a value"
        problem, expected = f"found {conflict.header}, and {other} {where}", "expected the one or the other"
    elif conflict.earlier_kind == "array":
        problem, expected = f"found one bracket, and two {where}", f"expected [[{table or conflict.path[0]}]] each time"
    return ConfigError(conflict.line, table, key_text(conflict.path[-1:]), problem, expected)


class _Finder(Locator):
    """Finds the last name in a document that is defined for the second time."""

    def __init__(self, document: str) -> None:
        super().__init__(document)
        self.conflict: _Conflict | None = None
        self._kinds: dict[KeyPath, str] = {}
        """What was defined by its whole name: "value", "table" or "array"."""
        self._before: dict[KeyPath, int] = {}
        """Of the statement that is read now: names in it that were there before, with their lines."""

    def _note(self, path: KeyPath, line: int) -> KeyPath:
        if path in self._lines:
            self._before[path] = self._lines[path]
        return super()._note(path, line)

    def _key(self, path: KeyPath) -> KeyPath:
        self._before = {}
        line = self._tokens[self._at].line
        full = super()._key(path)
        self._check(full, line, "", len(path))
        self._kinds.setdefault(full, "value")
        return full

    def _header(self) -> KeyPath:
        self._before = {}
        line = self._tokens[self._at].line
        full = super()._header()
        array = isinstance(full[-1], int)
        named = full[:-1] if array else full
        text = key_text(named, indexes=False)
        if not (array and self._kinds.get(named) == "array"):
            self._check(named, line, f"[[{text}]]" if array else f"[{text}]", 0)
        self._kinds.setdefault(named, "array" if array else "table")
        return full

    def _check(self, path: KeyPath, line: int, header: str, inside: int) -> None:
        """Note the earlier definition of a name, or of its beginning from the step `inside` on."""
        for length in range(len(path), inside, -1):
            earlier = path[:length]
            kind = self._kinds.get(earlier, "")
            if earlier in self._before and (length == len(path) or kind == "value"):
                self.conflict = _Conflict(path, line, header, earlier, self._before[earlier], kind)
                return
