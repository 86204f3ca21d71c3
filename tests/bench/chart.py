"""A line chart as SVG: values over steps of equal width, with a legible scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MARGIN: Final = 46
"""Left of the plot, for the labels of the scale."""

CAPTION: Final = 24
"""Above the plot, for what the scale counts."""

_TICKS: Final = 4
_MARK: Final = 2.6


@dataclass(frozen=True, slots=True)
class Value:
    """A median at a step, with the smallest and the largest."""

    step: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """The values of one server; `style` is the class in the picture's style sheet."""

    style: str
    values: Sequence[Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves over the same steps.  All measures are in the picture's units (pixels)."""

    caption: str
    steps: Sequence[str]
    """The labels of the steps."""
    curves: Sequence[Curve]
    left: float
    top: float
    width: float
    height: float
    labelled: bool
    """Whether the steps have their labels below."""

    logarithmic: bool = False
    """Whether the scale has powers of ten in place of beginning at 0."""

    def draw(self) -> Iterator[str]:
        """SVG elements, the scale first."""
        values = [value for curve in self.curves for value in curve.values]
        low, high = min(value.low for value in values), max(value.high for value in values)
        scale = powers(low, high) if self.logarithmic else ticks(high)
        yield text(self.left, self.top + 11, "caption", self.caption)
        for tick in scale:
            y = self._y(tick, scale)
            yield f'<path class="{"axis" if tick == scale[0] else "grid"}" d="M{self._x0:.1f} {y:.1f}H{self._x1:.1f}"/>'
            yield text(self._x0 - 5, y + 3.5, "tick", label(tick), anchor="end")
        if self.labelled:
            for step, name in enumerate(self.steps):
                yield text(self._x(step), self.top + self.height + 14, "tick", name, anchor="middle")
        for curve in self.curves:
            yield from self._curve(curve, scale)

    @property
    def _x0(self) -> float:
        return self.left + MARGIN

    @property
    def _x1(self) -> float:
        return self.left + self.width

    def _x(self, step: int) -> float:
        return self._x0 + (step + 0.5) * (self._x1 - self._x0) / len(self.steps)

    def _y(self, value: float, scale: Sequence[float]) -> float:
        first, last = scale[0], scale[-1]
        part = math.log(value / first) / math.log(last / first) if self.logarithmic else value / last
        return self.top + self.height - part * (self.height - CAPTION)

    def _curve(self, curve: Curve, scale: Sequence[float]) -> Iterator[str]:
        points = [(self._x(value.step), self._y(value.median, scale)) for value in curve.values]
        yield f'<g class="{curve.style}">'
        for value in curve.values:
            low, high = self._y(value.low, scale), self._y(value.high, scale)
            if low - high > _MARK:
                yield f'<path class="spread" d="M{self._x(value.step):.1f} {low:.1f}V{high:.1f}"/>'
        yield f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        yield from (mark(curve.style, x, y) for x, y in points)
        yield "</g>"


def mark(style: str, x: float, y: float) -> str:
    """The mark of a point: round for trimta, square for others, so that nobody depends on colours."""
    if style == "trimta":
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{_MARK}"/>'
    return f'<rect class="mark" x="{x - _MARK:.1f}" y="{y - _MARK:.1f}" width="{2 * _MARK}" height="{2 * _MARK}"/>'


def text(x: float, y: float, style: str, content: str, *, anchor: str = "start") -> str:
    """A line of text."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def ticks(largest: float) -> list[float]:
    """The values with a label, from 0 to the end of a scale that holds this value."""
    distance = _distance(largest)
    return [distance * number for number in range(math.ceil(largest / distance * (1 - 1e-9)) + 1)]


def powers(smallest: float, largest: float) -> list[float]:
    """The values with a label of a logarithmic scale that holds these two: two powers of ten at least."""
    first = math.floor(math.log10(smallest))
    last = max(math.ceil(math.log10(largest)), first + 1)
    return [10.0**power for power in range(first, last + 1)]


def _distance(largest: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are four ticks at most."""
    if largest <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(largest / _TICKS))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * _TICKS >= largest * (1 - 1e-9))


def label(value: float) -> str:
    """A number of a scale: 0, 0.5, 20, 1 500."""
    return f"{value:,.0f}".replace(",", " ") if value >= 10 or value == int(value) else f"{value:g}"
