"""Octets that need not be in memory: they are searched and read one window at a time, however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WINDOW: Final = 64 * 1024
"""Octets of a file that are in memory at once.  A search of one window is also the longest time for which other threads
wait.
"""


class WindowedOctets:
    """A sequence of `size` octets behind a function that reads them.

    `read(start, end)` returns exactly the octets from `start` up to `end`; it may block, and what it raises is passed
    on.  A position is an offset in octets; a range [start, end) that goes beyond the last octet ends there.
    """

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._read = read
        self._base = 0
        """The position of the window."""
        self._window = b""

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Octets that are in memory."""
        return cls(len(data), lambda start, end: data[start:end])

    def __len__(self) -> int:
        return self._size

    def span(self, start: int, end: int) -> bytes:
        """The octets of [start, end), all at once: for short ranges."""
        end = min(end, self._size)
        if start >= end:
            return b""
        self._load(start, end - start)
        return self._window[start - self._base : end - self._base]

    def find(self, octets: bytes, start: int, end: int) -> int:
        """The position of the first `octets` within [start, end), or -1."""
        end = min(end, self._size)
        while start + len(octets) <= end:
            self._load(start, len(octets))
            stop = min(end, self._base + len(self._window))
            offset = self._window.find(octets, start - self._base, stop - self._base)
            if offset >= 0:
                return self._base + offset
            start = stop - len(octets) + 1
        return -1

    def starts(self, octets: bytes, start: int, end: int) -> bool:
        """Whether [start, end) begins with `octets`."""
        return start + len(octets) <= end and self.span(start, start + len(octets)) == octets

    def ends(self, octets: bytes, start: int, end: int) -> bool:
        """Whether [start, end) ends with `octets`."""
        return start + len(octets) <= end and self.span(end - len(octets), end) == octets

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """The octets of [start, end), at most WINDOW of them at a time."""
        end = min(end, self._size)
        while start < end:
            stop = min(end, start + WINDOW)
            yield self._read(start, stop)
            start = stop

    def is_ascii(self, start: int, end: int) -> bool:
        """Whether all octets of [start, end) are below 128."""
        return all(chunk.isascii() for chunk in self.chunks(start, end))

    def _load(self, start: int, size: int) -> None:
        """Read the window from `start` on, unless it holds the `size` octets there already."""
        if self._base <= start and start + size <= self._base + len(self._window):
            return
        self._base = start
        self._window = self._read(start, min(self._size, start + max(size, WINDOW)))
