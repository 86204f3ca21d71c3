"""The configuration of a test's server: what the test gives, and defaults that keep servers apart.

By default a server listens on a free port, and has all its files in one temporary folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trimta.config import load

if TYPE_CHECKING:
    from trimta.config.model import Configuration

ConfigurationSource: TypeAlias = Mapping[str, Any] | str | os.PathLike[str] | None
"""Tables like those of conf.toml, the text of one, or its path."""

ADDRESS: Final = "127.0.0.1:0"
HOSTNAME: Final = "localhost"
"""The default of `hostname`: tests must not depend on the name of the machine."""
SHUTDOWN: Final = "0.2s"
"""The default of `timeouts.shutdown`: deliveries that a test leaves unfinished must not delay its end."""


def complete(given: ConfigurationSource, folder: Path) -> Configuration:
    """The configuration of a test's server.

    What is not given and would be shared with others is in `folder`, an absolute path: data_dir and the Maildirs.
    Relative paths are relative to the file, or, where there is none, to `folder`.  Raises ConfigErrors, and
    TypeError for what is no configuration.
    """
    file, base, text, tables = "config", folder, "", {}
    if isinstance(given, Mapping):
        tables = _plain(given)
    elif isinstance(given, str) and ("\n" in given or not given.endswith(".toml")):
        text = given
    elif given is not None:
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"found {given!r}, expected a configuration: a mapping like conf.toml, its text, or a path")
        path = Path(given)
        file, base, text = str(path), path.absolute().parent, load.read(path)
    tables = tables or load.document(text, file=file)
    _add_defaults(tables, folder)
    # Becoming another account would take the whole test run along.
    return replace(load.build(tables, base=base, file=file, text=text), user="")


def _add_defaults(tables: dict[str, Any], folder: Path) -> None:
    """Add defaults to the tables, but none inside a value of a wrong type: its error must show it as it was given."""
    defaults: dict[str, Any] = {
        "hostname": HOSTNAME,
        "data_dir": str(folder / "var"),
        "listen": [{}],
        "local": {},
        "routes": {},
        "timeouts": {},
    }
    for key, value in defaults.items():
        tables.setdefault(key, value)
    inner: dict[str, dict[str, Any]] = {
        "local": {"maildir": str(folder / "mail" / "{user}")},
        "routes": {"*": f"maildir:{folder / 'remote'}"},
        "timeouts": {"shutdown": SHUTDOWN},
    }
    for key, values in inner.items():
        if isinstance(tables[key], dict):
            tables[key] = {**values, **tables[key]}
    if isinstance(tables["listen"], list):
        tables["listen"] = [
            {"address": ADDRESS, **listen} if isinstance(listen, dict) else listen for listen in tables["listen"]
        ]


def _plain(value: Any) -> Any:
    """A value of a test's configuration in types of TOML: a Path becomes text, a tuple or set a list."""
    match value:
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case os.PathLike():
            return os.fspath(value)
        case list() | tuple() | set() | frozenset():
            return [_plain(inner) for inner in value]
        case _:
            return value
