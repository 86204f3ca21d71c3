"""Errors of the queue, all of them QueueError.  An operation that raises one leaves database and spool as they were.

| error            | raised by                                               | what the caller does                    |
| ---------------- | ------------------------------------------------------- | --------------------------------------- |
| QueueUnreadable  | `Queue(...)`; any operation on a corrupt database       | stops, and names the file               |
| QueueUnavailable | any operation: disk full, I/O error, lock held for long | refuses mail for now (452), tries again |
| NoSuchEntry      | `entries.show`, `remove`, the operator's verbs          | tells the person who gave the id        |
| DamagedEntry     | `entries.load`, `entries.show`, `claim`, `claim_next`   | sets the entry aside, goes on           |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class QueueError(Exception):
    """The queue has not done an operation; the message says why."""


class QueueUnavailable(QueueError):  # noqa: N818
    """The queue can't store or change anything now: the disk is full or fails, or another process holds the lock.

    A later try may succeed.
    """


class QueueUnreadable(QueueError):  # noqa: N818
    """The database can't be read; the message names its file."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path} can't be read: {reason}")
        self.path = path


class NoSuchEntry(QueueError):  # noqa: N818
    """No message and no envelope has this id."""

    def __init__(self, entry_id: str) -> None:
        super().__init__(f"no message or envelope {entry_id!r} in the queue")
        self.id = entry_id


class DamagedEntry(QueueError):  # noqa: N818
    """A message's or an envelope's row or spool file is not what the queue wrote.

    Answered by `queue.repair.set_aside(error.id, error.reason)`.
    """

    def __init__(self, entry_id: str, reason: str) -> None:
        super().__init__(f"queue entry {entry_id} is damaged: {reason}")
        self.id = entry_id
        """The id of the message, or of the envelope if only that is damaged."""
        self.reason = reason
