"""The command line's grammar, the same for every command: -c anywhere, one line for a usage error, exit code 64."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from trimta.cli import streams
from trimta.cli.exits import EX_USAGE

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction["ArgumentParser"]


class ArgumentParser(argparse.ArgumentParser):
    """Takes -c/--config, and so do the parsers of commands below it: argparse makes them of the same class."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)
        self.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            default=argparse.SUPPRESS,  # else the command's default would hide what stands before the command
            help="the configuration; default: $TRIMTA_CONF, else ./conf.toml, else built-in defaults",
        )

    def error(self, message: str) -> NoReturn:
        """Ends with one line instead of argparse's whole usage."""
        streams.say(f"{self.prog}: {message}; see {self.prog} --help")
        sys.exit(EX_USAGE)


def add_command(
    subparsers: Subparsers, name: str, *, description: str, example: str, summary: str | None = None
) -> ArgumentParser:
    """A parser for one command, its --help ending in an example; `summary` is its line in the help above it."""
    listed: dict[str, Any] = {} if summary is None else {"help": summary}  # with None it would not be listed
    return subparsers.add_parser(name, description=description, epilog=f"example:\n  {example}", **listed)
