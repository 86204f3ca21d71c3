"""Group commit, built on `batcher`: operations on the queue by many tasks share one transaction and one fsync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar, cast

from trimta.runtime.batcher import Batcher, NotDoneError
from trimta.store.queue.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from trimta.runtime.disk import Disk
    from trimta.runtime.events import Events
    from trimta.store.queue.queue import Queue

T = TypeVar("T")

BATCH: Final = 256
"""Operations in one transaction, at most: the caller of the first waits until the last is done."""


PAUSE: Final = 0.002
"""Seconds for which operations gather after a commit of several, at most: a commit costs more than an operation."""


class GroupCommit:
    """Runs operations on the queue for many tasks: all that wait go into one transaction, in one thread, with one
    fsync.

    `serve` must run in a nursery that outlives all callers of `run`.
    """

    def __init__(self, queue: Queue, disk: Disk) -> None:
        self._batcher: Batcher[Callable[[Queue], object], object] = Batcher(
            disk, queue.run, lanes=1, size=BATCH, pause=PAUSE
        )
        self.serve = self._batcher.serve

    async def run(
        self, operation: Callable[[Queue], T], *, undo: Callable[[Queue], object] | None = None, withdraw: bool = True
    ) -> T:
        """Run `operation` on the queue and return its result; its changes are then committed and fsynced.

        Raises what the operation raises, and then keeps none of its changes; QueueUnavailable if nothing can be
        committed, or `serve` has ended.  If the caller is cancelled, an operation that was not begun is withdrawn,
        unless `withdraw` is false; any other is done, and `undo` follows it, before other operations.
        """
        try:
            return cast("T", await self._batcher.run(operation, undo=undo, withdraw=withdraw))
        except NotDoneError as cause:
            raise QueueUnavailable(str(cause)) from cause


async def set_aside(queue: GroupCommit, events: Events, entry_id: str, reason: str) -> None:
    """Take a damaged entry out of the queue and announce where it is kept (event `damaged`); `reason` is the damage."""
    aside = await queue.run(lambda queue: queue.repair.set_aside(entry_id, reason))
    if aside is not None:
        events.emit("damaged", id=aside.id, reason=aside.reason, kept=str(aside.path))
