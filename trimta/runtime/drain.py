"""Graceful shutdown: idle waits end at once, work in progress has until a deadline.  The server's `stop` starts it.

Work under a shield has LAST_LIMIT seconds more, so that a disk that hangs can't keep a server from ending.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from types import TracebackType


LAST_LIMIT: Final = 0.5
"""Seconds that shielded work has after the deadline of the shutdown (`timeouts.shutdown`)."""


class Drain:
    """The shutdown as tasks see it: once started, every wait inside `interruptible()`, now or later, is cancelled."""

    def __init__(self) -> None:
        self.started = False
        self._end = math.inf
        self._shields: set[trio.CancelScope] = set()
        self._waits: set[trio.CancelScope] = set()

    def start(self, end: float = math.inf) -> None:
        """Begin the shutdown.

        `end` is the deadline of work in progress, on Trio's clock; a second call may only bring it forward.
        """
        self._end = min(self._end, end)
        for scope in self._shields:
            scope.deadline = min(scope.deadline, self._end + LAST_LIMIT)
        self.started = True
        for scope in self._waits:
            scope.cancel()

    def interruptible(self, deadline: float = math.inf) -> KnownScope:
        """A cancel scope for one idle wait, which the shutdown ends, and `deadline` (Trio's clock) if that is sooner.

        `scope.cancelled_caught` tells afterwards whether the wait was cut short; `started` tells by what.
        """
        scope = trio.CancelScope(deadline=deadline)
        if self.started:
            scope.cancel()
        return KnownScope(scope, self._waits)

    def shielded(self, limit: float = math.inf) -> KnownScope:
        """A shielded cancel scope for work whose result must be known, for `limit` seconds at most.

        `scope.cancelled_caught` tells afterwards whether the work took longer and was cancelled.
        """
        deadline = min(trio.current_time() + limit, self._end + LAST_LIMIT)
        return KnownScope(trio.CancelScope(shield=True, deadline=deadline), self._shields)


class KnownScope:
    """A context manager for a cancel scope, which the drain knows while it is entered."""

    __slots__ = ("_known", "_scope")

    def __init__(self, scope: trio.CancelScope, known: set[trio.CancelScope]) -> None:
        self._scope = scope
        self._known = known

    def __enter__(self) -> trio.CancelScope:
        self._known.add(self._scope)
        return self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._known.discard(self._scope)
        return self._scope.__exit__(kind, error, traceback)
