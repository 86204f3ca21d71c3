"""A queue that was there and is gone: its database was deleted, or cut to nothing, while nobody looked.

A file beside it remembers that there was one, since an empty queue looks the same as a new one.  What the loss left of
large messages, their spool files, is put where damaged entries go.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from trimta.store import durable
from trimta.store.queue.schema import FILE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MARKER: Final = "queue.made"
_MADE: Final = b"The queue of this folder is queue.sqlite3.\n"
_LOST: Final = b"The queue of this folder was lost; nobody has been told yet.\n"


def is_lost(data_dir: Path) -> bool:
    """Whether there was a queue here that is gone now, of which no server has told yet."""
    try:
        noted = (data_dir / MARKER).read_bytes()
    except FileNotFoundError:
        return False
    return noted == _LOST or _is_empty(data_dir / FILE)


def note(data_dir: Path, *, told: bool = False) -> None:
    """Remember that there is a queue, which was just opened; a loss is remembered until it is `told`.  To be called
    before the queue is opened as well, by whoever is going to make a new database in place of the lost one.
    """
    wanted = _LOST if is_lost(data_dir) and not told else _MADE
    with contextlib.suppress(FileNotFoundError):
        if (data_dir / MARKER).read_bytes() == wanted:
            return
    if wanted == _MADE and _is_empty(data_dir / FILE):
        return
    with contextlib.suppress(FileExistsError, FileNotFoundError):  # another process is at it, and notes the same
        durable.replace_file(data_dir / MARKER, wanted)


def rescue(data_dir: Path, strays: Iterable[Path]) -> list[Path]:
    """Put spool files that belong to no message of today's queue, so that they may be of the lost one, beside other
    damaged entries; returns where they are.
    """
    folder = data_dir / "damaged"
    found: list[Path] = []
    for stray in strays:
        durable.make_dirs(folder)
        found.append(folder / f"{stray.name}.content")
        durable.rename(stray, found[-1])
    if found:
        durable.fsync_dir(folder)
    return found


def explanation(data_dir: Path) -> str:
    """What people are told."""
    return (
        f"the queue that was in {data_dir / FILE} is gone: what waited there is lost, unless you put the file back"
        " while nothing runs; an empty queue takes its place"
    )


def _is_empty(database: Path) -> bool:
    try:
        return database.stat().st_size == 0
    except FileNotFoundError:
        return True
