"""The table of single values that outlive the process, such as the offset of the queue's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trimta.store.queue.database import Database

CLOCK_OFFSET: Final = "clock_offset"
"""The key of the seconds by which the queue's clock was moved forward, so that they are not lost by a restart."""

TIME_SCALE: Final = "time_scale"
"""The key of the factor of `serve --time-scale`, which commands that queue mail beside the server need."""


class Meta:
    """The table `meta`, which holds a text for each key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> str | None:
        """The value of a key; None if it was never set."""
        with self._database.reading():
            row = self._database.connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])

    def set(self, key: str, value: str) -> None:
        """Set the value of a key."""
        with self._database.transaction():
            self._database.connection.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )
