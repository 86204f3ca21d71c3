"""Writes copies into Maildirs, in threads of its own: a Maildir that hangs holds up its own mail and no other.

The copies of many messages are written in one visit to a thread, and each folder is synced once for all.  Where a visit
takes too long each copy is tried alone, and a Maildir that does not answer then is left alone until it does: what is
for it fails at once.  A copy that is given up is withdrawn: it does not become visible later, unless becoming visible
is just what hangs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from trimta.runtime.batcher import Batcher, NotAnsweredError, NotDoneError
from trimta.store import maildir
from trimta.store.maildir import MaildirError, Pending
from trimta.store.queue.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trimta.runtime.disk import Disk
    from trimta.store.maildir import Delivery

LANES: Final = 3
"""Batches of copies that are written at once: a Maildir that hangs has two others beside it."""

BATCH: Final = 64
"""Messages in one batch of copies: more would make the first of them wait for the last."""

THREADS: Final = 8
"""For batches, and as many for copies alone: those that hang keep theirs."""

BATCH_LIMIT: Final = 20.0
"""Seconds for a batch: past it one of its Maildirs hangs."""
SPOOLED_LIMIT: Final = 40.0
"""Seconds for the copies of a message that is in a file, and may be large."""
ALONE_LIMIT: Final = 10.0
"""Seconds for one copy after that.  All of it leaves time to tell the client before `session.ACKNOWLEDGE_LIMIT`."""
DELIVER_LIMIT: Final = 50.0
"""Seconds for one copy out of the queue, for which no client waits."""


@dataclass(slots=True, eq=False)
class Writing:
    """The copies of one message."""

    deliveries: Sequence[Delivery]
    at_once: bool
    """If all of them can be written, they become visible as well."""
    withdrawn: bool = False
    """Nobody waits for it any more: it is not to become visible.  Read in a thread."""


Written: TypeAlias = "Sequence[Pending | Path | MaildirError]"


class _Hang:
    """A visit to a Maildir whose caller has gone."""

    def __init__(self) -> None:
        self.over = False

    def end(self) -> None:
        self.over = True


class Maildirs:
    """All Maildirs of a server.  `serve` must run, in a nursery that outlives all callers."""

    def __init__(self, disk: Disk) -> None:
        self.batches, self.alone = disk.apart(THREADS), disk.apart(THREADS)
        self._batcher: Batcher[Writing, Written] = Batcher(
            self.batches, write_all, lanes=LANES, size=BATCH, limit=BATCH_LIMIT
        )
        self._hanging: dict[Path, _Hang] = {}
        self.serve = self._batcher.serve

    async def write(self, deliveries: Sequence[Delivery], *, at_once: bool) -> Written:
        """Write the copies of a message in tmp/; `at_once`, if that went well, make them visible too.  QueueUnavailable
        if there is no thread to be had.
        """
        if not deliveries:
            return []
        if not any(self._hangs(delivery.maildir) for delivery in deliveries):
            written = await self._write_together(Writing(deliveries, at_once))
            if written is not None:
                return written
        results: dict[int, Pending | Path | MaildirError] = {}

        async def write_one(number: int, delivery: Delivery) -> None:
            results[number] = await self._write_alone(Writing([delivery], at_once=False), ALONE_LIMIT)

        async with trio.open_nursery() as nursery:
            for number, delivery in enumerate(deliveries):
                nursery.start_soon(write_one, number, delivery)
        return [results[number] for number in range(len(deliveries))]

    async def deliver(self, delivery: Delivery) -> None:
        """Write one copy and make it visible.  MaildirError if that can't be done, or takes too long."""
        result = await self._write_alone(Writing([delivery], at_once=True), DELIVER_LIMIT)
        if isinstance(result, MaildirError):
            raise result

    async def commit(self, pending: Sequence[Pending]) -> list[Path | MaildirError]:
        """Make visible what was written in tmp/."""
        return await self.alone.run(maildir.commit_all, pending)

    async def discard(self, pending: Sequence[Pending]) -> None:
        """Remove it from tmp/."""
        await self.alone.run(maildir.discard_all, pending)

    def _hangs(self, path: Path) -> bool:
        hang = self._hanging.get(path)
        if hang is not None and hang.over:
            del self._hanging[path]
        return hang is not None and not hang.over

    async def _write_together(self, writing: Writing) -> Written | None:
        """None if that takes too long."""
        try:
            if writing.deliveries[0].body.in_memory:
                return await self._batcher.run(writing)
            with trio.move_on_after(SPOOLED_LIMIT):  # it takes its time, and nobody else is to wait for it
                (written,) = await self.alone.run(write_all, [writing])
                return written
        except NotAnsweredError:
            pass
        except NotDoneError as cause:
            raise QueueUnavailable(str(cause)) from cause
        except trio.Cancelled:
            writing.withdrawn = True
            raise
        writing.withdrawn = True
        return None

    async def _write_alone(self, writing: Writing, limit: float) -> Pending | Path | MaildirError:
        (delivery,) = writing.deliveries
        path = delivery.maildir
        if self._hangs(path):
            return MaildirError(f"cannot write {path}: it has not answered for a while")
        hang = _Hang()
        with trio.move_on_after(limit) as scope:
            try:
                ((result,),) = await self.alone.run_or_leave(write_all, [writing], left=hang.end)
            except trio.Cancelled:
                writing.withdrawn = True
                raise
        if scope.cancelled_caught:
            self._hanging[path] = hang
            return MaildirError(f"cannot write {path}: no answer within {limit:g} s")
        return result


def write_all(writings: Sequence[Writing]) -> Sequence[Written]:
    """Write the copies of several messages, in a thread.  Folders that they share are synced once."""
    written: list[Written] = []
    done: list[tuple[int, list[Pending]]] = []
    for number, writing in enumerate(writings):
        prepared = maildir.prepare_all([] if writing.withdrawn else writing.deliveries)
        pending = [one for one in prepared if isinstance(one, Pending)]
        written.append(prepared)
        if writing.withdrawn:
            maildir.discard_all(pending)
        elif writing.at_once and len(pending) == len(prepared):
            done.append((number, pending))
    for number, pending in done:
        if writings[number].withdrawn:  # while those behind it were written
            maildir.discard_all(pending)
    done = [(number, pending) for number, pending in done if not writings[number].withdrawn]
    committed = iter(maildir.commit_all([one for _, pending in done for one in pending]))
    for number, pending in done:
        written[number] = list(islice(committed, len(pending)))
    return written
