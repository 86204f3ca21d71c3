"""Benchmarks of trimta beside Postfix, aiosmtpd and other versions of itself; tests/bench/README.md explains them.

python -m tests.bench             measure the rows of the table, and print it
python -m tests.bench growth      measure how throughput and memory grow, and draw it
python -m tests.bench draw        draw that again

The results are kept in a JSON file (--json).
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from tests.bench import drawing, growth, results, rows
from tests.bench.benchmark import measure
from tests.bench.lab import Lab, Settings
from tests.bench.processes import UnavailableError, program
from tests.bench.table import table, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from tests.bench.benchmark import Result

HERE: Final = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    name = "quick" if options.quick else "results"
    source = options.json or HERE / f"{name}.json"
    picture = options.svg or HERE / ("quick.svg" if options.quick else "growth.svg")
    if options.command == "draw":
        return draw(source, picture)
    _prepare_process()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every start compiles the program, which pip does once
    try:
        for needed in ("smtp-source", "smtp-sink"):
            program(needed)
    except UnavailableError as error:
        print(f"{error}: Debian's package postfix has it", file=sys.stderr)
        return 1
    settings = Settings(
        rounds=options.runs if options.runs is not None else 1 if options.quick else 5,
        quick=options.quick,
        workers=options.workers,
        beside=options.beside,
    )
    with tempfile.TemporaryDirectory(prefix="trimta-bench-") as folder, ExitStack() as cleanup:
        Path(folder).chmod(0o755)  # Postfix's daemons have a user of their own
        lab = Lab(Path(folder), settings, cleanup)
        if options.command == "growth":
            measure_growth(lab, source, options.quantities)
        else:
            return measure_rows(lab, source, options.rows, strict=options.strict)
    return draw(source, picture)


def measure_rows(lab: Lab, source: Path, names: Sequence[str], *, strict: bool) -> int:
    """Measure rows, keep the results in a file, and print the table; returns the exit code."""
    measured: list[Result] = []
    for benchmark in rows.BENCHMARKS:
        if any(comparison.name in names for comparison in benchmark.comparisons):
            measured.extend(measure(benchmark, lab, names))
            results.write(source, "rows", results.of_rows(measured), lab.settings)
    for line in table(measured):
        print(line)
    if lab.settings.quick:
        print("quick: small loads, which show that the benchmark works, not how fast a server is")
    short = any(verdict(result) == "short" for result in measured if result.left_out is None)
    return int(any(result.failed for result in measured) or (strict and short))


def measure_growth(lab: Lab, source: Path, quantities: Sequence[str]) -> None:
    """Measure how quantities grow, in place of what a file has of them."""
    points = [point for point in results.growth(source) if point.quantity not in quantities]
    for quantity in quantities:
        points.extend(growth.measure(lab, quantity))
        results.write(source, "growth", [asdict(point) for point in points], lab.settings)


def draw(source: Path, picture: Path) -> int:
    """Draw what grew; returns the exit code."""
    points = results.growth(source)
    if not points:
        print(f"{source} has no points: python -m tests.bench growth", file=sys.stderr)
        return 1
    picture.write_text(drawing.draw(points, results.circumstances(source, "growth")))
    print(picture)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=("table", "growth", "draw"), default="table")
    parser.add_argument("--runs", type=_count, metavar="N", help="runs of each contender after the warm-up; default: 5")
    parser.add_argument(
        "--quick", action="store_true", help="small loads, one run: whether it works, not how fast it is"
    )
    parser.add_argument(
        "--rows",
        type=_names_of(rows.NAMES),
        metavar="NAME,…",
        default=rows.NAMES,
        help=f"which rows: {', '.join(rows.NAMES)}",
    )
    parser.add_argument(
        "--quantities",
        type=_names_of(growth.QUANTITIES),
        metavar="NAME,…",
        default=growth.QUANTITIES,
        help=f"what is to grow: {', '.join(growth.QUANTITIES)}",
    )
    parser.add_argument("--workers", metavar="N|auto", help="for `trimta serve`; default: the option is not given")
    parser.add_argument("--beside", metavar="PYTHON", help="of an environment with the version called “before”")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="the results; default: tests/bench/results.json, --quick: quick.json"
    )
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="the picture; default: tests/bench/growth.svg, --quick: quick.svg"
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a row is short of its bound")
    return parser


def _names_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def names(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"found {name!r}, expected one of {', '.join(known)}")
        return chosen

    return names


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 1")
    return int(text)


def _prepare_process() -> None:
    """Have SIGTERM end the servers too, and allow as many connections as the system lets us."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
