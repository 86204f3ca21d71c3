"""The changes of a transaction to spool files, so that they match the database, however the transaction ends.

A file that a message takes over gets its old name back if the transaction fails.  The file of a message that leaves is
removed after the commit, never before.  `repair.recover` removes files that a crash between the two leaves.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from trimta.store import durable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from trimta.store.spool import Body

AdoptionMark: TypeAlias = tuple[int, int]
"""A point within a transaction: the numbers of files adopted and of files to be removed so far."""


class SpoolFiles:
    """The spool files that the transaction under way adopts and removes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._adopted: list[tuple[Path | None, Path]] = []
        """The old and new path of each adopted file; the old one is None for a file that was written here."""
        self._leaving: list[Path] = []

    def adopt(self, content: Body, message_id: str) -> Body:
        """Make the file of a body the spool file of a message, or write a body in memory to one.  Its octets are then
        durable; `sync` makes its name so.  Raises OSError.
        """
        target = self.folder / message_id
        durable.make_dirs(self.folder)
        if content.path is None:
            durable.write_file(target, content.chunks())
        else:
            content.sync()
            durable.rename(content.path, target)
        self._adopted.append((content.path, target))
        return replace(content, data=None, path=target)

    def remove_after_commit(self, paths: Iterable[Path]) -> None:
        """Note files that are to be removed once the transaction is committed."""
        self._leaving += paths

    def sync(self) -> None:
        """Make the names of adopted files durable; called before the commit.  Raises OSError."""
        if self._adopted:
            durable.fsync_dir(self.folder)

    def finish(self) -> None:
        """Remove the files of messages that have left; called after the commit."""
        self._adopted.clear()
        leaving, self._leaving = self._leaving, []
        for path in leaving:
            with contextlib.suppress(OSError):  # recover() removes the file at the next start
                path.unlink(missing_ok=True)

    def mark(self) -> AdoptionMark:
        """The present point of the transaction, for roll_back()."""
        return len(self._adopted), len(self._leaving)

    def roll_back(self, mark: AdoptionMark = (0, 0)) -> None:
        """Give files that were adopted since `mark` their old names, and keep those that were to be removed since."""
        adopted, leaving = mark
        for source, target in reversed(self._adopted[adopted:]):
            with contextlib.suppress(OSError):  # then recover() removes it
                if source is None:
                    target.unlink()
                else:
                    durable.rename(target, source)
        del self._adopted[adopted:]
        del self._leaving[leaving:]
