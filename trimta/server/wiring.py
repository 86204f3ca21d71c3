"""The wiring of an MTA: this module alone knows all parts, and gives each the others that it needs; no part imports it.

acceptance ──┬─> maildirs                   sessions ─> transaction ─> acceptance
             ├─> queue (group commit)       scheduler ─> worker ─> dispatch ─> transports
             └─> reports                                              └─> settlement ─> queue, reports
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import trio

from trimta.control.operations import Operations
from trimta.inbound.acceptance import Acceptance
from trimta.inbound.connection_counts import ConnectionCounts
from trimta.inbound.scripted_faults import FaultScript
from trimta.inbound.sessions import Sessions
from trimta.outbound.clock_watch import ClockWatch
from trimta.outbound.dispatch import Dispatch
from trimta.outbound.egress import EgressPolicy
from trimta.outbound.notices import Notices
from trimta.outbound.reports import Reports
from trimta.outbound.resolver import Resolver
from trimta.outbound.retries import Retries
from trimta.outbound.scheduler import Scheduler
from trimta.outbound.settlement import Settlement
from trimta.outbound.transports.client_settings import ClientSettings, TlsContexts
from trimta.outbound.transports.maildir_delivery import Maildirs
from trimta.runtime.bugs import Bugs
from trimta.runtime.drain import Drain
from trimta.runtime.events import Events
from trimta.runtime.group_commit import GroupCommit
from trimta.runtime.message_log import MessageLog
from trimta.runtime.queue_intake import CommittedIntake
from trimta.runtime.services import Services, services_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.config.model import Configuration, ListenSection
    from trimta.inbound.client_address import ClientAddress
    from trimta.inbound.listener import Bound
    from trimta.inbound.session import Session
    from trimta.routing.policy import Policy
    from trimta.runtime.disk import Disk
    from trimta.runtime.queue_clock import QueueClock
    from trimta.runtime.tls import ServerTls
    from trimta.runtime.wire import Wire
    from trimta.store.queue.queue import Queue


class Mta:
    """The parts of one MTA, connected; used by a server with listeners, and by `sendmail -bs`."""

    def __init__(
        self,
        configuration: Configuration,
        queue: Queue,
        disk: Disk,
        *,
        clock: QueueClock,
        server_tls: ServerTls | None = None,
        client_tls: TlsContexts,
        time_scale: float = 1.0,
        rng: random.Random | None = None,
        wake: Callable[[], None] | None = None,
    ) -> None:
        """`time_scale` is the factor by which the queue's waits pass faster than configured.  `rng` decides the jitter
        of retries and the order of equal hosts.  `wake` is called when the queue has something new; by default it wakes
        the scheduler.
        """
        rng = rng or random.Random()
        self.clock = clock
        self.disk = disk
        self.spool = queue.spool
        self.queue = GroupCommit(queue, disk.apart(1))
        self.events = Events()
        self.bugs = Bugs(self.events)
        self.drain = Drain()
        self.counts = ConnectionCounts()
        self.faults = FaultScript()
        self.message_log = MessageLog(self.queue, clock)
        self.events.subscribe(self.message_log)
        self.maildirs = Maildirs(disk, self.drain)
        self.server_tls = server_tls
        self.bound: Sequence[Bound] = ()
        """The listeners: what comes to one of them comes to this server."""
        self.time_scale = time_scale
        self._rng = rng
        self.apply(configuration, client_tls)

        def services() -> Services:
            return self.services

        self.retries = Retries(services, rng)
        self.scheduler = Scheduler(
            services,
            clock=clock,
            queue=self.queue,
            events=self.events,
            bugs=self.bugs,
            clock_watch=ClockWatch(services, clock=clock, queue=self.queue, events=self.events),
        )
        wake = wake or self.scheduler.wake
        self.reports = Reports(services, clock=clock, disk=disk, events=self.events)
        settlement = Settlement(
            services,
            clock=clock,
            queue=self.queue,
            events=self.events,
            drain=self.drain,
            bugs=self.bugs,
            reports=self.reports,
            retries=self.retries,
            wake=wake,
        )
        notices = Notices(
            clock=clock,
            queue=self.queue,
            events=self.events,
            reports=self.reports,
            retries=self.retries,
            settlement=settlement,
            wake=wake,
        )
        self.dispatch = Dispatch(
            services,
            resolver=lambda: self.resolver,
            client_settings=lambda: self.client_settings,
            clock=clock,
            disk=disk,
            queue=self.queue,
            events=self.events,
            maildirs=self.maildirs,
            message_log=self.message_log,
            settlement=settlement,
            notices=notices,
            wake=wake,
        )
        self.intake = CommittedIntake(self.queue, wake)
        self.acceptance = Acceptance(
            clock=clock,
            disk=disk,
            queue=self.intake,
            events=self.events,
            maildirs=self.maildirs,
            reports=self.reports,
            retries=self.retries,
        )
        self.sessions = Sessions(
            services,
            clock=clock,
            disk=disk,
            spool=self.spool,
            queue=self.intake,
            events=self.events,
            drain=self.drain,
            faults=self.faults,
            message_log=self.message_log,
            acceptance=self.acceptance,
            tls_context=lambda: None if self.server_tls is None else self.server_tls.context,
        )
        self.operations = Operations(
            clock=clock,
            queue=self.queue,
            events=self.events,
            message_log=self.message_log,
            counts=self.counts,
            scheduler=self.scheduler,
            addresses=lambda: self.addresses,
        )

    def apply(self, configuration: Configuration, client_tls: TlsContexts) -> None:
        """Put a configuration in place; sessions under way keep the one with which they began."""
        self.services = services_of(configuration, time_scale=self.time_scale)
        self.resolver = Resolver(
            configuration.dns,
            hostname=configuration.hostname,
            is_self=self._is_self,
            allowed=configuration.egress.allows,
            rng=self._rng,
        )
        self.client_settings = ClientSettings(
            hostname=configuration.hostname,
            timeouts=configuration.timeouts,
            egress=EgressPolicy(configuration.egress),
            tls=client_tls,
            disk=self.disk,
        )
        self.faults.replace(configuration.faults)
        self.counts.look_again()

    def _is_self(self, address: str, port: int) -> bool:
        return any(bound.has(address, port) for bound in self.bound)

    @property
    def configuration(self) -> Configuration:
        """The present configuration."""
        return self.services.configuration

    @property
    def policy(self) -> Policy:
        """The present policy."""
        return self.services.policy

    @property
    def addresses(self) -> list[str]:
        """The addresses on which the server listens."""
        return [address for bound in self.bound for address in bound.addresses]

    async def serve_batches(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the batchers of the queue and of the Maildirs until cancelled; they must outlive all their callers."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.queue.serve)
            await nursery.start(self.maildirs.serve)
            task_status.started()

    async def deliver_due(self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver due envelopes until the scheduler is stopped.  The started value is the scope of the deliveries."""
        await self.scheduler.run(self.dispatch, task_status=task_status)

    def session(self, listen: ListenSection, wire: Wire, client: ClientAddress) -> Session:
        """A session with a client whose connection a listener has accepted and counted."""
        limits = self.configuration.limits
        return self.sessions.session(listen, wire, client, lambda: self.counts.admission(client, limits))
