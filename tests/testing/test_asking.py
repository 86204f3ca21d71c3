"""What a test can ask: counts, what came after, a server emptied, mail that others move; wrong uses, which say so."""

from __future__ import annotations

import asyncio
import itertools
import os
import smtplib
import tempfile
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trimta import real_time
from trimta.inbound.authentication import GUESS_DELAY
from trimta.store.arrivals import read_header
from trimta.store.maildir import Delivery, deliver
from trimta.store.spool import Body
from trimta.testing import (
    BlockingServer,
    LeftBehindError,
    NotArrivedError,
    Server,
    ServerEndedError,
    index,
    open_server,
    run_server,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEADLINE = 20.0


def send(server: BlockingServer | Server, *subjects: str, to: str = "alice@dev.test") -> None:
    with smtplib.SMTP(server.host, server.port, local_hostname="app.test", timeout=DEADLINE) as client:
        for subject in subjects:
            client.sendmail("app@app.test", [to], f"Subject: {subject}\r\n\r\nhi\r\n")


def subjects(messages: list[Any]) -> list[str]:
    return [message["Subject"] for message in messages]


# Counts, and what came after.


def test_a_count_gives_so_many_oldest_first() -> None:
    with run_server() as server:
        send(server, "1", "2", "3")
        assert subjects(server.wait_for(count=2)) == ["1", "2"]
        assert subjects(server.wait_for(to="alice", count=1)) == ["1"]
        assert subjects(server.wait_for(to="alice", count=3)) == ["1", "2", "3"]
        with pytest.raises(NotArrivedError, match=r"3 of 4 messages to 'alice' within 0.01 s\narrived:"):
            server.wait_for(to="alice", count=4, timeout=0.01)


def test_a_count_waits_for_the_last_of_them() -> None:
    with run_server() as server:
        send(server, "1")
        later = threading.Timer(0.05, send, (server, "2"))
        later.start()
        assert subjects(server.wait_for(count=2, timeout=DEADLINE)) == ["1", "2"]
        later.join()


def test_after_a_message_only_what_came_later_counts() -> None:
    with run_server() as server:
        send(server, "1")
        first = server.wait_for()
        with pytest.raises(NotArrivedError, match="no message after '1' within"):
            server.wait_for(after=first, timeout=0.01)
        send(server, "2", "3")
        second = server.wait_for(after=first)
        assert second["Subject"] == "2"
        assert subjects(server.wait_for(after=first, count=2)) == ["2", "3"]
        assert server.wait_for(after=server.mailbox("alice")[1])["Subject"] == "3"
        assert server.wait_for(after=second, subject="?")["Subject"] == "3"


def test_after_means_the_same_when_somebody_has_moved_that_message() -> None:
    with run_server() as server:
        send(server, "1", "2")
        server.wait_for(count=2)
        path = min((server.maildir("alice") / "new").iterdir())
        path.rename(server.maildir("alice") / "cur" / f"{path.name}:2,S")
        first = next(one for one in server.mailbox("alice") if one["Subject"] == "1")
        assert server.wait_for(after=first)["Subject"] == "2"


@pytest.mark.parametrize(
    ("wanted", "problem"), [({"count": 0}, "count: found 0"), ({"count": -1}, "count"), ({"to": "a b"}, "a space")]
)
def test_what_can_not_be_waited_for_is_said(wanted: dict[str, Any], problem: str) -> None:
    with run_server() as server, pytest.raises(ValueError, match=problem):
        server.wait_for(**wanted)


def test_after_is_a_message_of_the_servers() -> None:
    from email.message import EmailMessage

    with (
        run_server() as server,
        pytest.raises(ValueError, match="expected a message that wait_for, mailbox or captured"),
    ):
        server.wait_for(after=EmailMessage())


@pytest.mark.parametrize("timeout", ["0.02s", "0s", 0.02, 0, timedelta(milliseconds=20)])
def test_a_wait_may_be_as_long_as_a_span_of_the_clock(timeout: str | float | timedelta) -> None:
    with run_server() as server:
        server.settle(timeout="20s")
        with pytest.raises(NotArrivedError, match=r"no message to 'bob' within 0(\.02)? s"):
            server.wait_for(to="bob", timeout=timeout)


@pytest.mark.parametrize(
    ("timeout", "error", "problem"),
    [
        ("soon", ValueError, 'found "soon", expected a duration'),
        (-1, ValueError, "found -1, expected a length of time"),
        (None, TypeError, "found None, expected a length of time: "),
    ],
)
def test_what_is_no_span_is_said(timeout: Any, error: type[Exception], problem: str) -> None:
    with run_server() as server:
        for ask in (server.wait_for, server.settle):
            with pytest.raises(error, match=problem):
                ask(timeout=timeout)
        with pytest.raises(error, match=problem):
            server.advance(timeout)


@pytest.mark.parametrize("config", [5, ["[queue]"], b""])
def test_what_is_no_configuration_is_said(config: Any) -> None:
    with pytest.raises(TypeError, match=r"found .*, expected a configuration: a mapping"), run_server(config):
        raise AssertionError("it has started")


# What others do to the files.


def test_mail_of_another_program_is_waited_for_too() -> None:
    with run_server() as server:
        send(server, "1")
        first = server.wait_for()
        content = Body.of(b"Subject: theirs\n\n")
        later = threading.Timer(0.05, deliver, (Delivery(server.maildir("alice"), b"", content),))
        later.start()
        assert server.wait_for(after=first, timeout=DEADLINE)["Subject"] == "theirs"
        later.join()


def test_mail_that_another_program_moves_all_the_time_is_found_each_time() -> None:
    stop = threading.Event()

    def move(maildir: Path) -> None:
        for folder, flags in itertools.cycle([("cur", ":2,"), ("cur", ":2,S"), ("new", "")]):
            for path in [*(maildir / "new").iterdir(), *(maildir / "cur").iterdir()]:
                path.rename(maildir / folder / f"{path.name.partition(':')[0]}{flags}")
            if stop.is_set():
                return

    with run_server() as server:
        send(server, *map(str, range(20)))
        mover = threading.Thread(target=move, args=(server.maildir("alice"),))
        mover.start()
        try:
            for _ in range(20):
                assert {*subjects(server.mailbox("alice"))} == {*map(str, range(20))}
                assert len(server.wait_for(to="alice", count=20, timeout=DEADLINE)) == 20
        finally:
            stop.set()
            mover.join()


def test_mail_that_another_program_removes_is_gone() -> None:
    with run_server() as server:
        send(server, "1", "2")
        server.wait_for(count=2)
        for path in (server.maildir("alice") / "new").iterdir():
            if b"Subject: 1" in path.read_bytes():
                path.unlink()
        assert subjects(server.mailbox("alice")) == ["2"]
        assert server.wait_for()["Subject"] == "2"


def test_who_waits_reads_each_message_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(arrival: Any) -> Any:
        read.append(arrival.name)
        return read_header(arrival)

    monkeypatch.setattr(index, "read_header", counted)
    with run_server() as server:
        waiting = threading.Thread(target=server.wait_for, kwargs={"subject": "last", "timeout": DEADLINE})
        waiting.start()
        send(server, *map(str, range(100)))
        for number in range(100):
            server.wait_for(subject=str(number))
        send(server, "last")
        waiting.join()
    assert len(read) == len({*read}) == 101


def test_who_waits_slows_a_busy_server_down_by_little() -> None:
    def seconds(wait: bool) -> float:
        with run_server() as server:
            waiting = threading.Thread(target=server.wait_for, kwargs={"subject": "last", "timeout": DEADLINE})
            if wait:
                waiting.start()
            began = time.process_time()
            send(server, *map(str, range(300)))
            spent = time.process_time() - began
            if wait:
                send(server, "last")
                waiting.join()
            return spent

    assert min(seconds(True) for _ in range(2)) < 2 * min(seconds(False) for _ in range(2)) + 0.1


@pytest.mark.parametrize(
    "content",
    [
        b"Date: Mon, 1 Jan 2024 12:00:00 +99999999999999999999\n"
        b"Subject: =?x-unknown?q?a?= \0\nContent-Type: text/plain; charset=x-unknown\n\nhello\n",
        b"Content-Type: text/plain; charset=idna\n\nhello.." + b"a" * 80,
        b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(1500))
        + b"\nhello",
        b"Subject: \xff\n\nhello \0\n",
    ],
    ids=["charset and date", "a charset that refuses", "nested", "octets"],
)
def test_any_message_can_be_read(content: bytes) -> None:
    with run_server() as server:
        deliver(Delivery(server.maildir("alice"), b"Delivered-To: alice@dev.test\n", Body.of(content)))
        for message in (server.wait_for(to="alice"), *server.mailbox("alice")):
            assert all(isinstance(value, str) for _, value in message.items())
            assert "hello" in (
                message.get_content() if message.get_content_maintype() == "text" else message.get_payload()
            )
        with pytest.raises(NotArrivedError, match="arrived"):
            server.wait_for(to="bob", timeout=0)


