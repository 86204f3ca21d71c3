"""A benchmark: contenders that take turns, and the rows of the table that compare their samples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tests.bench.processes import UnavailableError
from tests.bench.samples import WARM_UP, Comparison, Sample, take_turns

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.bench.lab import Lab

Run: TypeAlias = Callable[[], Sample]
Contender: TypeAlias = "Callable[[Lab], Run]"
"""Starts what a contender needs, and returns what makes a sample of it.  Raises UnavailableError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What is measured in one go."""

    unit: str
    contenders: Mapping[str, Contender]
    comparisons: tuple[Comparison, ...]
    warm_up: bool = True
    """Whether there is a round before the first that is thrown away."""


@dataclass(frozen=True, slots=True)
class Result:
    """A comparison with its samples by contender, or with why there are none."""

    comparison: Comparison
    unit: str
    samples: Mapping[str, list[Sample]]
    left_out: str | None = None
    failed: bool = False
    """Whether it was tried, and a server did not do what it should."""


def measure(benchmark: Benchmark, lab: Lab, names: Collection[str]) -> list[Result]:
    """Measure what the named comparisons of a benchmark need; contenders that can't be here are left out."""
    comparisons = [comparison for comparison in benchmark.comparisons if comparison.name in names]
    needed = {contender for comparison in comparisons for contender in comparison.contenders}
    runs, unavailable = {}, {}
    for name, contender in benchmark.contenders.items():
        if name in needed:
            try:
                runs[name] = contender(lab)
            except UnavailableError as error:
                unavailable[name] = str(error)
    reasons = {
        comparison.name: next((unavailable[name] for name in comparison.contenders if name in unavailable), None)
        for comparison in comparisons
    }
    title = ", ".join(name for name, reason in reasons.items() if reason is None)
    try:
        samples = take_turns(
            runs if title else {},
            rounds=lab.settings.rounds,
            warm_up=benchmark.warm_up,
            tell=lambda name, number, sample: _tell(title, name, number, sample, benchmark.unit),
        )
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:  # the other rows are measured all the same
        return [Result(each, benchmark.unit, {}, f"failed: {error}", failed=True) for each in comparisons]
    return [Result(each, benchmark.unit, _samples_of(each, samples), reasons[each.name]) for each in comparisons]


def _samples_of(comparison: Comparison, samples: Mapping[str, list[Sample]]) -> Mapping[str, list[Sample]]:
    return {name: samples[name] for name in comparison.contenders if name in samples}


def _tell(title: str, name: str, number: int, sample: Sample, unit: str) -> None:
    turn = "warm-up" if number == WARM_UP else f"run {number + 1}"
    print(f"{title}: {turn}, {name}: {sample.value:.4g} {unit}", file=sys.stderr, flush=True)
