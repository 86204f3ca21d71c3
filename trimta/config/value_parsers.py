"""Parsers of single values: from a value of TOML to a value of the model.

A parser raises BadValueError, which says what was found and what is expected, for a value that is wrong.  `expected`
texts are phrases for the reader of an error.  Names and addresses have their parsers in `address_parsers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from trimta.config.errors import BadValueError, Mistake
from trimta.config.passwords import check_secret
from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    import enum
    from pathlib import Path


T = TypeVar("T")
EnumT = TypeVar("EnumT", bound="enum.StrEnum")
Parser = Callable[[Any], T]

MAX_DURATION: Final = 3650 * 86400.0
"""Seconds: ten years, longer than any queue keeps mail, and short enough for all dates to be written."""
MAX_WORKERS: Final = 64
"""Worker processes: more than the machines of developers have processors."""
MAX_INTEGER: Final = 2**63 - 1
"""The largest integer of TOML and of SQLite."""

_UNITS: Final = {"s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_DURATION: Final = pattern(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([smhd])", re.ASCII)
DURATION: Final = 'a duration such as "90s", "5m", "4h" or "5d"'

_SIZE_UNITS: Final = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
_SIZE: Final = pattern(r"([0-9]{1,19}(?:\.[0-9]{1,6})?) ?([KMG]i?B|B)", re.ASCII | re.IGNORECASE)
SIZE: Final = 'a size such as "25 MiB", or a number of octets'


def show(value: object, limit: int = 60) -> str:
    """A TOML value as it may stand in an error, shortened."""
    match value:
        case str():
            text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case bool():
            text = "true" if value else "false"
        case dict() if value:
            text = "a table"
        case dict():
            text = "an empty table"
        case []:
            text = "an empty array"
        case list():
            text = "an array"
        case int() | float():
            text = f"the number {value}"
        case _:
            text = f"the date or time {value}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def wrong(value: object, expected: str, reason: object = None) -> BadValueError:
    """The error about a wrong value: what was found, the reason if it is not obvious, and what is expected."""
    description = show(value) if reason is None else f"{show(value)}: {reason}"
    return BadValueError(Mistake(f"found {description}", f"expected {expected}"))


# Plain values.


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong(value, "true or false")


def string(expected: str) -> Parser[str]:
    """Any text without control characters."""

    def parse(value: Any) -> str:
        if isinstance(value, str) and all(char.isprintable() for char in value):
            return value
        raise wrong(value, expected)

    return parse


def word(expected: str) -> Parser[str]:
    """Text that is not empty."""
    inner = string(expected)

    def parse(value: Any) -> str:
        if not inner(value):
            raise wrong(value, expected)
        return inner(value)

    return parse


def count(least: int = 1, most: int = MAX_INTEGER) -> Parser[int]:
    """A whole number from `least` up."""
    expected = f"a number, {least} or more" if most == MAX_INTEGER else f"a number from {least} to {most}"

    def parse(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise wrong(value, expected)

    return parse


def workers(value: Any) -> int | Literal["auto"]:
    """A number of processes, or "auto"."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_WORKERS:
        raise wrong(value, f'a number from 1 to {MAX_WORKERS}, or "auto"')
    return value


def integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and -MAX_INTEGER <= value <= MAX_INTEGER:
        return value
    raise wrong(value, "a whole number")


