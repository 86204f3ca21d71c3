"""The configuration file of a command: -c FILE, else $TRIMTA_CONF, else ./conf.toml, else the built-in defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trimta.config.errors import EX_CONFIG, ConfigFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE: Final = "TRIMTA_CONF"
FILE_NAME: Final = "conf.toml"


def find(option: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Path | None:
    """The configuration file to load; None for the built-in defaults.

    A file that -c or $TRIMTA_CONF names need not be there: that is for `load` to complain about.
    """
    if option is not None:
        return Path(option)
    named = (os.environ if environ is None else environ).get(VARIABLE)
    if named:
        return Path(named)
    here = Path(FILE_NAME)
    # A dangling link is a file that the user wants read, so it is not passed over.
    return here if here.exists() or here.is_symlink() else None


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder that keeps all state where there is no configuration file (XDG Base Directory Specification).

    Raises ConfigFileError where the user has no home folder.
    """
    # The specification: a path in it that is not absolute is to be ignored.
    given = Path((os.environ if environ is None else environ).get("XDG_STATE_HOME", ""))
    if given.is_absolute():
        return given / "trimta"
    try:
        return Path.home() / ".local" / "state" / "trimta"
    except RuntimeError:
        raise ConfigFileError(
            "no configuration file and no home folder to keep state in: set HOME, or name a file with -c", EX_CONFIG
        ) from None
