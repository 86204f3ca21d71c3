"""The import rule of ARCHITECTURE.md: imports go down only, without circles, and Trio begins at `runtime`."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent / "trimta"

FLOORS: Final = (
    "first_use",
    "real_time",
    "mail",
    "content",
    "routing",
    "smtp",
    "config",
    "store",
    "runtime",
    "outbound",
    "inbound",
    "control",
    "server",
    "testing",
    "cli",
)
"""From the ground up: each imports from itself and from those before it."""

ENTRANCES: Final = {"__init__", "__main__", "pytest_plugin"}
"""What is outside the floors, since Python or pytest look for it at the top."""

LINES: Final = 450
"""What a module may have at most."""

NO_TRIO: Final = FLOORS[: FLOORS.index("runtime")]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES: Final = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def floor_of(name: str) -> str:
    return name.partition(".")[0]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, type checking included; of trimta without that name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("trimta.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            if node.module.partition(".")[0] != "trimta":
                yield node.module
                continue
            package = node.module.removeprefix("trimta").removeprefix(".")
            for alias in node.names:
                name = f"{package}.{alias.name}".removeprefix(".")
                yield name if name in MODULES else package or "__init__"


GRAPH: Final = {name: {other for other in imported(path) if other in MODULES} for name, path in MODULES.items()}


def circles() -> set[frozenset[str]]:
    """The sets of modules each of which imports, in one step or more, all others of its set."""
    reach: dict[str, set[str]] = {}
    for name in GRAPH:
        seen: set[str] = set()
        new = set(GRAPH[name])
        while new:
            seen |= new
            new = {further for each in new for further in GRAPH[each]} - seen
        reach[name] = seen
    return {
        frozenset({name} | {other for other in reach[name] if name in reach[other]})
        for name in GRAPH
        if name in reach[name]
    }


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_one_idea_and_room_for_it(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= LINES


def test_every_module_is_on_a_floor() -> None:
    assert {floor_of(name) for name in MODULES} == {*FLOORS} | ENTRANCES


@pytest.mark.parametrize("name", [name for name in MODULES if floor_of(name) in FLOORS])
def test_imports_go_down_only(name: str) -> None:
    height = FLOORS.index(floor_of(name))
    above = {other for other in GRAPH[name] if floor_of(other) not in (*FLOORS[: height + 1], "__init__")}
    assert not above


def test_no_modules_import_each_other() -> None:
    assert not circles()


@pytest.mark.parametrize("name", [name for name in MODULES if floor_of(name) in NO_TRIO])
def test_trio_begins_at_the_runtime_floor(name: str) -> None:
    assert not {other.partition(".")[0] for other in imported(MODULES[name])} & {"trio", "outcome", "sniffio"}
