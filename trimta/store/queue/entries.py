"""Queries of the queue by id or filter: an envelope for an attempt, a message with its envelopes, lists and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.store.queue.errors import NoSuchEntry
from trimta.store.queue.rows import ENVELOPE, JOINED, LISTED, MESSAGE, RowReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trimta.store.queue.database import Database
    from trimta.store.queue.envelopes import Envelopes
    from trimta.store.queue.values import EnvelopeState, ListedEnvelope, QueuedEnvelope, StoredMessage

_WINDOW: Final = 200
"""Envelopes that a list reads at once."""


class Entries:
    """The entries of the queue.  An entry's id is an envelope's, or a message's, which means all its envelopes."""

    def __init__(self, database: Database, envelopes: Envelopes) -> None:
        self._database = database
        self._connection = database.connection
        self._envelopes = envelopes
        self._reader = RowReader(database.connection, database.spool_files.folder)

    def load(self, envelope_id: str) -> tuple[StoredMessage, QueuedEnvelope] | None:
        """An envelope and its message; None if it is gone.

        Raises DamagedEntry if it can't be read, or if its spool file is missing or not as long as it was.
        """
        with self._database.reading():
            row = self._connection.execute(
                f"SELECT {ENVELOPE}, {MESSAGE} FROM {JOINED} WHERE e.id = ?", (envelope_id,)
            ).fetchone()
            return None if row is None else self._reader.loaded(envelope_id, row)

    def show(self, entry_id: str) -> tuple[StoredMessage, tuple[QueuedEnvelope, ...]]:
        """The message and the envelopes with an id.  Raises NoSuchEntry and DamagedEntry."""
        with self._database.reading():
            pairs = [pair for _, name in self._envelopes.named(entry_id) if (pair := self.load(name)) is not None]
            if not pairs:
                raise NoSuchEntry(entry_id)
            return pairs[0][0], tuple(envelope for _, envelope in pairs)

    def list_envelopes(
        self,
        *,
        domain: str | None = None,
        state: EnvelopeState | None = None,
        sender: str | None = None,
        recipient: str | None = None,
    ) -> Iterator[ListedEnvelope]:
        """The envelopes that match, in order of arrival.

        They are read in windows: the first comes at once, however long the queue, and changes meanwhile do no harm.
        `domain` is a recipient domain (Mailbox.domain_key); `sender` ("<>" for the null reverse-path) and `recipient`
        are addresses or globs, compared without case.  A damaged entry is listed, with the damage in `hold_reason`.
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
            f"SELECT {ENVELOPE}, {LISTED} FROM {JOINED} WHERE {' AND '.join(conditions)} ORDER BY e.seq LIMIT {_WINDOW}"
        )
        after = 0
        while True:
            with self._database.reading():
                rows = self._connection.execute(statement, (after, *values)).fetchall()
                window = [self._reader.listed(row) for row in rows]
            if not rows:
                return
            after = rows[-1][0]
            yield from window

    def count(self, state: EnvelopeState | None = None) -> int:
        """The number of envelopes, in one state or in all."""
        where, values = ("", ()) if state is None else (" WHERE state = ?", (str(state),))
        with self._database.reading():
            (count,) = self._connection.execute(f"SELECT count(*) FROM envelopes{where}", values).fetchone()
            return int(count)

    def count_by_domain(self) -> dict[str, int]:
        """The number of envelopes for each recipient domain, held ones included, the largest number first."""
        with self._database.reading():
            return dict(
                self._connection.execute(
                    "SELECT domain, count(*) FROM envelopes GROUP BY domain ORDER BY count(*) DESC, domain"
                ).fetchall()
            )
