"""What is due, and when the next falls due: the scheduler's questions to the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.store.queue.envelopes import Envelopes

if TYPE_CHECKING:
    from collections.abc import Collection

_UNWARNED: Final = "e.state = 'queued' AND e.warned = 0 AND e.warn_at IS NOT NULL"

_TRIED_AT: Final = """
    CASE WHEN e.attempts = 0 AND e.next_try > d.failed THEN e.next_try
    ELSE max(e.next_try, coalesce(d.not_before, 0.0)) END
"""
"""When an envelope is tried."""


class Due(Envelopes):
    """Each answer costs as much as it is long, whatever is in the queue."""

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

    def due_notices(self, now: float, limit: int, *, exclude: Collection[str] = ()) -> list[tuple[str, bool]]:
        """Ids of at most `limit` envelopes whose senders are to be told by now that the message is late, and have not
        been, the longest due first: queued ones after the delay warning, all after DELIVERBY's deadline.  With each:
        whether it is due to be tried, too, which may make an end of it.  settle(warned=..., answered=...) says that
        they have been told.
        """
        statement = (
            f"SELECT e.id, {{column}}, e.state = 'queued' AND {_TRIED_AT} <= :now"
            " FROM envelopes e LEFT JOIN destinations d ON d.next_hop = e.next_hop"
            " WHERE {which} AND {column} <= :now ORDER BY {column} LIMIT :limit"
        )
        with self._translated():
            found: dict[str, tuple[float, bool]] = {}
            for column, which in (("e.warn_at", _UNWARNED), ("e.deadline", "e.deadline IS NOT NULL")):
                rows = self._connection.execute(
                    statement.format(column=column, which=which), {"now": now, "limit": limit + len(exclude)}
                )
                for envelope_id, moment, tried in rows:
                    if envelope_id not in exclude:
                        found.setdefault(envelope_id, (moment, bool(tried)))
            first = sorted(found.items(), key=lambda item: item[1][0])[:limit]
            return [(envelope_id, tried) for envelope_id, (_, tried) in first]

    def next_notice(self, now: float) -> float | None:
        """The first moment after `now` at which a notice falls due; None if none will."""
        with self._translated():
            moments = [
                self._connection.execute(
                    f"SELECT min({column}) FROM envelopes e WHERE {which} AND {column} > ?", (now,)
                ).fetchone()[0]
                for column, which in (("e.warn_at", _UNWARNED), ("e.deadline", "e.deadline IS NOT NULL"))
            ]
            return min((float(moment) for moment in moments if moment is not None), default=None)

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
