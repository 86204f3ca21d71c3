"""The log of each message, for `trimta log`: bounded per message, in age and in all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

MESSAGE_LIMIT: Final = 64 * 1024
"""Characters kept for one message."""
APPEND_LIMIT: Final = MESSAGE_LIMIT // 4
"""Characters kept of one append."""
MAX_ROWS: Final = 100_000
MAX_AGE: Final = 7 * 86_400.0
PRUNE_EVERY: Final = 64
PRUNE_ROWS: Final = 4 * PRUNE_EVERY
"""Appends between two prunings, and what one removes at most: short, yet faster than the log can grow."""


_STAMP: Final = re.compile(r"(-?[0-9]+)\t")
"""Milliseconds after the row's time, before each line that has its own: no line that is logged has a tab."""


def append(connection: sqlite3.Connection, message_id: str, lines: Sequence[tuple[float, str]]) -> None:
    """Add lines with their times.  What does not fit pushes out the oldest but the first ones: how the message came
    stays.
    """
    at = lines[0][0]
    text = "\n".join(f"{round((moment - at) * 1000)}\t{line}" for moment, line in lines)
    if len(text) > APPEND_LIMIT:
        text = _without_its_middle(text)
    rows = connection.execute(
        "SELECT seq, length(text) FROM log WHERE message = ? ORDER BY seq", (message_id,)
    ).fetchall()
    surplus = sum(length for _, length in rows) + len(text) - MESSAGE_LIMIT
    for seq, length in rows[1:]:
        if surplus <= 0:
            break
        connection.execute("DELETE FROM log WHERE seq = ?", (seq,))
        surplus -= length
    connection.execute(
        "INSERT INTO log (message, at, text) VALUES (?, ?, ?)",
        (message_id, at, text.encode("utf-8", "backslashreplace").decode()),
    )


def _without_its_middle(text: str) -> str:
    half = APPEND_LIMIT // 2
    begun = text.rfind("\n", 0, len(text) - half) + 1
    stamp = _STAMP.match(text, begun)
    rest = max(len(text) - half, stamp.end() if stamp else begun)
    # What is left of a line keeps its time.
    return f"{text[:half]}\n[{rest - half} more characters]\n{stamp[0] if stamp else ''}{text[rest:]}"


def read(connection: sqlite3.Connection, message_id: str) -> list[tuple[float, str]]:
    """The lines with their times, oldest first: the server writes a moment later than the commands."""
    found: list[tuple[float, str]] = []
    for at, text in connection.execute("SELECT at, text FROM log WHERE message = ? ORDER BY at, seq", (message_id,)):
        moment = at
        for line in text.split("\n"):
            stamp = _STAMP.match(line)
            if stamp is not None:  # else it belongs to the line before, or is of a server that did not write any
                moment = at + int(stamp[1]) / 1000
            found.append((moment, line[stamp.end() if stamp else 0 :]))
    return sorted(found, key=lambda line: line[0])


def prune(connection: sqlite3.Connection, now: float) -> None:
    """Remove some of what is too old or too much."""
    connection.execute(
        "DELETE FROM log WHERE seq IN (SELECT seq FROM log ORDER BY seq LIMIT ?)"
        " AND (at < ? OR seq <= (SELECT max(seq) FROM log) - ?)",
        (PRUNE_ROWS, now - MAX_AGE, MAX_ROWS),
    )
