"""The transport into Maildirs, for messages that are being accepted and for envelopes out of the queue.

Copies are written in threads of their own: a Maildir that hangs holds up its own mail and no other.  The copies of many
messages are written in one visit to a thread, and each folder is synced once for all.  Where a visit takes too long,
each copy is tried alone, and a Maildir that does not answer then is left alone until it does: copies for it fail at
once.  A copy that was given up is withdrawn: it does not become visible later, unless its rename is just what hangs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from trimta.content.trace import delivered_to_field, return_path_field, x_original_to_field
from trimta.mail.outcome import Deferred, Delivered, Handover, LocalCause
from trimta.mail.status import DELIVERED, MAILBOX_TROUBLE
from trimta.routing.destination import LocalDestination
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import MaildirRoute
from trimta.runtime.batcher import Batcher, NotAnsweredError, NotDoneError
from trimta.store import maildir
from trimta.store.maildir import Delivery, MaildirError, Pending
from trimta.store.queue.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimta.mail.address import Mailbox
    from trimta.mail.envelope import Recipient
    from trimta.mail.outcome import Outcome
    from trimta.routing.destination import RoutedEnvelope
    from trimta.runtime.disk import Disk
    from trimta.runtime.drain import Drain
    from trimta.store.queue.values import StoredMessage

LANES: Final = 3
"""Batches of copies that are written at once: a Maildir that hangs leaves two others."""

BATCH: Final = 64
"""Messages in one batch of copies: more would make the first of them wait for the last."""

PATIENCE: Final = 0.01
"""Seconds that a batch has before another is begun beside it: a disk that answers promptly takes no longer."""

THREADS: Final = 8
"""Threads for batches, and as many for copies alone: a copy that hangs keeps its thread."""

BATCH_LIMIT: Final = 20.0
"""Seconds for a batch: past it one of its Maildirs hangs."""
SPOOLED_LIMIT: Final = 40.0
"""Seconds for the copies of a message that is in a file, and may be large."""
ALONE_LIMIT: Final = 10.0
"""Seconds for one copy after that.  The sum leaves time to tell the client before `transaction.ACKNOWLEDGE_LIMIT`."""
DELIVER_LIMIT: Final = 50.0
"""Seconds for one copy out of the queue, for which no client waits."""


# Copies.


@dataclass(frozen=True, slots=True)
class Copy:
    """One file that a message becomes in a Maildir."""

    envelope: RoutedEnvelope
    """With the recipients that the file is for."""
    delivery: Delivery

    def outcomes(self, error: MaildirError | None) -> list[Delivered | Deferred]:
        """The outcome of each recipient, in order: deferred for `error`, if there was one, else delivered."""
        if error is None:
            path = self.delivery.maildir
            cause = LocalCause(f"delivered to {path}")
            return [
                Delivered(recipient=recipient, status=DELIVERED, cause=cause, handover=Handover.FINAL, maildir=path)
                for recipient in self.envelope.recipients
            ]
        cause = LocalCause(str(error))
        return [
            Deferred(recipient=recipient, status=MAILBOX_TROUBLE.transient, cause=cause)
            for recipient in self.envelope.recipients
        ]


def copies_of(message: StoredMessage, envelope: RoutedEnvelope) -> list[Copy]:
    """The files that a message becomes at a destination.

    In a local mailbox there is one for each recipient; in the Maildir of a route one for all recipients, with a
    Delivered-To field for each, so that a Bcc shows.
    """
    match envelope.destination:
        case LocalDestination(mailbox=mailbox, maildir=folder):
            return [
                Copy(
                    envelope if len(envelope.recipients) == 1 else replace(envelope, recipients=(recipient,)),
                    Delivery(folder, _head(message, [(recipient, mailbox.address)]), message.content),
                )
                for recipient in envelope.recipients
            ]
        case MatchedRoute(route=MaildirRoute() as route):
            addresses = [(recipient, recipient.address) for recipient in envelope.recipients]
            folder = Path(route.path(envelope.domain))
            return [Copy(envelope, Delivery(folder, _head(message, addresses), message.content))]
        case other:
            raise AssertionError(f"{other} has no Maildir")


def _head(message: StoredMessage, delivered: Sequence[tuple[Recipient, Mailbox]]) -> bytes:
    """The fields on top of a copy for these recipients, each with the address that it is delivered to."""
    # Members of one list share the address of the list.
    originals = dict.fromkeys(
        x_original_to_field(recipient.original)
        for recipient, address in delivered
        if str(recipient.original) != str(address)
    )
    addresses = [delivered_to_field(address) for _, address in delivered]
    return b"".join((return_path_field(message.terms.reverse_path), *originals, *addresses, message.trace))


# The deliverer.


@dataclass(slots=True, eq=False)
class Writing:
    """The copies of one message while they are written."""

    deliveries: Sequence[Delivery]
    at_once: bool
    """If all of them can be written, they become visible as well."""
    withdrawn: bool = False
    """The caller has gone, so that the copies are not to become visible.  Read in a thread."""


Written: TypeAlias = "Pending | Path | MaildirError"
"""The result for one copy: it is in tmp/, it is visible, or it could not be written."""


class WrittenCopies:
    """The copies of a message that is being accepted: in tmp/, or visible, as far as they could be written.

    `commit` makes those in tmp/ visible; else `discard` removes them.
    """

    def __init__(self, copies: Sequence[Copy], written: Sequence[Written], disk: Disk) -> None:
        self._disk = disk
        self._pending = [result for result in written if isinstance(result, Pending)]
        self.outcomes: list[tuple[Copy, list[Delivered | Deferred]]] = [
            (copy, copy.outcomes(result if isinstance(result, MaildirError) else None))
            for copy, result in zip(copies, written, strict=True)
        ]
        """Each copy, with an outcome for each of its recipients, which holds once all copies are visible."""

    async def commit(self) -> None:
        """Make the copies in tmp/ visible.  MaildirError if one of them can't be: others may be visible then.

        A call that is cancelled may leave copies in tmp/, or make them visible later, where the rename hangs.
        """
        if not self._pending:
            return
        results = await self._disk.run(maildir.commit_all, self._pending)
        for result in results:
            if isinstance(result, MaildirError):
                raise result
        self._pending = []

    async def discard(self) -> None:
        """Remove the copies that are in tmp/.  Copies that have become visible stay."""
        if self._pending:
            await self._disk.run(maildir.discard_all, self._pending)


class _Visit:
    """A visit to a Maildir whose caller has gone."""

    def __init__(self) -> None:
        self.is_over = False

    def end(self) -> None:
        self.is_over = True


class Maildirs:
    """All Maildirs of a server.  `serve` must run, in a nursery that outlives all callers."""

    def __init__(self, disk: Disk, drain: Drain) -> None:
        self.batches, self.alone = disk.apart(THREADS), disk.apart(THREADS)
        self._drain = drain
        self._batcher: Batcher[Writing, Sequence[Written]] = Batcher(
            self.batches, write_all, lanes=LANES, size=BATCH, limit=BATCH_LIMIT, patience=PATIENCE
        )
        self._hanging: dict[Path, _Visit] = {}
        self.serve = self._batcher.serve

    async def write(self, copies: Sequence[Copy], *, at_once: bool) -> WrittenCopies:
        """Write the copies of a message in tmp/; `at_once`, if all can be written, make them visible too.

        Raises QueueUnavailable if there is no thread to be had.  A cancelled call leaves nothing that becomes visible.
        """
        return WrittenCopies(copies, await self._write([copy.delivery for copy in copies], at_once), self.alone)

    async def deliver(self, copies: Sequence[Copy]) -> list[Outcome]:
        """Write copies out of the queue and make each visible: the outcome of each recipient.

        Cancelled at the end of the server, a copy that hangs is left alone: its recipients are due as before.
        """
        outcomes: list[Outcome] = []
        for copy in copies:
            with self._drain.shielded() as shield:  # else: what is in new/ would be delivered again
                writing = Writing([copy.delivery], at_once=True)
                written = await self._write_alone(writing, DELIVER_LIMIT)
            if shield.cancelled_caught:
                await trio.lowlevel.checkpoint_if_cancelled()
                written = MaildirError(f"{copy.delivery.maildir} has not answered when the server was to end")
            outcomes += copy.outcomes(written if isinstance(written, MaildirError) else None)
        return outcomes

    async def _write(self, deliveries: Sequence[Delivery], at_once: bool) -> Sequence[Written]:
        if not deliveries:
            return []
        if not any(self._hangs(delivery.maildir) for delivery in deliveries):
            together = await self._write_together(Writing(deliveries, at_once))
            if together is not None:
                return together
        written: dict[int, Written] = {}

        async def write_one(number: int, delivery: Delivery) -> None:
            written[number] = await self._write_alone(Writing([delivery], at_once=False), ALONE_LIMIT)

        async with trio.open_nursery() as nursery:
            for number, delivery in enumerate(deliveries):
                nursery.start_soon(write_one, number, delivery)
        return [written[number] for number in range(len(deliveries))]

    def _hangs(self, path: Path) -> bool:
        visit = self._hanging.get(path)
        if visit is not None and visit.is_over:
            del self._hanging[path]
        return visit is not None and not visit.is_over

    async def _write_together(self, writing: Writing) -> Sequence[Written] | None:
        """Write all copies in one visit to a thread; None if that takes too long."""
        try:
            if writing.deliveries[0].body.in_memory:
                return await self._batcher.run(writing)
            with trio.move_on_after(SPOOLED_LIMIT):  # a large body takes its time, and nobody else is to wait for it
                (written,) = await self.alone.run(write_all, [writing])
                return written
        except NotAnsweredError:
            pass
        except NotDoneError as error:
            raise QueueUnavailable(str(error)) from error
        except trio.Cancelled:
            writing.withdrawn = True
            raise
        writing.withdrawn = True
        return None

    async def _write_alone(self, writing: Writing, limit: float) -> Written:
        (delivery,) = writing.deliveries
        path = delivery.maildir
        if self._hangs(path):
            return MaildirError(f"cannot write {path}: it has not answered for a while")
        visit = _Visit()
        with trio.move_on_after(limit) as scope:
            try:
                ((written,),) = await self.alone.run_or_leave(write_all, [writing], left=visit.end)
            except trio.Cancelled:
                writing.withdrawn = True
                raise
        if scope.cancelled_caught:
            self._hanging[path] = visit
            return MaildirError(f"cannot write {path}: no answer within {limit:g} s")
        return written


def write_all(writings: Sequence[Writing]) -> Sequence[Sequence[Written]]:
    """Write the copies of several messages, in a thread, all at once.  Folders that they share are synced once."""
    begun = [[] if writing.withdrawn else writing.deliveries for writing in writings]
    prepared = iter(maildir.prepare_all(delivery for deliveries in begun for delivery in deliveries))
    written: list[Sequence[Written]] = []
    complete: list[tuple[int, list[Pending]]] = []
    for number, (writing, deliveries) in enumerate(zip(writings, begun, strict=True)):
        copies = list(islice(prepared, len(deliveries)))
        written.append(copies)
        pending = [copy for copy in copies if isinstance(copy, Pending)]
        if writing.withdrawn:  # before its copies were written, or while the others were
            maildir.discard_all(pending)
        elif writing.at_once and len(pending) == len(copies):
            complete.append((number, pending))
    committed = iter(maildir.commit_all([copy for _, pending in complete for copy in pending]))
    for number, pending in complete:
        written[number] = list(islice(committed, len(pending)))
    return written