# Beginning anew.


def test_clear_leaves_nothing_of_what_was() -> None:
    config = {"routes": {"later.test": "hold", "far.test": "smtp:127.0.0.1:1"}}
    with run_server(config) as server:
        send(server, "1")
        send(server, "2", to="bob@example.com")
        send(server, "3", to="carol@later.test")
        send(server, "4", to="dave@far.test")
        server.faults.add(stage="mail", reply="451 4.3.0 later")
        server.wait_for(count=2)
        server.clear()
        assert server.mailbox("alice") == server.captured() == []
        assert server.queue == []
        assert server.events == []
        with pytest.raises(NotArrivedError, match="nothing arrived"):
            server.wait_for(timeout=0)
        send(server, "5")
        assert server.wait_for()["Subject"] == "5"


def test_clear_keeps_what_was_there_before_the_server(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "data_dir": tmp_path / "var",
        "local": {"maildir": tmp_path / "mail" / "{user}"},
        "routes": {"later.test": "hold"},
        "faults": [{"stage": "rcpt", "recipient": "bob@*", "reply": "450 4.2.1 busy", "times": 1}],
    }
    with run_server(config) as server:
        send(server, "old")
        send(server, "old", to="carol@later.test")
    with run_server(config) as server:
        send(server, "new")
        send(server, "new", to="carol@later.test")
        for _ in range(2):
            server.clear()
            assert subjects(server.mailbox("alice")) == ["old"]
            assert len(server.queue) == 1
            with pytest.raises(smtplib.SMTPRecipientsRefused):  # the fault of the configuration strikes anew
                send(server, "x", to="bob@dev.test")


