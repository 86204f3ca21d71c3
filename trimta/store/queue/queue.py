"""The queue and its main operations: accept, claim, settle.  A message exists once the commit of `accept` has returned.

Operations beside a message's usual way are in modules of their own, which are parts of `Queue`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from trimta.mail.envelope import ByMode
from trimta.store.queue.database import Database
from trimta.store.queue.decoding import dump_deferred, dump_message, path_text
from trimta.store.queue.destinations import Destinations
from trimta.store.queue.due import Due
from trimta.store.queue.entries import Entries
from trimta.store.queue.envelopes import Envelopes
from trimta.store.queue.message_log_table import MessageLogTable
from trimta.store.queue.meta import Meta
from trimta.store.queue.operator import Operator
from trimta.store.queue.repair import Repair
from trimta.store.queue.sql_schema import FILE
from trimta.store.queue.values import EnvelopeState, is_message_id
from trimta.store.queue.waits import Waits
from trimta.store.spool import MEMORY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from trimta.mail.outcome import Deferred
    from trimta.store.queue.values import NewEnvelope, QueuedEnvelope, StoredMessage

T = TypeVar("T")


def exists(data_dir: Path) -> bool:
    """Whether there is a queue in a data directory, for commands that must not make one."""
    return (data_dir / FILE).exists()


def _deadline(message: StoredMessage) -> float | None:
    """The deadline of DELIVERBY; None if it has no effect, as in mode N with a null reverse-path: no sender is told."""
    by = message.terms.deliver_by
    if by is None or (by.mode is ByMode.NOTIFY and message.terms.reverse_path is None):
        return None
    return by.deadline


class Queue:
    """The queue of one data directory: `queue.sqlite3`, `spool/`, `damaged/`.

    One thread at a time may use a Queue; other processes may have a Queue of the same directory.  Each operation is a
    transaction of its own, or part of one if called inside `transaction()` or by `run()`.  All raise QueueUnavailable
    if the disk or another process's lock is in the way, QueueUnreadable if the database is corrupt.  Times are seconds
    since the epoch on the queue's clock, which the caller reads.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open the queue, or make a new one.  Raises QueueUnreadable if the database can't be read."""
        database = Database(data_dir)
        self._database = database
        self._connection = database.connection
        self.meta = Meta(database)
        self.destinations = Destinations(database)
        self._envelopes = Envelopes(database, self.destinations, self.meta)
        self.entries = Entries(database, self._envelopes)
        self.due = Due(database, self.destinations)
        self.operator = Operator(database, self._envelopes, self.destinations)
        self.repair = Repair(database, self._envelopes, self.destinations)
        self.waits = Waits(database, self.destinations)
        self.log = MessageLogTable(database)

    @property
    def spool(self) -> Path:
        """The folder in which SpoolWriter puts large content, so that accept() can take it over by renaming."""
        return self._database.spool_files.folder

    def close(self) -> None:
        """Close the database; a second call does nothing.

        While a thread is at work on a disk that hangs, the database stays open: commits do not depend on its close.
        """
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, batch: Sequence[Callable[[Queue], T]]) -> list[T | Exception]:
        """Run many operations in one transaction, and commit once: group commit.

        Returns, in order, what each operation returned, or the exception it raised.  A failing operation leaves no
        trace and does not disturb the others.  If the commit itself fails, nothing has happened, and the answer to
        each operation is a QueueError.
        """
        return self._database.run([partial(operation, self) for operation in batch])

    def transaction(self) -> AbstractContextManager[None]:
        """A block whose changes are committed as a whole or, when an exception leaves the block, not at all."""
        return self._database.transaction()

    def accept(self, message: StoredMessage, envelopes: Sequence[NewEnvelope]) -> StoredMessage:
        """Store a message with one or more envelopes; returned with its content where it is kept now.

        A body in a spool file is taken over: the file gets the message's name.  When the transaction fails, the body is
        as it was.  Raises ValueError for an id that is no file name, and where there is no envelope or no recipient.
        """
        if not envelopes or not all(envelope.recipients for envelope in envelopes):
            raise ValueError("a message needs an envelope, and an envelope needs a recipient")
        if not is_message_id(message.id):
            raise ValueError(f"not a message id: {message.id!r}")
        with self._database.transaction():
            content = message.content
            inline = content.data if content.size <= MEMORY_LIMIT else None
            seq = self._connection.execute(
                "INSERT INTO messages (id, arrived, sender, fields, trace, size, lines, spooled)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    message.id,
                    message.arrived,
                    path_text(message.terms.reverse_path),
                    dump_message(message),
                    message.trace,
                    content.size,
                    content.lines,
                    inline is None,
                ),
            ).lastrowid
            assert seq is not None
            for number, envelope in enumerate(envelopes, start=1):
                envelope_id = message.id if len(envelopes) == 1 else f"{message.id}.{number}"
                self._envelopes.insert(seq, envelope_id, number, envelope, _deadline(message))
            if inline is not None:
                self._connection.execute("INSERT INTO contents (message, data) VALUES (?, ?)", (seq, inline))
                return message
            return replace(message, content=self._database.spool_files.adopt(content, message.id))

    def claim(self, envelope_id: str, now: float) -> tuple[StoredMessage, QueuedEnvelope] | None:
        """An envelope and its message, if it is queued and due; None if that changed, or it is gone.

        Raises DamagedEntry as `entries.load`.
        """
        loaded = self.entries.load(envelope_id)
        if loaded is None or loaded[1].state is not EnvelopeState.QUEUED or loaded[1].due > now:
            return None
        return loaded

    def claim_next(
        self, next_hop: str, now: float, *, exclude: Collection[str] = ()
    ) -> tuple[StoredMessage, QueuedEnvelope] | None:
        """The envelope that is the longest due at a next hop, and its message; None if none is due.

        `exclude`: envelopes in flight.  Raises DamagedEntry as `entries.load`.
        """
        ids = self.due.envelopes(next_hop, now, 1, exclude=exclude)
        return self.entries.load(ids[0]) if ids else None

    def settle(
        self,
        envelope_id: str,
        *,
        now: float,
        next_try: float | None = None,
        claimed: float | None = None,
        done: Collection[int] = (),
        deferred: Mapping[int, Deferred] | None = None,
        attempted: bool = True,
        warned: bool | None = None,
        answered: bool = False,
        hold: str | None = None,
        new: Sequence[tuple[StoredMessage, Sequence[NewEnvelope]]] = (),
    ) -> bool:
        """Note the outcome of an attempt, in one transaction.

        - `next_try`: when the envelope is due again; None leaves the moment.  `claimed`: the `next_try` that the
          envelope had when it was claimed; where it has another by now, the operator wants it to be tried then.
        - `done`: numbers of recipients that were delivered or have failed: they leave.  `deferred`: the outcome of
          others, by number.
        - `attempted`: this counts as an attempt, and `now` was the last.
        - `hold`: hold the envelope, with this reason.
        - `warned`: whether the sender has been told of the delay; None leaves it.  `answered`: DELIVERBY's deadline has
          had its consequence.
        - `new`: messages to accept with this outcome: DSNs.

        An envelope without recipients leaves, and with the last envelope its message.  An envelope that the operator
        held meanwhile stays held, one that they bounced stays due now.  Returns False if the envelope was removed
        meanwhile: then nothing happens, and files that the contents of `new` are in are still the caller's.
        """
        with self._database.transaction():
            row = self._connection.execute(
                "SELECT seq, next_hop FROM envelopes WHERE id = ?", (envelope_id,)
            ).fetchone()
            if row is None:
                return False
            seq, next_hop = row
            for message, envelopes in new:
                self.accept(message, envelopes)
            numbers = self._connection.execute("SELECT number FROM recipients WHERE envelope = ?", (seq,)).fetchall()
            if all(number in done for (number,) in numbers):
                self._envelopes.delete(seq)
                return True
            self._connection.executemany(
                "DELETE FROM recipients WHERE envelope = ? AND number = ?", [(seq, number) for number in done]
            )
            self._connection.executemany(
                "UPDATE recipients SET last = ? WHERE envelope = ? AND number = ?",
                [(dump_deferred(outcome), seq, number) for number, outcome in (deferred or {}).items()],
            )
            self._connection.execute(
                "UPDATE envelopes SET next_try ="
                " CASE WHEN bounce OR next_try != coalesce(?, next_try) THEN next_try ELSE coalesce(?, next_try) END,"
                " attempts = attempts + ?, warned = coalesce(?, warned),"
                " last_attempt = CASE WHEN ? THEN ? ELSE last_attempt END,"
                " deadline = CASE WHEN ? THEN NULL ELSE deadline END WHERE seq = ?",
                (claimed, next_try, attempted, warned, attempted, now, answered, seq),
            )
            if hold is not None:
                self._connection.execute(
                    "UPDATE envelopes SET state = 'held', hold_reason = ?"
                    " WHERE seq = ? AND state = 'queued' AND NOT bounce",
                    (hold, seq),
                )
            self.destinations.refresh(next_hop)
            return True

    def reroute(self, envelope_id: str, next_hop: str) -> None:
        """Give an envelope another next hop, since the configuration changed.  Nothing happens if it is gone."""
        with self._database.transaction():
            row = self._connection.execute(
                "SELECT seq, next_hop FROM envelopes WHERE id = ?", (envelope_id,)
            ).fetchone()
            if row is None or row[1] == next_hop:
                return
            self._connection.execute("UPDATE envelopes SET next_hop = ? WHERE seq = ?", (next_hop, row[0]))
            self.destinations.refresh(row[1])
            self.destinations.refresh(next_hop)

    def split(self, envelope_id: str, numbers: Collection[int], next_hop: str) -> str | None:
        """Move recipients to a new envelope with another next hop, since the configuration changed.

        `numbers`: those of the recipients, but not all of the envelope.  The new envelope is like the old one in all
        else.  Returns its id; None if the old one is gone.
        """
        with self._database.transaction():
            place = self._envelopes.place(envelope_id)
            if place is None:
                return None
            number = self._envelopes.take_numbers(place.last_number, 1)
            new_id = f"{place.message_id}.{number}"
            same = (
                "domain, state, hold_reason, via, released, bounce, attempts, next_try, last_attempt, warn_at, warned,"
                " deadline"
            )
            new = self._connection.execute(
                f"INSERT INTO envelopes (id, message, number, next_hop, {same})"
                f" SELECT ?, message, ?, ?, {same} FROM envelopes WHERE seq = ?",
                (new_id, number, next_hop, place.seq),
            ).lastrowid
            self._connection.executemany(
                "UPDATE recipients SET envelope = ? WHERE envelope = ? AND number = ?",
                [(new, place.seq, number) for number in numbers],
            )
            self.destinations.refresh(next_hop)
            return new_id

    def remove(self, entry_id: str) -> tuple[str, ...]:
        """Delete envelopes without a report: those that the operator removes, and those that could not be acknowledged.

        The id is an envelope's, or a message's, which means all its envelopes.  Returns the ids of the envelopes.
        Raises NoSuchEntry.
        """
        with self._database.transaction():
            named = self._envelopes.named(entry_id)
            for seq, _ in named:
                self._envelopes.delete(seq)
            return tuple(envelope_id for _, envelope_id in named)
