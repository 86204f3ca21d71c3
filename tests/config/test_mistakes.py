"""mistakes.txt is the specification: documents that are wrong, and each line that is said of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trimta.config.errors import ConfigErrors, ConfigFileError
from trimta.config.load import load, parse

MARK = "=> "
TEXT = (Path(__file__).parent / "mistakes.txt").read_text().partition("\n\n")[2]


def cases() -> list[tuple[str, list[str]]]:
    found = []
    for block in TEXT.split("\n----\n"):
        lines = block.removesuffix("\n").split("\n")
        document = "\n".join(line for line in lines if not line.startswith(MARK))
        found.append((document, [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]))
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    (folder / "readable").write_text("x")
    return folder


@pytest.mark.parametrize(
    ("document", "lines"), cases(), ids=[f"{number}-{lines[0][:40]}" for number, (_, lines) in enumerate(cases())]
)
def test_a_mistake_is_told_with_its_line_and_key_and_what_is_expected(
    base: Path, document: str, lines: list[str]
) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(document, base=base, file="conf.toml")
    assert [*caught.value.lines()] == [f"conf.toml:{line.replace('{base}', str(base))}" for line in lines]
    assert caught.value.exit_code == 78


def test_the_table_is_long_enough() -> None:
    assert len(cases()) >= 100


def test_a_secret_is_never_told() -> None:
    assert "topsecret" in TEXT
    assert not [line for line in TEXT.split("\n") if line.startswith(MARK) and "topsecret" in line]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ("a = 1\n\nb = " + "9" * (sys.get_int_max_str_digits() + 1), "3: not TOML: a number that is too long"),
        ("a = " + "[" * 5000, "1: not TOML: arrays, tables or keys that are nested too deep"),
        ("a = " + "{b=" * 5000, "1: not TOML: arrays, tables or keys that are nested too deep"),
        (".".join("a" * 5000) + " = 1", "1: not TOML: arrays, tables or keys that are nested too deep"),
    ],
)
def test_what_is_too_large_to_read_is_a_mistake_too(base: Path, document: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(document, base=base, file="conf.toml")
    assert str(caught.value) == f"conf.toml:{line}, expected key = value, or [table]"


def test_each_error_is_one_line_whatever_it_quotes(base: Path) -> None:
    document = '[local]\ndomains = ["a\\nb\\u001b[31m"]\n"x\\ny" = 1\n[routes]\n"a.test" = "b\\nc"\n'
    with pytest.raises(ConfigErrors) as caught:
        parse(document, base=base, file="conf.toml")
    assert len(caught.value.lines()) == 3
    assert all(line.isprintable() for line in caught.value.lines())


def test_text_that_is_not_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "conf.toml"
    file.write_bytes(b'user = ""\nhostname = "b\xfccher.test"\n')
    with pytest.raises(ConfigErrors) as caught:
        load(file)
    assert str(caught.value) == f"{file}:2: found the octet 0xFC, expected text in UTF-8"


def test_a_file_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError) as caught:
        load(tmp_path / "conf.toml")
    assert str(caught.value) == f"{tmp_path}/conf.toml: no such configuration file; `trimta init` writes one"
    assert caught.value.exit_code == 66


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError) as caught:
        load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: the configuration file can't be read: Is a directory"
    assert caught.value.exit_code == 66


KEYS = re.findall(
    r"\S+",
    """hostname data_dir user listen address protocol tls auth hide local domains maildir users subaddress aliases
    routes relay networks queue retry lifetime concurrency timeouts idle limits message_size dns nameservers zones mx
    fail egress allow certificate key ca any faults stage reply delay drop probability transport host port path command
    password_file username "*" "a.test" "x@a.test" "" x""",
)
SCALARS = st.one_of(
    st.sampled_from(
        re.findall(
            r'"[^"]*"|\S+',
            r"""true 1 -1 0 0.5 nan inf 1979-05-27 07:32:00 "" "mx" "smtp:a.test" "lmtp:" "pipe:/x {a}" "maildir:~"
            "reject:550" "5m" "0s" "1 MB" "a.test" "x@a.test" "::1" "10.0.0.0/8" "10 a.test" "localhost:0" "[::1]:1"
            "unix:x" "unix:\u0000" "rcpt" "any" "alice" "{user}" "451 4.0.0 x" "$argon2id$x"
            "$scrypt$ln=99,r=9,p=9$aaaa$aaaa" "\u0000" "\n" "\U0001F600" """,
        )
    ),
    st.text(max_size=6).map(lambda text: '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=3, unique_by=lambda item: item[0]).map(
            lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items) + "}"
        )
    ),
    max_leaves=5,
)
PATHS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3).map(".".join)
LINES = st.one_of(
    st.tuples(PATHS, VALUES).map(" = ".join),
    PATHS.map(lambda path: f"[{path}]"),
    PATHS.map(lambda path: f"[[{path}]]"),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(LINES, max_size=6).map("\n".join) | st.text(max_size=40))
@example("[[listen]]\n[listen.x]\n[[listen.y]]")
@example("[aliases]\na = ['a']\nb = ['@']")
def test_no_text_is_worse_than_a_list_of_mistakes(text: str) -> None:
    check_any(text)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["listen", "local", "aliases", "routes", "queue", "limits", "dns", "tls", "auth", "faults"]),
    st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=5, unique_by=lambda item: item[0]),
)
def test_no_table_is_worse_than_a_list_of_mistakes(name: str, items: list[tuple[str, str]]) -> None:
    header = f"[[{name}]]" if name in ("listen", "faults") else f"[{name}]"
    check_any("\n".join([header, *(f"{key} = {value}" for key, value in items)]))


def check_any(text: str) -> None:
    errors = mistakes(text)
    if errors is not None:
        assert errors.errors
        assert all(1 <= error.line <= text.count("\n") + 2 for error in errors.errors)
        assert all(line.isprintable() for line in errors.lines())


def mistakes(text: str) -> ConfigErrors | None:
    try:
        parse(text, base=Path("/nonexistent"), file="conf.toml")
    except ConfigErrors as errors:
        return errors
    return None
