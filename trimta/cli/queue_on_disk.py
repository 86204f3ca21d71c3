"""Access of the commands to the queue on disk; every failure is a CommandError."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from trimta.cli import streams
from trimta.cli.exits import EX_DATAERR, EX_NOPERM, EX_TEMPFAIL, CommandError
from trimta.runtime import privileges
from trimta.runtime.privileges import AccountError
from trimta.store.queue import loss
from trimta.store.queue.errors import DamagedEntry, NoSuchEntry, QueueError
from trimta.store.queue.meta import CLOCK_OFFSET
from trimta.store.queue.queue import Queue, exists

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trimta.config.model import Configuration


@contextmanager
def queue_of(config: Configuration) -> Iterator[Queue | None]:
    """The queue in data_dir, whether a server runs or not; None if there is no queue, and none is made.

    A process of root becomes the owner of data_dir first: the files that SQLite makes must be the server's.  Raises
    CommandError.
    """
    try:
        if not _there_is_a_queue(config):
            yield None
            return
        with Queue(config.data_dir) as queue:
            yield queue
    except (NoSuchEntry, DamagedEntry) as cause:
        raise CommandError(EX_DATAERR, str(cause)) from cause
    except QueueError as cause:
        if isinstance(cause.__cause__, PermissionError):
            raise _not_ours(config) from cause
        raise CommandError(EX_TEMPFAIL, str(cause)) from cause
    except PermissionError as cause:
        raise _not_ours(config) from cause
    except AccountError as cause:
        raise CommandError(EX_NOPERM, str(cause)) from cause


def _there_is_a_queue(config: Configuration) -> bool:
    """Look for the queue, as the owner of data_dir.  Raises CommandError, PermissionError and AccountError."""
    try:
        privileges.become_owner(config.data_dir)
        warn_of_loss(config)
        return exists(config.data_dir)
    except PermissionError:
        raise
    except OSError as cause:  # a file in the place of data_dir, links that go round
        raise CommandError(EX_TEMPFAIL, f"the queue in {config.data_dir} can't be read: {cause.strerror}") from cause


def warn_of_loss(config: Configuration) -> None:
    """Print a warning if the queue's database was deleted or emptied: what a command shows is then incomplete.

    Raises OSError where data_dir can't be looked into, but for a lack of permission.
    """
    with suppress(PermissionError):  # reported where the queue is opened
        if loss.is_lost(config.data_dir):
            streams.say(f"trimta: {loss.explanation(config.data_dir)}")


def _not_ours(config: Configuration) -> CommandError:
    return CommandError(EX_NOPERM, f"no permission for the queue in {config.data_dir}; be the user whose server it is")


def queue_time(queue: Queue) -> float:
    """The present moment on the queue's clock, in seconds since the epoch: `trimta time` may have moved that clock."""
    return time.time() + float(queue.meta.get(CLOCK_OFFSET) or 0.0)
