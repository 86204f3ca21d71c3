"""Correction of stored moments after the clock was set back: no envelope waits longer than the retry schedule says.

The queue stores moments and not spans, so that they stay true over a restart.  A moment that is further away than the
schedule allows was written while the clock showed another time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from trimta.store.queue.database import Database
    from trimta.store.queue.destinations import Destinations


class Waits:
    """The moments in the future that the queue stores of messages, envelopes and next hops."""

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
        """Bring moments forward that are later than the retry schedule allows; returns the number of envelopes changed.

        `now`       seconds since the epoch, on the queue's clock
        `longest`   gives the longest wait in seconds that the schedule allows after a number of attempts
        `wait`      gives the wait in seconds that replaces a longer one after a number of attempts
        `spare`     seconds for which a next hop that failed is spared, at most
        `back`      seconds by which the clock was set back just now; 0 where that is not known
        `exclude`   ids of envelopes in flight, whose next try is decided when they are settled

        A message that arrived later than `now` is given `now` as its arrival, and what counts from the arrival moves by
        the same time: the delay warning, the lifetime, DELIVERBY, HOLDFOR.  HOLDUNTIL (RFC 4865) names a moment of the
        calendar and does not change.
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
        """An envelope that was never tried is due now, or at the end of the hold that its sender asked for."""
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
    """The JSON of a message's fields, with DELIVERBY and HOLDFOR moved by `shift` seconds.

    Damaged fields are returned as they are: `rows` reports them where the message is read.
    """
    try:
        values = json.loads(fields)
        if "by" in values:
            values["by"][0] += shift
        if str(values.get("hold_request", "")).startswith("for;") and "hold_until" in values:
            values["hold_until"] += shift
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return fields
    return json.dumps(values, separators=(",", ":"))
