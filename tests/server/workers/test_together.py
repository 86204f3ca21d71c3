"""The first process's side of workers and a worker's own, joined in one process: each is as it is, but for the fork."""

from __future__ import annotations

import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.testing

from tests.support.receiving import configuration, mailbox, open_mta
from trimta.inbound.client_address import ClientAddress
from trimta.inbound.listener import AcceptedConnection, Bound
from trimta.server.workers import processes
from trimta.server.workers.processes import WorkerProcesses
from trimta.server.workers.shared_page import SharedFile, SharedPage
from trimta.server.workers.worker_main import serve_worker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trimta.runtime.events import Event
    from trimta.server.wiring import Mta

DEADLINE: Final = 20.0


def accepted(connection: socket.socket) -> AcceptedConnection:
    """One end of a socket pair as a connection that has come from 127.0.0.1."""
    return AcceptedConnection(connection.detach(), socket.AF_UNIX, ClientAddress("127.0.0.1", 40000))


class TaskStarter:
    """A starter whose workers are tasks of this process."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.scopes: list[trio.CancelScope] = []
        self._nursery = nursery
        self._ends: list[trio.Event] = []

    async def start(self, *descriptors: int) -> int:
        self.scopes.append(trio.CancelScope())
        self._ends.append(trio.Event())
        channel, connections, page = map(os.dup, descriptors)
        self._nursery.start_soon(self._work, len(self._ends) - 1, channel, connections, page)
        return 1_000_000_000 + len(self._ends)  # the id of no process

    async def ended(self, pid: int) -> int:
        await self._ends[pid - 1_000_000_001].wait()
        return 0

    async def _work(self, number: int, channel: int, connections: int, page: int) -> None:
        shared = SharedPage(page)
        os.close(page)
        with (
            socket.socket(fileno=channel) as channel_socket,
            socket.socket(fileno=connections) as connection_socket,
            self.scopes[number],
        ):
            await serve_worker(channel_socket, connection_socket, shared)
        shared.close()
        self._ends[number].set()


class Joined:
    """An MTA with workers."""

    def __init__(self, mta: Mta, workers: WorkerProcesses, starter: TaskStarter) -> None:
        self.mta = mta
        self.workers = workers
        self.starter = starter
        self.events: list[Event] = []
        mta.events.subscribe(self.events.append)

    async def say(self, *lines: str) -> list[str]:
        """A client's lines, one after the other's reply, in a connection that is handed over: the replies."""
        near, far = socket.socketpair()
        await self.workers.hand_over([accepted(far)], 0)
        replies = []
        async with trio.SocketStream(trio.socket.from_stdlib_socket(near)) as stream:
            for line in ("", *lines):
                if line:
                    await stream.send_all(line.encode() + b"\r\n")
                reply = b""
                while not reply.endswith(b"\r\n") or reply.splitlines()[-1][3:4] == b"-":
                    octets = await stream.receive_some()
                    if not octets:
                        break
                    reply += bytes(octets)
                replies.append(reply.decode().strip())
        return replies

    async def settled(self) -> None:
        """Until no connection is left."""
        while self.mta.counts.total:
            await self.mta.counts.change()
        await self.mta.operations.hear_workers()


@asynccontextmanager
async def joined(folder: Path, text: str = "", count: int = 2) -> AsyncGenerator[Joined]:
    with trio.fail_after(DEADLINE), SharedFile() as file:
        async with open_mta(folder, text) as mta, trio.open_nursery() as nursery:
            mta.bound = [Bound(mta.configuration.listen[0], ())]
            starter = TaskStarter(nursery)

            async def another() -> TaskStarter:
                return starter

            workers = WorkerProcesses(mta, starter, file, count, another)  # type: ignore[arg-type]
            async with trio.open_nursery() as serving:
                serving.start_soon(workers.serve)
                yield Joined(mta, workers, starter)
                mta.drain.start(trio.current_time() + 1)
                workers.stop(1)
                workers.no_more()


MESSAGE: Final = (
    "MAIL FROM:<me@dev.test>",
    "RCPT TO:<alice@dev.test>",
    "RCPT TO:<x@far.test>",
    "DATA",
    "hi\r\n.",
    "QUIT",
)


async def test_a_message_is_delivered_queued_and_told_of(tmp_path: Path) -> None:
    async with joined(tmp_path, '[routes]\n"far.test" = "hold"\n') as server:
        replies = await server.say("EHLO me", *MESSAGE)
        assert [reply[:3] for reply in replies] == ["220", "250", "250", "250", "250", "354", "250", "221"]
        await server.settled()
        assert len(mailbox(tmp_path, "alice")) == 1
        (listed,) = await server.mta.queue.run(lambda queue: queue.entries.list_envelopes())
        assert listed.envelope.domain == "far.test"
        names = [event.name for event in server.events]
        assert names == ["connect", "accepted", "delivered", "disconnect"]
        status = await server.mta.operations.status()
        assert sum(worker.messages for worker in status.workers) == 1
        assert {worker.sessions for worker in status.workers} == {0}
        await server.mta.message_log.flush()
        lines = await server.mta.queue.run(lambda queue: queue.log.read(listed.envelope.message_id))
        assert any("MAIL FROM" in line for _, line in lines)


async def test_a_fault_that_is_added_strikes_once_wherever_it_is_met(tmp_path: Path) -> None:
    fault = '[[faults]]\nstage = "mail"\nreply = "451 4.3.0 later"\ntimes = 2'
    async with joined(tmp_path) as server:
        server.mta.faults.replace(configuration(tmp_path, fault).faults)
        codes = [(await server.say("EHLO me", "MAIL FROM:<>", "QUIT"))[2][:3] for _ in range(4)]
        assert codes == ["451", "451", "250", "250"]


async def test_the_first_process_counts_and_etrn_starts_its_queue(tmp_path: Path) -> None:
    text = '[limits]\nconnections_per_client = 1\n[routes]\n"far.test" = "smtp:127.0.0.1:1"\n'
    async with joined(tmp_path, text) as server:
        await server.say("EHLO me", *MESSAGE)
        await server.settled()
        assert (await server.say("EHLO me", "ETRN far.test", "QUIT"))[2].startswith("253")
        await server.settled()
        server.mta.counts.enter(ClientAddress("127.0.0.1", 1))
        assert (await server.say())[0].startswith("421 4.7.0")
        server.mta.counts.leave(ClientAddress("127.0.0.1", 1))


async def test_a_reload_is_every_worker_s(tmp_path: Path) -> None:
    async with joined(tmp_path) as server:
        await server.say("EHLO me", "QUIT")
        server.mta.apply(configuration(tmp_path, "[local]\nusers = ['bob']"), server.mta.client_settings.tls)
        await server.workers.apply()
        for _ in range(2):
            replies = await server.say(
                "EHLO me", "MAIL FROM:<>", "RCPT TO:<alice@dev.test>", "RCPT TO:<bob@dev.test>", "QUIT"
            )
            assert [reply[:3] for reply in replies[3:5]] == ["550", "250"]


async def test_a_worker_that_ends_is_replaced_and_its_connections_are_no_longer_counted(tmp_path: Path) -> None:
    async with joined(tmp_path, count=1) as server, AsyncExitStack() as stack:
        await server.say("EHLO me", "QUIT")
        await server.settled()
        near, far = socket.socketpair()
        stack.callback(near.close)
        await server.workers.hand_over([accepted(far)], 0)
        gone = trio.Event()
        server.mta.events.subscribe(lambda event: gone.set() if event.name == "worker_lost" else None)
        server.starter.scopes[0].cancel()
        await gone.wait()
        assert (await server.say("EHLO me", "QUIT"))[-1].startswith("221")
        await server.settled()
        (lost,) = [event for event in server.events if event.name == "worker_lost"]
        assert lost.fields["sessions"] == 1


async def test_a_worker_is_given_no_more_connections_than_it_has_descriptors_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "room_for_connections", lambda: 1)
    async with joined(tmp_path) as server, AsyncExitStack() as stack:
        clients = []

        async def connect() -> None:
            near, far = socket.socketpair()
            clients.append(await stack.enter_async_context(trio.SocketStream(trio.socket.from_stdlib_socket(near))))
            await server.workers.hand_over([accepted(far)], 0)
            assert (await clients[-1].receive_some()).startswith(b"220")

        await connect()
        await connect()
        assert server.workers.room == 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            await trio.testing.wait_all_tasks_blocked()
            status = await server.mta.operations.status()
            assert [worker.sessions for worker in status.workers] == [1, 1]
            await clients[0].aclose()


@pytest.mark.parametrize("size", [10, 400_000])
async def test_content_of_any_size_gets_into_the_queue(size: int, tmp_path: Path) -> None:
    async with joined(tmp_path, '[routes]\n"far.test" = "hold"\n') as server:
        content = "line\r\n" * (size // 6) + "."
        replies = await server.say(
            "EHLO me", "MAIL FROM:<me@dev.test>", "RCPT TO:<x@far.test>", "DATA", content, "QUIT"
        )
        assert replies[5].startswith("250 2.6.0")
        (listed,) = await server.mta.queue.run(lambda queue: queue.entries.list_envelopes())
        assert listed.size == 6 * (size // 6)
