"""The list of events is an interface: the code emits what is declared, and the README shows it."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import Final, get_args

from trimta.runtime.event_declarations import EVENTS, FIELDS, EventName, as_markdown

ROOT: Final = Path(__file__).parents[2]


def emitted() -> dict[str, set[str]]:
    """The fields that each event has somewhere in the code."""
    fields: defaultdict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "trimta").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            match function, node.args[0]:
                case "emit", ast.Constant(value=str(name)):
                    fields[name] |= {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                case "emit", _:
                    raise AssertionError(f"{path}:{node.lineno}: an event's name is written where it is emitted")
                case "Event", ast.Constant(value=str(name)):  # the log's own, which nobody else hears of
                    assert isinstance(node.args[1], ast.Dict)
                    fields[name] |= {ast.literal_eval(key) for key in node.args[1].keys if key is not None}
                case _:
                    pass
    return fields


def test_every_event_is_declared() -> None:
    assert set(EVENTS) == set(get_args(EventName))
    assert {field for _, fields in EVENTS.values() for field in fields} == set(FIELDS)


def test_the_code_emits_what_is_declared() -> None:
    fields = emitted()
    fields["bug"] |= {"client", "id"}  # what it happened to, given through Bugs.note
    declared = {name: set(names) for name, (_, names) in EVENTS.items()}
    assert dict(fields) == declared


def test_the_readme_shows_the_list() -> None:
    assert as_markdown() in (ROOT / "README.md").read_text(), "run: python -m tests.runtime.test_event_declarations"


if __name__ == "__main__":
    print(as_markdown())
