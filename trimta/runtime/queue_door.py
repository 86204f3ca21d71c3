"""The door to the queue: group commit.  What its `run` returns is committed and fsynced."""

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
"""Queue operations in one transaction: more would make the first of them wait for the last."""


class QueueDoor:
    """Operations on the queue, from many tasks: all that wait go into one transaction, with one thread and one fsync.

    `serve` must run, in a nursery that outlives all callers of `run`.
    """

    def __init__(self, queue: Queue, disk: Disk) -> None:
        self._batcher: Batcher[Callable[[Queue], object], object] = Batcher(disk, queue.run, lanes=1, size=BATCH)
        self.serve = self._batcher.serve

    async def run(
        self, operation: Callable[[Queue], T], *, undo: Callable[[Queue], object] | None = None, withdraw: bool = True
    ) -> T:
        """Run `operation` on the queue; when this returns, what it did is committed and fsynced.

        Raises what the operation raised; then nothing of it was kept.  Where the caller is cancelled, what has not
        begun is not done unless `withdraw` is false, and what has begun is done; `undo` follows it then, before any
        other operation.
        QueueUnavailable where nothing can be committed, as once `serve` has ended.
        """
        try:
            return cast("T", await self._batcher.run(operation, undo=undo, withdraw=withdraw))
        except NotDoneError as cause:
            raise QueueUnavailable(str(cause)) from cause


async def set_aside(queue: QueueDoor, events: Events, entry_id: str, reason: str) -> None:
    """Take a damaged entry out of the queue and log where it is kept.  `reason` is what is wrong with it."""
    aside = await queue.run(lambda queue: queue.repair.set_aside(entry_id, reason))
    if aside is not None:
        events.emit("damaged", id=aside.id, reason=aside.reason, kept=str(aside.path))
