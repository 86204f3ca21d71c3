"""The type of a configuration key, a parser and a writer for its value; `schema` has the keys themselves."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")

TomlValue: TypeAlias = "str | int | float | bool | list[TomlValue] | dict[str, TomlValue]"
"""A value of TOML and of JSON."""

SECRET: Final = "***"
"""The text that is shown in place of every password."""

_DURATIONS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES: Final = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def write(value: Any) -> TomlValue:
    """A value of the model: numbers, texts and arrays as they are, everything else as its text."""
    match value:
        case enum.Enum():
            return str(value.value)
        case bool() | int() | float() | str():
            return value
        case tuple():
            return [write(item) for item in value]
        case frozenset():
            return [write(item) for item in sorted(value)]
        case _:
            return str(value)


def write_duration(seconds: float) -> str:
    """Seconds as the configuration writes them: 300.0 is "5m", 0.5 is "0.5s"."""
    for unit, name in _DURATIONS:
        if seconds and seconds % unit == 0:
            return f"{int(seconds // unit)}{name}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def write_durations(steps: tuple[float, ...]) -> list[TomlValue]:
    """Several durations, in seconds."""
    return [write_duration(step) for step in steps]


def write_size(octets: int) -> str | int:
    """Octets as the configuration writes them: 52428800 is "50 MiB", 1000 is 1000."""
    for unit, name in _SIZES:
        if octets % unit == 0:
            return f"{octets // unit} {name}"
    return octets


def write_secrets(secrets: Mapping[str, str]) -> dict[str, TomlValue]:
    """Names, each with SECRET in place of its password."""
    return dict.fromkeys(secrets, SECRET)


@dataclass(frozen=True, slots=True)
class Key(Generic[T]):
    """A key of a table.  Its default is that of the model's field of the same name."""

    parse: Callable[[Any], T]
    """Reads a value of TOML.  Raises BadValueError if it is wrong."""
    write: Callable[[T], TomlValue] = write
    """Writes a value as TOML, for `parse` to read; secrets are left out, and paths are absolute."""


Schema: TypeAlias = Mapping[str, Key[Any]]
"""The keys of a table, in the order of the documentation."""
