"""Workers: delivery tasks that `scheduler` starts, each for one next hop; `dispatch` claims the envelopes from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from trimta.store.queue.errors import QueueError

if TYPE_CHECKING:
    from trimta.store.queue.queue import Queue
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


class Claim:
    """The claim of the envelope that is the longest due at a worker's next hop: an operation on the queue, alone or as
    a part of another one.

    A claim whose commit failed may be made again.
    """

    def __init__(self, worker: Worker, now: float, taken: set[str]) -> None:
        """`now`: the moment of the claim, on the queue's clock.  `taken`: the ids of the envelopes that workers have,
        which are left out.  The claimed one is added where the queue is asked, by one question after the other: two
        that are asked at once get different answers.
        """
        self._worker = worker
        self._now = now
        self._taken = taken
        self._answer: Claimed | QueueError | None = None

    def __call__(self, queue: Queue) -> None:
        """Ask the queue.  What goes wrong is raised by `result`: it must not undo what is committed with the claim."""
        self.forget()
        try:
            entry = queue.claim_next(self._worker.next_hop, self._now, exclude=self._taken)
        except QueueError as error:
            self._answer = error
        else:
            if entry is not None:
                self._answer = Claimed(*entry)
                self._taken.add(entry[1].id)

    def forget(self) -> None:
        """Give back what was claimed, since nothing was committed."""
        if isinstance(self._answer, Claimed):
            self._taken.discard(self._answer.envelope.id)
        self._answer = None

    def keep(self) -> None:
        """Note what the worker has from now on, since it was committed."""
        if isinstance(self._answer, Claimed):
            self._worker.active.add(self._answer.envelope.id)

    @property
    def result(self) -> Claimed | None:
        """The claimed envelope; None if none is due.  Raises QueueError, DamagedEntry."""
        if isinstance(self._answer, QueueError):
            raise self._answer
        return self._answer


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

    def next_claim(self, worker: Worker) -> Claim | None:
        """See Worker.next_claim."""

    async def claim(self, worker: Worker, claim: Claim | None = None) -> Claimed | None:
        """See Worker.claim and Worker.claimed."""

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

    def next_claim(self) -> Claim | None:
        """The claim of the next envelope, to be committed together with the outcomes of the one before; None if others
        wait for this place.
        """
        return self._assigner.next_claim(self)

    async def claimed(self, claim: Claim) -> Claimed | None:
        """What `claim`, which was committed, has given, as `claim()` returns it."""
        return await self._assigner.claim(self, claim)

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