def probability(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise wrong(value, "a number above 0, up to 1")


def choice(kind: type[EnumT]) -> Parser[EnumT]:
    """One of the texts of an enumeration."""
    *names, last = (f'"{member.value}"' for member in kind)
    expected = f"{', '.join(names)} or {last}"

    def parse(value: Any) -> EnumT:
        if isinstance(value, str):
            for member in kind:
                if member.value == value:
                    return member
        raise wrong(value, expected)

    return parse


def array(item: Parser[T], expected: str) -> Parser[tuple[T, ...]]:
    """An array; each item that is wrong is a mistake of its own, all of them are told."""

    def parse(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise wrong(value, f"an array of {expected}")
        parsed: list[T] = []
        wrongs: list[Mistake] = []
        for index, inner in enumerate(value):
            try:
                parsed.append(item(inner))
            except BadValueError as error:
                wrongs.extend(error.inside(index))
        if wrongs:
            raise BadValueError(*wrongs)
        return tuple(parsed)

    return parse


# Durations and sizes.


def duration(least: float = 0.001) -> Parser[float]:
    """Seconds: one number and one unit of s, m, h, d."""

    def parse(value: Any) -> float:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise wrong(value, DURATION)
        seconds = float(Decimal(match[1]) * _UNITS[match[2]])
        if seconds < least:
            raise wrong(value, "a duration that is longer than nothing")
        if seconds > MAX_DURATION:
            raise wrong(value, 'a duration up to "3650d"')
        return seconds

    return parse


def retry_steps(value: Any) -> tuple[float, ...]:
    """At least one duration, each longer than the one before it."""
    steps = array(duration(), 'durations such as "5m"')(value)
    if not steps:
        raise wrong(value, 'at least one wait, such as ["1m", "5m", "1h"]')
    late = [
        Mistake(
            f"found {show(value[index])}",
            f"expected longer than the step before it ({show(value[index - 1])})",
            (index,),
        )
        for index in range(1, len(steps))
        if steps[index] <= steps[index - 1]
    ]
    if late:
        raise BadValueError(*late)
    return steps


def size(value: Any) -> int:
    """Octets: a number, or a text with a unit of B, KB, MB, GB, KiB, MiB, GiB."""
    if isinstance(value, int) and not isinstance(value, bool):
        octets = Decimal(value)
    else:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise wrong(value, SIZE)
        unit = next(unit for unit in _SIZE_UNITS if unit.lower() == match[2].lower())
        octets = Decimal(match[1]) * _SIZE_UNITS[unit]
    if not 1 <= octets <= MAX_INTEGER:
        raise wrong(value, "a size of 1 octet or more")
    return int(octets)


# Files.


def path(base: Path) -> Parser[Path]:
    """A path, made absolute by `base`."""

    def parse(value: Any) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise wrong(value, "a path")
        if value.startswith("~"):
            raise wrong(value, 'a path without "~", which is not expanded here')
        return base / value

    return parse


def readable_file(base: Path) -> Parser[Path]:
    """A path to a file that is there and can be read."""
    inner = path(base)

    def parse(value: Any) -> Path:
        file = inner(value)
        check_readable(value, file)
        return file

    return parse


_read_before: Final[set[Path]] = set()
"""The files that this process could read once.

A server that was root at its start has given that up, and can't read root's files again at a reload.  The user of such
a file reports the trouble; for the configuration the file is no mistake.
"""


def was_readable(file: Path) -> bool:
    """Whether this process could read a file at an earlier time, even if it can't now."""
    return file in _read_before


def check_readable(value: object, file: Path) -> None:
    """Raise a Mistake about `value` unless `file` is a file that can be read."""
    expected = "a file that is there and can be read"
    try:
        if file.exists() and not file.is_file():  # a FIFO would be waited for
            raise wrong(value, expected, f"{file}: not a file")
        with file.open("rb") as opened:
            opened.read(0)
        _read_before.add(file)
    except PermissionError as error:
        if file not in _read_before:
            raise wrong(value, expected, f"{file}: {error.strerror}") from None
    except OSError as error:
        raise wrong(value, expected, f"{file}: {error.strerror}") from None


PLACEHOLDERS: Final = ("{user}", "{domain}", "{detail}")
_BRACES: Final = pattern(r"\{[^{}]*\}|[{}]")


def maildir_template(base: Path) -> Parser[str]:
    """A path in which {user} (needed), {domain} and {detail} may stand; absolute."""
    expected = 'a path with {user} in it, and at most {domain} and {detail} besides, such as "maildir/{user}"'
    inner = path(base)

    def parse(value: Any) -> str:
        if not isinstance(value, str):
            raise wrong(value, expected)
        unknown = [brace for brace in _BRACES.findall(value) if brace not in PLACEHOLDERS]
        if unknown:
            raise wrong(value, expected, f"{unknown[0]} is not known")
        if "{user}" not in value:
            raise wrong(value, expected, "all users would share it")
        return str(inner(value))

    return parse


# Secrets: what was found is never shown.


def password(value: Any) -> str:
    """A password in clear, or the PHC string of one."""
    problem = check_secret(value) if isinstance(value, str) else "is no text"
    if problem is not None:
        expected = 'expected a password, or a hash "$argon2id$…" or "$scrypt$…"'
        raise BadValueError(Mistake(f"found a secret that {problem}", expected))
    return str(value)