async def test_in_trio_it_is_cleared_as_well() -> None:
    async with open_server() as server:
        await trio.to_thread.run_sync(send, server, "1")
        server.clear()
        assert server.mailbox("alice") == []


# In asyncio.


def in_asyncio(work: Callable[[Server], Any]) -> None:
    async def main() -> None:
        async with run_server() as server:
            await work(server)

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_in_asyncio_the_app_goes_on_while_the_test_waits() -> None:
    async def work(server: Server) -> None:
        sending = asyncio.create_task(asyncio.to_thread(send, server, "1", "2"))
        first = await server.wait_for(to="alice", timeout=DEADLINE)
        assert first["Subject"] == "1"
        assert subjects(await server.wait_for(to="alice", count=2)) == ["1", "2"]
        assert (await server.wait_for(after=first))["Subject"] == "2"
        await sending
        await server.settle()
        await server.advance("1h")
        assert subjects(server.mailbox("alice")) == ["1", "2"]
        server.clear()
        with pytest.raises(NotArrivedError):
            await server.wait_for(timeout=0.01)

    in_asyncio(work)


def test_in_asyncio_waiting_can_be_cancelled() -> None:
    async def work(server: Server) -> None:
        waiting = asyncio.create_task(server.wait_for(to="nobody", timeout=3600))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        send(server, "1")
        await server.wait_for()

    in_asyncio(work)


def test_in_asyncio_the_end_is_waited_for_also_where_the_block_is_cancelled() -> None:
    async def main() -> None:
        async with run_server() as server:
            seen.append(server)
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.sleep(DEADLINE)

    seen: list[Server] = []
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert not seen[0].data_dir.parent.exists()
    assert "trimta" not in {thread.name for thread in threading.enumerate()}


