"""The table `destinations` of next hops: when the first envelope of each is due, and when the next hop failed.

The table `destinations` is derived from the envelopes.  With its index the query for due envelopes, or for the next
moment, reads few rows, however long the queue.  So every change of an envelope's state, next hop or times must be
followed by `refresh` in the same transaction, at whose end, or before the table is read, each next hop is brought up to
date once.

A next hop that failed is spared: envelopes that were queued for it before are not tried until `not_before`.  The first
try of an envelope that comes later is not delayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimta.store.queue.database import Database


class Destinations:
    """The next hops of queued envelopes.  Moments are seconds since the epoch on the queue's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connection
        self._changed: set[str] = set()
        """Next hops whose rows may not be up to date."""
        database.before_commit = self._finish

    def defer(self, next_hop: str, now: float, until: float) -> None:
        """Spare a next hop that has failed: envelopes queued for it wait until `until`, without counting an attempt."""
        with self._database.transaction():
            self.bring_up_to_date()
            self._connection.execute(
                "UPDATE destinations SET failed = max(failed, ?), not_before = max(not_before, ?) WHERE next_hop = ?",
                (now, until, next_hop),
            )
            self.refresh(next_hop)

    def forget_failure(self, next_hop: str) -> None:
        """End the sparing of a next hop."""
        self._connection.execute("UPDATE destinations SET failed = 0, not_before = 0 WHERE next_hop = ?", (next_hop,))
        self.refresh(next_hop)

    def failure(self, next_hop: str) -> tuple[float, float]:
        """The moments at which a next hop failed and until which it is spared; zeros if it has not failed."""
        row = self._connection.execute(
            "SELECT failed, not_before FROM destinations WHERE next_hop = ?", (next_hop,)
        ).fetchone()
        return (0.0, 0.0) if row is None else (float(row[0]), float(row[1]))

    def add(self, next_hop: str, next_try: float, attempts: int) -> None:
        """Bring a next hop up to date after a new envelope was added, which can only make it due earlier."""
        if next_hop in self._changed:
            return
        self._connection.execute(
            "INSERT INTO destinations (next_hop, due, failed, not_before) VALUES (:hop, :due, 0, 0)"
            " ON CONFLICT (next_hop) DO UPDATE SET due ="
            " CASE WHEN :attempts = 0 AND :due > failed THEN :due ELSE max(:due, not_before) END"
            " WHERE due > CASE WHEN :attempts = 0 AND :due > failed THEN :due ELSE max(:due, not_before) END",
            {"hop": next_hop, "due": next_try, "attempts": attempts},
        )

    def refresh(self, next_hop: str) -> None:
        """Note that one of a next hop's envelopes was changed."""
        self._changed.add(next_hop)

    def bring_up_to_date(self) -> None:
        """Bring up to date the next hops whose envelopes were changed.  They stay noted until the commit, since what
        was done may be undone with an operation that fails.

        A damaged moment, which is no number, is ignored: `repair.recover` handles it.
        """
        for next_hop in self._changed:
            self._bring_up_to_date(next_hop)

    def _finish(self) -> None:
        self.bring_up_to_date()
        self._changed.clear()

    def _bring_up_to_date(self, next_hop: str) -> None:
        first = "SELECT min(next_try) FROM envelopes WHERE next_hop = :hop AND state = 'queued' AND next_try <= 9e999"
        row = self._connection.execute(
            f"SELECT ({first}), due, failed, not_before FROM destinations WHERE next_hop = :hop", {"hop": next_hop}
        ).fetchone()
        if row is None:
            (due,) = self._connection.execute(first, {"hop": next_hop}).fetchone()
            if due is not None:
                self._connection.execute("INSERT INTO destinations VALUES (?, ?, 0, 0)", (next_hop, due))
            return
        due, before, failed, not_before = row
        if due is None:
            self._connection.execute("DELETE FROM destinations WHERE next_hop = ?", (next_hop,))
            return
        if due < not_before:
            (newcomer,) = self._connection.execute(
                "SELECT min(next_try) FROM envelopes"
                " WHERE next_hop = ? AND state = 'queued' AND attempts = 0 AND next_try > ? AND next_try <= 9e999",
                (next_hop, failed),
            ).fetchone()
            due = not_before if newcomer is None else min(newcomer, not_before)
        if due != before:
            self._connection.execute("UPDATE destinations SET due = ? WHERE next_hop = ?", (due, next_hop))

    def bound_failures(self, now: float, *, back: float, longest: float) -> list[str]:
        """Bring failures forward that are dated after `now`, since the clock was set back; returns their next hops.

        `back`: seconds by which the clock was set back.  `longest`: seconds for which a next hop is spared, at most.
        The caller calls refresh() for the next hops.
        """
        rows = self._connection.execute(
            "SELECT next_hop, failed, not_before FROM destinations WHERE failed > ? OR not_before > ?", (now, now)
        ).fetchall()
        self._connection.executemany(
            "UPDATE destinations SET failed = ?, not_before = ? WHERE next_hop = ?",
            [
                (min(failed, now), min(not_before - back, now + longest) if not_before > now else not_before, hop)
                for hop, failed, not_before in rows
            ],
        )
        return [hop for hop, _, _ in rows]

    def remove_damaged(self) -> None:
        """Remove rows whose moments are no numbers; rebuild() makes them again."""
        self._connection.execute(
            "DELETE FROM destinations"
            " WHERE typeof(due) != 'real' OR typeof(failed) != 'real' OR typeof(not_before) != 'real'"
        )

    def rebuild(self) -> None:
        """Make the table again from the envelopes, where it is not up to date."""
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
            self.refresh(next_hop)
