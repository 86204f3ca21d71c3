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

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from trimta.store import queue_log
from trimta.store.queue_codec import dump_deferred, dump_message, dump_recipient, path_text
from trimta.store.queue_damage import write_damaged
from trimta.store.queue_database import Database
from trimta.store.queue_rows import ENVELOPE, FACTS, JOINED, MESSAGE, RowReader, is_message_id
from trimta.store.queue_schema import FILE
from trimta.store.queue_values import (
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
from trimta.store.spool import INCOMING, MEMORY_LIMIT, abandoned

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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

BOUNCE_HOP: Final = "bounce"
"""The next hop of envelopes that the operator has bounced: no trouble of their real one is to keep them waiting."""

_LAST_NUMBER: Final = "last_number"
"""Meta: the last number that redirect() gave.  None comes twice: an attempt under way may still know an envelope that
is gone, and settle it.
"""

_WINDOW: Final = 200
_RETRY_CHUNK: Final = 2000
_UNWARNED: Final = "state = 'queued' AND warned = 0 AND warn_at IS NOT NULL"

_IMPOSSIBLE: Final = (
    (
        "SELECT id FROM envelopes e WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.seq = e.message)",
        "its message is missing",
    ),
    (
        "SELECT id FROM envelopes WHERE typeof(next_try) != 'real' OR state NOT IN ('queued', 'held')",
        "it would never be due",
    ),
    (
        "SELECT id FROM envelopes e WHERE NOT EXISTS (SELECT 1 FROM recipients r WHERE r.envelope = e.seq)",
        "it has no recipients",
    ),
    (
        "SELECT id FROM messages m WHERE NOT EXISTS (SELECT 1 FROM envelopes e WHERE e.message = m.seq)",
        "it has no envelopes",
    ),
)
"""What can't be queued, and why: such entries would stay for ever, and nobody would know."""


def exists(data_dir: Path) -> bool:
    """Whether there is a queue in this data directory: commands that only look need not make one."""
    return (data_dir / FILE).exists()


class Queue(Database):
    """The queue of one data directory: `queue.sqlite3`, `spool/`, `damaged/`."""

    def __init__(self, data_dir: Path) -> None:
        """Open it, made first if there is none.  QueueUnreadable if the database can't be read."""
        super().__init__(data_dir)
        self._reader = RowReader(self._connection, self._spool)
        self._log_appends = 0

    # Mail's way -----------------------------------------------------------------------------------------------------

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
                self._insert_envelope(seq, envelope_id, number, envelope)
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

    def load(self, envelope_id: str) -> tuple[StoredMessage, QueuedEnvelope] | None:
        """An envelope and its message; None if it is gone.  DamagedEntry if it can't be read, or its spool file is
        missing or not as long as it was.
        """
        with self._translated():
            row = self._connection.execute(
                f"SELECT {ENVELOPE}, {MESSAGE} FROM {JOINED} WHERE e.id = ?", (envelope_id,)
            ).fetchone()
            if row is None:
                return None
            return self._reader.loaded(envelope_id, row)

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
        hold: str | None = None,
        new: Sequence[tuple[StoredMessage, Sequence[NewEnvelope]]] = (),
    ) -> bool:
        """Note how an attempt went, in one transaction.

        `next_try`: None leaves it.  `claimed`: the one that the attempt was due at; where it has another by now, the
        operator wants it to be tried then.  `done`: numbers of recipients that are finished (delivered or failed):
        they leave.  `deferred`: how it went for others.  `attempted`: it counts, and `now` is the last attempt.
        `hold`: hold what is left, with this reason.  `warned`: None leaves it.  `new`: messages to accept, DSNs.

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
                " last_attempt = CASE WHEN ? THEN ? ELSE last_attempt END WHERE seq = ?",
                (claimed, next_try, attempted, warned, attempted, now, seq),
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
            row = self._connection.execute(
                "SELECT e.seq, e.message, m.id FROM envelopes e JOIN messages m ON m.seq = e.message WHERE e.id = ?",
                (envelope_id,),
            ).fetchone()
            if row is None:
                return None
            seq, message, message_id = row
            (last,) = self._connection.execute(
                "SELECT max(number) FROM envelopes WHERE message = ?", (message,)
            ).fetchone()
            new_id = f"{message_id}.{last + 1}"
            same = (
                "domain, state, hold_reason, via, released, bounce, attempts, next_try, last_attempt, warn_at, warned"
            )
            new = self._connection.execute(
                f"INSERT INTO envelopes (id, message, number, next_hop, {same})"
                f" SELECT ?, message, ?, ?, {same} FROM envelopes WHERE seq = ?",
                (new_id, last + 1, next_hop, seq),
            ).lastrowid
            self._connection.executemany(
                "UPDATE recipients SET envelope = ? WHERE envelope = ? AND number = ?",
                [(new, seq, number) for number in numbers],
            )
            self._touch(next_hop)
            return new_id

    # What is due ----------------------------------------------------------------------------------------------------

    def due_destinations(
        self, now: float, limit: int, *, exclude: Collection[str] = (), newest_first: bool = False
    ) -> list[tuple[str, float]]:
        """At most `limit` next hops where something is due, with the moment it was, the longest due first, or, with
        `newest_first`, last.  Costs as much as `limit` and `exclude` are long, whatever is in the queue.
        """
        order = "DESC" if newest_first else "ASC"
        with self._translated():
            found: list[tuple[str, float]] = []
            rows = self._connection.execute(
                f"SELECT next_hop, due FROM destinations WHERE due <= ? ORDER BY due {order} LIMIT ?",
                (now, limit + len(exclude)),
            )
            for next_hop, due in rows:
                if next_hop not in exclude:
                    found.append((next_hop, due))
                    if len(found) == limit:
                        break
            rows.close()
            return found

    def due_envelopes(
        self, next_hop: str, now: float, limit: int, *, exclude: Collection[str] = (), newest_first: bool = False
    ) -> list[str]:
        """Ids of at most `limit` envelopes that are due at a next hop, the longest due first; while the destination is
        deferred, of those that came after its failure.  `exclude`: those in flight.
        """
        order = "DESC" if newest_first else "ASC"
        with self._translated():
            failed, not_before = self._spared(next_hop)
            spared = "attempts = 0 AND next_try > ?" if not_before > now else "next_try >= ?"
            rows = self._connection.execute(
                f"SELECT id FROM envelopes WHERE next_hop = ? AND state = 'queued' AND {spared} AND next_try <= ?"
                f" ORDER BY next_try {order} LIMIT ?",
                (next_hop, failed if not_before > now else 0.0, now, limit + len(exclude)),
            )
            return [envelope_id for (envelope_id,) in rows if envelope_id not in exclude][:limit]

    def next_due(self, now: float, *, exclude: Collection[str] = (), busy: Collection[str] = ()) -> float | None:
        """The first moment after `now` at which something falls due; None if nothing will.

        What is due already does not count: due_destinations() has it.  `busy`: next hops with deliveries in flight,
        whose later envelopes are looked at one by one; `exclude`: those that could not take more anyway.
        """
        with self._translated():
            rows = self._connection.execute(
                "SELECT next_hop, due FROM destinations WHERE due > ? ORDER BY due LIMIT ?", (now, len(exclude) + 1)
            )
            moments = [due for next_hop, due in rows if next_hop not in exclude][:1]
            for next_hop in busy:
                if next_hop in exclude:
                    continue
                (next_try,) = self._connection.execute(
                    "SELECT min(next_try) FROM envelopes WHERE next_hop = ? AND state = 'queued' AND next_try > ?",
                    (next_hop, now),
                ).fetchone()
                _, not_before = self._spared(next_hop)
                moments += [moment for moment in (next_try, not_before) if moment is not None and moment > now]
            return min(moments, default=None)

    def due_warnings(self, now: float, limit: int, *, exclude: Collection[str] = ()) -> list[str]:
        """Ids of at most `limit` queued envelopes whose senders are to be told of the delay by now and have not been,
        the longest due first.  settle(warned=True) says that they have.
        """
        with self._translated():
            rows = self._connection.execute(
                f"SELECT id FROM envelopes WHERE {_UNWARNED} AND warn_at <= ? ORDER BY warn_at LIMIT ?",
                (now, limit + len(exclude)),
            )
            return [envelope_id for (envelope_id,) in rows if envelope_id not in exclude][:limit]

    def next_warning(self, now: float) -> float | None:
        """The first moment after `now` at which a warning falls due; None if none will."""
        with self._translated():
            (moment,) = self._connection.execute(
                f"SELECT min(warn_at) FROM envelopes WHERE {_UNWARNED} AND warn_at > ?", (now,)
            ).fetchone()
            return None if moment is None else float(moment)

    def defer_destination(self, next_hop: str, now: float, until: float) -> None:
        """A next hop failed just now: what is queued for it waits until then, and is not counted an attempt.  What
        comes later is not concerned: its first try is at once.
        """
        with self.transaction():
            self._connection.execute(
                "UPDATE destinations SET failed = max(failed, ?), not_before = max(not_before, ?) WHERE next_hop = ?",
                (now, until, next_hop),
            )
            self._touch(next_hop)

    # The operator's verbs: an id is a message's (all its envelopes) or an envelope's ----------------------------------

    def show(self, entry_id: str) -> tuple[StoredMessage, tuple[QueuedEnvelope, ...]]:
        """A message with the envelopes that the id names.  NoSuchEntry, DamagedEntry."""
        with self._translated():
            loaded = [self.load(envelope_id) for _, envelope_id in self._resolve(entry_id)]
            found = [pair for pair in loaded if pair is not None]
            if not found:
                raise NoSuchEntry(entry_id)
            return found[0][0], tuple(envelope for _, envelope in found)

    def retry(self, entry_id: str, now: float) -> tuple[str, ...]:
        """Make it due now, its destination included.  Held envelopes are left alone.  Returns ids of the others."""
        with self.transaction():
            return self._retry([seq for seq, _ in self._resolve(entry_id)], now)

    def retry_domain(self, domain: str, now: float, *, subdomains: bool = False) -> int:
        """retry() all envelopes of a recipient domain (domain_key), in short transactions.  `subdomains`: and of those
        below it, as ETRN's "@" means (RFC 1985 5.3).  Returns how many.
        """
        if subdomains:
            below = f".{domain}"
            return self._retry_many("(domain = ? OR substr(domain, -length(?)) = ?) AND", (domain, below, below), now)
        return self._retry_many("domain = ? AND", (domain,), now)

    def retry_all(self, now: float) -> int:
        """retry() everything, in short transactions.  Returns how many."""
        return self._retry_many("", (), now)

    def hold(self, entry_id: str, reason: str = "by the operator") -> tuple[str, ...]:
        """Keep it until release(): also if an attempt under way defers it.  Returns ids of those not held before."""
        with self.transaction():
            return self._change(entry_id, "state = 'held', hold_reason = ?", (reason,), "state = 'queued'")

    def release(self, entry_id: str, now: float, *, via: str = "", next_hop: str | None = None) -> tuple[str, ...]:
        """Send a held one, now, past any `hold` route; `via`: by this route.  Returns ids of those that were held."""
        with self.transaction():
            return self._change(
                entry_id,
                "state = 'queued', hold_reason = '', released = 1, via = ?, next_try = ?,"
                " next_hop = coalesce(?, next_hop)",
                (via, now, next_hop),
                "state = 'held'",
            )

    def redirect(self, envelope_id: str, envelopes: Sequence[NewEnvelope]) -> tuple[str, ...]:
        """Replace an envelope by others of the same message, under new ids, which are returned: `release --to`.
        What an attempt under way reports of the old one is then without effect.  NoSuchEntry.
        """
        with self.transaction():
            row = self._connection.execute(
                "SELECT e.seq, e.message, m.id FROM envelopes e JOIN messages m ON m.seq = e.message WHERE e.id = ?",
                (envelope_id,),
            ).fetchone()
            if row is None:
                raise NoSuchEntry(envelope_id)
            seq, message, message_id = row
            (last,) = self._connection.execute(
                "SELECT max(number) FROM envelopes WHERE message = ?", (message,)
            ).fetchone()
            last = max(last, int(self.get_meta(_LAST_NUMBER) or 0))
            new_ids = []
            for number, envelope in enumerate(envelopes, start=last + 1):
                new_ids.append(f"{message_id}.{number}")
                self._insert_envelope(message, new_ids[-1], number, envelope)
                self._connection.execute("UPDATE envelopes SET released = 1 WHERE id = ?", (new_ids[-1],))
            self.set_meta(_LAST_NUMBER, str(last + len(envelopes)))
            self._delete_envelope(seq)
            return tuple(new_ids)

    def bounce(self, entry_id: str, now: float) -> tuple[str, ...]:
        """Return it to its sender: due now, held or not, marked `bounce`, at BOUNCE_HOP.  Returns its ids."""
        with self.transaction():
            return self._change(
                entry_id,
                "state = 'queued', hold_reason = '', bounce = 1, next_try = ?, next_hop = ?",
                (now, BOUNCE_HOP),
                "1",
            )

    def remove(self, entry_id: str) -> tuple[str, ...]:
        """Drop it, telling nobody.  Returns the ids of the envelopes removed."""
        with self.transaction():
            found = self._resolve(entry_id)
            for seq, _ in found:
                self._delete_envelope(seq)
            return tuple(envelope_id for _, envelope_id in found)

    def list_envelopes(
        self,
        *,
        domain: str | None = None,
        state: State | None = None,
        sender: str | None = None,
        recipient: str | None = None,
    ) -> Iterator[Listed]:
        """Envelopes in order of arrival, read a window at a time: the first comes at once however many there are,
        and what changes meanwhile disturbs nothing.

        `domain` is a recipient domain (domain_key); `sender` ("<>" for the null path) and `recipient` are addresses or
        globs, without case.  A damaged entry is listed, with the reason in `hold_reason`.
        """
        conditions, values = ["e.seq > ?"], []
        if domain is not None:
            conditions.append("e.domain = ?")
            values.append(domain)
        if state is not None:
            conditions.append("e.state = ?")
            values.append(str(state))
        if sender is not None:
            conditions.append("(m.sender = ? OR m.sender GLOB ?)")
            values += [sender.lower()] * 2
        if recipient is not None:
            conditions.append(
                "EXISTS (SELECT 1 FROM recipients r WHERE r.envelope = e.seq AND (r.address = ? OR r.address GLOB ?))"
            )
            values += [recipient.lower()] * 2
        statement = (
            f"SELECT {ENVELOPE}, {FACTS} FROM {JOINED} WHERE {' AND '.join(conditions)} ORDER BY e.seq LIMIT {_WINDOW}"
        )
        after = 0
        while True:
            with self._translated():
                rows = self._connection.execute(statement, (after, *values)).fetchall()
                window = [self._reader.listed(row) for row in rows]
            if not rows:
                return
            after = rows[-1][0]
            yield from window

    def count(self, state: State | None = None) -> int:
        """How many envelopes there are (in this state)."""
        where, values = ("", ()) if state is None else (" WHERE state = ?", (str(state),))
        with self._translated():
            (count,) = self._connection.execute(f"SELECT count(*) FROM envelopes{where}", values).fetchone()
            return int(count)

    def counts(self) -> dict[str, int]:
        """How many envelopes there are of each recipient domain, held ones included; most first."""
        with self._translated():
            return dict(
                self._connection.execute(
                    "SELECT domain, count(*) FROM envelopes GROUP BY domain ORDER BY count(*) DESC, domain"
                ).fetchall()
            )

    # Damage ---------------------------------------------------------------------------------------------------------

    def recover(self, now: float) -> Recovered:
        """To be called once by the server when it starts, before it spools anything: removes spool files that belong to
        no message, sets aside entries that can't ever be sent, and brings `destinations` up to date.
        Looks at no content; that is checked when an envelope is loaded.
        """
        with self.transaction():
            removed = list(abandoned(self._spool, now=now))
            damaged: dict[str, str] = {}
            sizes = self._spool_sizes()
            for message_id, size in self._connection.execute("SELECT id, size FROM messages WHERE spooled"):
                if message_id not in sizes:
                    damaged[str(message_id)] = "its spool file is missing"
                elif sizes[message_id] != size:
                    damaged[str(message_id)] = f"its spool file has {sizes[message_id]} octets where {size} are meant"
                sizes.pop(message_id, None)
            removed += [self._spool / name for name in sizes]
            for statement, reason in _IMPOSSIBLE:
                for (entry_id,) in self._connection.execute(statement).fetchall():
                    damaged.setdefault(str(entry_id), reason)
            reports = [self.set_aside(entry_id, reason) for entry_id, reason in damaged.items()]
            self._rebuild_destinations()
            self._doomed += removed
        return Recovered(tuple(removed), tuple(report for report in reports if report is not None))

    def set_aside(self, entry_id: str, reason: str) -> SetAside | None:
        """Move a damaged message, or one damaged envelope of it, to `damaged/` and out of the queue.  What can still be
        read of it is there as JSON, its content beside it.  None if it is gone already.
        """
        with self.transaction():
            envelopes = self._connection.execute(
                "SELECT seq FROM envelopes WHERE message IN (SELECT seq FROM messages WHERE id = ?1) OR id = ?1",
                (entry_id,),
            ).fetchall()
            seqs = [seq for (seq,) in envelopes]
            row = self._connection.execute(
                "SELECT seq, id, spooled FROM messages WHERE id = ?1"
                " OR seq = (SELECT message FROM envelopes WHERE id = ?1)",
                (entry_id,),
            ).fetchone()
            if row is None and not seqs:
                return None
            rows: dict[str, list[dict[str, Any]]] = {
                "messages": [] if row is None else self._rows("messages", "seq", [row[0]]),
                "envelopes": self._rows("envelopes", "seq", seqs),
                "recipients": self._rows("recipients", "envelope", seqs),
            }
            content = None if row is None else self._raw_content(*row)
            path = write_damaged(self._data_dir / "damaged", entry_id, reason, rows, content)
            for seq in seqs:
                self._delete_envelope(seq)
            if row is not None:
                self._delete_message_without_envelopes(row[0])
            return SetAside(entry_id, reason, path)

    # Log and clock --------------------------------------------------------------------------------------------------

    def append_log(self, message_id: str, lines: Iterable[str], at: float) -> None:
        """Add lines to a message's log, which is bounded: when it is full the oldest but the first append go."""
        with self.transaction():
            queue_log.append(self._connection, message_id, "\n".join(lines), at)
            self._log_appends += 1
            if self._log_appends % queue_log.PRUNE_EVERY == 0:
                queue_log.prune(self._connection, at)

    def read_log(self, message_id: str) -> list[tuple[float, str]]:
        """The lines of a message's log, oldest first, each with its time; also after the message has left."""
        with self._translated():
            return [
                (at, line) for at, text in queue_log.read(self._connection, message_id) for line in text.split("\n")
            ]

    def get_meta(self, key: str) -> str | None:
        """A value that outlives the process, such as how far the queue's clock is ahead."""
        with self._translated():
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Set such a value."""
        with self.transaction():
            self._connection.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )

    # Rows in and out ------------------------------------------------------------------------------------------------

    def _insert_envelope(self, message: int, envelope_id: str, number: int, envelope: NewEnvelope) -> None:
        seq = self._connection.execute(
            "INSERT INTO envelopes (id, message, number, domain, next_hop, state, hold_reason, via, released, bounce,"
            " attempts, next_try, last_attempt, warn_at, warned)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?, 0)",
            (
                envelope_id,
                message,
                number,
                envelope.domain,
                envelope.next_hop,
                str(envelope.state),
                envelope.hold_reason,
                envelope.via,
                envelope.attempts,
                envelope.next_try,
                envelope.last_attempt,
                envelope.warn_at,
            ),
        ).lastrowid
        self._connection.executemany(
            "INSERT INTO recipients (envelope, number, address, fields, last) VALUES (?, ?, ?, ?, ?)",
            [
                (
                    seq,
                    place,
                    path_text(recipient.address),
                    dump_recipient(recipient),
                    dump_deferred(envelope.deferred[place]) if place in envelope.deferred else None,
                )
                for place, recipient in enumerate(envelope.recipients)
            ],
        )
        if envelope.state is State.QUEUED:  # one more can only make its destination due earlier
            self._connection.execute(
                "INSERT INTO destinations (next_hop, due, failed, not_before) VALUES (?1, ?2, 0, 0)"
                " ON CONFLICT (next_hop) DO UPDATE SET due = min(due,"
                " CASE WHEN ?3 = 0 AND ?2 > failed THEN ?2 ELSE max(?2, not_before) END)",
                (envelope.next_hop, envelope.next_try, envelope.attempts),
            )

    def _touch(self, next_hop: str) -> None:
        """Bring a destination up to date after a change to an envelope of it."""
        (first,) = self._connection.execute(
            "SELECT min(next_try) FROM envelopes WHERE next_hop = ? AND state = 'queued'", (next_hop,)
        ).fetchone()
        if first is None:
            self._connection.execute("DELETE FROM destinations WHERE next_hop = ?", (next_hop,))
            return
        failed, not_before = self._spared(next_hop)
        due = first
        if due < not_before:
            (newcomer,) = self._connection.execute(
                "SELECT min(next_try) FROM envelopes"
                " WHERE next_hop = ? AND state = 'queued' AND attempts = 0 AND next_try > ?",
                (next_hop, failed),
            ).fetchone()
            due = not_before if newcomer is None else min(newcomer, not_before)
        self._connection.execute(
            "INSERT INTO destinations (next_hop, due, failed, not_before) VALUES (?, ?, 0, 0) ON CONFLICT (next_hop)"
            " DO UPDATE SET due = excluded.due",
            (next_hop, due),
        )

    def _spared(self, next_hop: str) -> tuple[float, float]:
        """When a destination failed, and until when what waited for it then is not tried."""
        row = self._connection.execute(
            "SELECT failed, not_before FROM destinations WHERE next_hop = ?", (next_hop,)
        ).fetchone()
        return (0.0, 0.0) if row is None else (float(row[0]), float(row[1]))

    def _resolve(self, entry_id: str) -> list[tuple[int, str]]:
        """(seq, id) of the envelopes that an id names.  NoSuchEntry if there are none."""
        found = self._connection.execute(
            "SELECT seq, id FROM envelopes WHERE id = ?1 OR message = (SELECT seq FROM messages WHERE id = ?1)"
            " ORDER BY number",
            (entry_id,),
        ).fetchall()
        if not found:
            raise NoSuchEntry(entry_id)
        return found

    def _change(self, entry_id: str, assignments: str, values: tuple[object, ...], condition: str) -> tuple[str, ...]:
        changed = []
        for seq, envelope_id in self._resolve(entry_id):
            row = self._connection.execute(
                f"SELECT next_hop FROM envelopes WHERE seq = ? AND {condition}", (seq,)
            ).fetchone()
            if row is None:
                continue
            self._connection.execute(f"UPDATE envelopes SET {assignments} WHERE seq = ?", (*values, seq))
            (next_hop,) = self._connection.execute("SELECT next_hop FROM envelopes WHERE seq = ?", (seq,)).fetchone()
            for hop in {row[0], next_hop}:
                self._touch(hop)
            changed.append(envelope_id)
        return tuple(changed)

    def _retry(self, seqs: Sequence[int], now: float) -> tuple[str, ...]:
        retried, hops = [], set()
        for seq in seqs:
            row = self._connection.execute(
                "SELECT id, next_hop FROM envelopes WHERE seq = ? AND state = 'queued'", (seq,)
            ).fetchone()
            if row is not None:
                retried.append(row[0])
                hops.add(row[1])
        self._connection.executemany(
            "UPDATE envelopes SET next_try = ? WHERE seq = ? AND state = 'queued' AND next_try > ?",
            [(now, seq, now) for seq in seqs],
        )
        for hop in hops:
            self._connection.execute("UPDATE destinations SET failed = 0, not_before = 0 WHERE next_hop = ?", (hop,))
            self._touch(hop)
        return tuple(retried)

    def _retry_many(self, condition: str, values: tuple[object, ...], now: float) -> int:
        count, last = 0, 0
        while True:
            with self.transaction():
                rows = self._connection.execute(
                    f"SELECT seq FROM envelopes WHERE {condition} seq > ? ORDER BY seq LIMIT {_RETRY_CHUNK}",
                    (*values, last),
                ).fetchall()
                if not rows:
                    return count
                count += len(self._retry([seq for (seq,) in rows], now))
                last = rows[-1][0]

    def _delete_envelope(self, seq: int) -> None:
        message, next_hop = self._connection.execute(
            "SELECT message, next_hop FROM envelopes WHERE seq = ?", (seq,)
        ).fetchone()
        self._connection.execute("DELETE FROM envelopes WHERE seq = ?", (seq,))
        self._touch(next_hop)
        self._delete_message_without_envelopes(message)

    def _delete_message_without_envelopes(self, seq: int) -> None:
        row = self._connection.execute(
            "SELECT id, spooled FROM messages WHERE seq = ?1"
            " AND NOT EXISTS (SELECT 1 FROM envelopes WHERE message = ?1)",
            (seq,),
        ).fetchone()
        if row is None:
            return
        self._connection.execute("DELETE FROM messages WHERE seq = ?", (seq,))
        message_id, spooled = row
        if spooled and is_message_id(str(message_id)):
            self._doomed.append(self._spool / str(message_id))

    def _spool_sizes(self) -> dict[str, int]:
        """Of every file of the spool that no writer is at work on."""
        sizes = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self._spool) as entries:
            for entry in entries:
                if not entry.name.startswith(INCOMING) and entry.is_file(follow_symlinks=False):
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        return sizes

    def _rebuild_destinations(self) -> None:
        self._connection.execute(
            "DELETE FROM destinations WHERE next_hop NOT IN (SELECT next_hop FROM envelopes WHERE state = 'queued')"
        )
        wrong = self._connection.execute(
            "SELECT e.next_hop FROM"
            " (SELECT next_hop, min(next_try) AS first FROM envelopes WHERE state = 'queued' GROUP BY next_hop) e"
            " LEFT JOIN destinations d ON d.next_hop = e.next_hop"
            " WHERE d.due IS NOT e.first OR d.not_before > 0"
        ).fetchall()
        for (next_hop,) in wrong:
            self._touch(next_hop)

    def _rows(self, table: str, column: str, keys: Sequence[int]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for key in keys:
            cursor = self._connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", (key,))
            names = [column[0] for column in cursor.description]
            rows += [dict(zip(names, row, strict=True)) for row in cursor]
        return rows

    def _raw_content(self, seq: int, message_id: object, spooled: object) -> bytes | Path | None:
        if spooled:
            return self._spool / message_id if isinstance(message_id, str) and is_message_id(message_id) else None
        row = self._connection.execute("SELECT data FROM contents WHERE message = ?", (seq,)).fetchone()
        return row[0] if row is not None and isinstance(row[0], bytes) else None
