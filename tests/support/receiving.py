"""A whole receiving side inside the test: an MTA on a folder of the test, and sessions over memory streams.

    async with open_mta(tmp_path, "[limits]\nrecipients = 2") as mta:
        async with talk(mta) as client:
            await client.expect("220")
            await client.say("EHLO me.test", "250")

Blocking work is done in place, so MockClock may drive it.  A bug in a session fails the test with its own traceback.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

import trio
import trio.testing

from tests.support.sending import contexts
from trimta.config.load import parse
from trimta.config.model import ListenTls
from trimta.inbound.client_address import ClientAddress
from trimta.runtime.background import background
from trimta.runtime.disk import InlineDisk
from trimta.runtime.queue_clock import QueueClock
from trimta.runtime.tls import ServerTls, TlsSettings
from trimta.runtime.wire import Wire
from trimta.server.wiring import Mta
from trimta.store import durable
from trimta.store.maildir import messages
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable
    from pathlib import Path

    from trimta.config.model import Configuration
    from trimta.runtime.disk import Disk
    from trimta.runtime.events import Event

PATIENCE: Final = 2000.0
"""Seconds of the test's clock for a reply: MockClock gets there at once when nothing else happens."""

DEADLINE: Final = 20.0
"""Seconds of the test's clock for what takes milliseconds."""

LOOPBACK: Final = ClientAddress("127.0.0.1", 40000)
STRANGER: Final = ClientAddress("192.0.2.7", 40000)
"""A client that may not relay."""

SENT: Final = "From: me\r\nSubject: hi\r\n\r\nbody\r\n"


def configuration(folder: Path, text: str = "") -> Configuration:
    """What `conf.toml` in `folder` means, with a host name that is the same everywhere and any free port."""
    if "hostname =" not in text:
        text = f'hostname = "mx.dev.test"\n{text}'
    if "[[listen]]" not in text:
        text += "\n[[listen]]\n"
    text = text.replace("[[listen]]", '[[listen]]\naddress = "127.0.0.1:0"')
    return parse(text, base=folder, file="conf.toml")


@asynccontextmanager
async def open_mta(
    folder: Path, text: str = "", *, disk: Disk | None = None, wall: Callable[[], float] | None = None
) -> AsyncGenerator[Mta, None]:
    """An MTA with its queue and group commit; what is due is delivered only inside of `deliveries`."""
    config = configuration(folder, text)
    server_tls = None
    if any(listen.tls is not ListenTls.NONE for listen in config.listen):
        server_tls = ServerTls(
            TlsSettings(
                hostname=config.hostname,
                data_dir=config.data_dir,
                certificate=config.tls.certificate,
                key=config.tls.key,
            )
        )
    # What is durable is proved elsewhere; here a busy disk would only cost time.
    with patch.object(durable, "fsync", lambda _: None), Queue(config.data_dir) as queue:
        mta = Mta(
            config,
            queue,
            disk or InlineDisk(),
            clock=QueueClock() if wall is None else QueueClock(wall=wall),
            server_tls=server_tls,
            client_tls=contexts(),
        )
        async with background(mta.serve_batches):
            yield mta


@asynccontextmanager
async def deliveries(mta: Mta) -> AsyncGenerator[None, None]:
    """The scheduler, running; at the end everything that is due has been tried."""
    async with background(mta.deliver_due):
        yield
        with trio.fail_after(DEADLINE):
            await mta.scheduler.idle()


