"""Envelopes as rows: read, written, removed, and with each change `destinations` brought up to date.

`destinations` says of every next hop when something is due there; it is what keeps the scheduler's look cheap however
much is queued.  So nobody else inserts or deletes an envelope, and who changes one calls `_touch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.store.queue.database import Database
from trimta.store.queue.decoding import dump_deferred, dump_recipient, path_text
from trimta.store.queue.rows import ENVELOPE, JOINED, MESSAGE, RowReader, is_message_id
from trimta.store.queue.values import NewEnvelope, NoSuchEntry, QueuedEnvelope, State, StoredMessage

if TYPE_CHECKING:
    from pathlib import Path

_LAST_NUMBER: Final = "last_number"
"""Meta: the last number that `_take_numbers` gave."""


class Envelopes(Database):
    """What all parts of the queue do with an envelope."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._reader = RowReader(self._connection, self._spool)

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

    def _resolve(self, entry_id: str) -> list[tuple[int, str]]:
        """(seq, id) of the envelopes that an id names.  NoSuchEntry if there are none."""
        found = self._connection.execute(
            "SELECT seq, id FROM envelopes WHERE id = :id OR message = (SELECT seq FROM messages WHERE id = :id)"
            " ORDER BY number",
            {"id": entry_id},
        ).fetchall()
        if not found:
            raise NoSuchEntry(entry_id)
        return found

    def _place(self, envelope_id: str) -> tuple[int, int, str, int] | None:
        """Its seq, its message's seq and id, and the last number of the message's envelopes; None if it is gone."""
        found: tuple[int, int, str, int] | None = self._connection.execute(
            "SELECT e.seq, m.seq, m.id, (SELECT max(number) FROM envelopes WHERE message = m.seq)"
            " FROM envelopes e JOIN messages m ON m.seq = e.message WHERE e.id = ?",
            (envelope_id,),
        ).fetchone()
        return found

    def _take_numbers(self, last: int, count: int) -> int:
        """The first of `count` numbers for new envelopes of a message whose last one has the number `last`.

        None is given out twice, also if the envelope that had it is gone: an attempt at it may still be under way, and
        would settle the wrong one.
        """
        last = max(last, int(self.get_meta(_LAST_NUMBER) or 0))
        self.set_meta(_LAST_NUMBER, str(last + count))
        return last + 1

    def _insert_envelope(
        self, message: int, envelope_id: str, number: int, envelope: NewEnvelope, deadline: float | None
    ) -> None:
        seq = self._connection.execute(
            "INSERT INTO envelopes (id, message, number, domain, next_hop, state, hold_reason, via, released, bounce,"
            " attempts, next_try, last_attempt, warn_at, warned, deadline)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?, 0, ?)",
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
                deadline,
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
                "INSERT INTO destinations (next_hop, due, failed, not_before) VALUES (:hop, :due, 0, 0)"
                " ON CONFLICT (next_hop) DO UPDATE SET due = min(due,"
                " CASE WHEN :attempts = 0 AND :due > failed THEN :due ELSE max(:due, not_before) END)",
                {"hop": envelope.next_hop, "due": envelope.next_try, "attempts": envelope.attempts},
            )

    def _delete_envelope(self, seq: int) -> None:
        message, next_hop = self._connection.execute(
            "SELECT message, next_hop FROM envelopes WHERE seq = ?", (seq,)
        ).fetchone()
        self._connection.execute("DELETE FROM envelopes WHERE seq = ?", (seq,))
        self._touch(next_hop)
        self._delete_message_without_envelopes(message)

    def _delete_message_without_envelopes(self, seq: int) -> None:
        row = self._connection.execute(
            "SELECT id, spooled FROM messages WHERE seq = :seq"
            " AND NOT EXISTS (SELECT 1 FROM envelopes WHERE message = :seq)",
            {"seq": seq},
        ).fetchone()
        if row is None:
            return
        self._connection.execute("DELETE FROM messages WHERE seq = ?", (seq,))
        message_id, spooled = row
        if spooled and is_message_id(str(message_id)):
            self._doomed.append(self._spool / str(message_id))

    def _touch(self, next_hop: str) -> None:
        """Bring a destination up to date after a change to an envelope of it; what is damaged, and no number, is for
        `Repair.recover`.
        """
        (first,) = self._connection.execute(
            "SELECT min(next_try) FROM envelopes WHERE next_hop = ? AND state = 'queued' AND next_try <= 9e999",
            (next_hop,),
        ).fetchone()
        if first is None:
            self._connection.execute("DELETE FROM destinations WHERE next_hop = ?", (next_hop,))
            return
        failed, not_before = self._spared(next_hop)
        due = first
        if due < not_before:
            (newcomer,) = self._connection.execute(
                "SELECT min(next_try) FROM envelopes"
                " WHERE next_hop = ? AND state = 'queued' AND attempts = 0 AND next_try > ? AND next_try <= 9e999",
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
