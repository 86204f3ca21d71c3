"""How throughput and memory grow with sessions, size, recipients, queue depth and workers: points of curves.

At every point the servers are new, since their memory tells what they did before, and take turns.  The first turn,
which also warms them up, is where memory is looked at: the most that all processes of a server had (PSS), since looking
costs them time.
"""

from __future__ import annotations

import statistics
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.bench.load import Load, to_maildir
from tests.bench.postfix import Postfix
from tests.bench.processes import MB, UnavailableError
from tests.bench.rows import POSTFIX, TRIMTA
from tests.bench.runs import Peak
from tests.bench.samples import take_turns
from tests.bench.servers import Trimta, has_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from tests.bench.lab import Lab
    from tests.bench.samples import Sample
    from tests.bench.servers import Server

KIB: Final = 1_024
MIB: Final = 1_024 * KIB

_LOOK: Final = 0.2
"""Seconds between two looks at the memory."""

_MOST: Final = 400 * MIB
"""Octets that one run sends at most."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured of one server at one value of a quantity."""

    quantity: str
    """ "sessions", "size" (octets), "recipients", "queue" (envelopes) or "workers"."""
    at: int
    server: str
    rates: tuple[float, ...]
    """Copies a second of each run, client to Maildir."""
    memory: float
    """MB."""


def measure(lab: Lab, quantity: str) -> Iterator[Point]:
    """The points of a quantity of QUANTITIES."""
    return _MEASUREMENTS[quantity](lab)


def _sessions(lab: Lab) -> Iterator[Point]:
    for sessions in _some(lab, 1, 2, 5, 10, 20, 50, 100, 200, 500):
        load = Load(_count(lab, min(2_000, 300 + 40 * sessions)), sessions=sessions)
        yield from _beside_postfix(lab, "sessions", sessions, load)


def _sizes(lab: Lab) -> Iterator[Point]:
    for size in _some(lab, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 8 * MIB, 50 * MIB):
        load = Load(min(_count(lab, 1_500), max(_MOST // size, 4)), size=size)
        yield from _beside_postfix(lab, "size", size, load)


def _recipients(lab: Lab) -> Iterator[Point]:
    for recipients in _some(lab, 1, 3, 10, 30, 100, 300, 1_000):
        load = Load(max(_count(lab, 6_000 // (recipients + 3)), 2), recipients=recipients)
        yield from _beside_postfix(lab, "recipients", recipients, load)


def _queue(lab: Lab) -> Iterator[Point]:
    """Postfix is left out: to fill its queue takes minutes."""
    for envelopes in _some(lab, 0, 100, 1_000, 10_000, 100_000):
        with lab.with_backlog(lab.new_folder("queue"), envelopes) as server:
            yield from _points(lab, "queue", envelopes, {TRIMTA: server}, Load(_count(lab, 1_500)))


def _workers(lab: Lab) -> Iterator[Point]:
    for workers in (1, 2, 3, 4) if has_workers(sys.executable) else (1,):
        folder = lab.new_folder("workers")
        option = str(workers) if has_workers(sys.executable) else None
        with Trimta(folder, workers=option) as server:
            yield from _points(lab, "workers", workers, {TRIMTA: server}, Load(_count(lab, 2_000)))


def _beside_postfix(lab: Lab, quantity: str, at: int, load: Load) -> Iterator[Point]:
    with ExitStack() as running:
        trimta = Trimta(lab.new_folder("trimta"), workers=lab.settings.workers)
        servers: dict[str, Server] = {TRIMTA: running.enter_context(trimta)}
        try:
            servers[POSTFIX] = running.enter_context(Postfix(lab.new_folder("postfix")))
        except UnavailableError as error:
            print(f"left out: {POSTFIX}: {error}", file=sys.stderr)
        yield from _points(lab, quantity, at, servers, load)


def _points(lab: Lab, quantity: str, at: int, servers: Mapping[str, Server], load: Load) -> Iterator[Point]:
    peaks = {name: _watched(server, load) for name, server in servers.items()}
    runs: dict[str, Callable[[], Sample]] = {
        name: partial(to_maildir, server, load) for name, server in servers.items()
    }
    samples = take_turns(runs, rounds=lab.settings.rounds, warm_up=False)
    for name, taken in samples.items():
        rates = tuple(sample.value for sample in taken)
        memory = peaks[name].proportional / MB
        print(
            f"{quantity} {at}, {name}: {statistics.median(rates):.4g} /s, {memory:.4g} MB", file=sys.stderr, flush=True
        )
        yield Point(quantity, at, name, rates, memory)


def _watched(server: Server, load: Load) -> Peak:
    """The memory of a server's processes during a run whose time does not count."""
    with _Watch(server) as watch:
        to_maildir(server, load)
    return watch.peak


class _Watch:
    """A thread that looks at the memory of a server from time to time."""

    def __init__(self, server: Server) -> None:
        self.peak = Peak(server.tree)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.peak.look()
            if self._over.wait(_LOOK):
                return


def _some(lab: Lab, *values: int) -> Sequence[int]:
    """All values, or the first and one in the middle."""
    return (values[0], values[len(values) // 2]) if lab.settings.quick else values


def _count(lab: Lab, count: int) -> int:
    return lab.settings.scaled(count, count // 20 + 1)


_MEASUREMENTS: Final[dict[str, Callable[[Lab], Iterator[Point]]]] = {
    "sessions": _sessions,
    "size": _sizes,
    "recipients": _recipients,
    "queue": _queue,
    "workers": _workers,
}

QUANTITIES: Final = tuple(_MEASUREMENTS)
"""What grows."""
