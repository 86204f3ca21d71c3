"""Durable queue.  A message exists once its commit returned; before that it never did.

    accept -> queued -> (claim, attempt, settle) -> queued ... -> gone
                 ^  \\-- hold --> held --> (release, remove, bounce)
                 |________________|

What a crash leaves, and who answers it:

| crash                                   | leaves                         | answered by                            |
| --------------------------------------- | ------------------------------ | -------------------------------------- |
| before the commit of accept()           | a spool file without a message | recover() removes it; it was never 250 |
| after it                                | the message                    | nothing to do                          |
| during an attempt                       | the envelope, due as before    | it is tried again: maybe a duplicate   |
| after settle()'s commit                 | maybe the spool file           | recover() removes it                   |

One connection, used by one thread at a time; other processes may have theirs at the same time.  Operations are methods;
each is a transaction of its own, or part of one when called inside `transaction()` or by `run()`.
All raise QueueFull when the disk or the lock refuses, QueueUnreadable when the database is corrupt.  Times are seconds
since the epoch on the queue's clock, which the caller reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trimta.mail.envelope import ByMode
from trimta.store.queue import log
from trimta.store.queue.decoding import dump_deferred, dump_message, path_text
from trimta.store.queue.due import Due
from trimta.store.queue.operator import BOUNCE_HOP, Steering
from trimta.store.queue.repair import Repair
from trimta.store.queue.rows import is_message_id
from trimta.store.queue.schema import FILE
from trimta.store.queue.values import (
    DamagedEntry,
    Listed,
    NewEnvelope,
    NoSuchEntry,
    QueuedEnvelope,
    QueuedRecipient,
    QueueError,
    QueueFull,
    QueueUnreadable,
    Recovered,
    SetAside,
    State,
    StoredMessage,
)
from trimta.store.queue.waits import Waits
from trimta.store.spool import MEMORY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from trimta.mail.outcome import Deferred

__all__ = [
    "BOUNCE_HOP",
    "DamagedEntry",
    "Listed",
    "NewEnvelope",
    "NoSuchEntry",
    "Queue",
    "QueueError",
    "QueueFull",
    "QueueUnreadable",
    "QueuedEnvelope",
    "QueuedRecipient",
    "Recovered",
    "SetAside",
    "State",
    "StoredMessage",
    "exists",
]


def exists(data_dir: Path) -> bool:
    """Whether there is a queue in this data directory: commands that only look need not make one."""
    return (data_dir / FILE).exists()


def _deadline(message: StoredMessage) -> float | None:
    """When DELIVERBY has a consequence: in mode N somebody has to be told, and of the null path nobody is."""
    by = message.deliver_by
    if by is None or (by.mode is ByMode.NOTIFY and message.reverse_path is None):
        return None
    return by.deadline


class Queue(Due, Steering, Repair, Waits):
    """The queue of one data directory: `queue.sqlite3`, `spool/`, `damaged/`.

    Here is a message's way through it, and its log.  What is due, the operator's verbs, the answer to damage and to a
    clock that was set back are the parts that it is made of; what all of them do with the tables is `queue_envelopes`.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open it, made first if there is none.  QueueUnreadable if the database can't be read."""
        super().__init__(data_dir)
        self._log_appends = 0

    def accept(self, message: StoredMessage, envelopes: Sequence[NewEnvelope]) -> StoredMessage:
        """Store a message with one or more envelopes.  A body in a spool file is taken over: the file gets the
        message's name, and the message is returned with its content there.  When it fails, the body is as it was.
        """
        if not envelopes or not all(envelope.recipients for envelope in envelopes):
            raise ValueError("a message needs an envelope, and an envelope needs a recipient")
        if not is_message_id(message.id):
            raise ValueError(f"not a message id: {message.id!r}")
        with self.transaction():
            stored = message.content
            inline = stored.data if stored.size <= MEMORY_LIMIT else None
            seq = self._connection.execute(
                "INSERT INTO messages (id, arrived, sender, fields, trace, size, lines, spooled)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    message.id,
                    message.arrived,
                    path_text(message.reverse_path),
                    dump_message(message),
                    message.trace,
                    stored.size,
                    stored.lines,
                    inline is None,
                ),
            ).lastrowid
            assert seq is not None
            for number, envelope in enumerate(envelopes, start=1):
                envelope_id = message.id if len(envelopes) == 1 else f"{message.id}.{number}"
                self._insert_envelope(seq, envelope_id, number, envelope, _deadline(message))
            if inline is not None:
                self._connection.execute("INSERT INTO contents (message, data) VALUES (?, ?)", (seq, inline))
                return message
            return replace(message, content=self._adopt(stored, message.id))

    def claim(self, envelope_id: str, now: float) -> tuple[StoredMessage, QueuedEnvelope] | None:
        """load() it if it is queued and due; None if that changed, or it is gone.  DamagedEntry as load()."""
        found = self.load(envelope_id)
        if found is None or found[1].state is not State.QUEUED or found[1].due > now:
            return None
        return found

    def claim_next(
        self, next_hop: str, now: float, *, exclude: Collection[str] = ()
    ) -> tuple[StoredMessage, QueuedEnvelope] | None:
        """load() what is the longest due at a next hop; None if nothing is.  DamagedEntry as load()."""
        ids = self.due_envelopes(next_hop, now, 1, exclude=exclude)
        return self.load(ids[0]) if ids else None

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
        """Note how an attempt went, in one transaction.

        `next_try`: None leaves it.  `claimed`: the one that the attempt was due at; where it has another by now, the
        operator wants it to be tried then.  `done`: numbers of recipients that are finished (delivered or failed):
        they leave.  `deferred`: how it went for others.  `attempted`: it counts, and `now` is the last attempt.
        `hold`: hold what is left, with this reason.  `warned`: None leaves it.  `answered`: the deadline has had its
        consequence.  `new`: messages to accept, DSNs.

        With no recipient left the envelope goes, with no envelope left the message.  One that the operator held
        meanwhile stays held, one that he bounced stays due now.  Returns False, and nothing happens, `new` included,
        if he removed it meanwhile: what `new` spooled is then still the caller's.
        """
        with self.transaction():
            row = self._connection.execute(
                "SELECT seq, next_hop FROM envelopes WHERE id = ?", (envelope_id,)
            ).fetchone()
            if row is None:
                return False
            seq, next_hop = row
            self._connection.executemany(
                "DELETE FROM recipients WHERE envelope = ? AND number = ?", [(seq, number) for number in done]
            )
            for message, envelopes in new:
                self.accept(message, envelopes)
            if self._connection.execute("SELECT 1 FROM recipients WHERE envelope = ?", (seq,)).fetchone() is None:
                self._delete_envelope(seq)
                return True
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
            self._touch(next_hop)
            return True

    def reroute(self, envelope_id: str, next_hop: str) -> None:
        """Give an envelope another next hop, since the configuration changed.  Nothing happens if it is gone."""
        with self.transaction():
            row = self._connection.execute(
                "SELECT seq, next_hop FROM envelopes WHERE id = ?", (envelope_id,)
            ).fetchone()
            if row is None or row[1] == next_hop:
                return
            self._connection.execute("UPDATE envelopes SET next_hop = ? WHERE seq = ?", (next_hop, row[0]))
            self._touch(row[1])
            self._touch(next_hop)

    def split(self, envelope_id: str, numbers: Collection[int], next_hop: str) -> str | None:
        """Move these recipients to an envelope of their own at another next hop, since the configuration changed: else
        it is like the old one.  Returns its id; None if the old one is gone.  Some recipients must stay.
        """
        with self.transaction():
            place = self._place(envelope_id)
            if place is None:
                return None
            seq, _, message_id, last = place
            number = self._take_numbers(last, 1)
            new_id = f"{message_id}.{number}"
            same = (
                "domain, state, hold_reason, via, released, bounce, attempts, next_try, last_attempt, warn_at, warned,"
                " deadline"
            )
            new = self._connection.execute(
                f"INSERT INTO envelopes (id, message, number, next_hop, {same})"
                f" SELECT ?, message, ?, ?, {same} FROM envelopes WHERE seq = ?",
                (new_id, number, next_hop, seq),
            ).lastrowid
            self._connection.executemany(
                "UPDATE recipients SET envelope = ? WHERE envelope = ? AND number = ?",
                [(new, seq, number) for number in numbers],
            )
            self._touch(next_hop)
            return new_id

    def append_log(self, message_id: str, lines: Iterable[str], at: float) -> None:
        """Add lines of one moment to a message's log, which is bounded: when it is full the oldest but the first append
        go.
        """
        self.append_dialogue(message_id, [(at, line) for line in lines])

    def append_dialogue(self, message_id: str, lines: Sequence[tuple[float, str]]) -> None:
        """The same for lines each of which has its time."""
        if not lines:
            return
        with self.transaction():
            log.append(self._connection, message_id, lines)
            self._log_appends += 1
            if self._log_appends % log.PRUNE_EVERY == 0:
                log.prune(self._connection, lines[-1][0])

    def read_log(self, message_id: str) -> list[tuple[float, str]]:
        """The lines of a message's log, oldest first, each with its time; also after the message has left."""
        with self._translated():
            return log.read(self._connection, message_id)
