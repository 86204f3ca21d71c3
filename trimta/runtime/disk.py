"""The disk: runs functions that block in threads, whose number is limited."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")

THREADS: Final = 8
"""Number of threads: enough for fsyncs to overlap.  Trio's default limiter would be shared with getaddrinfo, which may
hang for seconds.
"""


class Disk(Protocol):
    """Runs functions that block, so that the event loop does not wait for them."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread; returns what it returns and raises what it raises.

        A caller that is cancelled does not wait for a disk that hangs: the thread is abandoned.
        """

    async def run_or_leave(self, function: Callable[[A], T], argument: A, *, left: Callable[[], None]) -> T:
        """`run(function, argument)`; if the caller is cancelled, `left` cleans up behind the abandoned thread.

        `left` is called in a thread, once `function` has returned, or at once if it was not called yet.
        """

    def apart(self, threads: int) -> Disk:
        """A disk of the same kind with `threads` threads of its own, for work that must not delay other work."""


class ThreadDisk:
    """The disk of a server: `threads` threads at most."""

    def __init__(self, threads: int = THREADS) -> None:
        self._limiter = trio.CapacityLimiter(threads)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(
            lambda: function(*args, **kwargs), limiter=self._limiter, abandon_on_cancel=True
        )

    async def run_or_leave(self, function: Callable[[A], T], argument: A, *, left: Callable[[], None]) -> T:
        visit = _ThreadVisit(left)

        def work() -> T:
            if not visit.begin():
                raise RuntimeError("the caller was cancelled before the thread began")
            try:
                return function(argument)
            finally:
                visit.end()

        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        except trio.Cancelled:
            visit.leave()
            raise

    def apart(self, threads: int) -> ThreadDisk:
        return ThreadDisk(threads)


class _ThreadVisit:
    """One call in a thread, whose caller may be cancelled before it begins or ends.

    `left` is called once the caller was cancelled and the thread does not run the function, or no longer: by whichever
    of the two is last, and never on the event loop.
    """

    def __init__(self, left: Callable[[], None]) -> None:
        self._left = left
        self._lock = threading.Lock()
        self._is_inside = False
        self._caller_is_gone = False

    def begin(self) -> bool:
        """Called in the thread: whether the caller still waits, so that the function is to be called."""
        with self._lock:
            self._is_inside = not self._caller_is_gone
            return self._is_inside

    def end(self) -> None:
        """Called in the thread, when the function has returned."""
        with self._lock:
            self._is_inside = False
            is_last = self._caller_is_gone
        if is_last:
            self._left()

    def leave(self) -> None:
        """Called on the event loop, when the caller is cancelled."""
        with self._lock:
            self._caller_is_gone = True
            is_last = not self._is_inside
        if is_last:
            trio.lowlevel.start_thread_soon(self._left, lambda _: None)


class InlineDisk:
    """The disk of tests under MockClock: functions run in the event loop, since that clock waits for no thread."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args, **kwargs)

    async def run_or_leave(self, function: Callable[[A], T], argument: A, *, left: Callable[[], None]) -> T:
        return await self.run(function, argument)

    def apart(self, threads: int) -> InlineDisk:
        return self
