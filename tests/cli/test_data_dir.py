"""Commands on a data_dir that is none: one line that names it, and no traceback."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final

import pytest

from trimta.store.queue import loss
from trimta.store.queue.sql_schema import FILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.commands import Commands

COMMANDS: Final = [
    ["queue", "list"],
    ["queue", "list", "--json"],
    ["queue", "show", "m1"],
    ["queue", "retry", "--all"],
    ["queue", "remove", "m1"],
    ["log", "m1"],
    ["sendmail", "alice@dev.test"],
    ["sendmail", "-bs"],
]


def a_file(path: Path) -> None:
    path.write_text("no folder")


def a_device(path: Path) -> None:
    path.symlink_to(os.devnull)


def links_that_go_round(path: Path) -> None:
    path.symlink_to(path.name)


def a_database_that_is_a_folder(path: Path) -> None:
    (path / FILE).mkdir(parents=True)


def a_database_whose_links_go_round(path: Path) -> None:
    path.mkdir()
    (path / FILE).symlink_to(FILE)


def a_marker_that_is_a_folder(path: Path) -> None:
    (path / loss.MARKER).mkdir(parents=True)


STATES: Final = [
    a_file,
    a_device,
    links_that_go_round,
    a_database_that_is_a_folder,
    a_database_whose_links_go_round,
    a_marker_that_is_a_folder,
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_a_data_dir_that_cannot_be_read_is_75_and_named(
    state: Callable[[Path], None], command: list[str], trimta: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"Subject: hi\n\nhello\n" if "-bs" not in command else b"EHLO client.test\r\nQUIT\r\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    monkeypatch.setattr("trimta.cli.sendmail._check_input", lambda: None)
    monkeypatch.setattr("trimta.cli.streams.is_open", lambda *_: True)
    state(trimta.data_dir)
    ended = trimta(*command)
    assert (ended.code, ended.out, ended.err.count("\n")) == (75, "", 1), ended.err
    assert str(trimta.data_dir) in ended.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("data_dir", ["conf.toml/var", "x" * 300])
def test_so_is_one_that_cannot_be(data_dir: str, command: list[str], trimta: Commands) -> None:
    trimta.configure(f'data_dir = "{data_dir}"\n')
    ended = trimta(*command)
    assert (ended.code, ended.out, ended.err.count("\n")) == (75, "", 1), ended.err
    assert data_dir[:200] in ended.err
