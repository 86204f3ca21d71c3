"""`trimta log ID` prints what happened to a message, from the inbound dialogue to its last outcome."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_DATAERR, EX_OK, CommandError
from trimta.cli.queue_on_disk import queue_of
from trimta.cli.text import print_json
from trimta.config.find import find
from trimta.config.load import load
from trimta.control import asking
from trimta.runtime.events import escape, timestamp
from trimta.store.queue.errors import NoSuchEntry
from trimta.store.queue.values import message_id

if TYPE_CHECKING:
    import argparse

    from trimta.cli.arguments import Subparsers
    from trimta.store.queue.queue import Queue


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "log",
        description=(
            "One message's whole life under its id: the inbound dialogue, each delivery attempt's dialogue, outcomes,\n"
            "DSNs.  Times are those of the queue's clock.  Secrets and bodies are left out; a week of it is kept,\n"
            "also of messages that have left.  Works with the server running or not."
        ),
        example="trimta log 0s1bqzc4d2xkm9f7",
    )
    parser.add_argument("id", metavar="ID", help='what "queued as" told, or an id of `trimta queue list`')
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def run(args: argparse.Namespace) -> int:
    config = load(find(args.config))
    message = message_id(args.id)
    asking.tell(config.data_dir, {"command": "flush"})
    with queue_of(config) as queue:
        lines = [] if queue is None else queue.log.read(message)
        if not lines and (queue is None or not _is_queued(queue, message)):
            raise CommandError(EX_DATAERR, f"nothing is known of a message {escape(repr(args.id))}")
    if args.json:
        print_json({"id": message, "lines": [{"time": timestamp(at), "text": text} for at, text in lines]})
    else:
        for at, text in lines:
            sys.stdout.write(f"{timestamp(at)} {escape(text)}\n")
        if not lines:
            sys.stdout.write(f"{message} is in the queue; nothing has happened to it yet\n")
    return EX_OK


def _is_queued(queue: Queue, message: str) -> bool:
    try:
        queue.entries.show(message)
    except NoSuchEntry:
        return False
    return True
