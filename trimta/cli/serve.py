"""`trimta serve` runs the server in the foreground."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_OK, EX_USAGE, CommandError
from trimta.config.address_parsers import listen_address
from trimta.config.errors import BadValueError
from trimta.config.find import find
from trimta.config.load import load
from trimta.config.model import ListenSection
from trimta.config.route_syntax import parse_route
from trimta.config.value_parsers import workers
from trimta.routing.routes import RouteError
from trimta.server.foreground import ServeOptions
from trimta.server.foreground import run as run_server
from trimta.server.start import StartError

if TYPE_CHECKING:
    from trimta.cli.arguments import Subparsers
    from trimta.config.model import Configuration


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "serve",
        description="Run the server in the foreground until SIGTERM or SIGINT; SIGHUP reads the configuration again.",
        example="trimta serve --listen 127.0.0.1:2525 --remote discard",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDR",
        action="append",
        help="listen here (SMTP) instead of what the configuration says; may be repeated. HOST:PORT or unix:PATH",
    )
    parser.add_argument(
        "--remote", metavar="ROUTE", help='the route of "*": mx, smtp:HOST:PORT, maildir:PATH, discard …'
    )
    parser.add_argument(
        "--time-scale",
        metavar="N",
        type=_factor,
        default=1.0,
        help="retry waits, lifetime and delay_warning pass N times faster",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_workers,
        help="sessions in N processes, or auto: one for each processor (default: what the configuration says, or 1)",
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="how log lines are written")


def run(args: argparse.Namespace) -> int:
    path = find(args.config)

    def load_config() -> Configuration:
        return _with_options(load(path), args)

    options = ServeOptions(time_scale=args.time_scale, json_log=args.log_format == "json", load=load_config)
    try:
        run_server(load_config(), options, sys.stderr)
    except StartError as cause:
        raise CommandError(cause.exit_code, str(cause)) from cause
    return EX_OK


def _with_options(config: Configuration, args: argparse.Namespace) -> Configuration:
    """The configuration with --listen and --remote in place of its own values.  Raises CommandError."""
    if args.listen:
        try:
            addresses = [listen_address(Path.cwd())(text) for text in args.listen]
        except BadValueError as error:
            raise CommandError(EX_USAGE, f"--listen: {error}") from error
        config = replace(config, listen=tuple(ListenSection(address=address) for address in addresses))
    if args.remote is not None:
        try:
            route = parse_route(args.remote, Path(os.path.curdir).absolute())
        except RouteError as error:
            raise CommandError(EX_USAGE, f"--remote: {error}") from error
        config = replace(config, routes={**config.routes, "*": route})
    if args.workers:
        config = replace(config, workers=args.workers)
    return config


def _workers(text: str) -> int | Literal["auto"]:
    try:
        return workers(int(text) if text.isdecimal() else text)
    except BadValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _factor(text: str) -> float:
    with suppress(ValueError):
        if 0.001 <= (factor := float(text)) <= 1e9:
            return factor
    raise argparse.ArgumentTypeError(f'found "{text}", expected a number from 0.001 to 1e9')
