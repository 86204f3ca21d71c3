"""Transcripts of SMTP dialogues, for people to read: bounded in length, without secrets and without bodies."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST: Final = 150
LAST: Final = 150
"""Lines kept from the beginning and from the end of a long dialogue; those between them are left out."""
WIDTH: Final = 500
"""Characters of a line; the rest of it is left out."""


class Transcript:
    """The transcript of one connection: `note` adds a line, `lines` returns all that were kept."""

    def __init__(self, now: Callable[[], float] = time.time, *, first: int = FIRST, last: int = LAST) -> None:
        """`now` returns seconds since the epoch, on the queue's clock; `first` and `last` are numbers of lines."""
        self._now = now
        self._limits = (first, last)
        self._room = first
        """The number of lines that still belong to the first."""
        self._first: list[tuple[float, str]] = []
        self._last: deque[tuple[float, str]] | None = None
        self._left_out = 0

    def note(self, text: str) -> None:
        """Add a line with the present moment; characters that can't be printed become "?"."""
        if len(text) > WIDTH:
            text = f"{text[:WIDTH]}…"
        if not text.isprintable():
            text = "".join(character if character.isprintable() else "?" for character in text)
        if self._room:
            self._room -= 1
            self._first.append((self._now(), text))
            return
        last = self._limits[1]
        if self._last is None:
            self._last = deque(maxlen=last)
        if len(self._last) == last:
            self._left_out += 1
        self._last.append((self._now(), text))

    def client(self, text: str) -> None:
        """Add a line that the client sent."""
        self.note(f"C: {text}")

    def server(self, text: str) -> None:
        """Add a line that the server sent."""
        self.note(f"S: {text}")

    @property
    def lines(self) -> list[tuple[float, str]]:
        """The lines of the dialogue, oldest first, each with its moment in seconds since the epoch."""
        if self._last is None:
            return self._first.copy()
        gap = [(self._last[0][0], f"… ({self._left_out} lines left out)")] if self._left_out else []
        return [*self._first, *gap, *self._last]

    def take(self) -> list[tuple[float, str]]:
        """The lines, as `lines` returns them; they are no longer part of the transcript, which begins anew."""
        lines = self._first if self._last is None else self.lines
        self._room, self._first, self._last, self._left_out = self._limits[0], [], None, 0
        return lines
