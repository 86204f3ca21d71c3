"""A running server: its nursery tree, its stop and its reload.  Steps of the start that can fail precede any nursery.

message log, group commit, Maildirs     they outlive all that uses them
└─ control socket
   └─ scheduler and deliveries, sessions and acceptors
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

import trio

from trimta.control import answering, socket_path
from trimta.control.requests import handlers
from trimta.inbound.listener import accept_connections, in_tasks, room_for_connections
from trimta.outbound.transports.client_settings import TlsContexts
from trimta.runtime.background import background
from trimta.runtime.disk import ThreadDisk
from trimta.runtime.unsynced import tell_of_unsynced
from trimta.runtime.wire import Wire
from trimta.server.banner import banner
from trimta.server.reload import reload
from trimta.server.start import (
    StartError,
    begin_starter,
    bind_all,
    give_up_root,
    lock,
    make_server_tls,
    open_queue,
    queue_clock,
    recover,
    shared_page,
    tls_at_start,
    worker_processes,
)
from trimta.server.wiring import Mta
from trimta.store.queue import loss

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AsyncExitStack

    from trimta.config.model import Configuration, ListenSection
    from trimta.inbound.client_address import ClientAddress
    from trimta.inbound.listener import AcceptedConnection, Take
    from trimta.runtime.connected_socket import ConnectedSocket
    from trimta.server.workers.processes import WorkerProcesses
    from trimta.store.queue.values import RecoveryReport

CROWD_MARGIN: Final = 50
"""Connections beyond `limits.connections` that are accepted only to get a 421; more wait in the kernel's backlog."""


