"""The table of message logs, for `trimta log`, bounded in size for each message, in age, and in the number of rows.

A log outlives its message.  A row holds the lines of one moment, or of one dialogue, each line with its own time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trimta.store.queue.database import Database

MESSAGE_LIMIT: Final = 64 * 1024
"""Characters kept for one message, at most."""
APPEND_LIMIT: Final = MESSAGE_LIMIT // 4
"""Characters kept of one append, at most."""
MAX_ROWS: Final = 100_000
MAX_AGE: Final = 7 * 86_400.0
PRUNE_EVERY: Final = 64
"""Appends between two prunings."""
PRUNE_ROWS: Final = 4 * PRUNE_EVERY
"""Rows that one pruning removes, at most: few, yet more than are added between two prunings."""

_STAMP: Final = pattern(r"(-?[0-9]+)\t")
"""The time of a line, in milliseconds after that of its row, and a tab, which no logged line has."""


class MessageLogTable:
    """The table `log`.  Times are seconds since the epoch on the queue's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.connection
        self._appends = 0

    def append(self, message_id: str, lines: Iterable[str], at: float) -> None:
        """Add lines of one moment to a message's log."""
        self.append_timed(message_id, [(at, line) for line in lines])

    def append_timed(self, message_id: str, lines: Sequence[tuple[float, str]]) -> None:
        """Add lines, each with its time, to a message's log.

        If the log gets too long, its oldest appends are deleted, but never the first, which tells how the message came.
        """
        if not lines:
            return
        at = lines[0][0]
        text = "\n".join(f"{round((moment - at) * 1000)}\t{line}" for moment, line in lines)
        if len(text) > APPEND_LIMIT:
            text = _without_its_middle(text)
        with self._database.transaction():
            self._make_room(message_id, len(text))
            self._connection.execute(
                "INSERT INTO log (message, at, text) VALUES (?, ?, ?)",
                (message_id, at, text.encode("utf-8", "backslashreplace").decode()),
            )
            self._appends += 1
            if self._appends % PRUNE_EVERY == 0:
                self._prune(lines[-1][0])

    def read(self, message_id: str) -> list[tuple[float, str]]:
        """The lines of a message's log, oldest first, each with its time; also after the message has left."""
        lines: list[tuple[float, str]] = []
        with self._database.reading():
            rows = self._connection.execute(
                "SELECT at, text FROM log WHERE message = ? ORDER BY at, seq", (message_id,)
            ).fetchall()
        for at, text in rows:
            moment = at
            for line in text.split("\n"):
                stamp = _STAMP.match(line)
                if stamp is not None:  # else the line has the time of the line before; older servers wrote no stamps
                    moment = at + int(stamp[1]) / 1000
                lines.append((moment, line[stamp.end() if stamp else 0 :]))
        return sorted(lines, key=lambda line: line[0])  # rows are out of order: the server writes later than commands

    def _make_room(self, message_id: str, length: int) -> None:
        rows = self._connection.execute(
            "SELECT seq, length(text) FROM log WHERE message = ? ORDER BY seq", (message_id,)
        ).fetchall()
        surplus = sum(row_length for _, row_length in rows) + length - MESSAGE_LIMIT
        for seq, row_length in rows[1:]:
            if surplus <= 0:
                break
            self._connection.execute("DELETE FROM log WHERE seq = ?", (seq,))
            surplus -= row_length

    def _prune(self, now: float) -> None:
        """Delete some of the rows that are too old or too many."""
        self._connection.execute(
            "DELETE FROM log WHERE seq IN (SELECT seq FROM log ORDER BY seq LIMIT ?)"
            " AND (at < ? OR seq <= (SELECT max(seq) FROM log) - ?)",
            (PRUNE_ROWS, now - MAX_AGE, MAX_ROWS),
        )


def _without_its_middle(text: str) -> str:
    half = APPEND_LIMIT // 2
    begun = text.rfind("\n", 0, len(text) - half) + 1
    stamp = _STAMP.match(text, begun)
    rest = max(len(text) - half, stamp.end() if stamp else begun)
    # The rest of a line that was cut keeps its time.
    return f"{text[:half]}\n[{rest - half} more characters]\n{stamp[0] if stamp else ''}{text[rest:]}"
