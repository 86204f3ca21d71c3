"""The operator's changes to the queue: retry, hold, release, redirect, bounce; the caller then wakes the scheduler.

`trimta queue` and trimta.testing make them beside the server; ETRN is a retry, too.

An id is an envelope's, or a message's, which means all its envelopes; NoSuchEntry is raised for an unknown id.  An
attempt may be under way meanwhile: `Queue.settle` says what its outcome still changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.store.queue.errors import NoSuchEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimta.store.queue.database import Database
    from trimta.store.queue.destinations import Destinations
    from trimta.store.queue.envelopes import Envelopes
    from trimta.store.queue.values import NewEnvelope

BOUNCE_HOP: Final = "bounce"
"""The next hop of envelopes that the operator has bounced, which must not wait for their real next hop."""

_RETRY_CHUNK: Final = 2000
"""Envelopes that retry_domain() and retry_all() change in one transaction, for whose end the server has to wait."""


class Operator:
    """The operator's actions on envelopes: retry, hold, release, redirect and bounce."""

    def __init__(self, database: Database, envelopes: Envelopes, destinations: Destinations) -> None:
        self._database = database
        self._connection = database.connection
        self._envelopes = envelopes
        self._destinations = destinations

    def retry(self, entry_id: str, now: float) -> tuple[str, ...]:
        """Make envelopes due now, also if their next hop is spared; returns their ids.  Held envelopes stay held."""
        with self._database.transaction():
            return self._retry([seq for seq, _ in self._envelopes.named(entry_id)], now)

    def retry_domain(self, domain: str, now: float, *, subdomains: bool = False) -> int:
        """retry() for all envelopes of a recipient domain (Mailbox.domain_key), in short transactions.

        With `subdomains` also those of the domains below it, as "@" in ETRN means (RFC 1985 5.3).  Returns their
        number.
        """
        if subdomains:
            below = f".{domain}"
            return self._retry_many("(domain = ? OR substr(domain, -length(?)) = ?) AND", (domain, below, below), now)
        return self._retry_many("domain = ? AND", (domain,), now)

    def retry_all(self, now: float) -> int:
        """retry() for all envelopes, in short transactions.  Returns their number."""
        return self._retry_many("", (), now)

    def hold(self, entry_id: str, reason: str = "by the operator") -> tuple[str, ...]:
        """Hold envelopes until release(), also if an attempt under way defers them.

        Returns the ids of those that were not held before.
        """
        with self._database.transaction():
            return self._change(entry_id, "state = 'held', hold_reason = ?", (reason,), "state = 'queued'")

    def release(self, entry_id: str, now: float, *, via: str = "", next_hop: str | None = None) -> tuple[str, ...]:
        """Make held envelopes due now, without regard to `hold` routes; returns the ids of those that were held.

        `via`: the route to take, as the operator wrote it.  `next_hop`: the next hop of that route.
        """
        with self._database.transaction():
            return self._change(
                entry_id,
                "state = 'queued', hold_reason = '', released = 1, via = ?, next_try = ?,"
                " next_hop = coalesce(?, next_hop)",
                (via, now, next_hop),
                "state = 'held'",
            )

    def redirect(self, envelope_id: str, envelopes: Sequence[NewEnvelope]) -> tuple[str, ...]:
        """Replace an envelope by others of the same message (`release --to`); returns their ids, which are new.

        The outcome of an attempt under way at the old envelope has no effect.
        """
        with self._database.transaction():
            place = self._envelopes.place(envelope_id)
            if place is None:
                raise NoSuchEntry(envelope_id)
            (deadline,) = self._connection.execute(
                "SELECT deadline FROM envelopes WHERE seq = ?", (place.seq,)
            ).fetchone()
            new_ids: list[str] = []
            first = self._envelopes.take_numbers(place.last_number, len(envelopes))
            for number, envelope in enumerate(envelopes, start=first):
                new_ids.append(f"{place.message_id}.{number}")
                self._envelopes.insert(place.message, new_ids[-1], number, envelope, deadline)
                self._connection.execute("UPDATE envelopes SET released = 1 WHERE id = ?", (new_ids[-1],))
            self._envelopes.delete(place.seq)
            return tuple(new_ids)

    def bounce(self, entry_id: str, now: float) -> tuple[str, ...]:
        """Have envelopes returned to their sender, also held ones; returns their ids.

        They are due now, marked `bounce`, with the next hop BOUNCE_HOP.
        """
        with self._database.transaction():
            return self._change(
                entry_id,
                "state = 'queued', hold_reason = '', bounce = 1, next_try = ?, next_hop = ?",
                (now, BOUNCE_HOP),
                "1",
            )

    def _change(self, entry_id: str, assignments: str, values: tuple[object, ...], condition: str) -> tuple[str, ...]:
        changed = []
        for seq, envelope_id in self._envelopes.named(entry_id):
            before = self._connection.execute(
                f"SELECT next_hop FROM envelopes WHERE seq = ? AND {condition}", (seq,)
            ).fetchone()
            if before is None:
                continue
            self._connection.execute(f"UPDATE envelopes SET {assignments} WHERE seq = ?", (*values, seq))
            after = self._connection.execute("SELECT next_hop FROM envelopes WHERE seq = ?", (seq,)).fetchone()
            for (next_hop,) in {before, after}:
                self._destinations.refresh(next_hop)
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
            self._destinations.forget_failure(hop)
        return tuple(retried)

    def _retry_many(self, condition: str, values: tuple[object, ...], now: float) -> int:
        count, last = 0, 0
        while True:
            with self._database.transaction():
                rows = self._connection.execute(
                    f"SELECT seq FROM envelopes WHERE {condition} seq > ? ORDER BY seq LIMIT {_RETRY_CHUNK}",
                    (*values, last),
                ).fetchall()
                if not rows:
                    return count
                count += len(self._retry([seq for (seq,) in rows], now))
                last = rows[-1][0]