def test_in_asyncio_what_is_wrong_inside_and_what_is_left_is_raised() -> None:
    async def leave(server: Server) -> None:
        (server.data_dir / "spool").mkdir(exist_ok=True)
        (server.data_dir / "spool" / f"incoming-{os.getpid()}-x").touch()

    with pytest.raises(LeftBehindError, match="incoming-"):
        in_asyncio(leave)

    async def fail(_: Server) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        in_asyncio(fail)


async def test_run_server_may_be_awaited_in_trio_as_well() -> None:
    async with run_server() as server:
        await trio.to_thread.run_sync(send, server, "1")
        assert (await server.wait_for())["Subject"] == "1"


# Wrong uses.


def test_open_server_in_asyncio_names_run_server() -> None:
    async def main() -> None:
        async with open_server():
            raise AssertionError("it has started")

    with pytest.raises(RuntimeError, match="in asyncio use `async with run_server"):
        asyncio.run(main())


def test_open_server_in_synchronous_code_names_run_server() -> None:
    with pytest.raises(RuntimeError, match="use `with run_server"), open_server():
        raise AssertionError("it has started")


def test_async_with_outside_any_event_loop_says_so() -> None:
    entering = run_server().__aenter__()
    with pytest.raises(RuntimeError, match="is for asyncio and Trio"):
        entering.send(None)


ASKS: dict[str, Callable[[Any], object]] = {
    "mailbox": lambda server: server.mailbox("alice"),
    "maildir": lambda server: server.maildir("alice"),
    "captured": lambda server: server.captured(),
    "queue": lambda server: server.queue,
    "events": lambda server: server.events,
    "now": lambda server: server.now,
    "check": lambda server: server.check(),
    "clear": lambda server: server.clear(),
    "faults.add": lambda server: server.faults.add(stage="mail", drop=True),
    "faults.clear": lambda server: server.faults.clear(),
}
AWAITED: dict[str, Callable[[Any], Any]] = {
    "wait_for": lambda server: server.wait_for(),
    "settle": lambda server: server.settle(),
    "advance": lambda server: server.advance("1h"),
}


@pytest.mark.parametrize("ask", [*ASKS, *AWAITED])
def test_after_the_end_nothing_can_be_asked(ask: str) -> None:
    with run_server() as server:
        pass
    with pytest.raises(ServerEndedError, match="the server has ended"):
        (ASKS | AWAITED)[ask](server)


@pytest.mark.parametrize("ask", [*ASKS, *AWAITED])
async def test_after_the_end_nothing_can_be_asked_in_trio(ask: str) -> None:
    async def asked() -> None:
        if ask in ASKS:
            ASKS[ask](server)
        else:
            await AWAITED[ask](server)

    async with open_server() as server:
        pass
    with pytest.raises(ServerEndedError, match="the server has ended"):
        await asked()


def test_after_the_end_a_queue_that_was_looked_at_can_not_be_steered(tmp_path: Path) -> None:
    with run_server({"routes": {"later.test": "hold"}}) as server:
        send(server, "1", to="bob@later.test")
        queue = server.queue
    entry_id = queue[0].id
    for verb in (queue.remove, queue.hold, queue.release, queue.bounce, queue.retry):
        with pytest.raises(ServerEndedError):
            verb(entry_id)
    assert not server.data_dir.exists()


# What a test need not wait for.


def test_a_wrong_password_costs_no_time() -> None:
    with run_server({"auth": {"users": {"alice": "secret"}}}) as server:
        began = real_time.monotonic()
        for _ in range(4):
            with smtplib.SMTP(server.host, server.port, timeout=DEADLINE) as client:
                for _ in range(2):
                    with pytest.raises(smtplib.SMTPAuthenticationError):
                        client.login("alice", "guess")
        assert real_time.monotonic() - began < 8 * GUESS_DELAY


# Where its files are.


def test_tmpdir_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("t" * 120)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with run_server({"routes": {"later.test": "hold"}}) as server:
        send(server, "1")
        assert server.data_dir.is_relative_to(folder)
        assert subjects(server.mailbox("alice")) == ["1"]
    assert [*folder.iterdir()] == []


def test_no_thread_is_left() -> None:
    before = {thread for thread in threading.enumerate() if not thread.name.startswith("Trio")}
    with run_server() as server:
        send(server, "1")
    assert {thread for thread in threading.enumerate() if not thread.name.startswith("Trio")} == before
