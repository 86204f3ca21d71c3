"""How SQL is written in the store."""

from __future__ import annotations

import re
from pathlib import Path

import trimta

SOURCES = Path(trimta.__file__).parent


def test_no_placeholder_has_a_number() -> None:
    """`?1` is a named placeholder to SQLite: Python 3.12 warns of a sequence of values for it, later ones refuse it."""
    found = [
        f"{path.relative_to(SOURCES)}:{number}: {line.strip()}"
        for path in SOURCES.rglob("*.py")
        for number, line in enumerate(path.read_text().split("\n"), start=1)
        if re.search(r"['\"].*[ (=,]\?[0-9]", line)
    ]
    assert found == []
