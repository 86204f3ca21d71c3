"""The loss of a queue: its database was deleted or emptied while no process had it open.

A marker, the file `queue.made` beside the database, remembers that there was a database, since a lost queue looks like
a new one.  Several processes may open the queue at once, so two rules hold:

- a process that makes a database in place of a lost one has noted the loss in the marker before;
- a process that changes the marker decides what to write while it has the turn, and replaces the file as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trimta.store import durable
from trimta.store.lock import taking_turns
from trimta.store.queue.sql_schema import FILE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MARKER: Final = "queue.made"
_MADE: Final = b"The queue of this folder is queue.sqlite3.\n"
_LOST: Final = b"The queue of this folder was lost; nobody has been told yet.\n"


def is_lost(data_dir: Path) -> bool:
    """Whether the queue of a data directory is gone, and no server has told of the loss yet.  Raises OSError."""
    return _is_lost(*_look(data_dir))


def note(data_dir: Path, *, told: bool = False) -> None:
    """Bring the marker up to date; called before the queue is opened, and after it.  Raises OSError.

    A loss is remembered until a call with `told`.
    """
    if _next_content(data_dir, told=told) is None:  # the usual case, which need not wait for a turn
        return
    with taking_turns(data_dir):
        content = _next_content(data_dir, told=told)
        if content is not None:
            durable.replace_file(data_dir / MARKER, content)


def rescue(data_dir: Path, strays: Iterable[Path]) -> list[Path]:
    """Move spool files to `damaged/` that belong to no message, and so may be of the lost queue.

    Returns their new paths.  Raises OSError.
    """
    folder = data_dir / "damaged"
    rescued: list[Path] = []
    for stray in strays:
        durable.make_dirs(folder)
        rescued.append(folder / f"{stray.name}.content")
        durable.rename(stray, rescued[-1])
    if rescued:
        durable.fsync_dir(folder)
    return rescued


def explanation(data_dir: Path) -> str:
    """The loss in one sentence, for the banner, the log and the commands."""
    return (
        f"the queue that was in {data_dir / FILE} is gone: what waited there is lost, unless you put the file back"
        " while nothing runs; an empty queue takes its place"
    )


def _look(data_dir: Path) -> tuple[bool, bytes | None]:
    """Whether the database is missing or empty, and the content of the marker; None without a marker.

    The database is looked at first: that way a database that another process has just made is seen with its marker.
    """
    is_empty = _is_empty(data_dir / FILE)
    try:
        return is_empty, (data_dir / MARKER).read_bytes()
    except FileNotFoundError:
        return is_empty, None


def _is_lost(is_empty: bool, content: bytes | None) -> bool:
    return content is not None and (is_empty or content == _LOST)


def _next_content(data_dir: Path, *, told: bool) -> bytes | None:
    """The content to write to the marker; None if it is right already."""
    is_empty, content = _look(data_dir)
    due = _LOST if _is_lost(is_empty, content) and not told else _MADE
    if due == content or (due == _MADE and is_empty):  # a queue is marked only once its database was made
        return None
    return due


def _is_empty(database: Path) -> bool:
    try:
        return database.stat().st_size == 0
    except FileNotFoundError:
        return True
