"""`trimta init`, and the conf.toml that it writes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli

from trimta.cli.init import template
from trimta.cli.main import main
from trimta.config.errors import ConfigErrors
from trimta.config.load import load, parse
from trimta.config.render import document
from trimta.config.schema import TABLES, ZONE, section_schemas, top_schema

REPOSITORY = Path(__file__).parents[2]

_COMMENTED = re.compile(r'^#(?=\[|"[^"]*" = |[a-z_]+ = )', re.MULTILINE)


def test_it_writes_what_the_checkout_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a" / "b"
    assert main(["init", str(folder)]) == 0
    assert (folder / "conf.toml").read_bytes() == (REPOSITORY / "conf.toml").read_bytes() == template()
    assert capsys.readouterr().out == f"wrote {folder}/conf.toml; `trimta check` looks it over\n"


def test_without_a_folder_it_writes_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert (tmp_path / "conf.toml").exists()


def test_it_writes_the_file_that_is_named(tmp_path: Path) -> None:
    assert main(["init", "-c", str(tmp_path / "x.toml")]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["x.toml"]


def test_it_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf.toml").write_text("mine")
    assert main(["init", str(tmp_path)]) == 73
    assert (tmp_path / "conf.toml").read_text() == "mine"
    assert capsys.readouterr().err == f"trimta init: {tmp_path}/conf.toml is there already; it stays as it is\n"


def test_it_does_not_write_through_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "conf.toml").symlink_to(tmp_path / "elsewhere")
    assert main(["init", str(tmp_path)]) == 73
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("file", "trimta init: {}/file/conf.toml can't be made: a file is in the way\n"),
        ("file/x", "trimta init: {}/file/x/conf.toml can't be written: Not a directory\n"),
    ],
)
def test_what_is_in_the_way_is_told(tmp_path: Path, folder: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / folder)]) == 73
    assert capsys.readouterr().err == line.format(tmp_path)


def test_a_folder_and_a_file_are_one_too_many() -> None:
    assert main(["init", "x", "-c", "y"]) == 64


def test_as_it_stands_it_says_what_the_defaults_are() -> None:
    shipped = load(REPOSITORY / "conf.toml")
    defaults = parse("", base=REPOSITORY, file="defaults")
    assert shipped.aliases == {"postmaster": ("alice",)}
    assert replace(shipped, aliases={}) == replace(defaults, aliases={})


def uncommented() -> str:
    return _COMMENTED.sub("", (REPOSITORY / "conf.toml").read_text())


def test_with_every_example_it_is_valid_too(tmp_path: Path) -> None:
    (tmp_path / "relay.secret").write_text("x")
    with pytest.raises(ConfigErrors) as caught:
        parse(uncommented(), base=tmp_path, file="conf.toml")
    # Only the certificates are not there.
    assert [(error.table, error.key) for error in caught.value.errors] == [
        ("tls", "certificate"),
        ("tls", "key"),
        ("tls", "ca"),
    ]


def test_it_shows_every_key() -> None:
    shown = tomli.loads(uncommented())
    for name, schema in section_schemas(REPOSITORY).items():
        section: Any = shown[name]
        tables = section if isinstance(section, list) else [section]
        assert {key for table in tables for key in table} == {*schema}, name
    assert {*shown} == {*top_schema(REPOSITORY), *TABLES}
    assert {key for zone in shown["dns"]["zones"].values() for key in zone} == {*ZONE}


def test_what_is_commented_out_is_the_default_or_called_an_example() -> None:
    shown, defaults = tomli.loads(uncommented()), document(parse("", base=REPOSITORY, file="defaults"))
    for name in ("relay", "queue", "timeouts", "limits", "egress"):
        assert shown[name] == defaults[name]
    assert {**shown["listen"][0], "hide": []} == defaults["listen"][0]
    assert {**shown["local"], "maildir": f"{REPOSITORY}/{shown['local']['maildir']}"} == defaults["local"]
    assert {**shown["dns"], "zones": {}} == defaults["dns"]
    assert {**shown["auth"], "users": {}} == defaults["auth"]
