"""Names: no two types of trimta have the same one, and what has a noun is called by it."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent / "trimta"

NO_NOUNS: Final = {"found", "he", "it", "one", "said", "wanted", "wants", "what", "who"}
"""Words that say nothing about what they stand for."""


def types_defined(tree: ast.Module) -> Iterator[str]:
    """The names of all classes of a module, wherever in it, and of its type aliases."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                yield name


def names_given(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The names that a module gives to variables, parameters, fields, functions and classes, with their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store(), lineno=line) | ast.arg(arg=name, lineno=line):
                yield name, line
            case ast.FunctionDef(name=name, lineno=line) | ast.AsyncFunctionDef(name=name, lineno=line):
                yield name, line
            case ast.ClassDef(name=name, lineno=line) | ast.MatchAs(name=str(name), lineno=line):
                yield name, line


def test_no_two_types_have_the_same_name() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(ROOT.rglob("*.py")):
        for name in types_defined(ast.parse(path.read_text())):
            places[name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_a_name_is_a_noun() -> None:
    given = {
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in ROOT.rglob("*.py")
        for name, line in names_given(ast.parse(path.read_text()))
        if name.strip("_").lower() in NO_NOUNS
    }
    assert not given
