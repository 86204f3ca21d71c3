"""Regular expressions that are compiled at their first use."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Final

import pytest

import trimta
from trimta.first_use import pattern as module
from trimta.first_use.pattern import pattern

ROOT: Final = Path(trimta.__file__).parent


def test_a_pattern_is_compiled_once_and_only_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[tuple[object, ...]] = []

    def compile_noted(*arguments: str) -> object:
        compiled.append(arguments)
        return re.compile(*arguments)  # type: ignore[call-overload]

    class Noted:
        compile = staticmethod(compile_noted)

    monkeypatch.setattr(module, "re", Noted)
    word = pattern("(?P<first>[a-z])[a-z]*", re.IGNORECASE)
    assert compiled == []
    for _ in range(2):
        found_word = word.fullmatch("Word")
        assert found_word is not None
        assert found_word["first"] == "W"
        assert word.search("1") is None
        assert word.sub("", "a1b", count=1) == "1b"
    assert compiled == [("(?P<first>[a-z])[a-z]*", re.IGNORECASE)]


@pytest.mark.parametrize("name", [name for name in dir(re.compile("")) if not name.startswith("_")])
def test_a_pattern_has_what_a_compiled_one_has(name: str) -> None:
    ours, standard = getattr(pattern("(a)"), name), getattr(re.compile("(a)"), name)
    assert callable(ours) if callable(standard) else ours == standard


def expressions() -> list[tuple[str, str]]:
    """The module and the name of each late pattern of trimta."""
    names = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call(func=ast.Name(id="pattern"))):
                    parts = path.relative_to(ROOT.parent).with_suffix("").parts
                    names.append((".".join(parts), name))
    return names


@pytest.mark.parametrize(("place", "name"), expressions())
def test_every_pattern_can_be_compiled(place: str, name: str) -> None:
    assert getattr(importlib.import_module(place), name).flags >= 0
