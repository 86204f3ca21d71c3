"""Stored moments that a change of the clock made later than the retry schedule allows: they are brought back.

The queue stores moments, not spans, so that they hold over a restart.  A moment that is further away than its step was
written by a clock that showed another time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trimta.store.queue.database import Database
    from trimta.store.queue.destinations import Destinations


class Waits:
    """Moments in the future, of messages, envelopes and next hops."""

    def __init__(self, database: Database, destinations: Destinations) -> None:
        self._database = database
        self._connection = database.connection
        self._destinations = destinations

    def bound(
        self,
        now: float,
        *,
        longest: Callable[[int], float],
        wait: Callable[[int], float],
        spare: float,
        back: float = 0.0,
        exclude: Collection[str] = (),
    ) -> int:
        """Bring moments near that are further away than their step; returns of how many envelopes.

        `longest` and `wait`: the longest wait in seconds after so many attempts, and a wait to take in its place.
        `spare`: the longest for which a next hop that failed is spared.  `back`: seconds by which the clock was set
        back just now; 0: not known.  `exclude`: envelopes in flight, whose next try is decided when they are settled.

        A message that arrived later than now arrives now, and all that counts from its arrival moves along: the delay
        warning, the lifetime, DELIVERBY, HOLDFOR.  HOLDUNTIL names a moment of the calendar, and stays.
        """
        with self._database.transaction():
            changed: dict[int, str] = {}
            self._bound_arrivals(now, back, changed)
            self._bound_first_tries(now, exclude, changed)
            self._bound_retries(now, back, longest, wait, exclude, changed)
            self._connection.execute(
                "UPDATE envelopes SET last_attempt = min(:now, last_attempt - :back) WHERE last_attempt > :now",
                {"now": now, "back": back},
            )
            spared = self._destinations.bound_failures(now, back=back, longest=spare)
            for next_hop in {*changed.values(), *spared}:
                self._destinations.refresh(next_hop)
            return len(changed)

    def _bound_arrivals(self, now: float, back: float, changed: dict[int, str]) -> None:
        rows = self._connection.execute(
            "SELECT seq, arrived, fields FROM messages WHERE arrived > ?", (now,)
        ).fetchall()
        for seq, arrived, fields in rows:
            moved = min(now, arrived - back)
            self._connection.execute(
                "UPDATE messages SET arrived = ?, fields = ? WHERE seq = ?",
                (moved, _shifted(fields, moved - arrived), seq),
            )
            self._connection.execute(
                "UPDATE envelopes SET warn_at = warn_at + :shift, deadline = deadline + :shift WHERE message = :seq",
                {"shift": moved - arrived, "seq": seq},
            )
            changed.update(
                self._connection.execute("SELECT seq, next_hop FROM envelopes WHERE message = ?", (seq,)).fetchall()
            )

    def _bound_first_tries(self, now: float, exclude: Collection[str], changed: dict[int, str]) -> None:
        """The first try is at once, or at the end of a hold."""
        rows = self._connection.execute(
            "SELECT e.id, e.seq, e.next_hop, e.next_try,"
            " CASE WHEN json_valid(m.fields) THEN json_extract(m.fields, '$.hold_until') END"
            " FROM envelopes e JOIN messages m ON m.seq = e.message"
            " WHERE e.attempts = 0 AND e.state = 'queued' AND e.next_try > ?",
            (now,),
        ).fetchall()
        for envelope_id, seq, next_hop, next_try, hold_until in rows:
            due = max(now, float(hold_until or 0.0))
            if next_try > due and envelope_id not in exclude:
                self._connection.execute("UPDATE envelopes SET next_try = ? WHERE seq = ?", (due, seq))
                changed[seq] = next_hop

    def _bound_retries(
        self,
        now: float,
        back: float,
        longest: Callable[[int], float],
        wait: Callable[[int], float],
        exclude: Collection[str],
        changed: dict[int, str],
    ) -> None:
        rows = self._connection.execute(
            "SELECT id, seq, next_hop, next_try, attempts FROM envelopes"
            " WHERE attempts > 0 AND state = 'queued' AND next_try > ?",
            (now,),
        ).fetchall()
        for envelope_id, seq, next_hop, next_try, attempts in rows:
            due = max(now, next_try - back)
            if due > now + longest(attempts):
                due = now + wait(attempts)
            if due < next_try and envelope_id not in exclude:
                self._connection.execute("UPDATE envelopes SET next_try = ? WHERE seq = ?", (due, seq))
                changed[seq] = next_hop


def _shifted(fields: str, shift: float) -> str:
    """A message's fields with DELIVERBY and HOLDFOR moved by `shift` seconds; damaged ones stay as they are."""
    try:
        values = json.loads(fields)
        if "by" in values:
            values["by"][0] += shift
        if str(values.get("hold_request", "")).startswith("for;") and "hold_until" in values:
            values["hold_until"] += shift
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return fields
    return json.dumps(values, separators=(",", ":"))
