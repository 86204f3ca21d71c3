"""The control socket: one request, one answer, whoever asks and however badly."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trimta.control import answering, socket_path
from trimta.control.answering import single
from trimta.control.asking import NoAnswer, NotRunning, ask, ask_once, tell
from trimta.store.queue.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from trimta.control.answering import Handler
    from trimta.control.asking import Json

DEADLINE = 20.0


async def echo(request: Json) -> Json:
    return {"asked": request}


async def full(_: Json) -> Json:
    raise QueueUnavailable("the disk is full")


async def picky(_: Json) -> Json:
    raise ValueError("a number is meant")


async def count(request: Json) -> AsyncGenerator[Json, None]:
    for number in range(request["to"]):
        yield {"number": number}
        await trio.lowlevel.checkpoint()


async def nothing(_: Json) -> AsyncGenerator[Json, None]:
    nobody: list[Json] = []
    for line in nobody:
        yield line


async def forever(_: Json) -> AsyncGenerator[Json, None]:
    """As `trimta tail` when nothing happens."""
    yield {"following": True}
    await trio.sleep_forever()


HANDLERS: Mapping[str, Handler] = {
    "tail": answering.Following(forever),
    "echo": single(echo),
    "full": single(full),
    "picky": single(picky),
    "count": count,
    "nothing": nothing,
}


@asynccontextmanager
async def serving(data_dir: Path) -> AsyncGenerator[None, None]:
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            listener = await answering.listen(data_dir)
            await nursery.start(answering.serve, listener, HANDLERS)
            yield
            nursery.cancel_scope.cancel()
        await listener.aclose()
        socket_path.remove(data_dir)


async def answers(data_dir: Path, request: Json) -> list[Json]:
    return await trio.to_thread.run_sync(lambda: list(ask(data_dir, request)))


async def test_a_request_gets_its_answer(tmp_path: Path) -> None:
    async with serving(tmp_path):
        assert await answers(tmp_path, {"command": "echo"}) == [{"asked": {"command": "echo"}}]
        assert await answers(tmp_path, {"command": "count", "to": 3}) == [{"number": n} for n in range(3)]
        assert await trio.to_thread.run_sync(tell, tmp_path, {"command": "echo"})


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("full", "the server refuses: the disk is full"),
        ("picky", "the server refuses: a number is meant"),
        ("bogus", "the server refuses: unknown command 'bogus'"),
        (7, "the server refuses: unknown command 7"),
        ("nothing", "the server on {} ended before it answered"),
    ],
)
async def test_a_request_that_fails_says_why_and_the_next_one_works(command: Any, reason: str, tmp_path: Path) -> None:
    async with serving(tmp_path):
        with pytest.raises(NoAnswer) as caught:
            await trio.to_thread.run_sync(ask_once, tmp_path, {"command": command})
        assert str(caught.value) == reason.format(tmp_path)
        assert not await trio.to_thread.run_sync(tell, tmp_path, {"command": command})
        assert await answers(tmp_path, {"command": "echo"})


@pytest.mark.parametrize(
    "octets",
    [
        b"\n",
        b"not json\n",
        b"\xff\xfe\n",
        b"[1]\n",
        b'"text"\n',
        b"[" * 60_000 + b"\n",
        b"x" * (answering.MAX_REQUEST + 100) + b"\n",
    ],
    ids=["empty", "text", "no utf-8", "list", "string", "deep", "long"],
)
async def test_octets_that_are_no_request_are_refused(octets: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path):
        stream = await trio.open_unix_socket(str(tmp_path / socket_path.NAME))
        async with stream:
            await stream.send_all(octets)
            line = await stream.receive_some()
        assert list(json.loads(line)) == ["refused"]
        assert await answers(tmp_path, {"command": "echo"})


@pytest.mark.parametrize("octets", [b"", b'{"command": "ec', b'{"command": "count", "to": 100000}\n', b"nonsense\n"])
async def test_one_who_asks_and_goes_away_harms_nobody(octets: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path):
        stream = await trio.open_unix_socket(str(tmp_path / socket_path.NAME))
        await stream.send_all(octets)
        await stream.aclose()
        assert await answers(tmp_path, {"command": "echo"})


async def test_one_who_does_not_read_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "REQUEST_LIMIT", 0.05)
    monkeypatch.setattr(answering, "MAX_CONNECTIONS", 1)
    async with serving(tmp_path):
        stream = await trio.open_unix_socket(str(tmp_path / socket_path.NAME))
        async with stream:
            await stream.send_all(b'{"command": "count", "to": 1000000000}\n')
            # There is but one place, and it is free again only when the silent reader has lost it.
            assert await answers(tmp_path, {"command": "echo"})


async def follow(data_dir: Path) -> trio.SocketStream:
    stream = await trio.open_unix_socket(str(data_dir / socket_path.NAME))
    await stream.send_all(b'{"command": "tail"}\n')
    assert json.loads(await stream.receive_some())
    return stream


async def test_followers_whose_readers_are_gone_make_room_without_an_event(tmp_path: Path) -> None:
    async with serving(tmp_path):
        for _ in range(3):
            dead = [await follow(tmp_path) for _ in range(answering.MAX_FOLLOWERS)]
            for stream in dead:
                await stream.aclose()
            assert await answers(tmp_path, {"command": "echo"})


async def test_followers_beyond_the_limit_are_told_and_leave_room_for_questions(tmp_path: Path) -> None:
    async with serving(tmp_path):
        followers = [await follow(tmp_path) for _ in range(answering.MAX_FOLLOWERS)]
        with pytest.raises(NoAnswer, match=f"{answering.MAX_FOLLOWERS} follow already"):
            await answers(tmp_path, {"command": "tail"})
        assert await answers(tmp_path, {"command": "echo"})
        for stream in followers:
            await stream.aclose()


async def test_a_follower_that_sends_no_more_is_followed_until_it_hangs_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_FOLLOWERS", 1)
    monkeypatch.setattr(answering, "HANG_UP_PAUSE", 0.01)
    async with serving(tmp_path):
        stream = await follow(tmp_path)
        await stream.send_eof()
        with pytest.raises(NoAnswer, match="follow already"):
            await answers(tmp_path, {"command": "tail"})
        await stream.aclose()
        while True:  # until the server has seen it
            stream = await trio.open_unix_socket(str(tmp_path / socket_path.NAME))
            async with stream:
                await stream.send_all(b'{"command": "tail"}\n')
                if b"following" in await stream.receive_some():
                    break


@pytest.mark.parametrize("said", [b"", b'{"half": ', b"x" * 1000], ids=["nothing", "half a line", "no end"])
async def test_two_hundred_who_never_ask_keep_nobody_waiting(said: bytes, tmp_path: Path) -> None:
    async with serving(tmp_path):
        silent = []
        for _ in range(200):
            stream = await trio.open_unix_socket(str(tmp_path / socket_path.NAME))
            if said:
                await stream.send_all(said)
            silent.append(stream)
        with trio.fail_after(answering.REQUEST_LIMIT / 2):
            assert await answers(tmp_path, {"command": "echo"})
        for stream in silent:
            await stream.aclose()


async def test_an_endless_line_is_refused_at_its_limit(tmp_path: Path) -> None:
    async with serving(tmp_path):
        stream = await trio.open_unix_socket(str(tmp_path / socket_path.NAME))
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await stream.send_all(b"x" * 65536)
        assert await answers(tmp_path, {"command": "echo"})


async def test_what_follows_the_request_is_no_part_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path):
        stream = await trio.open_unix_socket(str(tmp_path / socket_path.NAME))
        async with stream:
            await stream.send_all(b'{"command": "echo"}\nand more')
            assert json.loads(await stream.receive_some()) == {"asked": {"command": "echo"}}


async def test_a_reader_that_goes_away_ends_a_question_that_has_no_answer_yet(tmp_path: Path) -> None:
    read, write = os.pipe()
    async with serving(tmp_path):
        lines = ask(tmp_path, {"command": "tail"}, timeout=None, reader=write)
        assert await trio.to_thread.run_sync(next, lines) == {"following": True}
        os.close(read)
        with pytest.raises(BrokenPipeError):
            await trio.to_thread.run_sync(next, lines)
    os.close(write)


def test_a_server_that_takes_nobody_on_is_not_taken_for_none(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as crowd:
        listener.bind(str(tmp_path / socket_path.NAME))
        listener.listen(0)
        for _ in range(5):
            one = crowd.enter_context(socket.socket(socket.AF_UNIX))
            one.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                one.connect(str(tmp_path / socket_path.NAME))
        with pytest.raises(NoAnswer, match="does not answer"):
            ask_once(tmp_path, {"command": "echo"}, timeout=0.05)


def test_a_link_in_the_place_of_the_socket_takes_nothing_else_away(tmp_path: Path) -> None:
    data_dir, elsewhere = tmp_path / "var", tmp_path / "trimta-elsewhere"
    data_dir.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    (data_dir / socket_path.NAME).symlink_to(elsewhere / "precious")
    socket_path.remove(data_dir)
    assert (elsewhere / "precious").read_text() == "kept"
    assert not (data_dir / socket_path.NAME).is_symlink()


async def test_running_out_of_descriptors_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "ACCEPT_PAUSE", 0.01)
    accept = trio.SocketListener.accept
    failures = [OSError(24, "too many open files")] * 2

    async def failing(listener: trio.SocketListener) -> trio.SocketStream:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    async with serving(tmp_path):
        assert await answers(tmp_path, {"command": "echo"})
    assert not failures


# Where the socket is.


def long_path(tmp_path: Path) -> Path:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    return folder


async def test_the_path_of_data_dir_may_be_long(tmp_path: Path) -> None:
    folder = long_path(tmp_path)
    async with serving(folder):
        target = (folder / socket_path.NAME).readlink()
        assert target.is_socket()
        assert target.parent.stat().st_mode & 0o077 == 0
        assert await answers(folder, {"command": "echo"})
    assert not target.parent.exists()
    assert [*folder.iterdir()] == []


async def test_the_temporary_folder_may_be_long_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = long_path(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    async with serving(folder):
        assert await answers(folder, {"command": "echo"})
        target = (folder / socket_path.NAME).readlink()
    assert not target.parent.exists()
    assert [*folder.iterdir()] == []


async def test_where_there_is_no_short_folder_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = long_path(tmp_path)

    def denied(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(tempfile, "mkdtemp", denied)
    with pytest.raises(OSError, match=r"too long for a socket.*/tmp: Permission denied.*set TMPDIR"):
        await answering.listen(folder)


async def test_only_the_owner_may_connect(tmp_path: Path) -> None:
    async with serving(tmp_path):
        assert (tmp_path / socket_path.NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("long", [False, True], ids=["short path", "long path"])
async def test_what_a_killed_server_left_is_no_trouble(long: bool, tmp_path: Path) -> None:
    folder = long_path(tmp_path) if long else tmp_path
    await (await answering.listen(folder)).aclose()
    left = (folder / socket_path.NAME).readlink() if long else None
    with pytest.raises(NotRunning):
        list(ask(folder, {"command": "echo"}))
    async with serving(folder):
        assert await answers(folder, {"command": "echo"})
    assert left is None or not left.parent.exists()


def test_without_a_server_nobody_answers(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing", long_path(tmp_path)):
        with pytest.raises(NotRunning, match=f"no server is running on {folder}"):
            ask_once(folder, {"command": "echo"})
        assert not tell(folder, {"command": "echo"})


@pytest.mark.parametrize("said", [b"", b'{"half": ', b"\n", None], ids=["nothing", "half a line", "no JSON", "silence"])
def test_a_server_that_dies_or_hangs_while_it_answers_is_said_to(said: bytes | None, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / socket_path.NAME))
        listener.listen()
        if said is not None:
            # The answer is there before the question: the kernel keeps it.
            client_side = ask(tmp_path, {"command": "echo"}, timeout=5)
            with pytest.MonkeyPatch.context() as patch:
                connect = socket.socket.connect

                def connect_and_answer(self: socket.socket, address: Any) -> None:
                    connect(self, address)
                    server_side, _ = listener.accept()
                    with server_side:
                        server_side.sendall(said)
                        server_side.shutdown(socket.SHUT_WR)
                        answered.append(server_side.dup())

                answered: list[socket.socket] = []
                patch.setattr(socket.socket, "connect", connect_and_answer)
                try:
                    if said == b"":
                        assert list(client_side) == []
                    else:
                        with pytest.raises(NoAnswer, match="does not answer"):
                            list(client_side)
                finally:
                    for one in answered:
                        one.close()
        else:
            with pytest.raises(NoAnswer, match="does not answer"):
                list(ask(tmp_path, {"command": "echo"}, timeout=0.05))
