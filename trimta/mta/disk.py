"""The one door to blocking work: threads with a limiter of their own, and the queue's group commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, ParamSpec, Protocol, TypeVar

import trio

from trimta.store.queue_values import QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.store.queue import Queue

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

THREADS: Final = 8
"""Enough for fsyncs to overlap; Trio's default limiter is shared with getaddrinfo, which may hang for seconds."""

LANES: Final = 3
"""Lists that are worked on at once: a Maildir that hangs has two others beside it."""

BATCH: Final = 256
"""Queue operations in one transaction: more would make the first of them wait for the last."""


class Disk(Protocol):
    """Runs blocking functions."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` where it may block; what it raises is raised here.  Not cancelled once it runs."""

    def apart(self, threads: int) -> Disk:
        """The same, with so many threads of its own: for work that must not hold up this one."""


class ThreadDisk:
    """Blocking work in threads."""

    def __init__(self, threads: int = THREADS) -> None:
        self._limiter = trio.CapacityLimiter(threads)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await trio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=self._limiter)

    def apart(self, threads: int) -> ThreadDisk:
        return ThreadDisk(threads)


class InlineDisk:
    """Blocking work right here: for tests under MockClock, which takes a task that waits for a thread for idle."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args, **kwargs)

    def apart(self, threads: int) -> InlineDisk:
        return self


ENDED: Final = "the server has ended"


class Gathering(Generic[S, T]):
    """One hop to a thread for all that want the same done: threads are many, and share one interpreter.

    `work` answers for each of a list of items.  What comes while `LANES` lists are being worked on waits, and is the
    next list.
    """

    def __init__(self, disk: Disk, work: Callable[[Sequence[S]], Sequence[T]]) -> None:
        self._disk = disk
        self._work = work
        self._waiting: list[_Item[S, T]] = []
        self._free = LANES

    async def run(self, item: S) -> T:
        """Have it done.  It is not cancelled: others depend on it."""
        one = _Item[S, T](item)
        self._waiting.append(one)
        with trio.CancelScope(shield=True):  # bounded by the disk: a thread can't be cancelled anyway
            if self._free:
                self._free -= 1
            else:
                await one.called.wait()
            if not one.done:
                await self._work_on_all()
        if one.error is not None:
            raise one.error
        return one.answer

    async def _work_on_all(self) -> None:
        items, self._waiting = self._waiting, []
        try:
            answers = await self._disk.run(self._work, [one.item for one in items])
        except Exception as error:  # noqa: BLE001 - each of them raises it
            for one in items:
                one.error = error
        else:
            for one, answer in zip(items, answers, strict=True):
                one.answer = answer
        for one in items:
            one.done = True
            one.called.set()
        if self._waiting:
            self._waiting[0].called.set()  # who has waited the longest takes over this lane
        else:
            self._free += 1


class _Item(Generic[S, T]):
    def __init__(self, item: S) -> None:
        self.item = item
        self.called = trio.Event()
        """It is done, or it is to do what waits."""
        self.done = False
        self.answer: T
        self.error: Exception | None = None


class _Order(Generic[T]):
    """One queue operation on its way to the next commit."""

    def __init__(self, operation: Callable[[Queue], T]) -> None:
        self.operation = operation
        self.done = trio.Event()
        self.result: T | Exception


class QueueDoor:
    """Group commit: everything that waits goes into one transaction, with one thread hop and one fsync.

    `serve` must run, in a nursery that outlives all callers of `run`.
    """

    def __init__(self, queue: Queue, disk: Disk) -> None:
        self._queue = queue
        self._disk = disk
        self._waiting: list[_Order[object]] = []
        self._work = trio.Event()
        self._ended = False

    async def run(self, operation: Callable[[Queue], T]) -> T:
        """Run `operation` on the queue; when this returns, what it did is committed and fsynced.

        Raises what the operation raised; then nothing of it was kept.  A cancelled caller does not undo it.  QueueFull
        once `serve` has ended.
        """
        if self._ended:
            raise QueueFull(ENDED)
        order = _Order(operation)
        self._waiting.append(order)  # type: ignore[arg-type]
        self._work.set()
        await order.done.wait()
        if isinstance(order.result, Exception):
            raise order.result
        return order.result

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit until cancelled."""
        task_status.started()
        try:
            while True:
                await self._work.wait()
                await self._commit()
        finally:  # all of the server may be cancelled at once: nobody behind a shield is to wait for us
            self._ended = True
            for order in self._waiting:
                order.result = QueueFull(ENDED)
                order.done.set()

    async def _commit(self) -> None:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        if not self._waiting:
            self._work = trio.Event()
        with trio.CancelScope(shield=True):  # bounded by SQLite's busy timeout: callers must learn what happened
            results = await self._disk.run(self._queue.run, [order.operation for order in batch])
        for order, result in zip(batch, results, strict=True):
            order.result = result
            order.done.set()
