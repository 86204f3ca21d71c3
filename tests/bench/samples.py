"""Samples of runs that took turns, and what comparing them says.

Other work on the machine hits everyone whose turn it is; a ratio is therefore made of two runs of the same round, and
what counts is the median of these ratios, with the smallest and the largest beside it.
"""

from __future__ import annotations

import enum
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of one run."""

    value: float
    """In the unit of the benchmark."""
    processor: float | None = None
    """Milliseconds of processor time of the server's processes for one message."""


class Better(enum.StrEnum):
    """How two values are compared, and whether the ratio is to be large or small."""

    MORE = "more"
    """Rates: the ratio is subject / peer, and is to be large."""
    LESS = "less"
    """Times: the ratio is peer / subject, and is to be large."""
    NO_MORE = "no more"
    """Costs: the ratio is subject / peer, and is to be small."""

    @property
    def large(self) -> bool:
        """Whether a ratio is to be large."""
        return self is not Better.NO_MORE

    def ratio(self, subject: float, peer: float) -> float:
        """The ratio of two values of one round."""
        return peer / subject if self is Better.LESS else subject / peer


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of values with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A question about the samples of a benchmark: one row of the table."""

    name: str
    """What --rows calls it."""
    what: str
    subject: str
    peer: str | None = None
    """The contender compared with; without one the bounds are for the values themselves, which are to be small."""
    better: Better = Better.MORE
    at_least: float | None = None
    """The bound that is to be kept; "at most" where a ratio is to be small."""
    aim: float | None = None

    @property
    def contenders(self) -> tuple[str, ...]:
        """Whose samples are needed."""
        return (self.subject,) if self.peer is None else (self.subject, self.peer)

    def spread(self, samples: Mapping[str, Sequence[Sample]]) -> Spread:
        """The ratios of the rounds, or the values where there is no peer."""
        subjects = [sample.value for sample in samples[self.subject]]
        if self.peer is None:
            return Spread.of(subjects)
        peers = [sample.value for sample in samples[self.peer]]
        return Spread.of([self.better.ratio(*pair) for pair in zip(subjects, peers, strict=True)])

    def keeps(self, bound: float, median: float) -> bool:
        """Whether a median is on the good side of a bound."""
        return median >= bound if self.large else median <= bound

    @property
    def large(self) -> bool:
        """Whether what is compared is to be large."""
        return self.peer is not None and self.better.large


WARM_UP: Final = -1
"""The number of the round before the first, whose samples are thrown away."""


def take_turns(
    contenders: Mapping[str, Callable[[], Sample]],
    *,
    rounds: int,
    warm_up: bool = True,
    tell: Callable[[str, int, Sample], None] = lambda _name, _round, _sample: None,
) -> dict[str, list[Sample]]:
    """Run every contender once in each round, in the given order: A B A B …

    `tell` hears of every sample: name, round (WARM_UP for what is thrown away) and sample.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(WARM_UP if warm_up else 0, rounds):
        for name, run in contenders.items():
            sample = run()
            tell(name, number, sample)
            if number != WARM_UP:
                samples[name].append(sample)
    return samples
