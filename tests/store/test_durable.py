from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from trimta.store import durable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_a_file_is_private_whole_and_never_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    durable.write_file(path, [b"one ", b"", b"two"])
    assert path.read_bytes() == b"one two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        durable.write_file(path, [b"three"])
    assert path.read_bytes() == b"one two"


def test_a_file_that_could_not_be_finished_is_removed(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        durable.write_file(tmp_path / "file", chunks())
    assert list(tmp_path.iterdir()) == []


def test_each_new_directory_is_synced_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "fsync_dir", synced.append)
    durable.make_dirs(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    durable.make_dirs(tmp_path / "a" / "b" / "c")
    assert len(synced) == 3


def test_a_directory_is_not_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "folder", tmp_path / "file"):
        with pytest.raises(NotADirectoryError, match="file"):
            durable.make_dirs(path)


def test_ancestors_are_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "fsync_dir", synced.append)
    settled: dict[Path, None] = {}
    durable.settle_ancestors(tmp_path / "a", settled)
    assert synced == [tmp_path / "a", tmp_path, *tmp_path.parents]
    synced.clear()
    durable.settle_ancestors(tmp_path / "b", settled)
    assert synced == [tmp_path / "b"]


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    durable.write_file(tmp_path / "file", [b"0123456789"])
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_replaced_file_is_the_old_or_the_new(tmp_path: Path) -> None:
    durable.replace_file(tmp_path / "file", b"old")
    durable.replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
