"""What comes into Maildirs, seen from the files."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.frozen import PAST, each_library
from trimta.store import arrivals
from trimta.store.arrivals import MaildirWatch, arrived, read, read_header, unique_name
from trimta.store.maildir import Delivery, deliver
from trimta.store.spool import Body

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.frozen import Freeze


def delivered(maildir: Path) -> Path:
    return deliver(Delivery(maildir, b"", Body.of(b"Subject: s\n\n")))


def paths(watch: MaildirWatch) -> list[Path]:
    return [arrival.path for arrival in watch.look()]


@pytest.mark.parametrize(
    ("template", "maildirs"),
    [
        ("mail/{user}", ["mail/alice", "mail/bob"]),
        ("mail/{domain}/{user}", ["mail/dev.test/alice", "mail/x.test/bob"]),
        ("mail/{user}@{domain}", ["mail/alice@dev.test"]),
        ("mail/{user}/Maildir", ["mail/alice/Maildir"]),
        ("mail/{user}/{detail}", ["mail/alice", "mail/alice/lists"]),
        ("mail/{user}/.{detail}", ["mail/alice", "mail/alice/.lists"]),
        ("remote", ["remote"]),
        ("remote/{domain}", ["remote/x.test"]),
    ],
)
def test_every_maildir_of_a_template_is_found(template: str, maildirs: list[str], tmp_path: Path) -> None:
    watch = MaildirWatch([str(tmp_path / template), str(tmp_path / template)])
    assert paths(watch) == []
    made = [delivered(tmp_path / maildir) for maildir in maildirs]
    delivered(tmp_path / "elsewhere" / "alice")
    assert sorted(paths(watch)) == sorted(made)


def test_each_message_is_seen_once_in_the_order_of_its_coming(tmp_path: Path) -> None:
    watch = MaildirWatch([str(tmp_path / "{user}")])
    for _ in range(3):
        first, second = delivered(tmp_path / "bob"), delivered(tmp_path / "alice")
        assert sorted(paths(watch)) == sorted([first, second])
        assert paths(watch) == []


def test_a_message_that_a_reader_moves_is_not_seen_again(tmp_path: Path) -> None:
    watch = MaildirWatch([str(tmp_path / "{user}")])
    path = delivered(tmp_path / "alice")
    before = watch.look()
    path = path.rename(tmp_path / "alice" / "cur" / f"{path.name}:2,S")
    assert paths(watch) == []
    [again] = MaildirWatch([str(tmp_path / "{user}")]).look()
    assert (again.name, again.path) == (before[0].name, path)
    assert before[0].at - 10**9 < again.at <= before[0].at


def test_a_time_to_come_in_a_name_means_nothing(tmp_path: Path) -> None:
    path = delivered(tmp_path / "alice")
    for folder in ("new", "cur"):
        path = path.rename(tmp_path / "alice" / folder / "99999999999.M000001P1Q1.host")
        assert abs(arrived(path) - time.time_ns()) < 10**10


def test_a_folder_that_has_long_been_the_same_is_read_again_when_it_changes(tmp_path: Path) -> None:
    watch = MaildirWatch([str(tmp_path / "{user}")])
    first = delivered(tmp_path / "alice")
    os.utime(tmp_path / "alice" / "new", (0, time.time() - 3600))
    assert paths(watch) == [first]
    assert paths(watch) == []
    assert paths(watch) == []
    second = delivered(tmp_path / "alice")
    assert paths(watch) == [second]


def test_what_is_no_message_is_passed_over(tmp_path: Path) -> None:
    path = delivered(tmp_path / "alice")
    (tmp_path / "file").write_text("")
    (tmp_path / "alice" / "new" / ".keep").write_text("")
    (tmp_path / "alice" / "new" / "folder").mkdir()
    (tmp_path / "other" / "new").mkdir(parents=True)
    (tmp_path / "flat" / "cur").mkdir(parents=True)
    (tmp_path / "flat" / "new").write_text("a file")
    for link in ("alice/new/round", "round", "inside/new"):
        (tmp_path / link).parent.mkdir(exist_ok=True)
        (tmp_path / link).symlink_to((tmp_path / link).name)
    (tmp_path / "alice" / "new" / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "alice" / "new" / "fifo")
    assert paths(MaildirWatch([str(tmp_path / "{user}")])) == [path]


@pytest.mark.parametrize(
    ("code", "seen_later", "unreadable"),
    [
        (errno.ENOENT, False, False),
        (errno.EACCES, True, True),
        (errno.EIO, True, False),
        (errno.ESTALE, True, False),
        (errno.ELOOP, False, False),
    ],
)
def test_trouble_with_one_message_hides_no_other_and_is_looked_at_again(
    code: int, seen_later: bool, unreadable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths_there = [delivered(tmp_path / "alice") for _ in range(3)]
    os.utime(tmp_path / "alice" / "new", (0, 0))
    trouble = [paths_there[1]]
    read_time = arrivals.arrived

    def looked_at(path: Path) -> int:
        if path in trouble:
            raise OSError(code, os.strerror(code), str(path))
        return read_time(path)

    monkeypatch.setattr(arrivals, "arrived", looked_at)
    watch = MaildirWatch([str(tmp_path / "{user}")])
    first = paths(watch)
    assert paths_there[1] not in first
    assert unreadable or len(first) == 2
    assert (watch.unreadable != set()) is unreadable
    trouble.clear()
    assert sorted([*first, *paths(watch)]) == (sorted(paths_there) if seen_later else sorted(first))


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("1700000000.M000123P1Q2.host,S=3:2,S", 1_700_000_000_000_123_000),
        ("1700000000.1_2.host:2,", 1_700_000_000_000_000_000),
        ("other", 5_000_000_000),
        ("170000.host", 170_000_000_000_000),
    ],
)
def test_in_cur_the_name_says_when_it_came(name: str, at: int, tmp_path: Path) -> None:
    path = tmp_path / "cur" / name
    path.parent.mkdir()
    path.write_text("")
    os.utime(path, (0, 5))
    assert arrived(path) == at


@pytest.mark.parametrize(
    ("name", "unique"),
    [("1.M2P3Q4.host,S=5:2,RS", "1.M2P3Q4.host"), ("1.2.host", "1.2.host"), ("1.2.host:2,", "1.2.host")],
)
def test_the_name_stays_the_same(name: str, unique: str) -> None:
    assert unique_name(name) == unique


# While others move files.


def test_what_was_moved_after_it_was_listed_is_read_where_it_is_now(tmp_path: Path) -> None:
    path = delivered(tmp_path / "alice")
    [arrival] = MaildirWatch([str(tmp_path / "{user}")]).look()
    for flags in (":2,", ":2,S", ":2,RS"):
        path = path.rename(tmp_path / "alice" / "cur" / f"{arrival.name}{flags}")
        assert read(arrival) == (path, b"Subject: s\n\n")
        assert read_header(arrival) == (path, b"Subject: s\n\n")
    path.unlink()
    for ask in (read, read_header):
        with pytest.raises(FileNotFoundError, match="No such file"):
            ask(arrival)


def test_what_is_moved_between_its_listing_and_a_look_at_the_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = delivered(tmp_path / "alice")
    target = tmp_path / "alice" / "cur" / f"{path.name}:2,S"

    def move_and_look(listed: Path) -> int:
        if path.exists():
            path.rename(target)
        return arrived(listed)

    monkeypatch.setattr(arrivals, "arrived", move_and_look)
    assert paths(MaildirWatch([str(tmp_path / "{user}")])) == [target]


def test_what_is_moved_back_behind_the_look_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = delivered(tmp_path / "alice")
    hidden = path.rename(tmp_path / "alice" / "cur" / f"{path.name}:2,S")
    scandir = os.scandir

    def list_and_move(folder: Path) -> object:
        if folder == hidden.parent and hidden.exists():  # new/ has been listed by now
            hidden.rename(path)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", list_and_move)
    assert paths(MaildirWatch([str(tmp_path / "{user}")])) == [path]


def test_none_is_missed_while_another_program_moves_them_all_the_time(tmp_path: Path) -> None:
    names = {unique_name(delivered(tmp_path / "alice").name) for _ in range(40)}
    stop = threading.Event()

    def move() -> None:
        flags = itertools.cycle([":2,", ":2,S", ":2,RS", None])
        while not stop.is_set():
            flag = next(flags)
            for path in [*(tmp_path / "alice" / "new").iterdir(), *(tmp_path / "alice" / "cur").iterdir()]:
                folder = "new" if flag is None else "cur"
                path.rename(tmp_path / "alice" / folder / f"{path.name.partition(':')[0]}{flag or ''}")

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(50):
            found = MaildirWatch([str(tmp_path / "{user}")]).look()
            assert {arrival.name for arrival in found} == names
            for arrival in found:
                assert read(arrival)[1] == b"Subject: s\n\n"
    finally:
        stop.set()
        mover.join()


@each_library
def test_a_folder_that_changed_just_now_is_read_again_under_frozen_time(tmp_path: Path, freeze: Freeze) -> None:
    watch = MaildirWatch([str(tmp_path / "{user}")])
    first = delivered(tmp_path / "alice")
    changed = (tmp_path / "alice" / "new").stat()
    with freeze(PAST):
        assert paths(watch) == [first]
        second = delivered(tmp_path / "alice")
        os.utime(tmp_path / "alice" / "new", ns=(changed.st_atime_ns, changed.st_mtime_ns))  # within one tick
        assert paths(watch) == [second]
