"""`trimta wait` waits until a matching message is in a Maildir.  It only reads files, and needs no server."""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_to_bytes

from trimta.cli import streams
from trimta.cli.arguments import add_command
from trimta.cli.exits import EX_OK, EX_TEMPFAIL, CommandError
from trimta.config.build_policy import local_maildirs
from trimta.config.errors import BadValueError
from trimta.config.find import find
from trimta.config.load import load
from trimta.config.value_parsers import duration
from trimta.content import display
from trimta.content.header import decoded, fields, split_header
from trimta.content.search_criteria import NULL_PATH, AddressPattern, SearchCriteria
from trimta.first_use.pattern import pattern
from trimta.mail.address import AddressError
from trimta.real_time import monotonic, wall_ns
from trimta.store.arrivals import TICK, Arrival, MaildirWatch, arrived, read, read_header, unique_name

if TYPE_CHECKING:
    from trimta.cli.arguments import Subparsers
    from trimta.store.arrivals import ArrivalMark

PAUSE: Final = 0.05
"""Seconds between two looks at the Maildirs; a pause is longer where a look takes long."""

SETTLE: Final = 0.02
"""Seconds to wait for messages that arrived at the same moment as the newest, since the order among them counts."""

OUTPUTS: Final = ("path", "headers", "body", "json", "mark")

_MARK: Final = pattern(r"(\d{1,20})-(\S*)")


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "wait",
        description=(
            "Wait until a message is in a Maildir, local or captured, and print it; it may be there already.\n"
            "Of several, the one that came first.  Exits with 75 when the time is up.  No server need be running."
        ),
        example=(
            "trimta wait --to alice@dev.test --subject 'Welcome*' --print body\n\n"
            "every message once, oldest first:\n"
            '  mark=$(trimta wait --print mark) && trimta wait --since "$mark"'
        ),
    )
    parser.add_argument("--to", metavar="A", type=_address, help="delivered to this address, or to this local part")
    parser.add_argument(
        "--from",
        dest="sender",
        metavar="A",
        type=_sender,
        help="from this address, in the envelope or the header; or <>",
    )
    parser.add_argument("--subject", metavar="GLOB", help="with such a subject, case aside")
    parser.add_argument(
        "--since",
        metavar="MARK",
        type=_mark,
        default=(0, ""),
        help="only what came after: the mark or the path that an earlier call printed, or `now`",
    )
    parser.add_argument("--timeout", metavar="TIME", type=_seconds, default=10.0, help="default: 10s")
    parser.add_argument(
        "--print", dest="output", choices=OUTPUTS, default="path", help="default: path; json has the mark, too"
    )
    parser.add_argument("--json", dest="output", action="store_const", const="json", help="as --print json")


def run(args: argparse.Namespace) -> int:
    streams.check_output()
    deadline = monotonic() + args.timeout
    watch = MaildirWatch(local_maildirs(load(find(args.config))).templates)
    criteria = SearchCriteria(to=args.to, sender=args.sender, subject=args.subject)
    while True:
        began = monotonic()
        for arrival in _arrivals(watch, after=args.since):
            with suppress(FileNotFoundError, PermissionError):  # removed meanwhile, or another account's
                path, header = read_header(arrival)
                if criteria.matches(header):
                    _print(replace(arrival, path=path), args.output)
                    return EX_OK
        now = monotonic()
        if now >= deadline:
            raise CommandError(EX_TEMPFAIL, _in_vain(watch, args.timeout))
        time.sleep(min(max(PAUSE, 2 * (now - began)), deadline - now))


def _arrivals(watch: MaildirWatch, *, after: ArrivalMark) -> list[Arrival]:
    """The messages that arrived after a mark and were not returned before, oldest first."""
    arrivals = [arrival for arrival in watch.look() if arrival.mark > after]
    if any(abs(wall_ns() - arrival.at) < SETTLE * 1e9 for arrival in arrivals):
        time.sleep(SETTLE)
        arrivals = sorted([*arrivals, *(arrival for arrival in watch.look() if arrival.mark > after)])
    return arrivals


def _in_vain(watch: MaildirWatch, timeout: float) -> str:
    text = f"no such message within {timeout:g} s"
    if watch.unreadable:
        text += f"; no permission for {', '.join(sorted(map(str, watch.unreadable)))}"
    return text


# The output.


def _print(arrival: Arrival, output: str) -> None:
    """Print what --print asks for.  Raises FileNotFoundError, and prints nothing, if the message was removed."""
    match output:
        case "path":
            octets = os.fsencode(arrival.path) + b"\n"
        case "mark":
            octets = _mark_of(arrival).encode() + b"\n"
        case "headers":
            octets = split_header(read(arrival)[1])[0]
        case "body":
            octets = display.body(display.parse(read(arrival)[1])).encode()
        case _:
            octets = json.dumps(_document(arrival)).encode() + b"\n"
    sys.stdout.flush()
    sys.stdout.buffer.write(octets)


def _mark_of(arrival: Arrival) -> str:
    return f"{arrival.at}-{quote(os.fsencode(arrival.name))}"


def _document(arrival: Arrival) -> dict[str, Any]:
    path, content = read(arrival)
    headers: dict[str, list[str]] = {}
    for field in fields(content):
        headers.setdefault(field.name, []).append(decoded(field.value))
    message = display.parse(content)
    return {
        "path": os.fsencode(path).decode(errors="replace"),
        "mark": _mark_of(arrival),
        "return_path": next(iter(headers.get("return-path", ())), None),
        "delivered_to": headers.get("delivered-to", []),
        "from": next(iter(headers.get("from", ())), None),
        "to": next(iter(headers.get("to", ())), None),
        "subject": next(iter(headers.get("subject", ())), None),
        "date": display.date(next(iter(headers.get("date", ())), "")),
        "headers": headers,
        "body": display.body(message),
        "attachments": [
            {"filename": attachment.filename or None, "content_type": attachment.content_type, "size": attachment.size}
            for attachment in display.attachments(message)
        ],
    }


# Arguments.


def _address(text: str) -> AddressPattern:
    try:
        return AddressPattern.parse(text)
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _sender(text: str) -> AddressPattern | str:
    return NULL_PATH if text in ("", NULL_PATH) else _address(text)


def _seconds(text: str) -> float:
    try:
        return duration(0.0)(f"{text}s" if text.isdecimal() else text)
    except BadValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _mark(text: str) -> ArrivalMark:
    if text == "now":
        return wall_ns() - TICK, ""
    mark = _MARK.fullmatch(text)
    if mark is not None:
        return int(mark[1]), os.fsdecode(unquote_to_bytes(mark[2]))
    path = Path(text)  # a reader may have moved the message to cur/ meanwhile
    for candidate in (path, *path.parent.parent.glob(f"cur/{glob.escape(unique_name(path.name))}*")):
        with suppress(OSError):
            return arrived(candidate), unique_name(candidate.name)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a mark, nor the path of a message, nor `now`")
