"""Queries for due envelopes: which next hops and envelopes are to be tried now, and in which order.

Each query reads as many rows as it returns and excludes, however long the queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from trimta.store.queue.database import Database
    from trimta.store.queue.destinations import Destinations

_UNWARNED: Final = "e.state = 'queued' AND e.warned = 0 AND e.warn_at IS NOT NULL"

_TRIED_AT: Final = """
    CASE WHEN e.attempts = 0 AND e.next_try > d.failed THEN e.next_try
    ELSE max(e.next_try, coalesce(d.not_before, 0.0)) END
"""
"""The moment at which an envelope (e) of a next hop (d) is tried."""


class Due:
    """Queries for envelopes that are due for a try, or for a notice to their sender.

    Moments are seconds since the epoch on the queue's clock.
    """

    def __init__(self, database: Database, destinations: Destinations) -> None:
        self._database = database
        self._connection = database.connection
        self._destinations = destinations

    def destinations(
        self, now: float, limit: int, *, exclude: Collection[str] = (), newest_first: bool = False
    ) -> list[tuple[str, float]]:
        """The next hops with due envelopes, `limit` at most, each with the moment since which it is due.

        The longest due is first; with `newest_first`, the latest due.  `exclude`: next hops to leave out.
        """
        order = "DESC" if newest_first else "ASC"
        with self._database.reading():
            self._destinations.bring_up_to_date()
            due_hops: list[tuple[str, float]] = []
            rows = self._connection.execute(
                f"SELECT next_hop, due FROM destinations WHERE due <= ? ORDER BY due {order} LIMIT ?",
                (now, limit + len(exclude)),
            )
            for next_hop, due in rows:
                if next_hop not in exclude:
                    due_hops.append((next_hop, due))
                    if len(due_hops) == limit:
                        break
            rows.close()
            return due_hops

    def envelopes(
        self, next_hop: str, now: float, limit: int, *, exclude: Collection[str] = (), newest_first: bool = False
    ) -> list[str]:
        """The ids of due envelopes of a next hop, `limit` at most; of a spared one, those that came after its failure.

        The longest due is first; with `newest_first`, the latest due.  `exclude`: ids of envelopes in flight.
        """
        order = "DESC" if newest_first else "ASC"
        with self._database.reading():
            failed, not_before = self._destinations.failure(next_hop)
            spared = "attempts = 0 AND next_try > ?" if not_before > now else "next_try >= ?"
            rows = self._connection.execute(
                f"SELECT id FROM envelopes WHERE next_hop = ? AND state = 'queued' AND {spared} AND next_try <= ?"
                f" ORDER BY next_try {order} LIMIT ?",
                (next_hop, failed if not_before > now else 0.0, now, limit + len(exclude)),
            )
            return [envelope_id for (envelope_id,) in rows if envelope_id not in exclude][:limit]

    def next_moment(self, now: float, *, exclude: Collection[str] = (), busy: Collection[str] = ()) -> float | None:
        """The first moment after `now` at which an envelope falls due; None if none will.

        Envelopes that are due already do not count; destinations() gives them.  `busy`: next hops with deliveries in
        flight, each of which costs a query for its later envelopes.  `exclude`: next hops that can take no more.
        """
        with self._database.reading():
            self._destinations.bring_up_to_date()
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
                _, not_before = self._destinations.failure(next_hop)
                moments += [moment for moment in (next_try, not_before) if moment is not None and moment > now]
            return min(moments, default=None)

    def notices(self, now: float, limit: int, *, exclude: Collection[str] = ()) -> list[tuple[str, bool]]:
        """The ids of envelopes whose senders are to be told of a delay, `limit` at most, the longest due first.

        These are queued envelopes past the moment of their delay warning, and queued or held ones past the deadline of
        DELIVERBY.  With each id comes whether the envelope is due for a try, too, which may deliver it.  `exclude`: ids
        to leave out.  `Queue.settle(warned=..., answered=...)` notes that a sender has been told.
        """
        statement = (
            f"SELECT e.id, {{column}}, e.state = 'queued' AND {_TRIED_AT} <= :now"
            " FROM envelopes e LEFT JOIN destinations d ON d.next_hop = e.next_hop"
            " WHERE {which} AND {column} <= :now ORDER BY {column} LIMIT :limit"
        )
        with self._database.reading():
            late: dict[str, tuple[float, bool]] = {}
            for column, which in (("e.warn_at", _UNWARNED), ("e.deadline", "e.deadline IS NOT NULL")):
                rows = self._connection.execute(
                    statement.format(column=column, which=which), {"now": now, "limit": limit + len(exclude)}
                )
                for envelope_id, moment, tried in rows:
                    if envelope_id not in exclude:
                        late.setdefault(envelope_id, (moment, bool(tried)))
            first = sorted(late.items(), key=lambda item: item[1][0])[:limit]
            return [(envelope_id, tried) for envelope_id, (_, tried) in first]

    def next_notice(self, now: float) -> float | None:
        """The first moment after `now` at which a notice falls due; None if none will."""
        with self._database.reading():
            moments = [
                self._connection.execute(
                    f"SELECT min({column}) FROM envelopes e WHERE {which} AND {column} > ?", (now,)
                ).fetchone()[0]
                for column, which in (("e.warn_at", _UNWARNED), ("e.deadline", "e.deadline IS NOT NULL"))
            ]
            return min((float(moment) for moment in moments if moment is not None), default=None)
