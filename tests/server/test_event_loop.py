"""Nothing that may wait for a disk is done on the event loop: it is everybody's."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from tests.support.receiving import Client, configuration, mailbox, send_message
from trimta.outbound.resolver import Resolver
from trimta.server import wiring
from trimta.server.mta_server import MtaServer
from trimta.store.spool import MEMORY_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from trimta.runtime.events import Event
    from trimta.server.wiring import Mta

DEADLINE: Final = 60.0

AUDITED: Final = frozenset(
    {"open", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "sqlite3.connect"}
)
"""Audit events of Python that may block, beside those of `os` below."""
OF_OS: Final = frozenset({"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link"})
FUNCTIONS: Final = ("stat", "lstat", "fsync", "fdatasync", "access", "scandir", "listdir", "readlink")

_watched: list[tuple[int, list[str]]] = []
"""The thread of the event loop, and where it was caught."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    of_a_descriptor = event == "open" and isinstance(arguments[0], int)  # which nothing is waited for
    if _watched and (event in AUDITED or event in OF_OS) and not of_a_descriptor:
        _note(event)


sys.addaudithook(_hook)

OURS: Final = tuple(f"trimta.{floor}." for floor in ("store", "runtime", "outbound", "inbound", "control", "server"))


def _note(what: str) -> None:
    loop, found = _watched[0]
    if threading.get_ident() != loop:
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith(OURS):
            found.append(f"{what} in {module}.{frame.f_code.co_qualname}")
            return
        frame = frame.f_back


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the thread of the block does that may block, by the lines of ours that do it."""

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def note(*args: Any, **kwargs: Any) -> Any:
            _note(f"os.{name}")
            return function(*args, **kwargs)

        return note

    found: list[str] = []
    with monkeypatch.context() as patch:
        for name in FUNCTIONS:
            patch.setattr(os, name, noting(name, getattr(os, name)))
        _watched.append((threading.get_ident(), found))
        try:
            yield found
        finally:
            _watched.clear()


CONFIGURATION: Final = """
[local]
domains = ["dev.test"]
[limits]
message_size = "4 MiB"
[timeouts]
connect = "2s"
[dns]
timeout = "0.2s"
[routes]
"listed.test" = "smtp:listed-in-hosts:1"
"unlisted.test" = "smtp:unlisted:1"
"mx.test" = "mx"
"piped.test" = "pipe:/bin/cat"
"gone.test" = "discard"
"""


async def outcomes(served: Mta, count: int) -> None:
    """Wait until so many recipients have had an outcome, from now on."""
    all_are_there = trio.Event()

    def note(event: Event) -> None:
        nonlocal count
        count -= event.name in ("delivered", "deferred", "discarded")
        if count == 0:
            all_are_there.set()

    forget = served.events.subscribe(note)
    try:
        await all_are_there.wait()
    finally:
        forget()


OUTCOMES: Final = 10
"""What `correspond` makes."""


async def correspond(address: tuple[str, int], content: bytes) -> None:
    """A session with mail for everywhere, refused mail, and content that stays unfinished."""
    client = Client(await trio.open_tcp_stream(*address))
    await client.expect("220")
    await client.say("EHLO client.test", "250")
    await send_message(client, "alice@dev.test", "bob@dev.test", "x@captured.test", content=content)
    await send_message(client, "alice@dev.test", "x@later.test", "x@gone.test", content=content)
    await send_message(client, "x@listed.test", "x@unlisted.test", "x@mx.test", content=content)
    await send_message(client, "x@piped.test", content=content)
    await send_message(client, "x@dev.test", content=content * 2 + b"bare\rCR\r\n", reply="550")
    await send_message(client, "x@dev.test", content=b"Received: x\r\n" * 99 + content, reply="554")
    await client.say_all(("MAIL FROM:<a@dev.test>", "250"), ("RCPT TO:<b@dev.test>", "250"), ("DATA", "354"))
    await client.send(content)
    await client.close()


@pytest.mark.parametrize("size", [100, MEMORY_LIMIT * 4], ids=["in memory", "spooled"])
async def test_mail_is_taken_delivered_relayed_and_refused_without_blocking(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, resolv = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("127.0.0.1 listed-in-hosts\n")
    resolv.write_text("nameserver 127.0.0.1\n")
    system: dict[str, Any] = {"hosts_file": hosts, "resolv_conf": resolv, "system_lookup": lambda name: []}
    monkeypatch.setattr(wiring, "Resolver", partial(Resolver, **system))
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(configuration(tmp_path, CONFIGURATION), cleanup)
            await nursery.start(server.run)
            name = server.mta.bound[0].sockets[0].socket.getsockname()
            with watched(monkeypatch) as found:
                async with trio.open_nursery() as all_of_it:
                    all_of_it.start_soon(outcomes, server.mta, 2 * OUTCOMES)
                    for _ in range(2):
                        await correspond((name[0], name[1]), b"0123456789abcd\r\n" * (size // 16))
                server.stop()
                await server.ended.wait()
            assert server.bugs == []
    assert sorted(set(found)) == []
    assert len(mailbox(tmp_path, "alice")) == 4
