"""Mistakes in a configuration, as values and as exceptions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

EX_NOINPUT: Final = 66
EX_NOPERM: Final = 77
EX_CONFIG: Final = 78


@dataclass(frozen=True, slots=True, order=True)
class ConfigError:
    """One mistake.  `table` is empty at the top of the file, `key` where the table itself is meant."""

    line: int
    """Counted from 1."""
    table: str
    key: str
    problem: str
    """What was found, as a phrase, with secrets left out."""
    expected: str
    """What is expected, as a phrase."""

    def render(self, file: str) -> str:
        """`conf.toml:12: [queue] retry: what was found, what is expected`, in one line."""
        where = " ".join(word for word in (f"[{self.table}]" if self.table else "", self.key) if word)
        return one_line(f"{file}:{self.line}: {where + ': ' if where else ''}{self.problem}, {self.expected}")


class ConfigErrors(Exception):  # noqa: N818 - it holds ConfigError values, one each mistake
    """All mistakes of one file, in the order of their lines; str() has one a line."""

    exit_code: int = EX_CONFIG

    def __init__(self, file: str, errors: Sequence[ConfigError]) -> None:
        super().__init__(file, errors)
        self.file = file
        self.errors = tuple(sorted(errors, key=lambda error: error.line))

    def lines(self) -> tuple[str, ...]:
        """Each mistake, rendered."""
        return tuple(error.render(self.file) for error in self.errors)

    def __str__(self) -> str:
        return "\n".join(self.lines())


class ConfigFileError(Exception):
    """The configuration file is not there, or can't be read.  str() says what to do."""

    def __init__(self, message: str, exit_code: int = EX_NOINPUT) -> None:
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code

    def __str__(self) -> str:
        return one_line(self.message)


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in one value, as its parser reports it, which knows neither the file nor the key.

    `at` leads from the key's value to the part that is wrong: keys of tables, indexes of arrays.
    """

    problem: str
    """What was found, as a phrase that begins with "found", with secrets left out."""
    expected: str
    """What is expected, as a phrase that begins with "expected"."""
    at: tuple[str | int, ...] = ()


class BadValueError(ValueError):
    """A value is wrong: it has one mistake, or several in one array or table."""

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes

    def inside(self, step: str | int) -> list[Mistake]:
        """The same mistakes, seen from the table or array that holds the value."""
        return [replace(mistake, at=(step, *mistake.at)) for mistake in self.mistakes]

    def __str__(self) -> str:
        return "; ".join(f"{mistake.problem}, {mistake.expected}" for mistake in self.mistakes)


def one_line(text: str) -> str:
    """`text` with line ends and control characters escaped, since it may quote a file of any content."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
