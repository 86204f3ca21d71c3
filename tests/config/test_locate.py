"""Where a valid key stands."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.config.locate import KeyPath, line_of, locate

DOCUMENT = '''\
hostname = "a.test"   # a comment with [brackets] and "quotes"

[queue]
retry = [
    "1m",   # first, [not a table]
    "5m", "15m",
]
"quoted.key" = """
[not.a.table]
key = 1""\\""""
'literal "key"' = \'\'\'
"""\'\'\'
last = 1

[[listen]]
address = "a"
[[listen]]

hide = ["X", { y = 1 }]
[listen.extra]
deep = 1.5

[dns.zones . "a.test"]
mx = []
dotted . "a.b" . c = 1979-05-27 07:32:00
inline = { x = { y = [1, 2] }, "z w" = 3 }
"\\u00fc" = 1
[[listen]]
'''

LINES: list[tuple[KeyPath, int]] = [
    (("hostname",), 1),
    (("queue",), 3),
    (("queue", "retry"), 4),
    (("queue", "retry", 0), 5),
    (("queue", "retry", 1), 6),
    (("queue", "retry", 2), 6),
    (("queue", "quoted.key"), 8),
    (("queue", 'literal "key"'), 11),
    (("queue", "last"), 13),
    (("listen",), 15),
    (("listen", 0), 15),
    (("listen", 0, "address"), 16),
    (("listen", 1), 17),
    (("listen", 1, "hide"), 19),
    (("listen", 1, "hide", 0), 19),
    (("listen", 1, "hide", 1, "y"), 19),
    (("listen", 1, "extra"), 20),
    (("listen", 1, "extra", "deep"), 21),
    (("dns",), 23),
    (("dns", "zones", "a.test"), 23),
    (("dns", "zones", "a.test", "mx"), 24),
    (("dns", "zones", "a.test", "dotted", "a.b", "c"), 25),
    (("dns", "zones", "a.test", "inline", "x", "y", 1), 26),
    (("dns", "zones", "a.test", "inline", "z w"), 26),
    (("dns", "zones", "a.test", "ü"), 27),
    (("listen", 2), 28),
]


@pytest.mark.parametrize(("path", "line"), LINES)
def test_a_key_is_found_on_the_line_where_it_begins(path: KeyPath, line: int) -> None:
    assert locate(DOCUMENT)[path] == line


def test_every_key_of_a_document_is_found_and_nothing_else() -> None:
    assert set(locate(DOCUMENT)) == paths(tomli.loads(DOCUMENT))


@pytest.mark.parametrize(
    ("path", "line"),
    [(("queue", "nowhere"), 3), (("listen", 1, "tls", "x"), 17), (("nowhere",), 1), ((), 1)],
)
def test_what_is_not_there_is_on_the_line_of_what_is_around_it(path: KeyPath, line: int) -> None:
    assert line_of(locate(DOCUMENT), path) == line


def test_a_long_document_takes_one_pass() -> None:
    lines = locate("[a]\n" + "\n".join(f"k{n} = [{n},\n{n}]" for n in range(20_000)))
    assert lines["a", "k19999", 1] == 1 + 2 * 20_000


KEYS = st.text("ab.\"'#[]{}=,\n\\ ü\t0-", max_size=6)
SCALARS = st.one_of(st.integers(-9, 9), st.text("ab\"'#[]{}=,\n\\ .", max_size=8), st.booleans())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3),
    st.dictionaries(KEYS, st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=3), max_size=3),
)
def test_any_document_is_walked_as_tomli_reads_it(
    top: dict[str, Any], tables: dict[str, Any], arrays: dict[str, Any]
) -> None:
    lines = [f"{quoted(key)} = {written(value)} # ] }}" for key, value in top.items()]
    for name, table in tables.items():
        lines += [f"[x . {quoted(name)}]", *(f"  {quoted(key)}={written(value)}" for key, value in table.items())]
    for name, array in arrays.items():
        for table in array:
            lines += [f"[[y.{quoted(name)}]]", *(f"{quoted(key)} = {written(value)}" for key, value in table.items())]
    document = "\n".join(lines)
    try:
        parsed = tomli.loads(document)
    except tomli.TOMLDecodeError:  # x or y is a key of `top` too: no such document, then
        return
    assert set(locate(document)) == paths(parsed)


def paths(value: object, at: KeyPath = ()) -> set[KeyPath]:
    found: set[KeyPath] = {at} if at else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= paths(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths(inner, (*at, index))
    return found


def quoted(text: str) -> str:
    escaped = "".join(f"\\u{ord(char):04x}" if char < " " or char in '"\\' else char for char in text)
    return f'"{escaped}"'


def written(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str() if "'" not in value and "\n" not in value:
            return f"'{value}'"
        case str() if "\n" in value and '"' not in value:
            return '"""' + value.replace("\\", "\\\\") + '"""'
        case str():
            return quoted(value)
        case list():
            return "[\n" + ",\n".join(written(inner) for inner in value) + " # ]\n]"
        case dict():
            return "{" + ", ".join(f"{quoted(key)} = {written(inner)}" for key, inner in value.items()) + "}"
        case _:
            raise AssertionError(value)
