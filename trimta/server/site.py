"""What all tasks of one server share, and how a reload changes it."""

from __future__ import annotations

import random
import traceback
from typing import TYPE_CHECKING, Final

import trio

from trimta.config.passwords import Authenticator
from trimta.config.tables import policy_of
from trimta.inbound.listener import Crowd
from trimta.inbound.scripted_faults import FaultScript
from trimta.mail.envelope import ByMode
from trimta.outbound.dispatch import Dispatcher
from trimta.outbound.egress import EgressPolicy
from trimta.outbound.notices import Notices
from trimta.outbound.reports import Reporter
from trimta.outbound.resolver import Resolver
from trimta.outbound.scheduler import Scheduler
from trimta.outbound.transports.connection import Sending, TlsContexts
from trimta.outbound.transports.maildir import Maildirs
from trimta.runtime.disk import QueueDoor
from trimta.runtime.drain import Drain
from trimta.runtime.events import Events
from trimta.runtime.message_log import History

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from trimta.config.model import Config
    from trimta.inbound.listener import Bound
    from trimta.routing.retry import RetrySchedule
    from trimta.runtime.clock import QueueClock
    from trimta.runtime.disk import Disk
    from trimta.runtime.tls import ServerTls
    from trimta.store.queue.queue import Queue
    from trimta.store.queue.values import StoredMessage

HASHERS: Final = 2
"""Passwords that are hashed at once: whoever guesses gets no more of the machine, and nothing of the disk's threads."""

WORTH_TELLING: Final = 60.0
"""Seconds by which a clock that is set back is mentioned in the log even if no mail was concerned."""

SPARE: Final = 30.0
"""Seconds for which a destination that could not be reached is spared the rest of what waits for it."""


BUGS: Final = 100
"""How many are remembered."""


def spare(retry: RetrySchedule) -> float:
    """Seconds for which a destination is left alone that could not be used."""
    return min(SPARE, retry.steps[0] / 2, retry.lifetime / 2)


def bound_waits(
    queue: Queue, retry: RetrySchedule, now: float, *, back: float = 0.0, busy: Collection[str] = ()
) -> int:
    """No wait in the queue is longer than its step from `now` on; returns how many were.  `back`: by what the clock was
    set back just now, `busy`: ids of envelopes in flight.
    """
    return queue.waits.bound(
        now,
        longest=retry.longest_wait,
        wait=lambda attempts: retry.wait(attempts, 0.5),
        spare=spare(retry),
        back=back,
        exclude=busy,
    )


class Site:
    """One server.  `apply` replaces `config`, `policy` and what depends on them; whoever needs one to stay keeps it."""

    def __init__(
        self,
        config: Config,
        queue: Queue,
        disk: Disk,
        *,
        clock: QueueClock,
        server_tls: ServerTls | None = None,
        client_tls: TlsContexts,
        time_scale: float = 1.0,
        rng: random.Random | None = None,
    ) -> None:
        self.clock = clock
        self.disk = disk
        self.hashing = disk.apart(HASHERS)
        self.queue = QueueDoor(queue, disk.apart(1))
        self.maildirs = Maildirs(disk)
        self.spool: Path = queue.spool
        self.events = Events()
        self.drain = Drain()
        self.crowd = Crowd()
        self.history = History(self.queue, clock)
        self.events.subscribe(self.history)
        self.server_tls = server_tls
        self.bound: Sequence[Bound] = ()
        self.bugs: list[Exception] = []
        """What `bug` was told, the latest last."""
        self.delays_guesses = True
        """Whether a wrong password costs time: whoever tests a client is no thief."""
        self.reporter = Reporter(self)
        self.dispatcher = Dispatcher(self)
        self.notices = Notices(self)
        self.scheduler = Scheduler(self)
        self._behind = 0.0
        """Seconds by which the clock was set back that the queue does not know of."""
        self._time_scale = time_scale
        self._rng = rng or random.Random()
        self.apply(config, client_tls)

    async def serve_batches(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit to the queue and write copies into Maildirs until cancelled: after all who ask for either."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.queue.serve)
            await nursery.start(self.maildirs.serve)
            task_status.started()

    def apply(self, config: Config, client_tls: TlsContexts) -> None:
        """Decide by this configuration from now on; sessions and deliveries under way go on as they began."""
        self.config = config
        self.policy = policy_of(config, time_scale=self._time_scale)
        self.authenticator = Authenticator(config.auth.users, any=config.auth.any)
        self.faults = FaultScript(config.faults)
        self.resolver = Resolver(
            config.dns, hostname=config.hostname, is_self=self._is_self, allowed=config.egress.allows, rng=self._rng
        )
        self.sending = Sending(
            hostname=config.hostname,
            timeouts=config.timeouts,
            egress=EgressPolicy(config.egress),
            tls=client_tls,
            disk=self.disk,
        )
        self.crowd.look_again()

    @property
    def tls_context(self) -> ssl.SSLContext:
        """For the next handshake with a client; there is one where a listener has TLS."""
        assert self.server_tls is not None
        return self.server_tls.context

    def expiry(self, message: StoredMessage) -> float:
        """When a message is given up, on the queue's clock."""
        by = message.deliver_by
        deadline = by.deadline if by is not None and by.mode is ByMode.RETURN else None
        return self.policy.retry.expiry(max(message.arrived, message.hold_until or 0.0), deadline)

    def warn_at(self, message: StoredMessage) -> float | None:
        """When the sender of a message is told that it is late, if it still waits then, whatever its destination is
        spared for: after `delay_warning`.  DELIVERBY's deadline is another matter (`mta.notices`).
        """
        if message.reverse_path is None:
            return None
        begun = max(message.arrived, message.hold_until or 0.0)
        return self.policy.retry.warning_at(begun, expiry=self.expiry(message))

    def next_try(self, *, attempts: int, now: float, expiry: float) -> float:
        """When to try again after so many tries, with jitter."""
        return self.policy.retry.next_try(attempts=attempts, now=now, expiry=expiry, random=self._rng.random())

    def spared_until(self, now: float) -> float:
        """Until when a destination is left alone that could not be used now: not long enough to disturb a schedule."""
        return now + spare(self.policy.retry)

    async def heed_clock(self) -> None:
        """Where the clock was set back, the queue waits no longer for it."""
        self._behind += self.clock.set_back()
        back = self._behind
        if not back:
            return
        now, busy = self.clock.now(), self.scheduler.active
        moved = await self.queue.run(lambda queue: bound_waits(queue, self.policy.retry, now, back=back, busy=busy))
        self._behind -= back  # not before: where the queue fails, it is asked again
        if moved or back >= WORTH_TELLING:
            self.events.emit("clock_set_back", seconds=round(back), envelopes=moved)

    def bug(self, bug: Exception, **fields: str) -> None:
        """An exception that nobody but a programmer can answer: it is logged, and the server goes on without whatever
        it happened to.
        """
        self.bugs.append(bug)
        del self.bugs[:-BUGS]
        self.events.emit("bug", **fields, error="".join(traceback.format_exception(bug)))

    async def set_aside(self, entry_id: str, reason: str) -> None:
        """Take a damaged entry out of the queue, and say so."""
        aside = await self.queue.run(lambda queue: queue.repair.set_aside(entry_id, reason))
        if aside is not None:
            self.events.emit("damaged", id=aside.id, reason=aside.reason, kept=str(aside.path))

    def _is_self(self, address: str, port: int) -> bool:
        return any(bound.has(address, port) for bound in self.bound)