class Client:
    """The other end of a session: octets, lines and replies."""

    def __init__(self, stream: trio.abc.Stream, *, octet_by_octet: bool = False) -> None:
        self.stream = stream
        self._octet_by_octet = octet_by_octet
        self._received = bytearray()

    async def send(self, data: bytes | str) -> None:
        """Send octets; a server that hangs up meanwhile is none of the sender's business."""
        data = data.encode() if isinstance(data, str) else data
        pieces = [data[place : place + 1] for place in range(len(data))] if self._octet_by_octet else [data]
        try:
            for piece in pieces:
                await self.stream.send_all(piece)
        except trio.BrokenResourceError:
            return

    async def line(self) -> str:
        """The next line without its end; "" when the server has closed."""
        with trio.fail_after(PATIENCE):
            while (end := self._received.find(b"\r\n")) < 0:
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    data = b""
                if not data:
                    assert not self._received, f"half a line: {self._received!r}"
                    return ""
                self._received += data
        line = self._received[:end].decode()
        del self._received[: end + 2]
        return line

    async def reply(self) -> list[str]:
        """The next reply, a line each; an empty list when the server has closed."""
        lines = [await self.line()]
        while lines[-1][3:4] == "-":
            lines.append(await self.line())
        return [line for line in lines if line]

    async def rest(self) -> bytes:
        """All that still comes, until the server has closed."""
        with trio.fail_after(PATIENCE):
            try:
                while data := await self.stream.receive_some():
                    self._received += data
            except trio.BrokenResourceError:
                pass
        return bytes(self._received)

    async def expect(self, start: str) -> str:
        """The next reply begins so; "" is the end of the connection.  Returns its last line."""
        found = await self.reply()
        last = found[-1] if found else ""
        assert last.startswith(start), f"expected {start!r}, got {found}"
        assert start or not found, f"expected the end of the connection, got {found}"
        return last

    async def say(self, command: str, *starts: str) -> str:
        """Send a line, and expect a reply for each of `starts`; returns the last."""
        await self.send(f"{command}\r\n")
        last = ""
        for start in starts:
            last = await self.expect(start)
        return last

    async def say_all(self, *exchanges: tuple[str, str]) -> None:
        """Commands, each with the beginning of its reply."""
        for command, start in exchanges:
            await self.say(command, start)

    async def start_tls(self, version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> None:
        """The client's half of the handshake, up to a version of TLS, without looking at the certificate."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = version
        self.stream = trio.SSLStream(self.stream, context, https_compatible=True)
        await self.stream.do_handshake()

    async def close(self) -> None:
        """Hang up."""
        await trio.aclose_forcefully(self.stream)


@asynccontextmanager
async def talk(
    mta: Mta, *, peer: ClientAddress = LOOPBACK, listener: int = 0, greet: bool = True, octet_by_octet: bool = False
) -> AsyncGenerator[Client, None]:
    """A session with `mta`; at the end the client hangs up, and the session has to end."""
    near, far = trio.testing.memory_stream_pair()
    listen = mta.configuration.listen[listener]
    client = Client(near, octet_by_octet=octet_by_octet)

    async def session() -> None:
        mta.counts.enter(peer)
        try:
            await mta.session(listen, Wire(far), peer).run()
        finally:
            mta.counts.leave(peer)

    with trio.fail_after(1_000_000):  # of MockClock, which jumps when all tasks wait for ever
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session)
            if greet:
                await client.expect("220")
                verb = "LHLO" if listen.protocol == "lmtp" else "EHLO"
                await client.say(f"{verb} client.test", "250")
            yield client
            await client.close()


async def send_message(
    client: Client,
    *recipients: str,
    sender: str = "sender@dev.test",
    content: str | bytes = SENT,
    parameters: str = "",
    notify: str = "",
    reply: str = "250",
) -> str:
    """A transaction by DATA with all its replies; returns the last."""
    await client.say(f"MAIL FROM:<{sender}>{parameters}", "250")
    for recipient in recipients:
        await client.say(f"RCPT TO:<{recipient}>{notify}", "250")
    await client.say("DATA", "354")
    await client.send(content)
    return await client.say(".", reply)


def mailbox(folder: Path, user: str) -> list[bytes]:
    """The files in a user's Maildir, oldest first."""
    return [path.read_bytes() for path in messages(folder / "maildir-example" / user)]


def fields(message: bytes) -> list[str]:
    """The names of a message's header fields, from the top."""
    header = message.partition(b"\n\n")[0]
    return [line.partition(b":")[0].decode() for line in header.split(b"\n") if line[:1] not in (b" ", b"\t")]


def left_in_spool(mta: Mta) -> list[str]:
    """Names of files that belong to a message on its way in."""
    return [path.name for path in mta.spool.glob("incoming-*")] if mta.spool.exists() else []


def record(mta: Mta) -> list[Event]:
    """All events from now on."""
    events: list[Event] = []
    mta.events.subscribe(events.append)
    return events


def names(events: Iterable[Event]) -> list[str]:
    return [event.name for event in events]
