"""The log writer, which writes events to a stream as lines, in a task of its own: a slow reader never delays mail."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TextIO

import trio

from trimta.runtime.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable

MOMENT: Final = 0.02
"""Seconds that lines wait for more lines: too short to be noticed, and one thread writes many lines at once."""


class LogWriter:
    """Writes events to `stream`, each as the line that `formatted` makes of it; subscribe it to `Events`.

    At most `BACKLOG` events wait.  Events beyond that are counted, and event `log_lines_lost` tells their number once
    there is room again.
    """

    BACKLOG: Final = 10_000

    def __init__(self, stream: TextIO, formatted: Callable[[Event], str]) -> None:
        self._stream = stream
        self._formatted = formatted
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._work = trio.Event()
        self._limiter = trio.CapacityLimiter(1)

    def __call__(self, event: Event) -> None:
        if len(self._events) >= self.BACKLOG:
            self._dropped += 1
            return
        self._events.append(event)
        self._work.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write lines until cancelled, then those that still wait, for a second at most."""
        task_status.started()
        try:
            while True:
                await self._work.wait()
                await trio.sleep(MOMENT)
                await self._flush()
        finally:
            with trio.move_on_after(1, shield=True):
                await self._flush()

    async def _flush(self) -> None:
        self._work = trio.Event()
        if self._dropped:
            self._events.append(Event("log_lines_lost", {"count": self._dropped}))
            self._dropped = 0
        await trio.to_thread.run_sync(self._write, abandon_on_cancel=True, limiter=self._limiter)

    def _write(self) -> None:
        """Write all events that wait; called in a thread.

        The thread takes the events out itself: a task that is cancelled before the thread begins has lost none.
        """
        lines = [self._formatted(self._events.popleft()) + "\n" for _ in range(len(self._events))]
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):  # the reader is gone, or the stream was closed: no place is left to say so
            return
