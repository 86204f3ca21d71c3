"""`trimta status` shows the running server: listeners, sessions, deliveries, queue and counters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_OK
from trimta.cli.running_server import ask_server
from trimta.cli.text import duration, print_json
from trimta.config.find import find
from trimta.config.load import load
from trimta.runtime.events import escape

if TYPE_CHECKING:
    import argparse

    from trimta.cli.arguments import Subparsers
    from trimta.control.asking import Json

DOMAINS: Final = 20
"""Number of the queue's domains that are listed as text; --json has them all."""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "status",
        description=(
            "What the running server is at: sessions, deliveries in flight, queue size per domain, and counters since\n"
            "its start."
        ),
        example="trimta status --json | jq .counters.delivered",
    )
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def run(args: argparse.Namespace) -> int:
    status = ask_server(load(find(args.config)), {"command": "status"})
    if args.json:
        print_json(status)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(status)))
    return EX_OK


def _lines(status: Json) -> list[str]:
    lines = [f"process {status['pid']}, running for {duration(status['uptime_s'])}"]
    lines += [
        f"worker {worker['pid']}: {worker['sessions']} sessions, {worker['messages']} messages accepted"
        for worker in status["workers"]
    ]
    lines += [f"listening on {address}" for address in status["listening"]]
    if status["clock_offset_s"]:
        lines.append(f"the queue's clock is {duration(status['clock_offset_s'])} ahead")
    lines.append(f"sessions: {status['sessions']}")
    lines.append(f"deliveries in flight: {status['deliveries']}")
    envelopes = "1 envelope" if status["queued"] == 1 else f"{status['queued']} envelopes"
    lines.append(f"queue: {envelopes}, {status['held']} of them held")
    domains = [*status["queue"].items()]
    lines += [f"  {count:>7} {escape(domain)}" for domain, count in domains[:DOMAINS]]
    if len(domains) > DOMAINS:
        lines.append(f"  … and {len(domains) - DOMAINS} domains more; --json has them all")
    lines.append("since the start:" if status["counters"] else "since the start: nothing has happened")
    lines += [f"  {count:>7} {name}" for name, count in status["counters"].items()]
    return lines
