"""The benchmark itself, without measuring anything: its ratios, its table, its watch on a Maildir, its command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import results
from tests.bench.arrivals import Arrivals
from tests.bench.benchmark import Benchmark, Contender, Result, Run, measure
from tests.bench.chart import powers, ticks
from tests.bench.growth import QUANTITIES, Point
from tests.bench.lab import Lab, Settings
from tests.bench.processes import ProcessTree, UnavailableError
from tests.bench.rows import BENCHMARKS, NAMES
from tests.bench.samples import Better, Comparison, Sample, Spread, take_turns
from tests.bench.table import table, verdict

ROOT = Path(__file__).parents[2]

SETTINGS = Settings(rounds=2, quick=True, workers=None, beside=None)


def samples(**values: list[float]) -> dict[str, list[Sample]]:
    return {name: [Sample(value) for value in each] for name, each in values.items()}


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_help_names_every_row() -> None:
    told = "".join(bench("--help").split())
    assert [name for name in NAMES if name not in told] == []


def test_rows_have_different_names_and_compare_contenders_of_their_benchmark() -> None:
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []
    for benchmark in BENCHMARKS:
        for comparison in benchmark.comparisons:
            assert set(comparison.contenders) <= set(benchmark.contenders), comparison.name


def test_contenders_take_turns_and_the_warm_up_is_thrown_away() -> None:
    turns: list[str] = []

    def contender(name: str) -> Sample:
        turns.append(name)
        return Sample(len(turns))

    taken = take_turns({"a": lambda: contender("a"), "b": lambda: contender("b")}, rounds=2)
    assert turns == ["a", "b", "a", "b", "a", "b"]
    assert taken == samples(a=[3, 5], b=[4, 6])


@pytest.mark.parametrize(
    ("better", "spread"),
    [
        (Better.MORE, Spread(2, 1, 4)),
        (Better.LESS, Spread(0.5, 0.25, 1)),
        (Better.NO_MORE, Spread(2, 1, 4)),
    ],
)
def test_a_ratio_is_the_median_of_those_of_each_round(better: Better, spread: Spread) -> None:
    comparison = Comparison(name="row", what="", subject="us", peer="them", better=better)
    assert comparison.spread(samples(us=[10, 20, 40], them=[10, 10, 10])) == spread


@pytest.mark.parametrize(
    ("better", "peer", "value", "expected"),
    [
        (Better.MORE, "them", 3.0, "aim"),
        (Better.MORE, "them", 2.0, "ok"),
        (Better.MORE, "them", 1.9, "short"),
        (Better.NO_MORE, "them", 3.0, "short"),
        (Better.NO_MORE, "them", 2.5, "ok"),
        (Better.MORE, None, 2.5, "ok"),
        (Better.MORE, None, 3.0, "short"),
    ],
)
def test_a_median_is_compared_with_bound_and_aim(better: Better, peer: str | None, value: float, expected: str) -> None:
    at_least, aim = (2.0, 3.0) if better is Better.MORE and peer else (2.5, 2.0)
    comparison = Comparison(name="row", what="", subject="us", peer=peer, better=better, at_least=at_least, aim=aim)
    assert verdict(Result(comparison, "s", samples(us=[value], them=[1.0]))) == expected


def test_a_row_that_fails_is_told_and_one_without_its_peer_is_left_out(tmp_path: Path) -> None:
    def lost() -> Sample:
        raise RuntimeError("only 1 of 2 files came")

    def nobody(_: Lab) -> Run:
        raise UnavailableError("nobody is here")

    def measured(us: Contender) -> list[tuple[str | None, bool]]:
        with ExitStack() as cleanup:
            lab = Lab(tmp_path, SETTINGS, cleanup)
            comparisons = tuple(
                Comparison(name=name, what="", subject="us", peer=peer) for name, peer in (("a", None), ("b", "them"))
            )
            benchmark = Benchmark(unit="s", contenders={"us": us, "them": nobody}, comparisons=comparisons)
            return [(result.left_out, result.failed) for result in measure(benchmark, lab, ("a", "b"))]

    assert measured(lambda _: lambda: Sample(1)) == [(None, False), ("nobody is here", False)]
    assert measured(lambda _: lost) == [("failed: only 1 of 2 files came", True)] * 2
    assert measured(nobody) == [("nobody is here", False)] * 2


def test_the_table_has_ratio_spread_and_bounds_and_says_what_was_left_out(tmp_path: Path) -> None:
    comparison = Comparison(name="fresh", what="mail", subject="trimta", peer="Postfix", at_least=1.6, aim=2.5)
    measured = [
        Result(comparison, "/s", samples(trimta=[1000, 2000], Postfix=[1000, 1000])),
        Result(Comparison(name="other", what="", subject="us"), "/s", {}, "nobody is here"),
    ]
    lines = list(table(measured))
    assert re.split(r"\s{2,}", lines[2]) == [
        *("fresh", "mail", "1500/s", "Postfix 1000/s", "1.50", "1–2", "≥ 1.6", "≥ 2.5", "short")
    ]
    assert lines[3:] == ["left out: other: nobody is here"]

    results.write(tmp_path / "r.json", "growth", [1], SETTINGS)
    results.write(tmp_path / "r.json", "rows", results.of_rows(measured), SETTINGS)
    written = json.loads((tmp_path / "r.json").read_text())
    assert written["growth"] == [1]
    assert written["rows"][0]["result"] == {"median": 1.5, "low": 1.0, "high": 2.0}
    assert written["rows"][1]["left_out"] == "nobody is here"


def test_growth_is_drawn_from_the_results(tmp_path: Path) -> None:
    points = [
        Point(quantity, at, server, (10.0 * at, 12.0 * at), 50)
        for quantity in QUANTITIES
        for at in (1, 100)
        for server in ("trimta", "Postfix")
        if (quantity, server) != ("workers", "Postfix")
    ]
    results.write(tmp_path / "r.json", "growth", [asdict(point) for point in points], SETTINGS)
    assert results.growth(tmp_path / "r.json") == points
    bench("draw", "--json", str(tmp_path / "r.json"), "--svg", str(tmp_path / "growth.svg"))
    picture = ElementTree.parse(tmp_path / "growth.svg").getroot()
    classes = Counter(element.get("class") for element in picture.iter())
    assert classes["title"] == len(QUANTITIES)
    assert classes["trimta"] == 2 * len(QUANTITIES) + 1  # throughput, memory; and the legend
    assert classes["postfix"] == 2 * (len(QUANTITIES) - 1) + 1


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(0.3, [0, 0.1, 0.2, 0.3]), (1, [0, 0.5, 1]), (47, [0, 20, 40, 60]), (2000, [0, 500, 1000, 1500, 2000])],
)
def test_a_scale_begins_at_zero_and_has_round_steps(largest: float, expected: list[float]) -> None:
    assert ticks(largest) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("smallest", "largest", "expected"), [(0.8, 150, [0.1, 1, 10, 100, 1000]), (10, 10, [10, 100]), (1, 7, [1, 10])]
)
def test_a_logarithmic_scale_has_powers_of_ten(smallest: float, largest: float, expected: list[float]) -> None:
    assert powers(smallest, largest) == pytest.approx(expected)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_arrivals_count_files_that_are_renamed_or_linked_into_a_folder(tmp_path: Path) -> None:
    for name in ("tmp", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "tmp" / "one").touch()
    (tmp_path / "tmp" / "two").touch()
    with Arrivals(tmp_path / "new") as arrivals:
        (tmp_path / "tmp" / "one").rename(tmp_path / "new" / "one")
        (tmp_path / "new" / "two").hardlink_to(tmp_path / "tmp" / "two")
        assert arrivals.wait(2) <= time.perf_counter()
        assert arrivals.count == 2


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_tree_is_measured_with_its_children() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        tree = ProcessTree(os.getpid())
        assert {os.getpid(), child.pid} <= set(tree.pids())
        memory = tree.memory()
        assert memory.resident > ProcessTree(child.pid).memory().resident > 0
        assert 0 < memory.proportional <= memory.resident
        assert tree.processor_time() > 0
        child.kill()
