"""Graceful shutdown for tasks: idle waits end at once, work in progress at a deadline.  The server's `stop` starts it.

A shield against cancellation holds until the end of that time, and LAST_LIMIT longer: no disk that hangs keeps a server
from ending.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


LAST_LIMIT: Final = 0.5
"""Seconds that shielded work has beyond the end of the server's grace."""


class Drain:
    """Once started, every wait inside `interruptible()`, present or to come, is cancelled at once."""

    def __init__(self) -> None:
        self.started = False
        self._end = math.inf
        self._shields: set[trio.CancelScope] = set()
        self._waits: set[trio.CancelScope] = set()

    def start(self, end: float = math.inf) -> None:
        """Begin.  `end`: when the grace of work in progress is over, in Trio's time; a second call may bring it
        closer.
        """
        self._end = min(self._end, end)
        for scope in self._shields:
            scope.deadline = min(scope.deadline, self._end + LAST_LIMIT)
        self.started = True
        for scope in self._waits:
            scope.cancel()

    @contextmanager
    def interruptible(self, deadline: float = math.inf) -> Iterator[trio.CancelScope]:
        """A scope for one idle wait, until `deadline` at most; `scope.cancelled_caught` says whether it was cut short,
        by the drain if that has started.
        """
        with trio.CancelScope(deadline=deadline) as scope:
            if self.started:
                scope.cancel()
            self._waits.add(scope)
            try:
                yield scope
            finally:
                self._waits.discard(scope)

    @contextmanager
    def shielded(self, limit: float = math.inf) -> Iterator[trio.CancelScope]:
        """A scope for work whose result must be known, for `limit` seconds at most; `scope.cancelled_caught` says
        whether it took longer.
        """
        deadline = min(trio.current_time() + limit, self._end + LAST_LIMIT)
        with trio.CancelScope(shield=True, deadline=deadline) as scope:
            self._shields.add(scope)
            try:
                yield scope
            finally:
                self._shields.discard(scope)
