"""Whoever speaks a TLS that is not ours is told so by an alert, and gets it: over real sockets, where a close with
octets unread takes away what was sent before it.
"""

from __future__ import annotations

import socket
import ssl
import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio

from tests.support.receiving import LOOPBACK, names, open_mta, record
from trimta.runtime import wire
from trimta.runtime.tls import verified_context
from trimta.runtime.wire import HandshakeError, Wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trimta.runtime.events import Event
    from trimta.server.wiring import Mta

DEADLINE: Final = 20.0

ALERT: Final = 21
"""The record type (RFC 8446 5.1)."""
FATAL: Final = 2
HANDSHAKE_FAILURE: Final = 40
UNKNOWN_CA: Final = 48
PROTOCOL_VERSION: Final = 70
UNEXPECTED_MESSAGE: Final = 10
BAD_RECORD_MAC: Final = 20


def hello_of(context: ssl.SSLContext) -> bytes:
    """A client's first flight."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def old_hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return hello_of(context)


def hello_without_a_common_cipher() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA256")  # with the key of a certificate that is not ours
    return hello_of(context)


@asynccontextmanager
async def connected(mta: Mta) -> AsyncGenerator[trio.SocketStream, None]:
    """A session over a socket, and its client; the session has to end with the block."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        stream = await listener.accept()
    with trio.fail_after(DEADLINE):
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(mta.session(mta.configuration.listen[0], Wire(stream), LOOPBACK).run)
            yield client


async def start(client: trio.SocketStream, tls: str) -> None:
    """Up to where the client's hello is expected."""
    if tls == "implicit":
        return
    for command in (b"", b"EHLO client.test\r\n", b"STARTTLS\r\n"):
        await client.send_all(command)
        received = b""
        while not received.endswith(b"\r\n") or received.rsplit(b"\r\n", 2)[-2][3:4] == b"-":
            received += await client.receive_some()
    assert received.startswith(b"220 ")


async def everything(client: trio.SocketStream) -> bytes:
    received = bytearray()
    while chunk := await client.receive_some():  # BrokenResourceError would be a reset: the alert may be lost
        received += chunk
    return bytes(received)


def reasons(events: list[Event]) -> list[str]:
    return [str(event.fields["reason"]) for event in events if event.name == "lost"]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
@pytest.mark.parametrize("rest", [b"", b"more than was asked for" * 100], ids=["alone", "with more behind it"])
@pytest.mark.parametrize(
    ("hello", "description"),
    [
        pytest.param(old_hello(), PROTOCOL_VERSION, id="TLS 1.1"),
        pytest.param(hello_without_a_common_cipher(), HANDSHAKE_FAILURE, id="no common cipher"),
        pytest.param(b"\x16\x03\x01\x00\x04\x0d\x00\x00\x00", UNEXPECTED_MESSAGE, id="another message"),
    ],
)
async def test_a_failed_handshake_ends_with_its_alert(
    hello: bytes, description: int, rest: bytes, tls: str, tmp_path: Path
) -> None:
    async with open_mta(tmp_path, f'[[listen]]\ntls = "{tls}"') as mta:
        events = record(mta)
        async with connected(mta) as client:
            await start(client, tls)
            await client.send_all(hello + rest)
            alert = await everything(client)
    assert alert[0] == ALERT
    assert alert[5:] == bytes([FATAL, description])
    assert len(reasons(events)) == 1
    assert names(events)[-1] == "disconnect"


async def test_a_client_that_stays_after_its_alert_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ALERT_LIMIT", 0.05)
    async with open_mta(tmp_path, '[[listen]]\ntls = "implicit"') as mta, connected(mta) as client:
        await client.send_all(old_hello())
        assert (await everything(client))[0] == ALERT
        # It neither closes nor stops sending; the end of the block waits for the session.


async def test_a_record_that_was_changed_on_its_way_is_answered_with_an_alert(tmp_path: Path) -> None:
    async with open_mta(tmp_path, '[[listen]]\ntls = "implicit"') as mta, connected(mta) as client:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        tls = trio.SSLStream(client, context, https_compatible=True)
        await tls.do_handshake()
        assert (await tls.receive_some()).startswith(b"220 ")
        await client.send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await tls.receive_some()
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    assert caught.value.__cause__.reason == "SSLV3_ALERT_BAD_RECORD_MAC"


async def test_a_next_hop_learns_that_its_certificate_is_not_trusted(tmp_path: Path) -> None:
    async with open_mta(tmp_path, '[[listen]]\ntls = "implicit"') as mta:
        tls = mta.server_tls
        assert tls is not None
        here, there = socket.socketpair()
        ours = Wire(trio.SocketStream(trio.socket.from_stdlib_socket(here)))
        theirs = trio.SSLStream(trio.SocketStream(trio.socket.from_stdlib_socket(there)), tls.context, server_side=True)
        told: list[BaseException | None] = []

        async def serve() -> None:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await theirs.receive_some()
            told.append(caught.value.__cause__)
            await trio.aclose_forcefully(theirs)

        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                with pytest.raises(HandshakeError) as caught:
                    await ours.start_tls(verified_context(), server_hostname="localhost")
                await ours.aclose()
    assert caught.value.untrusted
    (cause,) = told
    assert isinstance(cause, ssl.SSLError)
    assert "ALERT_UNKNOWN_CA" in str(cause.reason)
