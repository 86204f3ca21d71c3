"""Whatever a client sends, and however many there are: a session ends by itself, and the next one works."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.support.receiving import Client, configuration, left_in_spool, mailbox, open_mta, send_message, talk
from trimta.runtime.events import as_json, as_text
from trimta.server.mta_server import MtaServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimta.runtime.events import Event

DEADLINE: Final = 30.0

MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A hundred databases are made; nothing here is about their lasting."""

WORDS: Final = [
    *(b"EHLO c.test", b"HELO c", b"LHLO c.test", b"MAIL FROM:<a@dev.test>", b"MAIL FROM:<>", b"RCPT TO:<b@dev.test>"),
    *(b"RCPT TO:<x@later.test>", b"DATA", b"BDAT 3", b"BDAT 3 LAST", b"BDAT 0 LAST", b"BDAT 99999999999999999999"),
    *(b"RSET", b"NOOP", b"QUIT", b"VRFY b", b"EXPN b", b"HELP", b"ETRN later.test", b"STARTTLS", b"AUTH PLAIN"),
    *(b"AUTH LOGIN", b"AHgAeA==", b"AGFsaWNlAHNlY3JldA==", b"*", b"=", b" BODY=BINARYMIME", b" SMTPUTF8", b" SIZE=5"),
    *(b" BY=1;R", b" NOTIFY=SUCCESS", b" ORCPT=rfc822;x", b" AUTH=<>", b"SIZE=1" * 3000, b"x" * 20_000),
    *(b"\r\n", b"\n", b"\r", b".", b"\r\n.\r\n", b"\n.\n", b"\0", b"\xff", b"Received: x\r\n" * 30, b"<", b">", b'"'),
    *(b"MAIL FROM:<a@dev.test>\r\nRCPT TO:<b@dev.test>\r\nDATA\r\n", b"\x16\x03\x01\x02\x00\x01", "ü@ü".encode()),
]

CONFIGURATIONS: Final = [
    '[routes]\n"later.test" = "hold"\n[limits]\nmessage_size = 2000',
    '[[listen]]\nprotocol = "lmtp"\ntls = "starttls"\n[limits]\nerrors = 3\nbare_newline = "reject"',
    '[[listen]]\nprotocol = "submission"\ntls = "starttls"\nauth = "required"\n[auth]\nusers = { alice = "secret" }',
    '[[listen]]\ntls = "implicit"',
]


def can_be_written(event: Event) -> None:
    as_text(event).encode()
    as_json(event).encode()


octets = st.lists(
    st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS).map(lambda word: word + b"\r\n"), st.binary(max_size=20)),
    max_size=25,
)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(CONFIGURATIONS), octets, st.booleans())
def test_no_octets_break_a_session_or_keep_it(text: str, pieces: Sequence[bytes], in_one: bool) -> None:
    async def attack(folder: Path) -> None:
        async with open_mta(folder, text) as mta:
            mta.events.subscribe(can_be_written)
            async with talk(mta, greet=False) as client:
                if in_one:
                    await client.send(b"".join(pieces))
                else:
                    for piece in pieces:
                        await client.send(piece)
                        await trio.testing.wait_all_tasks_blocked()
                # It hangs up by itself, or waits for more and then says so: MockClock gets there at once.
                await client.rest()
            assert left_in_spool(mta) == []
            assert mta.counts.total == 0
            async with talk(mta, greet=False) as client:
                if "implicit" in text:
                    await client.start_tls()
                await client.expect("220")
                await client.say("NOOP", "250")

    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        trio.run(attack, Path(folder), clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    ("limits", "code"), [("connections_per_client = 5", "421 4.7.0"), ("connections = 5", "421 4.3.2")]
)
async def test_a_flood_of_connections_gets_421_and_the_others_are_served(
    limits: str, code: str, tmp_path: Path
) -> None:
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(configuration(tmp_path, f"[limits]\n{limits}"), cleanup)
            await nursery.start(server.run)
            port = int(server.addresses[0].rpartition(":")[2])
            clients = []
            for number in range(40):
                client = Client(await trio.open_tcp_stream("127.0.0.1", port))
                clients.append(client)
                await client.expect("220" if number < 5 else code)
                if number >= 5:
                    await client.expect("")
            for client in clients[:5]:
                await client.say("EHLO c.test", "250")
                await send_message(client, "alice@dev.test")
            await clients[0].say("QUIT", "221")
            await clients[0].expect("")
            while server.mta.counts.total >= 5:
                await trio.lowlevel.checkpoint()
            late = Client(await trio.open_tcp_stream("127.0.0.1", port))
            await late.expect("220")
            for client in [*clients, late]:
                await client.close()
            server.stop()
    assert server.bugs == []
    assert len(mailbox(tmp_path, "alice")) == 5


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"a" * (4 << 20), id="an endless line"),
        pytest.param(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@dev.test>\r\nDATA\n" + b"x\r\n" * 500_000, id="smuggling"),
        pytest.param(b"XYZZY\r\n" * 200_000, id="errors"),
    ],
)
async def test_the_last_reply_reaches_a_client_that_is_still_talking(octets: bytes, tmp_path: Path) -> None:
    """A socket that is closed with octets unread breaks a client that is sending, and may take the reply away."""
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup, trio.open_nursery() as nursery:
            server = await MtaServer.start(configuration(tmp_path), cleanup)
            await nursery.start(server.run)
            port = int(server.addresses[0].rpartition(":")[2])
            client = Client(await trio.open_tcp_stream("127.0.0.1", port))
            await client.expect("220")
            async with trio.open_nursery() as both:
                both.start_soon(client.stream.send_all, octets)
                said = await client.rest()
            assert said.splitlines()[-1][:4] in (b"421 ", b"503 ")
            await client.close()
            server.stop()
    assert server.bugs == []
