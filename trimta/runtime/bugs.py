"""Bugs: exceptions that no code expected.  Each is logged, and ends one session or delivery, not the server."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trimta.runtime.events import Events

REMEMBERED: Final = 100
"""Number of bugs that are kept in memory, the latest; the log has them all."""


class Bugs:
    """The bugs of sessions and deliveries since the start."""

    def __init__(self, events: Events) -> None:
        self.latest: list[Exception] = []
        """Oldest first."""
        self._events = events

    def remember(self, bug: Exception) -> None:
        """Keep a bug that has been logged."""
        self.latest.append(bug)
        del self.latest[:-REMEMBERED]

    def note(self, bug: Exception, **fields: str) -> None:
        """Log an exception with its traceback, as event `bug`; `fields` name the client or message it happened to."""
        self.remember(bug)
        self._events.emit("bug", **fields, error="".join(traceback.format_exception(bug)))
