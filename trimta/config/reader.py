"""The reader of a document: it parses tables by their schemas, and collects every mistake in them."""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from trimta.config.errors import BadValueError, ConfigError, Mistake
from trimta.config.locate import KeyPath, line_of
from trimta.config.value_parsers import Parser, show
from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from trimta.config.keys import Schema

T = TypeVar("T")

_BARE_KEY: Final = pattern(r"[A-Za-z0-9_-]+", re.ASCII)


class Reader:
    """A reader of one document, with the mistakes so far.

    `homes`: the table to which each key belongs, for the error about a key in another table.
    """

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._homes = homes
        self._mistakes: list[tuple[KeyPath, int, Mistake]] = []
        """The mistakes, each with its path and the number of steps of the path that name the table."""

    def failed(self, *inside: str | int) -> bool:
        """Whether there is a mistake so far, at or below a path."""
        return any(path[: len(inside)] == inside for path, _, _ in self._mistakes)

    def mistakes(self) -> list[Mistake]:
        """The mistakes so far, each with its path from the value that was read."""
        return [replace(mistake, at=path) for path, _, mistake in self._mistakes]

    def mistake(self, table: KeyPath, key: KeyPath, problem: str, expected: str) -> None:
        """Note that something is wrong at `key`, a path from `table` on."""
        self._mistakes.append((table + key, len(table), Mistake(problem, expected)))

    def errors(self, lines: Mapping[KeyPath, int]) -> list[ConfigError]:
        """All mistakes, with lines from `locate`, in the order of the file."""
        return sorted(
            ConfigError(
                line_of(lines, path),
                key_text(path[:depth], indexes=False),
                key_text(path[depth:]),
                mistake.problem,
                mistake.expected,
            )
            for path, depth, mistake in self._mistakes
        )

    def value(self, table: KeyPath, key: KeyPath, value: object, parser: Callable[[Any], T]) -> T | None:
        """The parsed value; None for a wrong value, whose mistakes are noted."""
        try:
            return parser(value)
        except BadValueError as error:
            self._mistakes.extend((table + key + mistake.at, len(table), mistake) for mistake in error.mistakes)
            return None

    def table(self, path: KeyPath, value: object, schema: Schema) -> dict[str, Any]:
        """The parsed values of a table's keys, without those that are missing or wrong."""
        if not isinstance(value, dict):
            self.mistake((), path, f"found {show(value)}", "expected a table")
            return {}
        parsed: dict[str, Any] = {}
        for key, inner in value.items():
            if key not in schema:
                self.unknown(path, key, inner, schema)
                continue
            result = self.value(path, (key,), inner, schema[key].parse)
            if result is not None:
                parsed[key] = result
        return parsed

    def tables(self, path: KeyPath, value: object) -> list[object]:
        """The items of an array of tables."""
        if isinstance(value, list):
            return value
        name = key_text(path)
        description = f"[{name}], one table" if isinstance(value, dict) else show(value)
        self.mistake((), path, f"found {description}", f"expected [[{name}]], with two brackets: there may be several")
        return []

    def mapping(
        self,
        path: KeyPath,
        value: object,
        key_parser: Parser[str],
        value_parser: Callable[[Any], T],
        options: Collection[str] = (),
    ) -> Mapping[str, T]:
        """A table whose keys are the user's own: names, domains, addresses.  A value that is a table has `options`."""
        if not isinstance(value, dict):
            self.mistake(path[:-1], path[-1:], f"found {show(value)}", "expected a table")
            return MappingProxyType({})
        parsed: dict[str, T] = {}
        for key, inner in value.items():
            name = self.value(path, (key,), key, key_parser)
            whole = undotted(key, inner, options)
            if whole != key:
                expected = f"expected quotes round the whole of it: {show(whole)}"
                self.mistake(path, (key,), "found a dot in a key without quotes", expected)
                continue
            table, rest = ((*path, key), ()) if isinstance(inner, dict) else (path, (key,))
            result = self.value(table, rest, inner, value_parser)
            if name is None or result is None:
                continue
            if name in parsed:
                self.mistake(path, (key,), f"found {show(name)} a second time", "expected each only once")
            parsed[name] = result
        return MappingProxyType(parsed)

    def unknown(self, path: KeyPath, key: str, value: object, known: Collection[str]) -> None:
        """Note an unknown key or table, with the known key that may have been meant."""
        table = isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
        problem = "unknown table" if table else "unknown key"
        from difflib import get_close_matches

        near = get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.6)
        if near:
            hint = f"did you mean {near[0]}?"
        elif key in self._homes and self._homes[key] != key_text(path, indexes=False):
            home = self._homes[key]
            hint = f"{key} belongs {f'into [{home}]' if home else 'to the top of the file, before the first [table]'}"
        else:
            hint = f"expected one of {', '.join(known)}"
        if table and not path:
            self.mistake((key,), (), problem, hint)
        else:
            self.mistake(path, (key,), problem, hint)


def undotted(key: str, value: object, options: Collection[str]) -> str:
    """The name that a user meant by a key without quotes: `a.test = "x"` is { a = { test = "x" } } to TOML."""
    if "." in key or "@" in key:
        return key
    while isinstance(value, dict) and value and not any(option in value for option in options):
        inner = next(iter(value))
        key, value = f"{key}.{inner}", value[inner]
    return key


def key_text(path: KeyPath, *, indexes: bool = True) -> str:
    """A path as TOML writes keys: dns.zones."a.test", retry[2]."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]" if indexes else ""
        else:
            text += ("." if text else "") + (step if _BARE_KEY.fullmatch(step) else quote(step))
    return text


def quote(text: str) -> str:
    """A TOML basic string."""
    escaped = (
        f"\\{char}" if char in '"\\' else f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char
        for char in text
    )
    return f'"{"".join(escaped)}"'
