"""The table of results, as text."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.benchmark import Result
    from tests.bench.samples import Comparison, Sample

_HEADINGS: Final = ("row", "what", "trimta", "beside", "ratio", "spread", "bound", "aim", "")


def table(results: Sequence[Result]) -> Iterator[str]:
    """Lines: first the table, then what was left out."""
    rows = [_HEADINGS, *(_row(result) for result in results if result.left_out is None)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths[:-1])
    for result in results:
        if result.left_out is not None:
            yield f"left out: {result.comparison.name}: {result.left_out}"


def verdict(result: Result) -> str:
    """ "aim", "ok" or "short": which bound the median keeps; nothing where there is no bound."""
    comparison = result.comparison
    median = comparison.spread(result.samples).median
    if comparison.aim is not None and comparison.keeps(comparison.aim, median):
        return "aim"
    if comparison.at_least is None:
        return ""
    return "ok" if comparison.keeps(comparison.at_least, median) else "short"


def _row(result: Result) -> tuple[str, ...]:
    comparison = result.comparison
    spread = comparison.spread(result.samples)
    ratio = f"{spread.median:.2f}" if comparison.peer is not None else ""
    subject = _value(comparison.subject, result.samples[comparison.subject], result.unit)
    return (
        comparison.name,
        comparison.what,
        subject,
        _value(comparison.peer, result.samples[comparison.peer], result.unit) if comparison.peer is not None else "",
        ratio,
        f"{spread.low:.3g}–{spread.high:.3g}",
        _bound(comparison, comparison.at_least),
        _bound(comparison, comparison.aim),
        verdict(result),
    )


def _value(name: str, samples: Sequence[Sample], unit: str) -> str:
    """The median of a contender's samples, with its name and its processor time: "Postfix 812/s (0.8 ms)"."""
    value = statistics.median(sample.value for sample in samples)
    spent = [sample.processor for sample in samples if sample.processor is not None]
    processor = f" ({statistics.median(spent):.2f} ms)" if spent else ""
    prefix = "" if name == "trimta" else f"{name} "
    return f"{prefix}{number(value)}{'' if unit.startswith('/') else ' '}{unit}{processor}"


def number(value: float) -> str:
    """A value with three digits, or as many as it has before the point: 1234, 12.3, 0.123."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def _bound(comparison: Comparison, bound: float | None) -> str:
    return "" if bound is None else f"{'≥' if comparison.large else '≤'} {bound:g}"
