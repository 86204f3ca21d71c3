"""The worker processes of a server, as its first process sees them: started, given connections, asked, and replaced.

The first process accepts connections and hands each to the worker with the fewest sessions.  It holds the queue, the
limits, the faults and the log; a worker that needs one of them says so over its channel.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

import trio

from trimta.control.operations import WorkerStatus
from trimta.inbound.connection_counts import Admission
from trimta.inbound.listener import room_for_connections
from trimta.runtime.channel import Channel, ChannelClosedError
from trimta.runtime.connected_socket import ConnectedSocket
from trimta.runtime.events import Event
from trimta.server.workers.handover import HandedOver, HandoverClosedError, hand_over
from trimta.server.workers.setup import WorkerSetup
from trimta.server.workers.starter import StarterGoneError
from trimta.store.queue.errors import QueueError
from trimta.store.spool import remove_incoming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trimta.config.model import Fault, FaultStage
    from trimta.inbound.client_address import ClientAddress
    from trimta.inbound.listener import AcceptedConnection
    from trimta.runtime.event_declarations import EventName
    from trimta.runtime.events import FieldValue
    from trimta.server.wiring import Mta
    from trimta.server.workers.shared_page import SharedFile
    from trimta.server.workers.starter import WorkerStarter

PAUSE: Final = 1.0
"""Seconds from a worker's start to that of its replacement, at least: one that dies at once must not keep us busy."""

NEWS_LIMIT: Final = 0.5
"""Seconds to wait for workers to tell of what has happened: one that hangs keeps nobody from an answer."""

APPLY_LIMIT: Final = 2.0
"""Seconds to wait for workers to have a new configuration in place; one that hangs does so when it goes on."""

ON_THE_WAY: Final = 16 * 1024
"""Octets of the kernel's memory, which it doubles, for connections that a worker has not taken yet: those of some
dozen moments.  What comes then goes to another worker, since one that hangs takes none.
"""

FULL_PAUSE: Final = 0.05
"""Seconds until a connection is offered again when no worker takes any."""

END_LIMIT: Final = 3.0
"""Seconds for a worker to end after the grace of its sessions; past them it is killed."""


class RemoteBugError(Exception):
    """A bug in a worker process: its traceback, as text."""


class WorkerProcess:
    """One worker process, from its start to its end."""

    def __init__(
        self, mta: Mta, starter: WorkerStarter, pid: int, channel_socket: socket.socket, way: socket.socket
    ) -> None:
        self.pid = pid
        self.connections: dict[int, ClientAddress] = {}
        """The clients of the connections that the worker has, by their numbers."""
        self.messages = 0
        """Messages that the worker has accepted."""
        self._mta = mta
        self._starter = starter
        self._way = way
        way.setblocking(False)
        way.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ON_THE_WAY)
        self._tasks: trio.Nursery
        self._stream = ConnectedSocket(channel_socket)
        self.channel = Channel(
            self._stream,
            notices={
                "event": self._event,
                "left": self._left,
                "dialogue": mta.message_log.note_dialogue,
                "wake": mta.intake.wake,
                "forget": self._forget,
                "left_out": self._left_out,
            },
            calls={
                "accept": mta.intake.accept,
                "accept_all": mta.intake.accept_all,
                "remove": mta.intake.remove,
                "retry_domain": self._retry_domain,
                "find_fault": self._find_fault,
            },
        )

    async def run(self, setup: Callable[[], WorkerSetup], ready: Callable[[WorkerProcess], None]) -> str:
        """Serve the worker's channel until the process has ended: how it did.  `setup` returns the setup of the moment;
        `ready` is called once the worker takes connections.
        """
        try:
            async with trio.open_nursery() as self._tasks:
                self._tasks.start_soon(self._begin, setup, ready)
                await self.channel.serve()
                self._tasks.cancel_scope.cancel()
        finally:
            how = await self._end()  # noqa: ASYNC102 - it shields itself
        return how

    async def _begin(self, setup: Callable[[], WorkerSetup], ready: Callable[[WorkerProcess], None]) -> None:
        with suppress(ChannelClosedError):
            given = setup()
            await self.channel.call("begin", given)
            while given != (given := setup()):  # a reload has come meanwhile
                await self.channel.call("apply", given)
            ready(self)

    async def apply(self, setup: WorkerSetup) -> None:
        """Have the worker go by this setup."""
        with suppress(ChannelClosedError):
            await self.channel.call("apply", setup)

    async def hear(self) -> None:
        """Wait until the worker has told of what has happened so far."""
        with suppress(ChannelClosedError):
            await self.channel.flush()

    async def _end(self) -> str:
        """Close what leads to the process, which ends it, and wait for that: how it ended."""
        if self._way.fileno() >= 0:
            trio.lowlevel.notify_closing(self._way)
            self._way.close()
        with trio.CancelScope(shield=True):  # else a process is left that nobody waits for
            with suppress(OSError):  # it has gone
                self._stream.socket.shutdown(socket.SHUT_RDWR)  # closing is not enough where a forked child has a copy
            self._stream.close()
            code = await self._ended(END_LIMIT)
            if code is None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                code = await self._ended(END_LIMIT)
        for client in self.connections.values():
            self._mta.counts.leave(client)
        if code is None:
            return "gone"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    async def _ended(self, limit: float) -> int | None:
        """The process's return code once it has ended; None after `limit` seconds, or if nobody can tell."""
        code = None
        with trio.move_on_after(limit), suppress(StarterGoneError):
            code = await self._starter.ended(self.pid)
        return code

    def hand_over(self, connections: Sequence[HandedOver]) -> bool:
        """Give the worker connections; False if it has not taken those before.  HandoverClosedError if the process has
        gone.
        """
        given = hand_over(self._way, connections)
        if given:
            for connection in connections:
                self.connections[connection.number] = connection.client
        return given

    def no_more(self) -> None:
        """Say that no more connections come: the process ends with its last session."""
        self._way.shutdown(socket.SHUT_WR)

    # What the worker says.

    def _event(self, name: EventName, fields: dict[str, FieldValue], at: float) -> None:
        if name == "accepted":
            self.messages += 1
        if name == "bug":
            self._mta.bugs.remember(RemoteBugError(str(fields.get("error"))))
        self._mta.events.publish(Event(name, fields, at))

    def _left_out(self, count: int) -> None:
        self._mta.events.emit("log_lines_lost", count=count)

    def _left(self, number: int) -> None:
        client = self.connections.pop(number, None)
        if client is not None:
            self._mta.counts.leave(client)

    def _forget(self, message_id: str) -> None:
        self._tasks.start_soon(self._remove, message_id)

    async def _remove(self, message_id: str) -> None:
        try:
            await self._mta.intake.remove(message_id)
        except QueueError as error:
            reason = f"refused, but still in the queue: {error}"
            self._mta.events.emit("queue_trouble", id=message_id, reason=reason)

    async def _retry_domain(self, domain: str, now: float, subdomains: bool) -> int:
        return await self._mta.intake.retry_domain(domain, now, subdomains=subdomains)

    async def _find_fault(
        self, stage: FaultStage, client: str, sender: str | None, recipients: Sequence[str]
    ) -> Fault | None:
        return await self._mta.faults.find(stage, client=client, sender=sender, recipients=recipients)


