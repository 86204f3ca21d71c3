from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from trimta.store.lock import AlreadyLocked, DataDirLock, locked_by, taking_turns

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, pathlib
from trimta.store.lock import DataDirLock
DataDirLock(pathlib.Path(sys.argv[1])).acquire()
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_second_server_is_told_who_has_the_directory(tmp_path: Path) -> None:
    with DataDirLock(tmp_path / "var"):
        with pytest.raises(AlreadyLocked, match=f"process {os.getpid()}") as caught:
            DataDirLock(tmp_path / "var").acquire()
        assert caught.value.pid == os.getpid()
        assert locked_by(tmp_path / "var") == os.getpid()
    assert locked_by(tmp_path / "var") is None
    with DataDirLock(tmp_path / "var"):
        pass


def test_nobody_works_on_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert locked_by(tmp_path / "nowhere") is None


def test_release_is_idempotent(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()


def test_a_killed_server_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(AlreadyLocked, match=f"process {holder.pid}"):
            DataDirLock(tmp_path).acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with DataDirLock(tmp_path):
        assert locked_by(tmp_path) == os.getpid()


def test_one_at_a_time_has_its_turn(tmp_path: Path) -> None:
    with taking_turns(tmp_path) as alone, taking_turns(tmp_path, limit=0.0) as second:
        assert alone
        assert not second, "it goes on all the same, as after a process that was stopped"
    with taking_turns(tmp_path, limit=0.0) as alone:
        assert alone


def test_where_there_are_no_such_locks_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with taking_turns(tmp_path) as alone:
        assert not alone


def test_a_server_s_lock_takes_no_turns_away(tmp_path: Path) -> None:
    with DataDirLock(tmp_path), taking_turns(tmp_path, limit=0.0) as alone:
        assert alone
