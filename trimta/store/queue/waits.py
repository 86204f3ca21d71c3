"""No wait is longer than the step that it is: what a clock that was ahead, or was set back, left in the queue.

Moments are stored, not spans, so that they hold over a restart.  A moment that is further away than it can be was
written by another clock, and is brought near again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trimta.store.queue.envelopes import Envelopes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Waits(Envelopes):
    """The answer to a clock that was set back."""

    def bound_waits(
        self,
        now: float,
        *,
        longest: Callable[[int], float],
        wait: Callable[[int], float],
        spare: float,
        back: float = 0.0,
        exclude: Collection[str] = (),
    ) -> int:
        """Bring moments near that are further away than their wait; returns of how many envelopes.

        `longest` and `wait`: the longest wait after so many attempts, and one to take in its place.  `spare`: the
        longest for which a destination is left alone.  `back`: how far the clock was set back just now; 0: not known.
        `exclude`: envelopes in flight, whose next try is decided when they are settled.

        A message that arrived later than now arrives now, and all that counts from its arrival moves along: the delay
        warning, the lifetime, DELIVERBY, HOLDFOR.  HOLDUNTIL names a moment of the calendar, and stays.
        """
        with self.transaction():
            changed: dict[int, str] = {}
            self._bound_arrivals(now, back, changed)
            self._bound_first_tries(now, exclude, changed)
            self._bound_retries(now, back, longest, wait, exclude, changed)
            self._connection.execute(
                "UPDATE envelopes SET last_attempt = min(:now, last_attempt - :back) WHERE last_attempt > :now",
                {"now": now, "back": back},
            )
            spared = self._connection.execute(
                "SELECT next_hop, failed, not_before FROM destinations WHERE failed > ? OR not_before > ?", (now, now)
            ).fetchall()
            self._connection.executemany(
                "UPDATE destinations SET failed = ?, not_before = ? WHERE next_hop = ?",
                [
                    (min(failed, now), min(not_before - back, now + spare) if not_before > now else not_before, hop)
                    for hop, failed, not_before in spared
                ],
            )
            for next_hop in {*changed.values(), *(hop for hop, _, _ in spared)}:
                self._touch(next_hop)
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
    """A message's fields with what counts from its arrival; what is damaged stays so."""
    try:
        found = json.loads(fields)
        if "by" in found:
            found["by"][0] += shift
        if str(found.get("hold_request", "")).startswith("for;") and "hold_until" in found:
            found["hold_until"] += shift
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return fields
    return json.dumps(found, separators=(",", ":"))
