from __future__ import annotations

import errno
import mailbox
import os
import re
import socket
import stat
import time
from pathlib import Path

import pytest

from trimta import real_time
from trimta.mail.body import BodyForm
from trimta.store import durable, maildir
from trimta.store.maildir import Delivery, MaildirError, Pending
from trimta.store.spool import Body, SpoolWriter

HEAD = b"Return-Path: <a@dev.test>\nDelivered-To: bob@dev.test\n"
CONTENT = b"Subject: hi\n\nhello\n"


def delivery(path: Path, content: bytes = CONTENT) -> Delivery:
    return Delivery(path, HEAD, Body.of(content))


def files(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*") if found.is_file())


def test_a_file_is_named_as_promised_and_holds_the_message(tmp_path: Path) -> None:
    before = int(time.time())
    path = maildir.deliver(delivery(tmp_path / "bob"))
    assert path.read_bytes() == HEAD + CONTENT
    found = re.fullmatch(r"(\d+)\.M(\d{6})P(\d+)Q(\d+)\.(.+),S=(\d+)", path.name)
    assert found is not None
    seconds, _, pid, _, host, size = found.groups()
    assert before <= int(seconds) <= time.time()
    assert (int(pid), int(size)) == (os.getpid(), len(HEAD + CONTENT))
    assert host == socket.gethostname()
    assert path.parent == tmp_path / "bob" / "new"


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    path = maildir.deliver(delivery(tmp_path / "a" / "bob"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in ("a", "a/bob", "a/bob/cur", "a/bob/new", "a/bob/tmp"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


def test_it_is_written_synced_renamed_and_its_directory_synced_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maildir.deliver(delivery(tmp_path))
    happened: list[str] = []
    for name in ("create", "write_all", "fsync", "rename", "fsync_dir"):
        original = getattr(durable, name)

        def record(*arguments: object, _name: str = name, _original: object = original) -> object:
            if _name != "fsync" or stat.S_ISREG(os.fstat(int(str(arguments[0]))).st_mode):
                happened.append(_name)
            return _original(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(durable, name, record)
    pending = maildir.prepare(delivery(tmp_path))
    assert happened == ["create", "write_all", "fsync"]
    maildir.commit(pending)
    assert happened == ["create", "write_all", "fsync", "rename", "fsync_dir"]


def test_the_first_delivery_syncs_every_directory_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(durable, "fsync_dir", synced.append)
    maildir.prepare(delivery(tmp_path / "a" / "bob"))
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "bob"} <= set(synced)
    synced.clear()
    maildir.prepare(delivery(tmp_path / "a" / "bob"))
    assert synced == []


def test_a_maildir_that_another_process_made_but_did_not_sync_is_synced_before_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in maildir.FOLDERS:
        (tmp_path / "bob" / folder).mkdir(parents=True)
    synced: list[Path] = []
    monkeypatch.setattr(durable, "fsync_dir", synced.append)
    maildir.prepare(delivery(tmp_path / "bob"))
    assert {tmp_path, tmp_path / "bob"} <= set(synced)


def test_nothing_is_in_new_before_commit_nor_after_discard(tmp_path: Path) -> None:
    pending = maildir.prepare(delivery(tmp_path))
    assert files(tmp_path) == [f"tmp/{pending.name}"]
    assert list(maildir.messages(tmp_path)) == []
    maildir.discard(pending)
    maildir.discard(pending)
    assert files(tmp_path) == []


def test_names_differ_even_within_a_microsecond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_time, "wall_ns", lambda: 1_700_000_000_000_001_000)
    paths = [maildir.deliver(delivery(tmp_path)) for _ in range(20)]
    assert len(set(paths)) == 20
    assert paths[0].name.startswith("1700000000.M000001P")


@pytest.mark.parametrize("folder", ["new", "tmp"])
def test_a_name_that_is_taken_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setattr(real_time, "wall_ns", lambda: 1_700_000_000_000_001_000)
    monkeypatch.setattr(maildir, "_counter", iter([1, 1, 2]))
    first = maildir.deliver(delivery(tmp_path))
    taken = tmp_path / folder / first.name
    first.rename(taken)
    taken.write_bytes(b"not ours")
    second = maildir.deliver(delivery(tmp_path))
    assert taken.read_bytes() == b"not ours"
    assert second.read_bytes() == HEAD + CONTENT
    assert len(files(tmp_path)) == 2


def test_the_host_is_escaped() -> None:
    assert "/" not in maildir._HOST
    assert maildir.host_part("a/b:c") == "a\\057b\\072c"
    assert maildir.host_part("") == "localhost"


def test_a_binary_message_is_kept_as_it_came_under_a_head_with_crlf(tmp_path: Path) -> None:
    raw = b"Subject: hi\r\n\r\na\rb\nc\0\r\n"
    path = maildir.deliver(Delivery(tmp_path, HEAD, Body.of(raw, BodyForm.RAW)))
    assert path.read_bytes() == HEAD.replace(b"\n", b"\r\n") + raw
    assert path.name.endswith(f",S={path.stat().st_size}")


def test_a_spooled_body_is_streamed(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool", threshold=1000)
    for _ in range(300):
        writer.append(b"x" * 999 + b"\n")
    body = writer.finish()
    path = maildir.deliver(Delivery(tmp_path / "bob", HEAD, body))
    assert path.read_bytes() == HEAD + body.read()
    assert path.name.endswith(f",S={path.stat().st_size}")


def test_a_body_that_is_damaged_is_not_delivered(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(MaildirError, match="3 octets where 5"):
        maildir.prepare(Delivery(tmp_path / "bob", HEAD, Body(5, 0, None, tmp_path / "short")))
    assert files(tmp_path / "bob") == []


def test_what_the_system_says_is_told_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MaildirError, match=r"cannot write .*file/bob: Not a directory"):
        maildir.deliver(delivery(tmp_path / "file" / "bob"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(MaildirError, match="symbolic links"):
        maildir.deliver(delivery(tmp_path / "loop" / "bob"))


def test_a_maildir_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(durable, "create", refused)
    with pytest.raises(MaildirError, match=r"cannot write .*/bob: Permission denied \(.*/bob/tmp/.*\)"):
        maildir.deliver(delivery(tmp_path / "bob"))


@pytest.mark.parametrize("step", ["write_all", "fsync", "rename"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    maildir.discard(maildir.prepare(delivery(tmp_path)))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, step, full)
    with pytest.raises(MaildirError, match="No space left on device"):
        maildir.deliver(delivery(tmp_path))
    assert files(tmp_path) == []


def test_one_bad_maildir_does_not_keep_the_others(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    results = maildir.prepare_all(delivery(tmp_path / name) for name in ("alice", "file", "carol"))
    alice, bad, carol = results
    assert isinstance(bad, MaildirError)
    assert isinstance(alice, Pending)
    assert isinstance(carol, Pending)
    (tmp_path / "carol" / "tmp" / carol.name).unlink()
    done, gone = maildir.commit_all([alice, carol])
    assert done == Path(alice.target)
    assert isinstance(gone, MaildirError)


@pytest.mark.parametrize("folder", ["tmp", "new"])
def test_of_many_maildirs_each_has_its_own_result(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"user{number}" for number in range(maildir.OPEN_FILES)]
    for path in paths:
        maildir.deliver(delivery(path))
    bad = {str(path) for path in paths[::5]}
    original = durable.fsync

    def fsync(descriptor: int) -> None:
        synced = Path(f"/proc/self/fd/{descriptor}").readlink()
        if str(synced if folder == "new" else synced.parent).removesuffix(f"/{folder}") in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        original(descriptor)

    monkeypatch.setattr(durable, "fsync", fsync)
    prepared = maildir.prepare_all(map(delivery, paths))
    results = (
        prepared if folder == "tmp" else maildir.commit_all([file for file in prepared if isinstance(file, Pending)])
    )
    for path, result in zip(paths, results, strict=True):
        assert isinstance(result, MaildirError) == (str(path) in bad)
        if isinstance(result, MaildirError):
            assert f" {path}: " in str(result)
            assert not any((path / "tmp").iterdir())
        else:
            assert (result if isinstance(result, Path) else Path(result.source)).is_relative_to(path)


def test_many_copies_in_one_maildir_are_synced_with_one_sync_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = [one for one in maildir.prepare_all([delivery(tmp_path)] * 5) if isinstance(one, Pending)]
    synced: list[str] = []
    monkeypatch.setattr(durable, "fsync_dir", synced.append)
    assert maildir.commit_all(pending) == [Path(one.target) for one in pending]
    assert synced == [f"{tmp_path}/new"]


def test_files_that_are_written_together_are_all_written_before_the_first_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maildir.deliver(delivery(tmp_path))
    happened: list[str] = []
    for name in ("write_all", "start_fsync", "fsync"):

        def record(*_: object, _name: str = name) -> None:
            happened.append(_name)

        monkeypatch.setattr(durable, name, record)
    results = maildir.prepare_all([delivery(tmp_path)] * (maildir.OPEN_FILES + 1))
    whole = [name for name in ("write_all", "start_fsync", "fsync") for _ in range(maildir.OPEN_FILES)]
    assert happened == [*whole, "write_all", "fsync"]
    assert len(results) == maildir.OPEN_FILES + 1


@pytest.mark.parametrize("interrupted", ["write_all", "fsync"])
def test_an_interrupt_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str) -> None:
    original = getattr(durable, interrupted)
    calls = 0

    def interrupt(*arguments: object) -> None:
        nonlocal calls
        calls += stat.S_ISREG(os.fstat(int(str(arguments[0]))).st_mode)
        if calls == 3:
            raise KeyboardInterrupt
        original(*arguments)

    descriptors = len([*Path("/dev/fd").iterdir()])
    monkeypatch.setattr(durable, interrupted, interrupt)
    with pytest.raises(KeyboardInterrupt):
        maildir.prepare_all([delivery(tmp_path / name) for name in ("alice", "bob", "carol", "dave")])
    assert files(tmp_path) == []
    assert len([*Path("/dev/fd").iterdir()]) == descriptors


def test_a_maildir_whose_new_is_no_folder_gets_no_file_and_others_get_theirs(tmp_path: Path) -> None:
    (tmp_path / "bob" / "tmp").mkdir(parents=True)
    (tmp_path / "bob" / "new").write_text("")
    (tmp_path / "bob" / "new").chmod(0o777)
    one, other, alice = maildir.prepare_all([delivery(tmp_path / name) for name in ("bob", "bob", "alice")])
    for result in (one, other):
        assert str(result) == f"cannot write {tmp_path}/bob: Not a directory ({tmp_path}/bob/new)"
    assert isinstance(alice, Pending)
    assert files(tmp_path / "bob") == ["new"]


def test_a_directory_that_cannot_be_synced_delivers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pending = maildir.prepare(delivery(tmp_path))

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "fsync_dir", broken)
    (result,) = maildir.commit_all([pending])
    assert isinstance(result, MaildirError)


def test_folders_that_are_symlinks_serve(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "bob").mkdir()
    for folder in maildir.FOLDERS:
        (tmp_path / "real" / folder).mkdir()
        (tmp_path / "bob" / folder).symlink_to(tmp_path / "real" / folder)
    path = maildir.deliver(delivery(tmp_path / "bob"))
    assert (tmp_path / "real" / "new" / path.name).read_bytes() == HEAD + CONTENT


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    maildir.deliver(delivery(tmp_path)).unlink()
    (tmp_path / "new").rmdir()
    assert maildir.deliver(delivery(tmp_path)).exists()


def test_reading_back_skips_what_is_not_a_message(tmp_path: Path) -> None:
    assert list(maildir.messages(tmp_path / "nowhere")) == []
    first, second, third = (maildir.deliver(delivery(tmp_path)) for _ in range(3))
    read = third.rename(tmp_path / "cur" / f"{third.name}:2,S")
    (tmp_path / "new" / ".hidden").write_text("")
    (tmp_path / "new" / "folder").mkdir()
    (tmp_path / "new" / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / ".Sent" / "new").mkdir(parents=True)
    (tmp_path / "dovecot.index").write_text("")
    (tmp_path / "new" / "foreign").write_text("Subject: x\n\n")
    assert list(maildir.messages(tmp_path)) == [first, second, tmp_path / "new" / "foreign", read]


def test_the_standard_library_reads_it(tmp_path: Path) -> None:
    maildir.deliver(delivery(tmp_path / "bob"))
    (message,) = mailbox.Maildir(str(tmp_path / "bob"), create=False)
    assert message["Subject"] == "hi"
    assert message["Delivered-To"] == "bob@dev.test"
