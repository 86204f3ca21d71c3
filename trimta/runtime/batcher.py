"""A batcher collects items that many tasks hand in at the same moment, and has one call in a thread work on them.

Every caller gets an answer, whatever happens: the result of its item, the exception that is its result, or
NotDoneError.  A caller may be cancelled while it waits; an item that was not begun by then is withdrawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.runtime.disk import Disk

S = TypeVar("S")
T = TypeVar("T")

LAST_LIMIT: Final = 0.5
"""Seconds that a batch under way still has once the batcher is cancelled; after them its thread is abandoned."""


class NotDoneError(Exception):
    """The item was not done: its batch failed, or the batcher has ended; the message says which."""


class NotAnsweredError(NotDoneError):
    """The item's batch has taken too long: its thread was abandoned, and may still finish the batch."""


class _Order(Generic[S, T]):
    """The item of one caller, and the result that the caller waits for."""

    def __init__(self, item: S) -> None:
        self.item = item
        self.begun = False
        self.undo: S | None = None
        """The item that undoes this one; set when the caller was cancelled, done if this item succeeds nevertheless."""
        self.done = trio.Event()
        self.result: T | Exception


class Batcher(Generic[S, T]):
    """Gathers items into batches and works on each batch in a thread.

    `work` takes the items of a batch, `size` at most, and returns a result for each, in order; a result that is an
    exception is raised in the task that handed the item in.  `serve` must run in a nursery that outlives all callers of
    `run`.  It has `lanes` tasks, each of which works on one batch at a time, for `limit` seconds at most; after them
    the thread is abandoned and the lane takes the next batch.

    Items that come while a lane is at work gather for it, since one large batch costs less than many small ones.
    Another lane takes them where they fill a batch, or once the latest batch has taken `patience` seconds.

    A lane that has just ended a batch of several items begins the next one when as many wait again, `pause` seconds
    later at the latest: those who were answered hand in their next items soon, and fewer batches cost less.
    """

    def __init__(
        self,
        disk: Disk,
        work: Callable[[Sequence[S]], Sequence[T | Exception]],
        *,
        lanes: int,
        size: int,
        limit: float = math.inf,
        patience: float = 0.0,
        pause: float = 0.0,
    ) -> None:
        self._disk = disk
        self._work = work
        self._lanes = lanes
        self._size = size
        self._waiting: list[_Order[S, T]] = []
        self._idle = trio.lowlevel.ParkingLot()
        self._limit = limit
        self._patience = patience
        self._pause = pause
        self._latest_size = 0
        self._pause_ends = -math.inf
        """Trio's time until which items may gather after the latest batch."""
        self._gathered = trio.Event()
        """Set when as many items wait as the latest batch had."""
        self._latest_start = -math.inf
        """Trio's time at which the latest batch was begun."""
        self._is_watched = False
        """Whether an idle lane waits for the end of the patience with the latest batch."""
        self._under_way: set[trio.CancelScope] = set()
        self._ended = False
        self.left_alone = False
        """Whether a thread was still at work when the batcher ended."""

    async def run(self, item: S, *, undo: S | None = None, withdraw: bool = True) -> T:
        """Have `item` done in the next batch and return its result.

        Raises the exception that `work` gave as the result, NotDoneError, or NotAnsweredError.  If the caller is
        cancelled, an item that was not begun is withdrawn, unless `withdraw` is false; any other item is done all the
        same.  If it succeeds, `undo` follows, as the first item of the next batch.
        """
        if self._ended:
            raise NotDoneError("the server has ended")
        order: _Order[S, T] = _Order(item)
        self._waiting.append(order)
        if len(self._waiting) == self._latest_size:
            self._gathered.set()
        if not (self._is_watched and self._is_early()):
            self._idle.unpark()
        try:
            await order.done.wait()
        except trio.Cancelled:
            order.undo = undo
            if withdraw and not order.begun:
                self._waiting.remove(order)
            raise
        if isinstance(order.result, NotDoneError):  # the callers of a batch share it, and an exception is raised once
            raise type(order.result)(str(order.result)) from order.result.__cause__
        if isinstance(order.result, Exception):
            raise order.result
        return order.result

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work on batches until cancelled; then answer every caller.

        Batches under way have LAST_LIMIT seconds to end.  Items that wait get NotDoneError at once.
        """
        async with trio.open_nursery() as lanes:
            for _ in range(self._lanes):
                lanes.start_soon(self._lane)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._ended = True
                deadline = trio.current_time() + LAST_LIMIT
                for scope in self._under_way:
                    scope.deadline = min(scope.deadline, deadline)
                waiting, self._waiting = self._waiting, []
                _answer(waiting, [NotDoneError("the server has ended")] * len(waiting))

    async def _lane(self) -> None:
        while not self._ended:
            if not self._waiting or (self._is_watched and self._is_early()):
                await self._idle.park()
                continue
            if self._is_early():
                await self._watch()
                continue
            if len(self._waiting) < self._latest_size and trio.current_time() < self._pause_ends:
                await self._gather()
                continue
            self._latest_start = trio.current_time()
            batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            for order in batch:
                order.begun = True
            # Cancelled here, the callers would never learn what became of their items.  `serve` shortens the deadline.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._limit) as scope:
                self._under_way.add(scope)
                results = await self._do([order.item for order in batch])
            self._under_way.discard(scope)
            if scope.cancelled_caught:
                self.left_alone |= self._ended
                reason = "the server has ended, and the disk" if self._ended else "the disk"
                results = [NotAnsweredError(f"{reason} has not answered")] * len(batch)
            self._latest_size = len(batch)
            self._pause_ends = trio.current_time() + self._pause
            _answer(batch, results)
            self._waiting[:0] = [
                _Order(order.undo)
                for order, result in zip(batch, results, strict=True)
                if order.undo is not None and not isinstance(result, Exception)
            ]
            # Callers that were just answered run in the first of these, with the lane, before it or after it: what they
            # hand in next is done together with what waits already.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    def _is_early(self) -> bool:
        """Whether what waits is left to a lane that is at work."""
        return (
            bool(self._under_way)
            and len(self._waiting) < self._size
            and trio.current_time() < self._latest_start + self._patience
        )

    async def _watch(self) -> None:
        """Wait until the patience with the latest batch has ended."""
        self._is_watched = True
        try:
            await trio.sleep_until(self._latest_start + self._patience)
        finally:
            self._is_watched = False

    async def _gather(self) -> None:
        """Wait until as many items wait as the latest batch had, or the pause after it has ended."""
        self._gathered = trio.Event()
        with trio.move_on_at(self._pause_ends):
            await self._gathered.wait()

    async def _do(self, items: Sequence[S]) -> Sequence[T | Exception]:
        try:
            results = await self._disk.run(self._work, items)
        except Exception as error:  # noqa: BLE001 - whatever it is, each caller of the batch must be answered
            failure = NotDoneError(str(error) or type(error).__name__)
            failure.__cause__ = error
            return [failure] * len(items)
        if len(results) != len(items):
            return [NotDoneError(f"{len(results)} results for {len(items)} items")] * len(items)
        return results


def _answer(orders: Sequence[_Order[S, T]], results: Sequence[T | Exception]) -> None:
    for order, result in zip(orders, results, strict=True):
        order.result = result
        order.done.set()
