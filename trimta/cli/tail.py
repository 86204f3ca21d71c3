"""`trimta tail` prints the events of the running server as they happen."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from trimta.cli import streams
from trimta.cli.arguments import add_command
from trimta.cli.exits import BROKEN_PIPE, EX_OK
from trimta.cli.running_server import server_needed
from trimta.cli.text import print_json
from trimta.config.find import find
from trimta.config.load import load
from trimta.control import asking
from trimta.runtime.events import object_as_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from trimta.cli.arguments import Subparsers
    from trimta.config.model import Configuration
    from trimta.control.asking import Json


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "tail",
        description=(
            "Follow the running server: accepted, delivered, deferred, bounced, rejected and the rest of its log, one\n"
            "line an event, until the server stops or Ctrl-C."
        ),
        example="trimta tail --json | jq 'select(.event == \"bounced\")'",
    )
    parser.add_argument("--json", action="store_true", help="print each event as a JSON object on its line")


def run(args: argparse.Namespace) -> int:
    streams.check_output()
    try:
        for event in _events(load(find(args.config))):
            if args.json:
                print_json(event)
            else:
                sys.stdout.write(object_as_text(event) + "\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass  # Ctrl-C is the usual end of this command
    except BrokenPipeError:
        return BROKEN_PIPE
    return EX_OK


def _events(config: Configuration) -> Iterator[Json]:
    with server_needed(config):
        for answer in asking.ask(config.data_dir, {"command": "tail"}, timeout=None, reader=streams.output()):
            if "event" in answer:
                yield answer
