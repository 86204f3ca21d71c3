"""The output of `trimta queue list` and `trimta queue show`, as text and as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from trimta.cli import streams
from trimta.cli.exits import EX_DATAERR, EX_OK
from trimta.cli.queue_on_disk import queue_time
from trimta.cli.text import duration, octets, print_json
from trimta.content.header import HeaderReader
from trimta.control import asking
from trimta.control.asking import NoAnswer, NotRunning
from trimta.mail.body import BodyForm
from trimta.runtime.events import escape, timestamp
from trimta.store.queue.errors import DamagedEntry, NoSuchEntry
from trimta.store.queue.values import EnvelopeState, ListedEnvelope
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from trimta.config.model import Configuration
    from trimta.mail.envelope import ReversePath
    from trimta.store.queue.queue import Queue
    from trimta.store.queue.values import QueuedEnvelope, QueuedRecipient, StoredMessage

STATES: Final = ("active", "deferred", "held")
"""The states of an envelope: it is being delivered; it waits for its next try; it waits for the operator."""

_ROW: Final = "{:<20} {:>6} {:>6} {:>5} {:>9}  {:<8}  {}\n"


# trimta queue list


def print_list(config: Configuration, queue: Queue | None, args: argparse.Namespace) -> None:
    """Print the envelopes that match the command line, each as soon as it is read: a queue may be very long."""
    rows = iter(()) if queue is None else _rows(config, queue, args)
    write = sys.stdout.write
    if args.json:
        before = "[\n"
        for listed, state, now in rows:
            write(before + json.dumps(_document(listed, state, now)))
            before = ",\n"
        write("[]\n" if before == "[\n" else "\n]\n")
        return
    empty = True
    for listed, state, now in rows:
        if empty:
            write(_ROW.format("ID", "AGE", "SIZE", "TRIES", "NEXT TRY", "STATE", "SENDER -> DOMAIN"))
            empty = False
        write(_text(listed, state, now))
    if empty:
        filtered = any((args.domain, args.state, args.sender is not None, args.recipient is not None))
        write("nothing in the queue matches\n" if filtered else "the queue is empty\n")


def _rows(config: Configuration, queue: Queue, args: argparse.Namespace) -> Iterator[tuple[ListedEnvelope, str, float]]:
    active = _active(config)
    now = queue_time(queue)
    stored = None if args.state is None else EnvelopeState.HELD if args.state == "held" else EnvelopeState.QUEUED
    for listed in queue.entries.list_envelopes(
        domain=args.domain, state=stored, sender=_filter(args.sender), recipient=_filter(args.recipient)
    ):
        state = _state(listed.envelope, active)
        if args.state in (None, state):
            yield listed, state, now


def _filter(address: str | None) -> str | None:
    """The address of --sender or --recipient as the queue compares it: without angle brackets, except "<>"."""
    if address is None or address in ("", "<>"):
        return address if address is None else "<>"
    return address.removeprefix("<").removesuffix(">")


def _active(config: Configuration) -> frozenset[str]:
    """The ids of the envelopes that the running server is delivering; none without a running server."""
    try:
        return frozenset(asking.ask_once(config.data_dir, {"command": "active"})["active"])
    except (NotRunning, NoAnswer, PermissionError):
        return frozenset()


def _state(envelope: QueuedEnvelope, active: frozenset[str]) -> str:
    if envelope.id in active:
        return "active"
    return "held" if envelope.state is EnvelopeState.HELD else "deferred"


def _document(listed: ListedEnvelope, state: str, now: float) -> dict[str, Any]:
    envelope = listed.envelope
    return {
        "id": envelope.id,
        "state": state,
        "arrived": timestamp(listed.arrived),
        "age_s": round(max(0.0, now - listed.arrived), 3),
        "size": listed.size,
        "sender": _path(listed.reverse_path),
        "domain": envelope.domain,
        "next_hop": envelope.next_hop,
        "attempts": envelope.attempts,
        "next_try": None if state == "held" else timestamp(envelope.due),
        "recipients": [
            {
                "address": str(recipient.recipient.address),
                "status": recipient.status,
                "reply": _reply(envelope, recipient),
            }
            for recipient in envelope.recipients
        ],
    }


def _text(listed: ListedEnvelope, state: str, now: float) -> str:
    envelope = listed.envelope
    row = _ROW.format(
        envelope.id,
        duration(now - listed.arrived),
        octets(listed.size),
        envelope.attempts,
        _next_try(envelope, state, now),
        state,
        escape(f"<{_path(listed.reverse_path)}> -> {envelope.domain}"),
    )
    return row + "".join(f"    {escape(line)}\n" for line in _details(envelope))


def _details(envelope: QueuedEnvelope) -> Iterator[str]:
    """The lines below an envelope: the reason of a hold, and its recipients with their last replies."""
    if envelope.hold_reason:
        yield f"held: {envelope.hold_reason}"
    for recipient in envelope.recipients:
        address = str(recipient.recipient.address)
        yield address if recipient.last_outcome is None else f"{address}: {recipient.status} {recipient.reply}"


def _reply(envelope: QueuedEnvelope, recipient: QueuedRecipient) -> str:
    """The last reply for a recipient; before the first try, the reason why its envelope is held."""
    return recipient.reply or envelope.hold_reason


def _next_try(envelope: QueuedEnvelope, state: str, now: float) -> str:
    if state != "deferred":
        return "-"
    return "now" if envelope.due <= now else f"in {duration(envelope.due - now)}"


def _path(reverse_path: ReversePath) -> str:
    return "" if reverse_path is None else str(reverse_path)


# trimta queue show


def print_entries(config: Configuration, queue: Queue | None, args: argparse.Namespace) -> int:
    """Print the messages of the ids on the command line; returns the exit code.

    An id that is not in the queue, or is damaged, gets a line on stderr and makes the exit code 65.
    """
    active = _active(config)
    code = EX_OK
    shown: list[dict[str, Any]] = []
    for entry_id in args.ids:
        try:
            if queue is None:
                raise NoSuchEntry(entry_id)
            message, envelopes = queue.entries.show(entry_id)
            now = queue_time(queue)
            if args.raw:
                _write_raw(message)
            elif args.json:
                shown.append(_entry_document(message, envelopes, active, now))
            else:
                sys.stdout.write(_entry_text(message, envelopes, active, now))
        except (NoSuchEntry, DamagedEntry, BodyDamagedError) as cause:  # the last: the message has just left
            streams.say(f"trimta queue: {escape(str(cause))}")
            code = EX_DATAERR
    if args.json:
        print_json(shown)
    return code


def _write_raw(message: StoredMessage) -> None:
    """Write a message as a Maildir would hold it: trace fields, then the content, with the line ends of the content."""
    octets = sys.stdout.buffer
    sys.stdout.flush()
    is_raw = message.content.form is BodyForm.RAW
    octets.write(message.trace.replace(b"\n", b"\r\n") if is_raw else message.trace)
    with contextlib.closing(message.content.chunks()) as pieces:
        for piece in pieces:
            octets.write(piece)
    octets.flush()


def _header(message: StoredMessage) -> str:
    """The header of a message as it will be sent, trace fields first, with LF line ends."""
    reader, beginning = HeaderReader(), bytearray()
    with contextlib.closing(message.content.chunks()) as pieces:
        for piece in pieces:
            reader.feed(piece)
            beginning += piece
            if reader.ended:
                break
    reader.finish()
    return (message.trace + beginning[: reader.size]).decode("utf-8", "backslashreplace").replace("\r\n", "\n")


def _entry_document(
    message: StoredMessage, envelopes: tuple[QueuedEnvelope, ...], active: frozenset[str], now: float
) -> dict[str, Any]:
    return {
        "id": message.id,
        "arrived": timestamp(message.arrived),
        "age_s": round(max(0.0, now - message.arrived), 3),
        "size": message.size,
        "sender": _path(message.terms.reverse_path),
        "origin": message.origin,
        "envelopes": [_envelope_document(envelope, _state(envelope, active)) for envelope in envelopes],
        "header": _header(message),
    }


def _envelope_document(envelope: QueuedEnvelope, state: str) -> dict[str, Any]:
    return {
        "id": envelope.id,
        "state": state,
        "hold_reason": envelope.hold_reason,
        "domain": envelope.domain,
        "next_hop": envelope.next_hop,
        "via": envelope.via,
        "attempts": envelope.attempts,
        "last_attempt": None if envelope.last_attempt is None else timestamp(envelope.last_attempt),
        "next_try": None if state == "held" else timestamp(envelope.due),
        "recipients": [
            {
                "address": str(recipient.recipient.address),
                "original": str(recipient.recipient.original),
                "status": recipient.status,
                "reply": recipient.reply,
                "host": "" if recipient.last_outcome is None else recipient.last_outcome.cause.host,
            }
            for recipient in envelope.recipients
        ],
    }


def _entry_text(
    message: StoredMessage, envelopes: tuple[QueuedEnvelope, ...], active: frozenset[str], now: float
) -> str:
    lines = [
        f"message {message.id}",
        f"  arrived:  {timestamp(message.arrived)}, {duration(now - message.arrived)} ago",
        f"  sender:   <{_path(message.terms.reverse_path)}>",
        f"  size:     {message.size} octets",
    ]
    if message.origin:
        lines.append(f"  from:     {message.origin}")
    for envelope in envelopes:
        state = _state(envelope, active)
        lines += [f"envelope {envelope.id}", f"  state:    {state}"]
        lines.append(f"  to:       {envelope.domain}, next hop {envelope.next_hop}")
        if envelope.via:
            lines.append(f"  via:      {envelope.via}")
        last = "" if envelope.last_attempt is None else f", the last one {duration(now - envelope.last_attempt)} ago"
        lines.append(f"  tries:    {envelope.attempts}{last}")
        if state == "deferred":
            lines.append(f"  next try: {_next_try(envelope, state, now)}")
        lines += [f"  {line}" for line in _details(envelope)]
    lines.append("header")
    lines += [f"  {line}".rstrip() for line in _header(message).rstrip("\n").replace("\t", "    ").split("\n")]
    return "".join(f"{escape(line)}\n" for line in lines)
