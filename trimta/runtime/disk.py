"""The disk: runs all blocking calls in threads, limited in number."""

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
"""Enough for fsyncs to overlap; Trio's default limiter is shared with getaddrinfo, which may hang for seconds."""


class Disk(Protocol):
    """Runs blocking functions."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` where it may block; what it raises is raised here.

        A cancelled caller does not wait for a disk that hangs: the thread is left alone with it.
        """

    async def run_or_leave(self, function: Callable[[A], T], argument: A, *, left: Callable[[], None]) -> T:
        """The same; once both the caller is cancelled and the thread has ended, `left` is called, in a thread."""

    def apart(self, threads: int) -> Disk:
        """The same, with so many threads of its own: for work that must not hold up this one."""


class ThreadDisk:
    """Blocking work in threads."""

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
                raise RuntimeError("the caller is gone, and so is nobody to hear this")
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
    """A thread's visit to the disk, whose caller may go before it begins or ends: once both are gone, `left` is called,
    and never on the event loop.
    """

    def __init__(self, left: Callable[[], None]) -> None:
        self._left = left
        self._lock = threading.Lock()
        self._is_inside = False
        self._caller_is_gone = False

    def begin(self) -> bool:
        """In the thread: whether there is anybody for whom to do it."""
        with self._lock:
            self._is_inside = not self._caller_is_gone
            return self._is_inside

    def end(self) -> None:
        """In the thread."""
        with self._lock:
            self._is_inside = False
            is_last = self._caller_is_gone
        if is_last:
            self._left()

    def leave(self) -> None:
        """The caller goes."""
        with self._lock:
            self._caller_is_gone = True
            is_last = not self._is_inside
        if is_last:
            trio.lowlevel.start_thread_soon(self._left, lambda _: None)


class InlineDisk:
    """Blocking work right here: for tests under MockClock, which takes a task that waits for a thread for idle."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args, **kwargs)

    async def run_or_leave(self, function: Callable[[A], T], argument: A, *, left: Callable[[], None]) -> T:
        return await self.run(function, argument)

    def apart(self, threads: int) -> InlineDisk:
        return self