class WorkerProcesses:
    """The workers of a server, each replaced when it dies."""

    def __init__(
        self,
        mta: Mta,
        starter: WorkerStarter,
        file: SharedFile,
        count: int,
        another_starter: Callable[[], Awaitable[WorkerStarter]],
    ) -> None:
        """`file` is that of the shared page; `count` is the number of workers.  `another_starter` begins one in place
        of a starter that has died.
        """
        self._starter = starter
        self._another_starter = another_starter
        self._replacing = trio.Lock()
        self.count = count
        self._mta = mta
        self._file = file
        mta.operations.workers = self._status
        mta.operations.hear_workers = self._hear_all
        mta.faults.on_change = file.page.note_faults
        file.page.note_faults(mta.faults.stages)
        self._workers: list[WorkerProcess] = []
        self._changed = trio.Event()
        self._numbers = 0
        self._room = room_for_connections()
        """Connections for which one worker has descriptors."""

    def _status(self) -> tuple[WorkerStatus, ...]:
        return tuple(
            WorkerStatus(pid=worker.pid, sessions=len(worker.connections), messages=worker.messages)
            for worker in self._workers
        )

    @property
    def room(self) -> int:
        """Connections for which the workers that are ready have descriptors."""
        return self._room * len(self._workers)

    async def serve(self) -> None:
        """Have workers until the server drains, and the last of them has ended."""
        async with trio.open_nursery() as nursery:
            for _ in range(self.count):
                nursery.start_soon(self._keep)

    async def hand_over(self, accepted: Sequence[AcceptedConnection], listener: int) -> None:
        """Give accepted connections, each to the worker with the fewest that takes any, and close them here."""
        mta = self._mta
        waiting: list[HandedOver] = []
        try:
            for descriptor, family, client in accepted:
                self._numbers = number = (self._numbers + 1) % (1 << 32)
                waiting.append(HandedOver(descriptor, family, client, number, listener, self._enter(client)))
            refused = [connection for connection in waiting if connection.admission is not Admission.ADMITTED]
            if refused:
                admitted = self._give([each for each in waiting if each.admission is Admission.ADMITTED])
                waiting = admitted + refused
                await self._hear_all()  # connections may have ended of which nobody has told yet
                waiting = admitted + self._enter_again(refused)
            while waiting := self._give(waiting):
                if not self._workers:
                    await self._change()
                else:
                    await trio.sleep(FULL_PAUSE)
        finally:
            for connection in waiting:
                mta.counts.leave(connection.client)
            for descriptor, _, _ in accepted:
                os.close(descriptor)

    def _enter(self, client: ClientAddress) -> Admission:
        """Count a connection of a client."""
        self._mta.counts.enter(client)
        return self._mta.counts.admission(client, self._mta.configuration.limits)

    def _enter_again(self, connections: Sequence[HandedOver]) -> list[HandedOver]:
        """Count connections anew, each behind the one before it."""
        for connection in connections:
            self._mta.counts.leave(connection.client)
        return [connection._replace(admission=self._enter(connection.client)) for connection in connections]

    def _give(self, connections: list[HandedOver]) -> list[HandedOver]:
        """Give connections, each to the worker with the fewest; returns those that no worker takes now."""
        loads = {worker: len(worker.connections) for worker in self._workers}
        while connections and loads:
            shares: dict[WorkerProcess, list[HandedOver]] = {}
            rest = []
            for connection in connections:
                worker = min(loads, key=loads.__getitem__)
                if loads[worker] >= self._room:
                    rest.append(connection)
                else:
                    loads[worker] += 1
                    shares.setdefault(worker, []).append(connection)
            if not shares:
                break
            for worker, share in shares.items():
                try:
                    if worker.hand_over(share):
                        continue
                except HandoverClosedError:
                    self._workers.remove(worker)
                del loads[worker]
                rest += share
            connections = rest
        return connections

    async def _hear_all(self) -> None:
        """Wait until every worker that does not hang has told of what has happened so far."""
        with trio.move_on_after(NEWS_LIMIT):
            async with trio.open_nursery() as nursery:
                for worker in self._workers:
                    nursery.start_soon(worker.hear)

    async def apply(self) -> None:
        """Have every worker go by the configuration of this moment."""
        setup = self._setup()
        with trio.move_on_after(APPLY_LIMIT):
            async with trio.open_nursery() as nursery:
                for worker in self._workers:
                    nursery.start_soon(worker.apply, setup)

    def stop(self, grace: float) -> None:
        """Have the sessions of all workers end within `grace` seconds."""
        for worker in self._workers:
            worker.channel.tell("stop", grace)

    def no_more(self) -> None:
        """Say that no more connections come: each worker ends with its last session."""
        for worker in self._workers:
            with suppress(OSError):  # it has gone
                worker.no_more()

    async def _change(self) -> None:
        self._changed = trio.Event() if self._changed.is_set() else self._changed
        await self._changed.wait()

    def _setup(self) -> WorkerSetup:
        mta = self._mta
        return WorkerSetup(
            configuration=mta.configuration,
            listen=tuple(bound.listen for bound in mta.bound),
            tls=None if mta.server_tls is None else mta.server_tls.material,
            spool=mta.spool,
            time_scale=mta.time_scale,
            delays_guesses=mta.sessions.delays_guesses,
        )

    async def _keep(self) -> None:
        """Have a worker, and another when it dies, until the server drains."""
        mta = self._mta
        while not mta.drain.started:
            began = trio.current_time()
            try:
                worker = await self._start()
            except (StarterGoneError, OSError) as cause:
                mta.events.emit("worker_lost", reason=f"can't be started: {cause}")
                await trio.sleep_until(began + PAUSE)
                continue
            try:
                reason = await worker.run(self._setup, self._ready)
            finally:
                if worker in self._workers:
                    self._workers.remove(worker)
            if mta.drain.started:
                return
            mta.events.emit("worker_lost", pid=worker.pid, reason=reason, sessions=len(worker.connections))
            await mta.disk.run(remove_incoming, mta.spool, worker.pid)
            await trio.sleep_until(began + PAUSE)

    async def _start(self) -> WorkerProcess:
        starter = self._starter
        try:
            return await self._start_by(starter)
        except StarterGoneError:
            async with self._replacing:
                if self._starter is starter:
                    self._starter = await self._another_starter()
            return await self._start_by(self._starter)

    async def _start_by(self, starter: WorkerStarter) -> WorkerProcess:
        with ExitStack() as ours:
            (channel, its_channel), (way, its_way) = socket.socketpair(), socket.socketpair()
            ours.callback(channel.close)
            ours.callback(way.close)
            with its_channel, its_way:
                pid = await starter.start(its_channel.fileno(), its_way.fileno(), self._file.descriptor)
            ours.pop_all()  # they are the worker's from here on
        return WorkerProcess(self._mta, starter, pid, channel, way)

    def _ready(self, worker: WorkerProcess) -> None:
        if self._mta.drain.started:
            worker.channel.tell("stop", 0.0)
            worker.no_more()
        self._workers.append(worker)
        self._changed.set()
        self._mta.counts.look_again()
