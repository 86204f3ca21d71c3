"""A dialogue written down for people: bounded, without secrets and without bodies."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST: Final = 150
LAST: Final = 150
"""Lines kept from the beginning and from the end of a long dialogue: how it opened, and how it came out."""
WIDTH: Final = 500
"""Characters of a line."""


class Transcript:
    """`note` what happened; `lines` is what there is to read."""

    def __init__(self, now: Callable[[], float] = time.time, *, first: int = FIRST, last: int = LAST) -> None:
        """`now`: seconds since the epoch, as the queue sees them."""
        self._now = now
        self._limit = first
        self._first: list[tuple[float, str]] = []
        self._last: deque[tuple[float, str]] = deque(maxlen=last)
        self._left_out = 0

    def note(self, text: str) -> None:
        """Add one line; control characters from the network become "?"."""
        line = text[:WIDTH]
        if not line.isprintable():
            line = "".join(character if character.isprintable() else "?" for character in line)
        if len(text) > WIDTH:
            line += "…"
        if len(self._first) < self._limit:
            self._first.append((self._now(), line))
            return
        if len(self._last) == self._last.maxlen:
            self._left_out += 1
        self._last.append((self._now(), line))

    def client(self, text: str) -> None:
        """What the client said."""
        self.note(f"C: {text}")

    def server(self, text: str) -> None:
        """What the server said."""
        self.note(f"S: {text}")

    @property
    def lines(self) -> list[tuple[float, str]]:
        """The dialogue, oldest line first, each with its time."""
        gap = [(self._last[0][0], f"… ({self._left_out} lines left out)")] if self._left_out else []
        return [*self._first, *gap, *self._last]
