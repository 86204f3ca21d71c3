"""The steps of a server's start: sockets, account, lock, queue, certificates.  Each raises StartError if it fails."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from trimta.config.model import ListenTls, UnixAddress
from trimta.first_use.modules import LATE_IN_SERVER, load
from trimta.inbound.listener import BindError, bind
from trimta.outbound.clock_watch import bound_waits
from trimta.runtime import privileges
from trimta.runtime.privileges import AccountError
from trimta.runtime.queue_clock import QueueClock
from trimta.runtime.tls import ServerTls, TlsError, TlsSettings
from trimta.store.lock import AlreadyLocked, DataDirLock, locked_by
from trimta.store.queue import loss
from trimta.store.queue.errors import QueueError, QueueUnreadable
from trimta.store.queue.meta import CLOCK_OFFSET, TIME_SCALE
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager, AsyncExitStack

    from trimta.config.model import Configuration, ListenSection
    from trimta.inbound.listener import Bound
    from trimta.server.wiring import Mta
    from trimta.server.workers.processes import WorkerProcesses
    from trimta.server.workers.shared_page import SharedFile
    from trimta.server.workers.starter import WorkerStarter
    from trimta.store.queue.values import RecoveryReport


class StartError(Exception):
    """The server can't start; the message says why and what to do, `exit_code` is one of sysexits.h."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


async def bind_all(config: Configuration, cleanup: AsyncExitStack) -> list[Bound]:
    """Bind every `[[listen]]`; `cleanup` closes them.  StartError names an address that can't be bound."""
    listeners = []
    for listen in config.listen:
        try:
            with _hands_for(listen, config.user):
                bound = await bind(listen, config.listen)
        except AccountError as cause:
            raise StartError(str(cause), os.EX_NOPERM) from cause
        except BindError as cause:
            owner = locked_by(config.data_dir)
            if owner is not None:  # a second server on this data_dir: the more useful message
                raise StartError(str(AlreadyLocked(config.data_dir, owner or None)), os.EX_TEMPFAIL) from cause
            code = os.EX_NOPERM if cause.permission else os.EX_UNAVAILABLE
            raise StartError(str(cause), code) from cause
        cleanup.push_async_callback(bound.close)
        listeners.append(bound)
    return listeners


def _hands_for(listen: ListenSection, user: str) -> AbstractContextManager[None]:
    """A block that makes a unix socket: as the configured account, unless only root can change the folder."""
    if isinstance(listen.address, UnixAddress):
        return privileges.hands_for(user, listen.address.path.parent)
    return nullcontext()


def give_up_root(config: Configuration) -> None:
    """Become the configured account `user`, if this process is root's.  Raises StartError."""
    if not privileges.is_root() or not config.user:
        return
    load(LATE_IN_SERVER)
    try:
        privileges.become(config.user, privileges.folders(config))
    except AccountError as cause:
        raise StartError(str(cause), os.EX_NOPERM) from cause


def lock(config: Configuration, cleanup: AsyncExitStack) -> None:
    """Lock data_dir against a second server; `cleanup` unlocks it.  Raises StartError."""
    lock = DataDirLock(config.data_dir)
    try:
        lock.acquire()
    except AlreadyLocked as cause:
        raise StartError(str(cause), os.EX_TEMPFAIL) from cause
    except PermissionError as cause:
        name = privileges.name()
        remedy = f"chown -R {name} it, and let {name} into the folders above it"
        raise StartError(f"data_dir {config.data_dir}: {cause.strerror} for {name}; {remedy}", os.EX_NOPERM) from cause
    except OSError as cause:
        raise StartError(f"data_dir {config.data_dir}: {cause.strerror}", os.EX_CANTCREAT) from cause
    cleanup.callback(lock.release)


