"""The header summary of a stored message, for acceptance and dispatch: read in a thread if the body is in a file."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from trimta.content.header_summary import HeaderSummary

if TYPE_CHECKING:
    from trimta.runtime.disk import Disk
    from trimta.store.spool import Body


async def read_header(body: Body, disk: Disk) -> HeaderSummary:
    """The summary of the header at the beginning of `body`, of any length.  Raises OSError and BodyDamagedError."""
    return await disk.run(_scan, body) if body.data is None else HeaderSummary.of(body.data)


def _scan(body: Body) -> HeaderSummary:
    with contextlib.closing(body.chunks()) as pieces:
        return HeaderSummary.of_pieces(pieces)
