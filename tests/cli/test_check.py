"""`trimta check`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import tomli

from trimta.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIMTA_CONF", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def test_the_effective_configuration_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "conf.toml").write_text('[auth.users]\nalice = "topsecret"\n')
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# The effective configuration: read from {folder}/conf.toml\n\n")
    assert tomli.loads(text)["auth"]["users"] == {"alice": "***"}
    assert tomli.loads(text)["data_dir"] == f"{folder}/var"


def test_without_a_file_the_defaults_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# The effective configuration: built-in defaults, there is no file\n")
    assert tomli.loads(text)["data_dir"] == f"{folder}/state/trimta/var"


def test_json_is_one_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "conf.toml").write_text('[auth.users]\nalice = "topsecret"\n')
    assert main(["check", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["queue"]["retry"] == ["1m", "5m", "15m", "1h", "4h"]
    assert document["auth"]["users"] == {"alice": "***"}


def test_every_mistake_is_a_line_on_stderr_and_78(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "conf.toml").write_text('hostnme = "a.test"\n\n[queue]\nretry = ["5x"]\n')
    assert main(["check"]) == 78
    assert capsys.readouterr() == (
        "",
        "conf.toml:1: hostnme: unknown key, did you mean hostname?\n"
        'conf.toml:4: [queue] retry[0]: found "5x", expected a duration such as "90s", "5m", "4h" or "5d"\n',
    )


@pytest.mark.parametrize("arguments", [["-c", "no.toml"], []])
def test_a_named_file_that_is_not_there_is_66(
    folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIMTA_CONF", "no.toml")
    assert main(["check", *arguments]) == 66
    assert capsys.readouterr() == ("", "trimta: no.toml: no such configuration file; `trimta init` writes one\n")
