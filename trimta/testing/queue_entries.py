"""The queue as a test sees it: a list of envelopes, with methods that do what `trimta queue` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, overload

from trimta.config.route_syntax import read_route
from trimta.mail.address import parse_domain
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import EnvelopeState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from trimta.runtime.queue_clock import QueueClock
    from trimta.store.queue.values import ListedEnvelope


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRecipient:
    """A recipient to whom the message was not delivered yet."""

    address: str
    status: str
    """The enhanced status code of the last try, or ""."""
    reply: str
    """The reply of the last try, or the local cause of its failure; "" before the first try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """An envelope in the queue, as in `trimta queue list --json`.  Times are those of the queue's clock."""

    id: str
    state: Literal["active", "deferred", "held"]
    arrived: datetime
    age_s: float = field(compare=False)
    size: int
    """Octets of the content on the wire."""
    sender: str
    """The reverse-path; "" for the null reverse-path."""
    domain: str
    next_hop: str
    attempts: int
    next_try: datetime | None
    """The moment of the next try; None while the envelope is held."""
    hold_reason: str
    recipients: tuple[QueueRecipient, ...]


class QueueView(Sequence[QueueEntry]):
    """The envelopes that were in the queue at one moment, oldest first.

    The methods change the queue as it is when they are called.  They raise NoSuchEntry for an id that is not in it, and
    ServerEndedError once the server has ended.
    """

    def __init__(
        self,
        data_dir: Path,
        clock: QueueClock,
        active: Collection[str],
        must_run: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._must_run = must_run
        self._wake = wake
        with Queue(data_dir) as queue:
            now = clock.now()
            self._entries = [_entry(listed, active, now) for listed in queue.entries.list_envelopes()]

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> QueueEntry: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[QueueEntry]: ...
    def __getitem__(self, index: int | slice) -> QueueEntry | Sequence[QueueEntry]:
        return self._entries[index]

    def __eq__(self, other: object) -> bool:
        """Whether the envelopes equal those of another sequence: `server.queue == []`."""
        return isinstance(other, Sequence) and self._entries == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._entries)

    def retry(self, entry_id: str | None = None, *, domain: str | None = None) -> None:
        """Make one envelope, those of a domain, or all, due now; held envelopes stay held."""
        now = self._clock.now()
        if entry_id is not None:
            self._change(lambda queue: queue.operator.retry(entry_id, now))
        elif domain is not None:
            key = parse_domain(domain)
            self._change(lambda queue: queue.operator.retry_domain(key, now))
        else:
            self._change(lambda queue: queue.operator.retry_all(now))

    def hold(self, entry_id: str) -> None:
        """Hold an envelope, or all of a message, until `release`."""
        self._change(lambda queue: queue.operator.hold(entry_id))

    def release(self, entry_id: str, *, via: str = "") -> None:
        """Send a held envelope now, by the route `via`, or by the route that it has without `hold`."""
        if via:
            read_route(via, self._data_dir)
        self._change(lambda queue: queue.operator.release(entry_id, self._clock.now(), via=via))

    def remove(self, entry_id: str) -> None:
        """Remove an envelope without a report to anybody."""
        self._change(lambda queue: queue.remove(entry_id))

    def bounce(self, entry_id: str) -> None:
        """Return an envelope to its sender, with a failure report."""
        self._change(lambda queue: queue.operator.bounce(entry_id, self._clock.now()))

    def _change(self, operation: Callable[[Queue], object]) -> None:
        self._must_run()  # after the server's end its folder is gone, and opening it would make a new queue
        with Queue(self._data_dir) as queue:
            operation(queue)
        self._wake()


def _entry(listed: ListedEnvelope, active: Collection[str], now: float) -> QueueEntry:
    envelope = listed.envelope
    return QueueEntry(
        id=envelope.id,
        state="held" if envelope.state is EnvelopeState.HELD else "active" if envelope.id in active else "deferred",
        arrived=_moment(listed.arrived),
        age_s=max(0.0, now - listed.arrived),
        size=listed.size,
        sender=str(listed.reverse_path or ""),
        domain=envelope.domain,
        next_hop=envelope.next_hop,
        attempts=envelope.attempts,
        next_try=None if envelope.state is EnvelopeState.HELD else _moment(envelope.due),
        hold_reason=envelope.hold_reason,
        recipients=tuple(
            QueueRecipient(address=str(queued.recipient.address), status=queued.status, reply=queued.reply)
            for queued in envelope.recipients
        ),
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
