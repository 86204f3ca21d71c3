"""The grammar that all commands share: -c anywhere on the line, usage errors in one line with exit code 64."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from trimta.cli import streams
from trimta.cli.exits import EX_USAGE

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction["ArgumentParser"]


class ArgumentParser(argparse.ArgumentParser):
    """A parser that takes -c/--config, as do the parsers of its commands: argparse makes them of the same class."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)
        self.add_argument(
            "-c",
            "--config",
            metavar="FILE",
            default=argparse.SUPPRESS,  # else the default of the command's parser would replace a -c before the command
            help="the configuration; default: $TRIMTA_CONF, else ./conf.toml, else built-in defaults",
        )

    def error(self, message: str) -> NoReturn:
        """End the process with exit code 64 and one line on stderr, where argparse would print the whole usage."""
        streams.say(f"{self.prog}: {message}; see {self.prog} --help")
        sys.exit(EX_USAGE)


def add_command(
    subparsers: Subparsers, name: str, *, description: str, example: str, summary: str | None = None
) -> ArgumentParser:
    """Add the parser of a command or action.

    `example` is a command line that ends the help; `summary` is the command's line in the help of its parent.
    """
    listed: dict[str, Any] = {} if summary is None else {"help": summary}  # argparse does not list a command with None
    return subparsers.add_parser(name, description=description, epilog=f"example:\n  {example}", **listed)
