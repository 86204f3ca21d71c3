"""Benchmarks of trimta beside Postfix, aiosmtpd and other versions of itself; tests/bench/README.md explains them.

The results are printed as a table, and kept in a JSON file (--json).
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from tests.bench import results, rows
from tests.bench.benchmark import measure
from tests.bench.lab import Lab, Settings
from tests.bench.processes import UnavailableError, program
from tests.bench.table import table, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from tests.bench.benchmark import Result

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results.json"
QUICK_RESULTS: Final = HERE / "quick.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    _prepare_process()
    try:
        for name in ("smtp-source", "smtp-sink"):
            program(name)
    except UnavailableError as error:
        print(f"{error}: Debian's package postfix has it", file=sys.stderr)
        return 1
    source = options.json or (QUICK_RESULTS if options.quick else RESULTS)
    settings = Settings(
        rounds=options.runs if options.runs is not None else 1 if options.quick else 5,
        quick=options.quick,
        workers=options.workers,
        beside=options.beside,
    )
    with tempfile.TemporaryDirectory(prefix="trimta-bench-") as name, ExitStack() as cleanup:
        folder = Path(name)
        folder.chmod(0o755)  # Postfix's daemons have a user of their own
        lab = Lab(folder, settings, cleanup)
        circumstances = {"workers": settings.workers, "rounds": settings.rounds, "quick": settings.quick}
        measured: list[Result] = []
        for benchmark in rows.BENCHMARKS:
            if any(comparison.name in options.rows for comparison in benchmark.comparisons):
                measured.extend(measure(benchmark, lab, options.rows))
                results.write(source, "rows", results.of_rows(measured), **circumstances)
    for line in table(measured):
        print(line)
    short = any(verdict(result) == "short" for result in measured if result.left_out is None)
    return int(options.strict and short)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=_count, metavar="N", help="runs of each contender after the warm-up; default: 5")
    parser.add_argument(
        "--quick", action="store_true", help="small loads, one run: whether it works, not how fast it is"
    )
    parser.add_argument(
        "--rows", type=_names, metavar="NAME,…", default=rows.NAMES, help=f"which rows: {', '.join(rows.NAMES)}"
    )
    parser.add_argument("--workers", metavar="N|auto", help="for `trimta serve`; default: the option is not given")
    parser.add_argument("--beside", metavar="PYTHON", help="of an environment with the version called “before”")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        default=None,
        help=f"the results; default: {RESULTS}, with --quick {QUICK_RESULTS}",
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a row is short of its bound")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in rows.NAMES:
            raise argparse.ArgumentTypeError(f"no row is called {name!r}")
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
    sys.exit(main())
