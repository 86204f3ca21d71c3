"""`trimta queue …` shows the queue and changes it, whether the server runs or not.

The actions change the database themselves, in short transactions, and then wake the server.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trimta.cli import queue_verbs, queue_view
from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_OK, EX_USAGE, CommandError
from trimta.cli.queue_on_disk import queue_of
from trimta.cli.queue_view import STATES
from trimta.config.find import find
from trimta.config.load import load
from trimta.config.route_syntax import read_route
from trimta.control import asking
from trimta.mail.address import AddressError, parse_domain, parse_mailbox
from trimta.routing.routes import HoldRoute, RouteError

if TYPE_CHECKING:
    from trimta.cli.arguments import ArgumentParser, Subparsers
    from trimta.mail.address import Mailbox
    from trimta.routing.routes import Route


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "queue",
        description=(
            "Look at the queue and steer it, with the server running or not; a running one acts within a second.\n"
            "An ID is a message's, and means all its envelopes, or one envelope's."
        ),
        example="trimta queue list --domain partner.test",
    )
    actions = parser.add_subparsers(metavar="ACTION", dest="action", title="actions", required=True)
    _add_list(actions)
    show = add_command(
        actions,
        "show",
        summary="everything about messages: envelopes, last replies, header",
        description=(
            "Messages in the queue: their envelopes, each recipient's last reply, the header.  With --raw one message\n"
            "as it is kept, trace fields first, and nothing else."
        ),
        example="trimta queue show 0s1bqzc4d2xkm9f7 --raw",
    )
    _take_ids(show, "+")
    show.add_argument("--raw", action="store_true", help="print the message as it is kept")
    retry = add_command(
        actions,
        "retry",
        summary="try now",
        description="Try envelopes now, whatever their next try; held ones are left alone.",
        example="trimta queue retry --domain partner.test",
    )
    _take_ids(retry, "*")
    retry.add_argument("--domain", metavar="D", type=_domain, help="all for recipients at this domain")
    retry.add_argument("--all", action="store_true", help="the whole queue")
    hold = add_command(
        actions,
        "hold",
        summary="keep until released",
        description="Keep envelopes in the queue until `trimta queue release`.",
        example="trimta queue hold 0s1bqzc4d2xkm9f7",
    )
    _take_ids(hold, "+")
    release = add_command(
        actions,
        "release",
        summary="send held ones",
        description=(
            "Send held envelopes now, by the route that they would have without `hold`.  With --via or --to also\n"
            "envelopes that are not held."
        ),
        example="trimta queue release 0s1bqzc4d2xkm9f7 --via smtp:127.0.0.1:1025",
    )
    _take_ids(release, "+")
    release.add_argument(
        "--via",
        metavar="ROUTE",
        type=_route,
        help='by this route, written as in [routes]; a table too: \'{ transport = "smtp", host = "a.test" }\'',
    )
    release.add_argument("--to", metavar="ADDRESS", type=_mailbox, help="to this address instead of its recipients")
    remove = add_command(
        actions,
        "remove",
        summary="drop, telling nobody",
        description="Drop envelopes; nobody is told.",
        example="trimta queue remove 0s1bqzc4d2xkm9f7.2",
    )
    _take_ids(remove, "+")
    bounce = add_command(
        actions,
        "bounce",
        summary="return to the sender",
        description="Return envelopes to their sender, with a failure report.",
        example="trimta queue bounce 0s1bqzc4d2xkm9f7",
    )
    _take_ids(bounce, "+")


def _add_list(actions: Subparsers) -> None:
    parser = add_command(
        actions,
        "list",
        summary="what waits",
        description=(
            "What waits, an envelope each: id, age, size, tries, next try, state, sender, domain; then its recipients\n"
            "with their last replies."
        ),
        example="trimta queue list --state held --json | jq -r '.[].id'",
    )
    parser.add_argument("--domain", metavar="D", type=_domain, help="only for recipients at this domain")
    parser.add_argument("--state", choices=STATES, help="only these")
    parser.add_argument("--sender", metavar="A", help="only from this address, or glob; '<>': reports")
    parser.add_argument("--recipient", metavar="A", help="only to this address, or glob")
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def _take_ids(parser: ArgumentParser, count: str) -> None:
    parser.add_argument("ids", metavar="ID", nargs=count, help="a message or an envelope")
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")


def _domain(text: str) -> str:
    try:
        return parse_domain(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _mailbox(text: str) -> Mailbox:
    try:
        return parse_mailbox(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _route(text: str) -> Route:
    try:
        route = read_route(text, Path.cwd())
    except RouteError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if isinstance(route, HoldRoute):
        raise argparse.ArgumentTypeError("releasing by `hold` would change nothing")
    return route


def run(args: argparse.Namespace) -> int:
    config = load(find(args.config))
    if args.action == "retry" and (bool(args.ids) + bool(args.domain) + args.all) != 1:
        raise CommandError(EX_USAGE, "retry: say what: IDs, or --domain D, or --all")
    if args.action == "show" and args.raw and (args.json or len(args.ids) != 1):
        raise CommandError(EX_USAGE, "show: --raw is for one ID, without --json")
    with queue_of(config) as queue:
        if args.action == "list":
            queue_view.print_list(config, queue, args)
            return EX_OK
        if args.action == "show":
            return queue_view.print_entries(config, queue, args)
        code = queue_verbs.steer(config, queue, args)
    asking.tell(config.data_dir, {"command": "wake"})
    return code
