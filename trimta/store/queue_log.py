"""The log of each message, for `trimta log`: bounded per message, in age and in all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

MESSAGE_LIMIT: Final = 64 * 1024
"""Characters kept for one message."""
APPEND_LIMIT: Final = MESSAGE_LIMIT // 4
"""Characters kept of one append."""
MAX_ROWS: Final = 100_000
MAX_AGE: Final = 7 * 86_400.0
PRUNE_EVERY: Final = 64
PRUNE_ROWS: Final = 4 * PRUNE_EVERY
"""Appends between two prunings, and what one removes at most: short, yet faster than the log can grow."""


def append(connection: sqlite3.Connection, message_id: str, text: str, at: float) -> None:
    """Add a text.  What does not fit pushes out the oldest but the first one: how the message came stays."""
    if len(text) > APPEND_LIMIT:
        half = APPEND_LIMIT // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} more characters]\n{text[-half:]}"
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


def read(connection: sqlite3.Connection, message_id: str) -> list[tuple[float, str]]:
    """The texts, oldest first: the server writes a moment later than the commands."""
    return connection.execute("SELECT at, text FROM log WHERE message = ? ORDER BY at, seq", (message_id,)).fetchall()


def prune(connection: sqlite3.Connection, now: float) -> None:
    """Remove some of what is too old or too much."""
    connection.execute(
        "DELETE FROM log WHERE seq IN (SELECT seq FROM log ORDER BY seq LIMIT ?)"
        " AND (at < ? OR seq <= (SELECT max(seq) FROM log) - ?)",
        (PRUNE_ROWS, now - MAX_AGE, MAX_ROWS),
    )
