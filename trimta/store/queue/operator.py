"""The operator's verbs.  An id is a message's, meaning all its envelopes, or an envelope's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.store.queue.envelopes import Envelopes
from trimta.store.queue.rows import ENVELOPE, FACTS, JOINED
from trimta.store.queue.values import Listed, NewEnvelope, NoSuchEntry, QueuedEnvelope, State, StoredMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BOUNCE_HOP: Final = "bounce"
"""The next hop of envelopes that the operator has bounced: no trouble of their real one is to keep them waiting."""


_WINDOW: Final = 200
_RETRY_CHUNK: Final = 2000


class Steering(Envelopes):
    """What `trimta queue` does, beside what the server does."""

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
            place = self._place(envelope_id)
            if place is None:
                raise NoSuchEntry(envelope_id)
            seq, message, message_id, last = place
            (deadline,) = self._connection.execute("SELECT deadline FROM envelopes WHERE seq = ?", (seq,)).fetchone()
            new_ids: list[str] = []
            for number, envelope in enumerate(envelopes, start=self._take_numbers(last, len(envelopes))):
                new_ids.append(f"{message_id}.{number}")
                self._insert_envelope(message, new_ids[-1], number, envelope, deadline)
                self._connection.execute("UPDATE envelopes SET released = 1 WHERE id = ?", (new_ids[-1],))
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
