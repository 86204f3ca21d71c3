"""Results as JSON: `rows` as the table has them, `growth` as it is drawn; measuring one part keeps the other."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tests.bench.growth import Point
from tests.bench.table import verdict
from trimta import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bench.benchmark import Result
    from tests.bench.lab import Settings


def read(path: Path) -> dict[str, Any]:
    """What is in the file; nothing if there is none."""
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return results


def write(path: Path, part: str, value: object, settings: Settings) -> None:
    """Put one part into the file, with the circumstances in which it was measured."""
    results = read(path)
    results[part] = value
    results.setdefault("circumstances", {})[part] = _circumstances(settings)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def growth(path: Path) -> list[Point]:
    """The points of the curves."""
    return [Point(**point | {"rates": tuple(point["rates"])}) for point in read(path).get("growth", [])]


def circumstances(path: Path, part: str) -> dict[str, Any]:
    """Versions, processors and settings with which a part was measured."""
    known: dict[str, Any] = read(path)["circumstances"][part]
    return known


def of_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """The rows, each with every sample."""
    return [_row(result) for result in results]


def _row(result: Result) -> dict[str, object]:
    comparison = result.comparison
    row: dict[str, object] = asdict(comparison) | {"unit": result.unit, "left_out": result.left_out}
    if result.left_out is None:
        row |= {
            "result": asdict(comparison.spread(result.samples)),
            "verdict": verdict(result),
            "samples": {name: [asdict(sample) for sample in each] for name, each in result.samples.items()},
        }
    return row


def _circumstances(settings: Settings) -> dict[str, object]:
    return {
        "workers": settings.workers,
        "rounds": settings.rounds,
        "quick": settings.quick,
        "trimta": __version__,
        "python": platform.python_version(),
        "postfix": _postfix_version(),
        "processors": len(os.sched_getaffinity(0)),
    }


def _postfix_version() -> str | None:
    if shutil.which("postconf") is None:
        return None
    done = subprocess.run(["postconf", "-d", "-h", "mail_version"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
