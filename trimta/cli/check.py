"""`trimta check` validates the configuration and prints the effective one, or every mistake with its line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_OK
from trimta.config.errors import one_line
from trimta.config.find import find
from trimta.config.load import load
from trimta.config.render import document, toml

if TYPE_CHECKING:
    import argparse

    from trimta.cli.arguments import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "check",
        description=(
            "Validate the configuration and print the effective one, with every default, absolute paths, and secrets\n"
            "as ***.  Mistakes go to stderr, one a line with file, line and key; the exit code is then 78."
        ),
        example="trimta check -c conf.toml --json | jq .queue",
    )
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def run(args: argparse.Namespace) -> int:
    config = load(find(args.config))
    if args.json:
        json.dump(document(config), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        source = f"read from {config.source}" if config.source is not None else "built-in defaults, there is no file"
        sys.stdout.write(f"# The effective configuration: {one_line(source)}\n\n{toml(config)}")
    return EX_OK
