"""The body reader, by which transports read a body in pieces: from its spool file in a thread, or from memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Generator

    from trimta.runtime.disk import Disk

READ: Final = 512 * 1024
"""Octets read from a spool file in one call in a thread."""


class BodyReader:
    """Reads the pieces of a body, in their order; must be closed after use.

    If a read is cancelled, its thread closes the file, and nothing more can be read.
    """

    def __init__(self, pieces: Generator[bytes, None, None], disk: Disk, *, in_memory: bool) -> None:
        self._pieces: Generator[bytes, None, None] | None = pieces
        self._disk = disk
        self._in_memory = in_memory

    async def some(self) -> list[bytes]:
        """The next pieces, of READ octets or a little more in all; [] at the end.  Raises what `pieces` raises."""
        pieces = self._pieces
        if pieces is None:
            return []
        if self._in_memory:
            return _some(pieces)
        try:
            return await self._disk.run_or_leave(_some, pieces, left=pieces.close)
        except trio.Cancelled:
            self._pieces = None
            raise

    def close(self) -> None:
        """Close the file, if there is a file; a second call does nothing."""
        if self._pieces is not None:
            self._pieces.close()


def _some(pieces: Generator[bytes, None, None]) -> list[bytes]:
    taken: list[bytes] = []
    size = 0
    for piece in pieces:
        taken.append(piece)
        size += len(piece)
        if size >= READ:
            break
    return taken
