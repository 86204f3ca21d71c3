"""The queue's intake, through which sessions put messages into the queue, start it (ETRN), and wake the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.runtime.group_commit import GroupCommit
    from trimta.store.queue.values import NewEnvelope, StoredMessage


class QueueIntake(Protocol):
    """The queue as sessions use it.  Every method raises QueueError where nothing can be committed."""

    async def accept(self, message: StoredMessage, envelopes: Sequence[NewEnvelope]) -> None:
        """Store a message; on return it is durable.  If the caller is cancelled, it is not in the queue afterwards."""

    async def accept_all(self, messages: Sequence[tuple[StoredMessage, Sequence[NewEnvelope]]]) -> None:
        """Store several messages, all or none."""

    async def remove(self, message_id: str) -> None:
        """Remove a message and its envelopes, also if the caller is cancelled meanwhile."""

    async def retry_domain(self, domain: str, now: float, *, subdomains: bool) -> int:
        """Make the envelopes for a domain due; returns their number.  `now` is on the queue's clock."""

    def wake(self) -> None:
        """Tell the scheduler that something in the queue has changed."""


class CommittedIntake:
    """The intake in the process that holds the queue."""

    def __init__(self, queue: GroupCommit, wake: Callable[[], None]) -> None:
        self._queue = queue
        self.wake = wake

    async def accept(self, message: StoredMessage, envelopes: Sequence[NewEnvelope]) -> None:
        await self._queue.run(
            lambda queue: queue.accept(message, envelopes), undo=lambda queue: queue.remove(message.id)
        )

    async def accept_all(self, messages: Sequence[tuple[StoredMessage, Sequence[NewEnvelope]]]) -> None:
        await self._queue.run(lambda queue: [queue.accept(message, envelopes) for message, envelopes in messages])

    async def remove(self, message_id: str) -> None:
        await self._queue.run(lambda queue: queue.remove(message_id), withdraw=False)

    async def retry_domain(self, domain: str, now: float, *, subdomains: bool) -> int:
        return await self._queue.run(lambda queue: queue.operator.retry_domain(domain, now, subdomains=subdomains))
