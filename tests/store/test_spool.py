from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.body import BodyForm
from trimta.store import durable
from trimta.store.spool import Body, BodyDamagedError, SpoolWriter, abandoned


def written(directory: Path, pieces: list[bytes], threshold: int) -> Body:
    writer = SpoolWriter(directory, threshold)
    for piece in pieces:
        writer.append(piece)
    return writer.finish()


@settings(deadline=None, max_examples=60)
@given(
    pieces=st.lists(st.binary(max_size=40) | st.just(b"line\nline\n"), max_size=12),
    threshold=st.integers(0, 60),
    size=st.integers(1, 50),
)
def test_a_body_reads_back_as_it_was_written_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], threshold: int, size: int
) -> None:
    content = b"".join(pieces)
    directory = tmp_path_factory.mktemp("spool")
    body = written(directory, pieces, threshold)
    for _ in range(2):
        chunks = list(body.chunks(size))
        assert b"".join(chunks) == content
        assert all(0 < len(chunk) <= size for chunk in chunks)
    assert (body.size, body.lines) == (len(content), content.count(b"\n"))
    assert body.in_memory == (len(content) <= threshold)
    assert body.head(7) == content[:7]
    assert body.head(0) == b""
    assert body.head(10_000) == body.read() == content
    body.discard()
    assert list(directory.iterdir()) == []


def test_text_has_a_cr_more_for_each_line_on_the_wire() -> None:
    assert Body.of(b"a\nb\n").wire_size == 6
    assert Body.of(b"a\nb\n", BodyForm.RAW).wire_size == 4


@pytest.mark.parametrize("form", BodyForm)
@pytest.mark.parametrize("threshold", [0, 100])
def test_a_body_keeps_the_form_in_which_it_was_written(tmp_path: Path, threshold: int, form: BodyForm) -> None:
    writer = SpoolWriter(tmp_path, threshold, form=form)
    writer.append(b"a\r\nb")
    assert writer.finish().form is form


@pytest.mark.parametrize("form", BodyForm)
@pytest.mark.parametrize("threshold", [0, 100])
def test_how_many_lines_a_body_has_follows_from_its_size_on_the_wire(
    tmp_path: Path, threshold: int, form: BodyForm
) -> None:
    content = b"a\n\nb\n.\nc"
    body = Body.of(content, form)
    writer = SpoolWriter(tmp_path, threshold, form=form, counts_lines=False)
    for octet in content:
        writer.append(bytes([octet]))
    assert writer.finish(body.wire_size).lines == body.lines


def test_a_body_is_somewhere() -> None:
    with pytest.raises(ValueError, match="memory or in a file"):
        Body(0, 0)
    with pytest.raises(ValueError, match="memory or in a file"):
        Body(0, 0, b"", Path("x"))


def test_the_disk_is_needed_exactly_when_the_buffer_is_full(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, threshold=10)
    writer.append(b"12345")
    assert not writer.needs_disk
    writer.append(b"67890")
    assert writer.needs_disk
    assert writer.in_memory
    assert list(tmp_path.iterdir()) == []
    writer.append(b"x")
    assert not writer.needs_disk
    assert not writer.in_memory
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("incoming-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    writer.discard()


def test_the_spool_directory_is_made_when_it_is_needed(tmp_path: Path) -> None:
    body = written(tmp_path / "var" / "spool", [b"too large"], 4)
    assert body.read() == b"too large"


def test_a_spilled_body_is_synced_when_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(durable, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    body = written(tmp_path, [b"too large"], 4)
    assert synced == []
    body.sync()
    assert synced == [str(body.path)]
    written(tmp_path, [b"small"], 5).sync()
    assert len(synced) == 1


@pytest.mark.parametrize("threshold", [0, 100])
def test_a_body_is_written_to_a_descriptor(tmp_path: Path, threshold: int) -> None:
    body = written(tmp_path, [b"one ", b"two"], threshold)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(b"head ")
        body.write_to(file.fileno())
    assert (tmp_path / "file").read_bytes() == b"head one two"


@pytest.mark.parametrize("octets", [b"short", b"much too long"])
def test_a_body_whose_file_has_another_length_is_damaged_when_written(tmp_path: Path, octets: bytes) -> None:
    body = written(tmp_path, [b"one ", b"two"], 0)
    assert body.path is not None
    body.path.write_bytes(octets)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        with pytest.raises(BodyDamagedError, match=f"has {len(octets)} octets where 7 are meant"):
            body.write_to(file.fileno())
        body.discard()
        with pytest.raises(BodyDamagedError, match="is missing"):
            body.write_to(file.fileno())


def test_finish_may_be_asked_twice_and_discard_too(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, threshold=4)
    writer.append(b"too large")
    assert writer.finish() is writer.finish()
    writer.discard()
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_discard_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, threshold=4)
    for _ in range(3):
        writer.append(b"too large")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    writer.discard()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors - 1
    assert list(tmp_path.iterdir()) == []


def test_a_refusing_disk_is_an_os_error_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_all", full)
    writer = SpoolWriter(tmp_path, threshold=4)
    writer.append(b"full!")
    with pytest.raises(OSError, match="No space"):
        writer.append(b"more")
    writer.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["remove", "shorten", "lengthen"])
def test_a_damaged_file_is_noticed(tmp_path: Path, change: str) -> None:
    body = written(tmp_path, [b"too large"], 4)
    assert body.path is not None
    match change:
        case "remove":
            body.path.unlink()
        case "shorten":
            body.path.write_bytes(b"too")
        case _:
            body.path.write_bytes(b"too large by far")
    with pytest.raises(BodyDamagedError, match="incoming-"):
        body.read()


def test_discarding_does_not_touch_a_file_that_was_taken_over(tmp_path: Path) -> None:
    body = written(tmp_path, [b"too large"], 4)
    assert body.path is not None
    body.path.rename(tmp_path / "m1")
    body.discard()
    Body(body.size, body.lines, None, tmp_path / "m1").discard()
    assert (tmp_path / "m1").exists()


def test_files_of_the_dead_are_abandoned_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    dead, zombie, living = (subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(3))
    dead.communicate()
    assert zombie.stdin is not None
    zombie.stdin.close()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # nobody has asked how it ended
    abandoned_names = {*(f"incoming-{pid}-a" for pid in (dead.pid, zombie.pid, os.getpid())), "incoming-odd"}
    for name in (*abandoned_names, f"incoming-{living.pid}-a", "incoming-1-a", "m1"):
        (tmp_path / name).write_bytes(b"")
    now = (tmp_path / "m1").stat().st_mtime
    assert {path.name for path in abandoned(tmp_path, now=now)} == abandoned_names
    for process in (zombie, living):
        process.communicate()
    assert "incoming-1-a" in {path.name for path in abandoned(tmp_path, now=now + 90_000)}
    assert list(abandoned(tmp_path / "nowhere", now=now)) == []
