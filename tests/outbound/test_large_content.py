"""Content that has to be re-encoded, however large: what arrives decodes to what was sent, and memory is that of a few
blocks."""

from __future__ import annotations

import email
import os
import tracemalloc
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import pytest
import trio

from trimta.mail.reply import Reply
from trimta.outbound.transports.outbound_content import OutboundContent
from trimta.runtime.disk import InlineDisk
from trimta.smtp.extensions import Offered
from trimta.store.spool import Body, BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trimta.outbound.transports.outbound_content import WireOctets

P = ParamSpec("P")
T = TypeVar("T")

TOP = b"Subject: large\nMIME-Version: 1.0\n"
SIZE = 8 * 1024 * 1024
LINES = {
    "8-bit": "Grüße aus Köln, naïve café\n".encode(),
    "little 8-bit": b"plain words " * 5 + "é\n".encode(),
    "a long line": b"x" * 1200 + b"\n" + b"plain words\n" * 100,
    "endless": b"y " * 500,
}


def spooled(path: Path, top: bytes, line: bytes) -> Body:
    octets = top + line * (SIZE // len(line)) + b"\n--b--\n"
    path.write_bytes(octets)
    return Body(len(octets), octets.count(b"\n"), None, path)


@pytest.mark.parametrize("multipart", [False, True])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
async def test_memory_does_not_grow_with_what_is_re_encoded(line: bytes, multipart: bool, tmp_path: Path) -> None:
    top = TOP + b"Content-Type: text/plain; charset=utf-8\n\n"
    if multipart:
        top = TOP + b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n\n"
    body = spooled(tmp_path / "body", top, line)
    disk = InlineDisk()
    tracemalloc.start()
    content = await OutboundContent(b"Received: x\n", body).fitted(Offered.parse(Reply(250, ("host",))), disk)
    octets = content.for_bdat(disk)
    size = 0
    while block := await octets.take():
        assert block.isascii()
        size += len(block)
    octets.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == content.facts.size > SIZE
    assert peak < SIZE // 2


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
async def test_a_large_body_decodes_to_what_it_was(line: bytes, tmp_path: Path) -> None:
    body = spooled(tmp_path / "body", TOP + b"Content-Type: text/plain; charset=utf-8\n\n", line)
    disk = InlineDisk()
    content = await OutboundContent(b"", body).fitted(Offered(), disk)
    octets = content.for_bdat(disk)
    wire = await read_all(octets)
    octets.close()
    assert max(map(len, wire.split(b"\r\n"))) <= 76
    payload = email.message_from_bytes(wire).get_payload(decode=True)
    assert isinstance(payload, bytes)
    _, _, sent = body.read().partition(b"\n\n")
    assert payload.replace(b"\r\n", b"\n") == sent


class Door(InlineDisk):
    """Knows whether a function is being run for it."""

    is_open = False

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.lowlevel.checkpoint()
        self.is_open = True
        try:
            return function(*args, **kwargs)
        finally:
            self.is_open = False


@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
async def test_a_large_body_is_looked_at_and_re_encoded_in_a_thread(
    line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, smtputf8: bool
) -> None:
    door = Door()
    reads = 0
    read_at = os.pread

    def pread(*arguments: int) -> bytes:
        nonlocal reads
        reads += 1
        assert door.is_open, "on the event loop"
        return read_at(*arguments)

    monkeypatch.setattr(os, "pread", pread)
    body = spooled(tmp_path / "body", TOP + b"Content-Type: text/plain; charset=utf-8\n\n", line)
    content = await OutboundContent(b"", body).fitted(Offered(), door, smtputf8=smtputf8)
    planned = reads
    octets = content.for_data(door)
    assert (await read_all(octets)).isascii()
    octets.close()
    assert 0 < planned < reads, "the plan and the octets have been read"


@pytest.mark.parametrize("damage", ["gone", "shorter", "longer"])
async def test_a_body_that_is_damaged_is_said_to_be(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "body"
    body = spooled(path, TOP + b"Content-Type: text/plain\n\n", LINES["8-bit"])
    content = await OutboundContent(b"", body).fitted(Offered(), InlineDisk())
    match damage:
        case "gone":
            path.unlink()
        case "shorter":
            path.write_bytes(path.read_bytes()[:-100])
        case _:
            path.write_bytes(path.read_bytes() + b"more")
    octets = content.for_data(InlineDisk())
    with pytest.raises(BodyDamagedError):
        await read_all(octets)
    octets.close()


async def read_all(octets: WireOctets) -> bytes:
    found = bytearray()
    while block := await octets.take():
        found += block
    return bytes(found)
