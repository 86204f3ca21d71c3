"""Spool files as a transaction changes them: whatever becomes of it, they match the database afterwards.

A file that a message takes over gets its old name back if the transaction fails.  A file whose message leaves is
removed once the transaction is committed, never before.  `repair.recover` removes what a crash leaves between the two.
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
"""A point within a transaction: how many files had been adopted, and how many were to be removed."""


class SpoolFiles:
    """The files that the transaction under way adopts, and those that it removes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._adopted: list[tuple[Path | None, Path]] = []
        """(name before, name now); None: the file was written for the message."""
        self._leaving: list[Path] = []

    def adopt(self, content: Body, message_id: str) -> Body:
        """Make a body's file the spool file of a message; a body in memory is written to one.  Raises OSError."""
        target = self.folder / message_id
        durable.make_dirs(self.folder)
        if content.path is None:
            durable.write_file(target, content.chunks())
        else:
            durable.rename(content.path, target)
        self._adopted.append((content.path, target))
        return replace(content, data=None, path=target)

    def remove_after_commit(self, paths: Iterable[Path]) -> None:
        """Files to be removed once the transaction is committed."""
        self._leaving += paths

    def sync(self) -> None:
        """Before the commit: make the names of adopted files durable.  Raises OSError."""
        if self._adopted:
            durable.fsync_dir(self.folder)

    def finish(self) -> None:
        """After the commit: remove the files of messages that left."""
        self._adopted.clear()
        leaving, self._leaving = self._leaving, []
        for path in leaving:
            with contextlib.suppress(OSError):  # recover() removes it at the next start
                path.unlink(missing_ok=True)

    def mark(self) -> AdoptionMark:
        """This point of the transaction, for roll_back()."""
        return len(self._adopted), len(self._leaving)

    def roll_back(self, mark: AdoptionMark = (0, 0)) -> None:
        """Give the files that were adopted since `mark` their old names, so that whoever wrote them still has them."""
        adopted, leaving = mark
        for source, target in reversed(self._adopted[adopted:]):
            with contextlib.suppress(OSError):  # then recover() removes it
                if source is None:
                    target.unlink()
                else:
                    durable.rename(target, source)
        del self._adopted[adopted:]
        del self._leaving[leaving:]
