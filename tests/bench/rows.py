"""The rows of the table: what is measured, of whom, and which ratio is to be reached.

The bounds are those that the project has set itself.  "before" is the trimta of another environment (--beside).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.bench import runs
from tests.bench.backlog import BIG_DOMAIN
from tests.bench.benchmark import Benchmark
from tests.bench.lab import DOMAINS, Lab, one_process
from tests.bench.load import Load, to_maildir, to_next_hop
from tests.bench.runs import BIG
from tests.bench.samples import Better, Comparison

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.benchmark import Contender, Run
    from tests.bench.samples import Sample
    from tests.bench.servers import Server, Trimta

TRIMTA: Final = "trimta"
POSTFIX: Final = "Postfix"
AIOSMTPD: Final = "aiosmtpd"
BEFORE: Final = "before"
ALONE: Final = "alone"
BESIDE_BIG: Final = "beside 20 × 10 MiB"
BESIDE_IDLE: Final = "beside 500 idle"
EMPTY: Final = "empty queue"
BACKLOG: Final = "backlog"

_NO_SLOWER: Final = 1.05
"""What a ratio may be by chance where nothing has become slower or larger."""


def _loaded(
    transfer: Callable[[Server, Load], Sample], server: Callable[[Lab], Server], full: Load, quick: Load
) -> Contender:
    def prepare(lab: Lab) -> Run:
        return partial(transfer, server(lab), quick if lab.settings.quick else full)

    return prepare


_to_maildir: Final = partial(_loaded, to_maildir)
_to_next_hop: Final = partial(_loaded, to_next_hop)

_FRESH: Final = (Load(2_000), Load(200))
_REUSED: Final = (Load(3_000, reuse=True), Load(300, reuse=True))
_RELAYED: Final = _FRESH
_100_KIB: Final = (Load(600, size=100 * 1024), Load(60, size=100 * 1024))
_10_MIB: Final = (Load(60, size=BIG), Load(20, size=BIG))
_RECIPIENTS: Final = (Load(60, recipients=100), Load(10, recipients=100))


def _waiting(server: Callable[[Lab], Server]) -> Contender:
    return lambda lab: partial(runs.waiting_time, server(lab), lab.settings.scaled(200, 20))


def _waiting_beside_big(lab: Lab) -> Run:
    log = lab.new_folder("load") / "smtp-source.log"
    return partial(runs.waiting_time_beside_big, lab.trimta(), lab.settings.scaled(40, 5), log)


def _waiting_beside_idle(lab: Lab) -> Run:
    return partial(runs.waiting_time_beside_idle, lab.trimta(), lab.settings.scaled(200, 20), 500)


def _many_domains(lab: Lab) -> Run:
    return partial(runs.to_many_domains, lab.many_domains(), lab.settings.scaled(20, 3), DOMAINS)


def _of_two_versions(measure: Callable[[Trimta], Sample]) -> dict[str, Contender]:
    """A measurement of a server that is started for it, as one process, of this trimta and of the one before."""

    def contender(python: Callable[[Lab], str]) -> Contender:
        return lambda lab: partial(measure, one_process(lab.new_folder("server"), python(lab)))

    return {TRIMTA: contender(lambda _: sys.executable), BEFORE: contender(Lab.python_before)}


def _submitting(server: Callable[[Lab], Trimta]) -> Contender:
    return lambda lab: partial(runs.submit, server(lab))


def _listing(*options: str) -> Contender:
    return lambda lab: partial(runs.first_line, lab.backlog(), *options)


def _backlog_start(lab: Lab) -> Run:
    return partial(runs.start, lab.with_backlog(lab.new_folder("start")))


def _backlog_memory(lab: Lab) -> Run:
    return partial(runs.memory_after_start, lab.with_backlog(lab.new_folder("memory")))


def _versus_before(name: str, what: str) -> Comparison:
    return Comparison(
        name=f"{name}-before", what=what, subject=TRIMTA, peer=BEFORE, better=Better.NO_MORE, at_least=_NO_SLOWER
    )


def _footprint(
    name: str, what: str, unit: str, measure: Callable[[Trimta], Sample], bound: float, aim: float
) -> Benchmark:
    """What one process costs: by itself, and against the version before."""
    return Benchmark(
        unit=unit,
        contenders=_of_two_versions(measure),
        comparisons=(
            Comparison(name=name, what=what, subject=TRIMTA, at_least=bound, aim=aim),
            _versus_before(name, what),
        ),
    )


def _one_process(name: str, what: str, transfer: Callable[..., Contender], loads: tuple[Load, Load]) -> Benchmark:
    return Benchmark(
        unit="/s",
        contenders={TRIMTA: transfer(Lab.one_process, *loads), BEFORE: transfer(Lab.before, *loads)},
        comparisons=(Comparison(name=name, what=what, subject=TRIMTA, peer=BEFORE, at_least=1.25, aim=1.6),),
    )


def _beside_postfix(
    name: str, what: str, transfer: Callable[..., Contender], loads: tuple[Load, Load], at_least: float, aim: float
) -> Benchmark:
    return Benchmark(
        unit="/s",
        contenders={TRIMTA: transfer(Lab.trimta, *loads), POSTFIX: transfer(Lab.postfix, *loads)},
        comparisons=(Comparison(name=name, what=what, subject=TRIMTA, peer=POSTFIX, at_least=at_least, aim=aim),),
    )


def _receiving(name: str, what: str, loads: tuple[Load, Load], at_least: float, aim: float) -> Benchmark:
    """Client to Maildir beside both peers."""
    return Benchmark(
        unit="/s",
        contenders={
            TRIMTA: _to_maildir(Lab.trimta, *loads),
            POSTFIX: _to_maildir(Lab.postfix, *loads),
            AIOSMTPD: _to_maildir(Lab.aiosmtpd, *loads),
        },
        comparisons=(
            Comparison(name=name, what=what, subject=TRIMTA, peer=POSTFIX, at_least=at_least, aim=aim),
            Comparison(name=f"{name}-aiosmtpd", what=what, subject=TRIMTA, peer=AIOSMTPD, at_least=1.6, aim=2.5),
        ),
    )


def _with_backlog(name: str, what: str, transfer: Callable[..., Contender], loads: tuple[Load, Load]) -> Benchmark:
    return Benchmark(
        unit="/s",
        contenders={BACKLOG: transfer(Lab.backlog, *loads), EMPTY: transfer(Lab.trimta, *loads)},
        comparisons=(Comparison(name=name, what=what, subject=BACKLOG, peer=EMPTY, at_least=0.8),),
    )


def _first_line(name: str, *options: str) -> Benchmark:
    what = " ".join(["100 000 deferred: first line of queue list", *options])
    comparison = Comparison(name=name, what=what, subject=BACKLOG, at_least=0.5)
    return Benchmark(unit="s", contenders={BACKLOG: _listing(*options)}, comparisons=(comparison,))


BENCHMARKS: Final = (
    _receiving("fresh", "client to Maildir, a connection per message", _FRESH, 1.6, 2.5),
    _receiving("reused", "client to Maildir, connections reused", _REUSED, 2.0, 3.0),
    _beside_postfix("next-hop", "client to next hop, through the queue", _to_next_hop, _RELAYED, 1.3, 2.0),
    _beside_postfix("100-kib", "client to Maildir, 100 KiB messages", _to_maildir, _100_KIB, 1.2, 2.0),
    _beside_postfix("10-mib", "client to Maildir, 10 MiB messages", _to_maildir, _10_MIB, 1.0, 2.0),
    _beside_postfix("recipients", "copies of messages with 100 local recipients", _to_maildir, _RECIPIENTS, 1.3, 2.0),
    Benchmark(
        unit="/s",
        contenders={TRIMTA: _many_domains, POSTFIX: _to_next_hop(Lab.postfix, *_RELAYED)},
        comparisons=(
            Comparison(
                name="domains",
                what="transactions of messages for 100 remote domains; Postfix's single messages",
                subject=TRIMTA,
                peer=POSTFIX,
                at_least=2.0,
                aim=3.0,
            ),
        ),
    ),
    _one_process("one-fresh", "one process: client to Maildir, fresh", _to_maildir, _FRESH),
    _one_process("one-reused", "one process: client to Maildir, reused", _to_maildir, _REUSED),
    _one_process("one-next-hop", "one process: client to next hop", _to_next_hop, _RELAYED),
    Benchmark(
        unit="ms",
        contenders={TRIMTA: _waiting(Lab.trimta), POSTFIX: _waiting(Lab.postfix)},
        comparisons=(
            Comparison(
                name="waiting",
                what="connect until the file is in new/, one client at a time",
                subject=TRIMTA,
                peer=POSTFIX,
                better=Better.LESS,
                at_least=1.5,
                aim=3.0,
            ),
        ),
    ),
    Benchmark(
        unit="ms",
        contenders={
            ALONE: _waiting(Lab.trimta),
            BESIDE_BIG: _waiting_beside_big,
            BESIDE_IDLE: _waiting_beside_idle,
        },
        comparisons=(
            Comparison(
                name="waiting-big",
                what="the same while 20 sessions send 10 MiB messages",
                subject=BESIDE_BIG,
                peer=ALONE,
                better=Better.NO_MORE,
                at_least=3.0,
                aim=1.5,
            ),
            Comparison(
                name="waiting-idle",
                what="the same while 500 sessions are idle",
                subject=BESIDE_IDLE,
                peer=ALONE,
                better=Better.NO_MORE,
                at_least=1.1,
                aim=1.1,
            ),
        ),
    ),
    _footprint("start", "`trimta serve` until it greets", "s", runs.start, 0.22, 0.12),
    Benchmark(
        unit="s",
        contenders={TRIMTA: _submitting(Lab.one_process), BEFORE: _submitting(Lab.before)},
        comparisons=(
            Comparison(name="sendmail", what="`trimta sendmail`", subject=TRIMTA, at_least=0.18, aim=0.12),
            _versus_before("sendmail", "`trimta sendmail`"),
        ),
    ),
    _footprint("memory", "memory after the start", "MB", runs.memory_after_start, 46, 30),
    _footprint(
        "memory-idle", "memory with 1000 idle sessions", "MB", partial(runs.memory_with_idle, sessions=1_000), 52, 40
    ),
    _footprint(
        "memory-transit",
        "memory with 20 × 50 MiB in transit",
        "MB",
        partial(runs.memory_in_transit, sessions=20, size=50 * 1024 * 1024),
        55,
        45,
    ),
    Benchmark(
        unit="s",
        contenders={BACKLOG: _backlog_start},
        comparisons=(
            Comparison(name="backlog-start", what="100 000 deferred: until it greets", subject=BACKLOG, at_least=2.0),
        ),
    ),
    Benchmark(
        unit="MB",
        contenders={BACKLOG: _backlog_memory},
        comparisons=(
            Comparison(name="backlog-memory", what="100 000 deferred: memory", subject=BACKLOG, at_least=157),
        ),
    ),
    _with_backlog("backlog-local", "100 000 deferred: client to Maildir", _to_maildir, _FRESH),
    _with_backlog("backlog-relayed", "100 000 deferred: client to next hop", _to_next_hop, _RELAYED),
    _first_line("backlog-list"),
    _first_line("backlog-list-domain", "--domain", BIG_DOMAIN),
)

NAMES: Final = tuple(comparison.name for benchmark in BENCHMARKS for comparison in benchmark.comparisons)
"""What --rows can choose."""
