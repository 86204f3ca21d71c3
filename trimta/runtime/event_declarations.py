"""Declarations of all events and of their fields, an interface of trimta: the log, `trimta tail`, tests, the README.

Code that emits an event, or waits for an event, uses a name declared here.  The type check holds the names, a test the
fields.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

EventName: TypeAlias = Literal[
    # a client
    "connect",
    "disconnect",
    "lost",
    "authenticated",
    "wrong_password",
    "client_fault",
    "rejected",
    "fault",
    # a message, or one recipient of it
    "accepted",
    "delivered",
    "deferred",
    "held",
    "bounced",
    "refused",
    "discarded",
    "dropped",
    "shortened",
    "delay_warning",
    "report",
    # the server
    "started",
    "worker_lost",
    "stopping",
    "stopped",
    "reloaded",
    "reload_failed",
    "needs_restart",
    "certificate_kept",
    "clock_set_back",
    "log_lines_lost",
    # trouble
    "damaged",
    "disk_trouble",
    "queue_trouble",
    "queue_lost",
    "folders_not_synced",
    "bug",
]

EVENTS: Final[dict[EventName, tuple[str, tuple[str, ...]]]] = {
    "connect": ("A client has connected", ("client",)),
    "disconnect": ("A session has ended", ("client", "messages")),
    "lost": ("A session has ended without QUIT", ("client", "reason")),
    "authenticated": ("AUTH succeeded", ("client", "user")),
    "wrong_password": ("AUTH failed", ("client", "user")),
    "client_fault": ("A client's mistake was tolerated", ("client", "id", "problem", "command", "line")),
    "rejected": ("A connection, a command or a message was refused", ("client", "sender", "to", "reply")),
    "fault": ("A scripted fault of `[[faults]]` struck", ("client", "stage")),
    "accepted": ("The server answers for a message", ("id", "sender", "to", "size", "client")),
    "delivered": (
        "A recipient's copy is in its Maildir, or with the next host",
        ("id", "to", "maildir", "host", "status", "reply"),
    ),
    "deferred": ("A recipient will be tried again", ("id", "to", "host", "status", "reply", "next_s")),
    "held": ("An envelope waits for the operator", ("id", "to", "reason")),
    "bounced": ("A recipient has failed for good", ("id", "to", "host", "status", "reply")),
    "refused": ("A copy could not be written, and the LMTP client keeps it", ("id", "to", "reply")),
    "discarded": ("A `discard` route has dropped a recipient", ("id", "to")),
    "dropped": ("A report could not be delivered to postmaster", ("id", "to", "reply")),
    "shortened": ("A report was refused, and a shorter one goes in its place", ("id", "about", "to", "reply")),
    "delay_warning": ("The sender is told that a message is late", ("id", "to")),
    "report": ("A DSN was composed", ("id", "about", "kind", "to", "status")),
    "started": ("The server takes connections", ("listening",)),
    "worker_lost": ("A worker process has died; another takes its place", ("pid", "reason", "sessions")),
    "stopping": ("The server ends what is under way", ("sessions", "deliveries")),
    "stopped": ("The server has ended", ()),
    "reloaded": ("The configuration was read again", ("file",)),
    "reload_failed": ("The configuration has a mistake, and the old one stays", ("reason",)),
    "needs_restart": ("A changed key takes effect at the next start", ("key",)),
    "certificate_kept": ("The new certificate can't be read, and the old one stays", ("reason",)),
    "clock_set_back": ("The machine's clock was set back, and waits were shortened", ("seconds", "envelopes")),
    "log_lines_lost": ("The reader of the log was too slow", ("count",)),
    "damaged": ("A damaged entry was taken out of the queue", ("id", "reason", "kept")),
    "disk_trouble": ("A message could not be read or stored", ("id", "reason")),
    "queue_trouble": ("The queue could not be read or written", ("id", "reason")),
    "queue_lost": ("The queue's database was deleted or emptied", ("reason", "kept")),
    "folders_not_synced": ("A file system can't sync its folders", ("folder", "reason")),
    "bug": ("An error inside the server", ("client", "id", "error")),
}
"""The meaning of each event, and the fields that it may have; fields without a value are left out."""

FIELDS: Final[dict[str, str]] = {
    "about": "id of the message that a report is about",
    "client": "address and port, `unix` for a unix socket; in `accepted` also user and HELO name",
    "command": "the line as the client sent it, without secrets",
    "count": "how many",
    "deliveries": "how many are under way",
    "envelopes": "how many",
    "error": "the traceback",
    "file": "path of the configuration",
    "folder": "path",
    "host": "name of the host that answered",
    "id": "of the message; of the envelope for a damaged one",
    "kept": "path, or paths, where what was found is kept",
    "key": "key of the configuration",
    "kind": "`failed`, `delayed`, `delivered`, `relayed` or `expanded`",
    "line": "number of the content's line",
    "listening": "addresses",
    "maildir": "path of the Maildir",
    "messages": "how many the client has sent",
    "next_s": "seconds until the next try",
    "problem": "what was wrong",
    "reason": "why, for people",
    "reply": "code, enhanced status and text of a reply, or the local cause",
    "seconds": "how many",
    "sender": "reverse-path in `<>`",
    "sessions": "how many are open",
    "size": "octets of the content, without the trace",
    "stage": "of `[[faults]]`",
    "pid": "process id",
    "status": "enhanced status code (RFC 3463); in `report` one for each recipient",
    "to": "a recipient's address; a list where it may be several",
    "user": "name that AUTH was given",
}
"""The content of each field.  In JSON numbers are numbers and lists are lists; the text log joins a list by commas."""


def as_markdown() -> str:
    """The tables of events and of fields in Markdown, as the README has them."""
    lines = ["| event | tells | fields |", "| --- | --- | --- |"]
    lines += [
        f"| `{name}` | {tells} | {', '.join(f'`{field}`' for field in fields)} |"
        for name, (tells, fields) in EVENTS.items()
    ]
    lines += ["", "| field | holds |", "| --- | --- |"]
    lines += [f"| `{field}` | {holds} |" for field, holds in FIELDS.items()]
    return "\n".join(lines)
