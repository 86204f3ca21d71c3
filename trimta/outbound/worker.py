"""Workers: delivery tasks that `scheduler` starts, each for one next hop; `dispatch` claims the envelopes from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trimta.store.queue.values import QueuedEnvelope, StoredMessage


class PatientConnection(Protocol):
    """The part of a worker's connection that matters to destinations that wait for its place."""

    silent_since: float | None
    """The Trio time since which the host of a fresh connection has said nothing at all; None otherwise."""

    def give_way(self) -> None:
        """Leave a host that says nothing."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An envelope that one worker has, with its message."""

    message: StoredMessage
    envelope: QueuedEnvelope


class Deliverer(Protocol):
    """The side of deliveries that the scheduler calls.  Methods may raise QueueError; any other exception is a bug."""

    async def deliver(self, worker: Worker) -> None:
        """Deliver what is due at the worker's next hop, until its `claim` returns None."""

    async def postpone(self, claimed: Claimed) -> None:
        """Have an envelope tried again later that a bug keeps from being tried now."""

    async def notify_late(self, claimed: Claimed) -> None:
        """Tell the sender of a late message, or give it up if DELIVERBY says so."""

    async def omit_notice(self, envelope_id: str) -> None:
        """Note that a bug keeps the notice about an envelope from being written."""


class Assigner(Protocol):
    """The side of the scheduler that a worker talks to."""

    async def claim(self, worker: Worker) -> Claimed | None:
        """See Worker.claim."""

    def release(self, worker: Worker, envelope_id: str) -> None:
        """See Worker.give_back."""

    def trust(self, next_hop: str) -> None:
        """See Worker.heard."""


@dataclass(slots=True, eq=False)
class Worker:
    """A delivery task for one next hop, with one connection at most."""

    next_hop: str
    since: float
    """The Trio time at which the worker was started, or claimed the latest of its envelopes."""
    _assigner: Assigner
    active: set[str] = field(default_factory=set)
    """Ids of the envelopes that the worker has."""
    connection: PatientConnection | None = None
    sent: int = 0
    """Envelopes that the worker is done with."""

    async def claim(self) -> Claimed | None:
        """The next envelope that is due at the next hop; None if there is none, or others wait for this place."""
        return await self._assigner.claim(self)

    def done(self, envelope_id: str) -> None:
        """Note that the outcomes of an envelope are in the queue."""
        self.sent += 1
        self.give_back(envelope_id)

    def give_back(self, envelope_id: str) -> None:
        """Note that an envelope is not delivered by this worker: it is due as before."""
        self._assigner.release(self, envelope_id)

    def heard(self) -> None:
        """Note that the host at the next hop has sent something."""
        self._assigner.trust(self.next_hop)
