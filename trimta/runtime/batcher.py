"""Group commit: what many tasks want done at the same moment is done for all of them in one visit to a thread.

Every caller is answered, whatever happens: with its result, with the exception that is its result, or with
NotDoneError.  Waiting can be abandoned; what had not begun then is not done at all.
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
"""Seconds that a batch under way has once the batcher is cancelled: past them its thread is left alone with it."""


class NotDoneError(Exception):
    """The batch could not be done, or not be begun since the batcher has ended; the message says which."""


class NotAnsweredError(NotDoneError):
    """The batch was begun, and had no answer in time: its thread is left alone with it, and may still do it."""


class _Order(Generic[S, T]):
    """One caller's item, on its way to a result."""

    def __init__(self, item: S) -> None:
        self.item = item
        self.begun = False
        self.undo: S | None = None
        """What follows it, if it is done for nobody."""
        self.done = trio.Event()
        self.result: T | Exception


class Batcher(Generic[S, T]):
    """`work` is called with the items of a batch, `size` at most, and returns a result for each; an exception among the
    results is raised where its item came from.

    `serve` must run, in a nursery that outlives all callers of `run`: it has `lanes` tasks, each with one batch at a
    time, for `limit` seconds at most.  Past them its thread is left alone with it, and the lane is free.
    """

    def __init__(
        self,
        disk: Disk,
        work: Callable[[Sequence[S]], Sequence[T | Exception]],
        *,
        lanes: int,
        size: int,
        limit: float = math.inf,
    ) -> None:
        self._disk = disk
        self._work = work
        self._lanes = lanes
        self._size = size
        self._waiting: list[_Order[S, T]] = []
        self._idle = trio.lowlevel.ParkingLot()
        self._limit = limit
        self._under_way: set[trio.CancelScope] = set()
        self._ended = False
        self.left_alone = False
        """A thread was still at work when the batcher ended, and may be so yet."""

    async def run(self, item: S, *, undo: S | None = None, withdraw: bool = True) -> T:
        """Have one item done: its result, or what `work` gave as its exception; NotDoneError.

        Where the caller is cancelled, an item that has begun is done all the same; one that has not begun is withdrawn,
        unless `withdraw` is false.  `undo` is an item that follows then, first in the next batch, if `item` was done
        well for nobody.
        """
        if self._ended:
            raise NotDoneError("the server has ended")
        order = _Order[S, T](item)
        self._waiting.append(order)
        self._idle.unpark()
        try:
            await order.done.wait()
        except trio.Cancelled:
            order.undo = undo
            if withdraw and not order.begun:
                self._waiting.remove(order)
            raise
        if isinstance(order.result, NotDoneError):  # one for all of a batch: each raises its own
            raise type(order.result)(str(order.result)) from order.result.__cause__
        if isinstance(order.result, Exception):
            raise order.result
        return order.result

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled.  What is under way then has LAST_LIMIT; what waits is answered at once."""
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
            if not self._waiting:
                await self._idle.park()
                continue
            batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
            for order in batch:
                order.begun = True
            # Callers must learn what happened; `serve` brings the deadline closer.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._limit) as scope:
                self._under_way.add(scope)
                results = await self._do([order.item for order in batch])
            self._under_way.discard(scope)
            if scope.cancelled_caught:
                self.left_alone |= self._ended
                reason = "the server has ended, and the disk" if self._ended else "the disk"
                results = [NotAnsweredError(f"{reason} has not answered")] * len(batch)
            _answer(batch, results)
            self._waiting[:0] = [
                _Order(order.undo)
                for order, result in zip(batch, results, strict=True)
                if order.undo is not None and not isinstance(result, Exception)
            ]

    async def _do(self, items: Sequence[S]) -> Sequence[T | Exception]:
        try:
            results = await self._disk.run(self._work, items)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for each of the items
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
