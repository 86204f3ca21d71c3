"""`trimta time advance 4h` moves the queue's clock of the running server forward."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from trimta.cli import streams
from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_OK
from trimta.cli.running_server import ask_server
from trimta.cli.text import duration, print_json
from trimta.config.errors import BadValueError
from trimta.config.find import find
from trimta.config.load import load
from trimta.config.value_parsers import duration as parse_duration
from trimta.runtime.events import object_as_text

if TYPE_CHECKING:
    from trimta.cli.arguments import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "time",
        description="The queue's clock, by which mail is tried again, reported late and given up.",
        example="trimta time advance 4h",
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", title="actions", required=True)
    advance = add_command(
        actions,
        "advance",
        summary="move it forward",
        description=(
            "Move the running server's queue clock forward.  Retries, delay warnings and expiry that fall in between\n"
            "happen, in order, now; when they have, what happened is printed."
        ),
        example="trimta time advance 4h",
    )
    advance.add_argument(
        "duration",
        metavar="DURATION",
        type=_seconds,
        help="how far: 90s, 5m, 4h, 5d; timeouts of SMTP are not affected",
    )
    advance.add_argument("--json", action="store_true", help="print it as one JSON document")


def run(args: argparse.Namespace) -> int:
    streams.output_is_secondary()
    config = load(find(args.config))
    answer = ask_server(config, {"command": "advance", "seconds": args.duration}, timeout=None)
    if args.json:
        print_json(answer)
        return EX_OK
    for event in answer["events"]:
        sys.stdout.write(object_as_text(event) + "\n")
    moments = answer["moments"]
    happened = "nothing fell due" if not moments else f"{moments} moments at which something fell due"
    sys.stdout.write(f"the queue's clock is {duration(args.duration)} further, at {answer['now']}: {happened}\n")
    return EX_OK


def _seconds(text: str) -> float:
    try:
        return parse_duration()(text)
    except BadValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
