from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from trimta.store import durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


def in_two_files(tmp_path: Path, content: bytes) -> tuple[int, bytes]:
    """The number of octets that copy_all() says it has copied from the second octet on, and those that it has."""
    (tmp_path / "source").write_bytes(content)
    with (
        (tmp_path / "source").open("rb", buffering=0) as source,
        (tmp_path / "target").open("wb", buffering=0) as target,
    ):
        source.read(1)
        target.write(b"head ")
        copied = durable.copy_all(source.fileno(), target.fileno())
    return copied, (tmp_path / "target").read_bytes()


@pytest.mark.parametrize("size", [1, 2, 1_000_000])
@pytest.mark.parametrize("number", [None, errno.EXDEV, errno.ENOSYS])
def test_a_file_is_copied_in_the_kernel_or_else_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, number: int | None
) -> None:
    if number is not None:

        def refuse(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    assert in_two_files(tmp_path, b"x" * size) == (size - 1, b"head " + b"x" * (size - 1))


def test_a_disk_that_is_full_ends_the_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full, raising=False)
    monkeypatch.setattr(durable, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        in_two_files(tmp_path, b"content")


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


def refusing_to_sync(number: int, *, folders: bool) -> Callable[[int], None]:
    """os.fsync of a file system that fails so for directories, or for files."""

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode) == folders:
            raise OSError(number, os.strerror(number))

    return fsync


@pytest.fixture(name="told")
def told_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Path, int | None]]]:
    """What a listener is told of directories that can't be synced, none of them met before."""
    monkeypatch.setattr(durable, "_unsynced", {})
    told: list[tuple[Path, int | None]] = []
    forget = durable.on_unsynced(lambda path, error: told.append((path, error.errno)))
    yield told
    forget()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_directory_that_cannot_be_synced_is_told_once_and_used(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[tuple[Path, int | None]]
) -> None:
    monkeypatch.setattr(os, "fsync", refusing_to_sync(number, folders=True))
    durable.make_dirs(tmp_path / "a" / "b")
    durable.write_file(tmp_path / "a" / "one", [b"1"])
    durable.rename_into(tmp_path / "a" / "one", tmp_path / "a" / "b" / "two")
    durable.replace_file(tmp_path / "a" / "b" / "two", b"2")
    durable.settle_ancestors(tmp_path / "a" / "b", {})
    assert (tmp_path / "a" / "b" / "two").read_bytes() == b"2"
    assert told[0] == (tmp_path, number)
    devices = {path.stat().st_dev for path, _ in told}
    assert len(told) == len(devices), "once for each file system"
    late: list[Path] = []
    durable.on_unsynced(lambda path, _: late.append(path))()
    assert late == [path for path, _ in told]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_directory_whose_sync_fails_is_an_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[tuple[Path, int | None]]
) -> None:
    monkeypatch.setattr(os, "fsync", refusing_to_sync(number, folders=True))
    with pytest.raises(OSError, match=os.strerror(number)):
        durable.fsync_dir(tmp_path)
    assert not told


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_a_file_that_cannot_be_synced_is_an_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[tuple[Path, int | None]]
) -> None:
    monkeypatch.setattr(os, "fsync", refusing_to_sync(number, folders=False))
    with pytest.raises(OSError, match=os.strerror(number)):
        durable.write_file(tmp_path / "file", [b"x"])
    assert not (tmp_path / "file").exists()
    assert not told


MANY = list(range(durable.FOLDERS_A_THREAD * durable.SYNC_THREADS))


def test_many_folders_are_synced_side_by_side() -> None:
    together = threading.Barrier(durable.SYNC_THREADS)

    def sync(folder: int) -> int:
        if folder < durable.SYNC_THREADS:
            together.wait(20)
        return 2 * folder

    assert durable.side_by_side(sync, MANY) == [2 * folder for folder in MANY]


def test_few_folders_are_synced_one_by_one() -> None:
    few = MANY[: 2 * durable.FOLDERS_A_THREAD - 1]
    assert durable.side_by_side(lambda _: threading.get_ident(), few) == [threading.get_ident()] * len(few)


def test_folders_are_synced_also_where_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", start)
    assert durable.side_by_side(str, MANY) == [str(folder) for folder in MANY]


def test_what_a_thread_beside_raises_is_raised_when_none_works_any_more() -> None:
    caller = threading.get_ident()
    raised = threading.Event()
    working: list[int] = []

    def sync(folder: int) -> None:
        working.append(folder)
        try:
            if threading.get_ident() != caller:
                raised.set()
                raise LookupError(folder)
            assert raised.wait(20)
        finally:
            working.remove(folder)

    with pytest.raises(LookupError):
        durable.side_by_side(sync, MANY)
    assert working == []
