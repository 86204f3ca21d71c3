"""The octets of a body, read a piece at a time: in a thread, unless they are in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Generator

    from trimta.runtime.disk import Disk

READ: Final = 512 * 1024
"""Octets read from a spool file in one go to a thread."""


class Pieces:
    """Close it after use.  A read that is cancelled leaves the file to its thread, which closes it: after that there
    is nothing more to be read.
    """

    def __init__(self, pieces: Generator[bytes, None, None], disk: Disk, *, in_memory: bool) -> None:
        self._pieces: Generator[bytes, None, None] | None = pieces
        self._disk = disk
        self._in_memory = in_memory

    async def some(self) -> list[bytes]:
        """The next READ octets, as they come; none at the end.  Raises what the generator raises."""
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
        """Close the file, if there is one.  Idempotent."""
        if self._pieces is not None:
            self._pieces.close()


def _some(pieces: Generator[bytes, None, None]) -> list[bytes]:
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size >= READ:
            break
    return found
