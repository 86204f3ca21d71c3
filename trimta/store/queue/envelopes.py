"""Changes to the tables of envelopes and recipients: insertion and deletion, with the look-up of rows by id.

No other module inserts or deletes an envelope; each change brings the table `destinations` up to date.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Final, NamedTuple

from trimta.store.queue.decoding import dump_deferred, dump_recipient, path_text
from trimta.store.queue.errors import NoSuchEntry
from trimta.store.queue.values import EnvelopeState, NewEnvelope, is_message_id

if TYPE_CHECKING:
    from trimta.store.queue.database import Database
    from trimta.store.queue.destinations import Destinations
    from trimta.store.queue.meta import Meta

_LAST_NUMBER: Final = "last_number"
"""Key in `meta`: the last number that take_numbers() gave."""


class Place(NamedTuple):
    """The place of an envelope in the tables."""

    seq: int
    """The row of the envelope."""
    message: int
    """The row of its message."""
    message_id: str
    last_number: int
    """The highest number of the message's envelopes."""


class Envelopes:
    """The tables `envelopes` and `recipients`.  All methods are called within a transaction."""

    def __init__(self, database: Database, destinations: Destinations, meta: Meta) -> None:
        self._connection = database.connection
        self._spool_files = database.spool_files
        self._destinations = destinations
        self._meta = meta

    def named(self, entry_id: str) -> list[tuple[int, str]]:
        """The (row, id) of the envelope with an id, or of all envelopes of the message with that id.

        Raises NoSuchEntry if there is none.
        """
        rows = self._connection.execute(
            "SELECT seq, id FROM envelopes WHERE id = :id OR message = (SELECT seq FROM messages WHERE id = :id)"
            " ORDER BY number",
            {"id": entry_id},
        ).fetchall()
        if not rows:
            raise NoSuchEntry(entry_id)
        return rows

    def place(self, envelope_id: str) -> Place | None:
        """The place of an envelope; None if it is gone."""
        row = self._connection.execute(
            "SELECT e.seq, m.seq, m.id, (SELECT max(number) FROM envelopes WHERE message = m.seq)"
            " FROM envelopes e JOIN messages m ON m.seq = e.message WHERE e.id = ?",
            (envelope_id,),
        ).fetchone()
        return None if row is None else Place(*row)

    def take_numbers(self, last: int, count: int) -> int:
        """The first of `count` numbers for new envelopes of a message whose last envelope has the number `last`.

        No number is given out twice, also if the envelope that had it is gone: an attempt at that envelope may still
        be under way, and would settle the wrong one.
        """
        last = max(last, int(self._meta.get(_LAST_NUMBER) or 0))
        self._meta.set(_LAST_NUMBER, str(last + count))
        return last + 1

    def insert(
        self, message: int, envelope_id: str, number: int, envelope: NewEnvelope, deadline: float | None
    ) -> None:
        """Insert an envelope and its recipients.

        `message`: the row of its message.  `deadline`: the deadline of DELIVERBY; None if it has no effect.
        """
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
                    None if outcome is None else dump_deferred(outcome),
                )
                for place, (recipient, outcome) in enumerate(zip_longest(envelope.recipients, envelope.last_outcomes))
            ],
        )
        if envelope.state is EnvelopeState.QUEUED:
            self._destinations.add(envelope.next_hop, envelope.next_try, envelope.attempts)

    def delete(self, seq: int) -> None:
        """Delete an envelope, its recipients included, and its message if this was the last one."""
        message, next_hop, message_id, spooled = self._connection.execute(
            "SELECT e.message, e.next_hop, m.id, m.spooled FROM envelopes e LEFT JOIN messages m ON m.seq = e.message"
            " WHERE e.seq = ?",
            (seq,),
        ).fetchone()
        self._connection.execute("DELETE FROM envelopes WHERE seq = ?", (seq,))
        self._destinations.refresh(next_hop)
        self.delete_message_without_envelopes(message, message_id, spooled=spooled)

    def delete_message_without_envelopes(self, seq: int, message_id: object, *, spooled: object) -> None:
        """Delete a message, its content included, if it has no envelope left."""
        deleted = self._connection.execute(
            "DELETE FROM messages WHERE seq = :seq AND NOT EXISTS (SELECT 1 FROM envelopes WHERE message = :seq)",
            {"seq": seq},
        )
        if deleted.rowcount and spooled and is_message_id(str(message_id)):
            self._spool_files.remove_after_commit([self._spool_files.folder / str(message_id)])
