"""Octets that need not be in memory: searched and read a window at a time, whatever their size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW: Final = 64 * 1024
"""Octets in memory at once, where they come from a file; also what is searched without letting other threads run."""


class Source:
    """`Source(size, read)`: `read(start, end)` gives octets, all that are asked for, and may block and raise."""

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._read = read
        self._base = 0
        self._window = b""

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Octets that are in memory."""
        return cls(len(data), lambda start, end: data[start:end])

    def __len__(self) -> int:
        return self._size

    def span(self, start: int, end: int) -> bytes:
        """Octets from `start` to `end`, or to the last: to be used for short spans."""
        end = min(end, self._size)
        if start >= end:
            return b""
        self._load(start, end - start)
        return self._window[start - self._base : end - self._base]

    def find(self, octets: bytes, start: int, end: int) -> int:
        """Where they begin first in [start, end), -1 if nowhere."""
        end = min(end, self._size)
        while start + len(octets) <= end:
            self._load(start, len(octets))
            stop = min(end, self._base + len(self._window))
            found = self._window.find(octets, start - self._base, stop - self._base)
            if found >= 0:
                return self._base + found
            start = stop - len(octets) + 1
        return -1

    def starts(self, octets: bytes, start: int, end: int) -> bool:
        """Whether [start, end) begins with them."""
        return start + len(octets) <= end and self.span(start, start + len(octets)) == octets

    def ends(self, octets: bytes, start: int, end: int) -> bool:
        """Whether [start, end) ends with them."""
        return start + len(octets) <= end and self.span(end - len(octets), end) == octets

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """[start, end) in pieces of at most a window."""
        end = min(end, self._size)
        while start < end:
            stop = min(end, start + WINDOW)
            yield self._read(start, stop)
            start = stop

    def is_ascii(self, start: int, end: int) -> bool:
        """Whether no octet of [start, end) is over 127."""
        return all(chunk.isascii() for chunk in self.chunks(start, end))

    def _load(self, start: int, size: int) -> None:
        if self._base <= start and start + size <= self._base + len(self._window):
            return
        self._base = start
        self._window = self._read(start, min(self._size, start + max(size, WINDOW)))
