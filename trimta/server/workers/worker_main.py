"""A worker process: the sessions of connections that the first process hands over, with the queue behind a channel.

    first process ── connections ──>  sessions ─> acceptance ─┬─> Maildirs, written here
                  <── channel ─────>                          └─> the queue, faults, log: calls and notices to there

It ends when its channel does, so that no worker outlives its server: what it had not acknowledged is sent again.
"""

from __future__ import annotations

import os
import random
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trimta.inbound.acceptance import Acceptance
from trimta.inbound.sessions import Sessions
from trimta.outbound.reports import Reports
from trimta.outbound.retries import Retries
from trimta.outbound.transports.maildir_delivery import Maildirs
from trimta.runtime.background import background
from trimta.runtime.bugs import Bugs
from trimta.runtime.channel import Channel, ChannelClosedError
from trimta.runtime.connected_socket import ConnectedSocket
from trimta.runtime.disk import ThreadDisk
from trimta.runtime.drain import Drain
from trimta.runtime.events import Events
from trimta.runtime.services import Services, services_of
from trimta.runtime.tls import context_of
from trimta.runtime.unsynced import tell_of_unsynced
from trimta.runtime.wire import Wire
from trimta.server.workers.handover import take_over
from trimta.server.workers.remote_parts import RemoteFaults, RemoteIntake, RemoteMessageLog, forward
from trimta.server.workers.shared_page import SharedClock, SharedPage

if TYPE_CHECKING:
    import ssl

    from trimta.runtime.disk import Disk
    from trimta.server.workers.handover import HandedOver
    from trimta.server.workers.setup import WorkerSetup

LAST_LIMIT: Final = 1.0
"""Seconds at the end for the last notices to be taken."""


class WorkerSessions:
    """The sessions of a worker process."""

    def __init__(
        self, channel: Channel, page: SharedPage, disk: Disk, setup: WorkerSetup, tls: ssl.SSLContext | None
    ) -> None:
        """`tls` is what clients are offered; None where no listener has TLS."""
        self.drain = Drain()
        self.sessions_scope = trio.CancelScope()
        self.clock = SharedClock(page, wall=time.time)
        self.faults = RemoteFaults(channel, page)
        self.events = Events()
        self.maildirs = Maildirs(disk, self.drain)
        self._channel = channel
        self._bugs = Bugs(self.events)
        self.apply(setup, tls)
        self._listen = setup.listen

        def services() -> Services:
            return self.services

        intake = RemoteIntake(channel)
        self._sessions = Sessions(
            services,
            clock=self.clock,
            disk=disk,
            spool=setup.spool,
            queue=intake,
            events=self.events,
            drain=self.drain,
            faults=self.faults,
            message_log=RemoteMessageLog(channel),
            acceptance=Acceptance(
                clock=self.clock,
                disk=disk,
                queue=intake,
                events=self.events,
                maildirs=self.maildirs,
                reports=Reports(services, clock=self.clock, disk=disk, events=self.events),
                retries=Retries(services, random.Random()),
            ),
            tls_context=lambda: self._tls,
        )
        self._sessions.delays_guesses = setup.delays_guesses
        self.events.subscribe(forward(channel))

    def apply(self, setup: WorkerSetup, tls: ssl.SSLContext | None) -> None:
        """Put a configuration in place; sessions under way keep the one with which they began."""
        self.services = services_of(setup.configuration, time_scale=setup.time_scale)
        self._tls = tls

    def stop(self, grace: float) -> None:
        """Have sessions end within `grace` seconds, idle ones at once."""
        end = trio.current_time() + grace
        self.drain.start(end)
        self.sessions_scope.deadline = min(self.sessions_scope.deadline, end)

    async def serve(self, connections: socket.socket) -> None:
        """Hold a session with each connection that is handed over, until no more come and all have ended."""
        async with background(self.maildirs.serve), background(tell_of_unsynced, self.events):
            with self.sessions_scope:
                async with trio.open_nursery() as nursery:
                    while taken := await take_over(connections):
                        for connection in taken:
                            nursery.start_soon(self._session, connection)

    async def _session(self, connection: HandedOver) -> None:
        try:
            if connection.descriptor is not None:
                wire = Wire(ConnectedSocket.of(connection.descriptor, connection.family))
                listen = self._listen[connection.listener]
                await self._sessions.session(listen, wire, connection.client, lambda: connection.admission).run()
        except Exception as bug:  # noqa: BLE001 - the one door: a bug in one session must not end the others
            self._bugs.note(bug, client=str(connection.client))
        finally:
            self._channel.tell("left", connection.number)


class _Controls:
    """What the first process may have a worker process do."""

    def __init__(self, page: SharedPage) -> None:
        self.channel: Channel
        self.begun = trio.Event()
        self.worker: WorkerSessions
        self._page = page
        self._disk = ThreadDisk()
        self._applying = trio.Lock()

    async def begin(self, setup: WorkerSetup) -> None:
        self.worker = WorkerSessions(self.channel, self._page, self._disk, setup, await self._tls(setup))
        self.begun.set()

    async def apply(self, setup: WorkerSetup) -> None:
        # Also when the first process no longer waits for it; in the order of the reloads, the last of which counts.
        with trio.CancelScope(shield=True):
            async with self._applying:
                self.worker.apply(setup, await self._tls(setup))

    async def _tls(self, setup: WorkerSetup) -> ssl.SSLContext | None:
        return None if setup.tls is None else await self._disk.run(context_of, setup.tls)

    def stop(self, grace: float) -> None:
        self.worker.stop(grace)


async def serve_worker(channel_socket: socket.socket, connections: socket.socket, page: SharedPage) -> None:
    """Hold the sessions of a worker process until the first process ends, or has this one end."""
    controls = _Controls(page)
    stream = ConnectedSocket(channel_socket)
    channel = controls.channel = Channel(
        stream,
        notices={"stop": controls.stop},
        calls={"begin": controls.begin, "apply": controls.apply},
    )
    connections.setblocking(False)
    async with stream, trio.open_nursery() as nursery:

        async def until_closed() -> None:
            await channel.serve()
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_closed)
        await controls.begun.wait()
        await controls.worker.serve(connections)
        with trio.move_on_after(LAST_LIMIT), suppress(ChannelClosedError):  # the first process has gone
            await channel.flush()
        nursery.cancel_scope.cancel()


def run(channel: int, connections: int, page: int) -> None:
    """Be a worker process until the first process ends, or has this one end.  The descriptors are those of the channel,
    of the way on which connections are handed over, and of the shared page's file.
    """
    shared = SharedPage(page)
    os.close(page)
    with socket.socket(fileno=channel) as channel_socket, socket.socket(fileno=connections) as connection_socket:
        trio.run(serve_worker, channel_socket, connection_socket, shared)
