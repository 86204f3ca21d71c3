"""The names of all events: whoever emits one or waits for one names one of these, and the type check sees to it."""

from __future__ import annotations

from typing import Literal, TypeAlias

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
    "stopping",
    "stopped",
    "reloaded",
    "reload_failed",
    "needs_restart",
    "clock_set_back",
    "log_lines_lost",
    # trouble
    "damaged",
    "disk_trouble",
    "queue_trouble",
    "queue_lost",
    "certificate_kept",
    "folders_not_synced",
    "bug",
]