class MtaServer:
    """A server whose sockets are bound and whose queue is open: `start` makes one, `run` runs it, `stop` ends it."""

    def __init__(
        self,
        mta: Mta,
        workers: WorkerProcesses | None,
        control_socket: trio.SocketListener,
        recovered: RecoveryReport,
        *,
        queue_was_lost: bool,
    ) -> None:
        """`workers` is None where the sessions are in this process."""
        self.mta = mta
        self._workers = workers
        self.operations = mta.operations
        self.bugs = mta.bugs.latest
        """Exceptions that no code expected, each of which has ended a session or a delivery."""
        self.ended = trio.Event()
        self._control_socket = control_socket
        self._recovered = recovered
        self._queue_was_lost = queue_was_lost
        self._acceptors = trio.CancelScope()
        self._work = trio.CancelScope()
        """The scope of sessions and deliveries."""

    @classmethod
    async def start(
        cls,
        config: Configuration,
        cleanup: AsyncExitStack,
        *,
        time_scale: float = 1.0,
        rng: random.Random | None = None,
        client_tls: TlsContexts | None = None,
        wall: Callable[[], float] = time.time,
    ) -> MtaServer:
        """Bind the sockets, become the configured account, lock data_dir and open the queue; `cleanup` undoes that.

        `rng` decides the jitter of retries and the order of equal hosts.  `client_tls` is used in place of reading the
        CAs of `tls.ca`.  `wall` returns seconds since the epoch, for the queue's clock.  Raises StartError.
        """
        bound = await bind_all(config, cleanup)
        with tls_at_start():
            # Often only root may read a key; a development certificate is made as the account, once data_dir is locked.
            own_tls = await trio.to_thread.run_sync(make_server_tls, config) if config.tls.certificate else None
        starter = await begin_starter(config, cleanup)
        give_up_root(config)
        lock(config, cleanup)
        queue = open_queue(config, cleanup)
        with tls_at_start():
            server_tls = own_tls or await trio.to_thread.run_sync(make_server_tls, config)
            if client_tls is None:
                client_tls = await trio.to_thread.run_sync(TlsContexts.load, config.tls.ca)
        page = shared_page(starter, cleanup)
        mta = Mta(
            config,
            queue,
            ThreadDisk(),
            clock=queue_clock(queue, wall, page),
            server_tls=server_tls,
            client_tls=client_tls,
            time_scale=time_scale,
            rng=rng,
        )
        mta.bound = bound
        queue_was_lost = loss.is_lost(config.data_dir)
        recovered = recover(mta, queue, time_scale, wall())
        try:
            control_socket = await answering.listen(config.data_dir)
        except OSError as cause:
            raise StartError(
                f"cannot make the control socket in {config.data_dir}: {cause}", os.EX_CANTCREAT
            ) from cause
        cleanup.callback(socket_path.remove, config.data_dir)
        cleanup.push_async_callback(control_socket.aclose)
        workers = worker_processes(mta, starter, page, cleanup)
        return cls(mta, workers, control_socket, recovered, queue_was_lost=queue_was_lost)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve clients and deliver mail until `stop` is called."""
        mta = self.mta
        async with background(mta.serve_batches), background(mta.message_log.serve), trio.open_nursery() as helpers:
            helpers.start_soon(tell_of_unsynced, mta.events)
            if self._queue_was_lost:
                data_dir = mta.configuration.data_dir
                kept = [str(path) for path in self._recovered.rescued]
                mta.events.emit("queue_lost", reason=loss.explanation(data_dir), kept=kept or None)
            for aside in self._recovered.set_aside:
                mta.events.emit("damaged", id=aside.id, reason=aside.reason, kept=str(aside.path))
            answers = handlers(mta.operations, mta.configuration.data_dir)
            await helpers.start(answering.serve, self._control_socket, answers)
            with self._work:
                async with trio.open_nursery() as nursery:
                    await nursery.start(mta.deliver_due)
                    await nursery.start(self._serve_sessions)
                    mta.events.emit("started", listening=self.addresses)
                    task_status.started()
            mta.events.emit("stopped")
            await self.operations.farewell()
            helpers.cancel_scope.cancel()
        self.ended.set()

    def stop(self) -> None:
        """Stop gracefully: work under way has `timeouts.shutdown` seconds to end.  A second call stops at once."""
        mta = self.mta
        if mta.drain.started:
            mta.drain.start(trio.current_time())
            self._work.cancel()
            return
        mta.events.emit("stopping", sessions=mta.counts.total, deliveries=mta.scheduler.in_flight)
        self._acceptors.cancel()
        end = trio.current_time() + mta.configuration.timeouts.shutdown
        mta.drain.start(end)
        if self._workers is not None:
            self._workers.stop(mta.configuration.timeouts.shutdown)
        mta.scheduler.stop()
        self._work.deadline = end

    async def _serve_sessions(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        mta = self.mta

        own_room = room_for_connections()

        def ceiling() -> int:
            room = own_room if self._workers is None else self._workers.room
            return min(mta.configuration.limits.connections + CROWD_MARGIN, room)

        async with trio.open_nursery() as sessions:
            if self._workers is not None:
                sessions.start_soon(self._workers.serve)
            with self._acceptors:
                async with trio.open_nursery() as acceptors:
                    for number, bound in enumerate(mta.bound):
                        take = self._taker(sessions, bound.listen, number)
                        for listener in bound.sockets:
                            await acceptors.start(accept_connections, listener, take, mta.counts, ceiling)
                    task_status.started()
            for bound in mta.bound:
                await bound.close()
            if self._workers is not None:
                self._workers.no_more()

    def _taker(self, sessions: trio.Nursery, listen: ListenSection, number: int) -> Take:
        """What takes the connections of a listener: tasks of this process, or worker processes."""
        workers = self._workers
        if workers is None:
            return in_tasks(sessions, self._session_for(listen), self.mta.counts)

        async def take(connections: Sequence[AcceptedConnection]) -> None:
            await workers.hand_over(connections, number)

        return take

    def _session_for(self, listen: ListenSection) -> Callable[[ConnectedSocket, ClientAddress], Awaitable[None]]:
        async def session(connection: ConnectedSocket, client: ClientAddress) -> None:
            try:
                await self.mta.session(listen, Wire(connection), client).run()
            except Exception as bug:  # noqa: BLE001 - a bug in one session must not end the others
                self.mta.bugs.note(bug, client=str(client))

        return session

    async def reload(self, load: Callable[[], Configuration]) -> None:
        """Read the configuration again with `load` and put it in place (see `server.reload`)."""
        await reload(self.mta, self._workers, load)

    @property
    def addresses(self) -> list[str]:
        """The addresses on which the server listens."""
        return self.mta.addresses

    def banner(self) -> list[str]:
        """The lines of the banner."""
        return banner(self.mta, lost=self._queue_was_lost, rescued=self._recovered.rescued)