def open_queue(config: Configuration, cleanup: AsyncExitStack) -> Queue:
    """Open the queue of data_dir, or make one; `cleanup` closes it.  Raises StartError."""
    try:
        queue = Queue(config.data_dir)
    except QueueUnreadable as cause:
        raise StartError(str(cause), os.EX_TEMPFAIL) from cause
    cleanup.callback(queue.close)
    return queue


# What `workers` needs is loaded by servers that have some: others start faster, and are smaller.


async def begin_starter(config: Configuration, cleanup: AsyncExitStack) -> WorkerStarter | None:
    """The starter of worker processes, which `cleanup` ends; None where the sessions are in this process."""
    if config.worker_count == 1:
        return None
    # All of it now: as `user`, this process may be kept from Python's files.
    from trimta.server.workers import processes, shared_page, starter  # noqa: F401

    return await starter.begin(config.user, cleanup)


def shared_page(starter: WorkerStarter | None, cleanup: AsyncExitStack) -> SharedFile | None:
    """The shared page of a server with worker processes, which `cleanup` gives back."""
    if starter is None:
        return None
    from trimta.server.workers.shared_page import SharedFile

    return cleanup.enter_context(SharedFile())


def worker_processes(
    mta: Mta, starter: WorkerStarter | None, page: SharedFile | None, cleanup: AsyncExitStack
) -> WorkerProcesses | None:
    """The worker processes, none of them started yet; None where the sessions are in this process.  `cleanup` ends
    starters that are begun later.
    """
    if starter is None or page is None:
        return None
    from trimta.server.workers.processes import WorkerProcesses

    async def another_starter() -> WorkerStarter:
        another = await begin_starter(mta.configuration, cleanup)
        assert another is not None
        return another

    return WorkerProcesses(mta, starter, page, mta.configuration.worker_count, another_starter)


def queue_clock(queue: Queue, wall: Callable[[], float], page: SharedFile | None) -> QueueClock:
    """The queue's clock, ahead of `wall` by the time that the operator moved it forward.  Raises StartError."""
    try:
        offset = float(queue.meta.get(CLOCK_OFFSET) or 0.0)
    except QueueError as cause:
        raise StartError(str(cause), os.EX_TEMPFAIL) from cause
    if page is None:
        return QueueClock(offset=offset, wall=wall)
    from trimta.server.workers.shared_page import SharedClock

    return SharedClock(page.page, offset=offset, wall=wall)


def recover(mta: Mta, queue: Queue, time_scale: float, now: float) -> RecoveryReport:
    """Repair what a crash left in the queue.  `now`: seconds since the epoch, wall clock.  Raises StartError."""
    try:
        if queue.meta.get(TIME_SCALE) != repr(time_scale):
            queue.meta.set(TIME_SCALE, repr(time_scale))
        recovered = queue.repair.recover(now)
        bound_waits(queue, mta.policy.retry, mta.clock.now())
        loss.note(mta.configuration.data_dir, told=True)  # by the banner and the log of this start
        return recovered
    except QueueError as cause:
        raise StartError(str(cause), os.EX_TEMPFAIL) from cause
    except OSError as cause:
        raise StartError(f"data_dir {mta.configuration.data_dir}: {cause.strerror}", os.EX_CANTCREAT) from cause


@contextmanager
def tls_at_start() -> Iterator[None]:
    """A block in which an error with certificates becomes a StartError."""
    try:
        yield
    except (TlsError, OSError) as cause:
        raise StartError(f"tls: {cause}", os.EX_CONFIG) from cause


def make_server_tls(config: Configuration) -> ServerTls | None:
    """The TLS of the listeners; None if no listener has TLS.  Blocks.  Raises TlsError and OSError."""
    if all(listen.tls is ListenTls.NONE for listen in config.listen):
        return None
    return ServerTls(tls_settings(config))


def tls_settings(config: Configuration) -> TlsSettings:
    """The settings of a configuration that decide on the server's certificate."""
    return TlsSettings(
        hostname=config.hostname, data_dir=config.data_dir, certificate=config.tls.certificate, key=config.tls.key
    )
