"""Bugs: exceptions that only a programmer can answer.  Each is logged, and the server goes on without its task."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trimta.runtime.events import Events

REMEMBERED: Final = 100
"""Bugs that are kept; older ones are in the log alone."""


class Bugs:
    """Notes exceptions at the door of a session or of a delivery."""

    def __init__(self, events: Events) -> None:
        self.latest: list[Exception] = []
        """The latest last."""
        self._events = events

    def note(self, bug: Exception, **fields: str) -> None:
        """Log an exception with its traceback; `fields` say what it happened to."""
        self.latest.append(bug)
        del self.latest[:-REMEMBERED]
        self._events.emit("bug", **fields, error="".join(traceback.format_exception(bug)))
