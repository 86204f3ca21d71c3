"""Interrupts idle waits at shutdown: work in progress goes on, waiting for more of it does not."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class Drain:
    """Once started, every wait inside `interruptible()`, present or to come, is cancelled at once."""

    def __init__(self) -> None:
        self.started = False
        self._waits: set[trio.CancelScope] = set()

    def start(self) -> None:
        """Begin; doing it twice changes nothing."""
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
