"""A server whose file systems can't sync directories takes mail, and says once what that means."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import trio

from tests.support.receiving import Client, configuration, mailbox, names, record, send_message
from trimta.server.mta_server import MtaServer
from trimta.store import durable

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

DEADLINE: Final = 20.0


async def test_it_starts_delivers_queues_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(durable, "_unsynced", {})
    config = configuration(tmp_path, '[routes]\n"later.test" = "hold"')
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(config, cleanup)
            events = record(server.mta)
            await nursery.start(server.run)
            address = server.mta.bound[0].sockets[0].socket.getsockname()
            client = Client(await trio.open_tcp_stream(*address[:2]))
            await client.expect("220")
            await client.say("EHLO client.test", "250")
            for user in ("alice", "bob"):
                await send_message(client, f"{user}@dev.test", "carol@later.test", content=b"x\r\n" * 200_000)
                await send_message(client, f"{user}@dev.test")
                assert len(mailbox(tmp_path, user)) == 2
            await client.close()
            server.stop()
            await server.ended.wait()
    told = [event.fields for event in events if event.name == "folders_not_synced"]
    device = {fields["folder"]: os.stat(str(fields["folder"])).st_dev for fields in told}  # noqa: PTH116
    assert len(told) == len(set(device.values())), "once for each file system"
    assert "Invalid argument" in str(told[0]["reason"])
    assert not {"deferred", "disk_trouble", "queue_trouble", "bug"} & set(names(events))
