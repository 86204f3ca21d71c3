"""The import rule of ARCHITECTURE.md: down only, and trio on its floor alone."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent / "trimta"

BELOW: dict[str, set[str]] = {
    "real_time": set(),
    "mail": set(),
    "config": {"mail"},
    "smtp": {"mail"},
    "store": {"mail", "real_time"},
    "policy": {"mail", "config", "smtp", "store"},
    "mta": {"mail", "config", "smtp", "store", "policy", "real_time"},
    "cli": {"mail", "config", "smtp", "store", "policy", "mta", "real_time"},
    "testing": {"mail", "config", "smtp", "store", "policy", "mta", "real_time"},
}
"""What each floor may import, besides itself."""

TRIO = {"mta", "cli", "testing"}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in BELOW)


def floor_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, type checking included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "trimta")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    floor = floor_of(path)
    for name in imported(path):
        first, *rest = name.split(".")
        if first == "trimta" and rest and rest[0] in BELOW:
            assert rest[0] == floor or rest[0] in BELOW[floor], f"{floor} imports {name}"
        if first in ("trio", "outcome", "sniffio"):
            assert floor in TRIO, f"{floor} imports {name}"
