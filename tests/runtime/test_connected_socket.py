"""Connected sockets: a stream as Trio defines it, whose calls can also be tried without waiting."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing

from trimta.runtime.connected_socket import ConnectedSocket
from trimta.runtime.wire import Wire, WireError

DEADLINE = 20.0
LARGE = b"0123456789abcdef" * 65_536


async def tcp_pair() -> tuple[ConnectedSocket, ConnectedSocket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    await trio.lowlevel.checkpoint()
    return ConnectedSocket(ours), ConnectedSocket(theirs)


async def unix_pair() -> tuple[ConnectedSocket, ConnectedSocket]:
    ours, theirs = socket.socketpair()
    await trio.lowlevel.checkpoint()
    return ConnectedSocket(ours), ConnectedSocket(theirs)


async def clogged_pair() -> tuple[ConnectedSocket, ConnectedSocket]:
    ours, theirs = await unix_pair()
    for stream in (ours, theirs):
        while stream.send_now(b"x" * 4096):
            pass
    return ours, theirs


async def test_it_is_a_stream_as_trio_defines_it() -> None:
    await trio.testing.check_half_closeable_stream(tcp_pair, None)
    await trio.testing.check_two_way_stream(unix_pair, clogged_pair)


async def test_what_has_come_is_had_at_once() -> None:
    ours, theirs = await unix_pair()
    async with ours, theirs:
        with trio.testing.assert_no_checkpoints():
            assert ours.receive_now(10) is None
            assert theirs.send_now(b"hello") == 5
            assert ours.receive_now(4) == b"hell"
            assert ours.receive_now(4) == b"o"
            assert ours.receive_now(4) is None
            theirs.close()
            assert ours.receive_now(4) == b""


async def test_what_the_kernel_does_not_take_at_once_is_sent_as_the_peer_reads() -> None:
    ours, theirs = await unix_pair()
    received = bytearray()
    with trio.fail_after(DEADLINE):
        async with ours, theirs, trio.open_nursery() as nursery:
            sent = ours.send_now(LARGE)
            assert 0 < sent < len(LARGE)
            assert ours.send_now(LARGE) == 0
            nursery.start_soon(ours.send_all, LARGE[sent:])
            while len(received) < len(LARGE):
                received += await theirs.receive_some()
    assert received == LARGE


async def test_a_connection_that_was_reset_is_broken_with_the_cause() -> None:
    ours, theirs = await tcp_pair()
    theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError) as error:
        await ours.receive_some()
    assert isinstance(error.value.__cause__, ConnectionResetError)
    with pytest.raises(trio.BrokenResourceError):
        ours.send_now(b"x")
    await ours.aclose()
    await ours.aclose()


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_descriptor_that_is_used_again_waits_for_its_own_socket(is_cancelled: bool) -> None:
    descriptors = set()
    with trio.fail_after(DEADLINE):
        for number in range(3):
            ours, theirs = await tcp_pair()
            descriptors.add(ours.socket.fileno())
            if is_cancelled:
                with trio.move_on_after(0):
                    await ours.receive_some()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(theirs.send_all, b"%d" % number)
                assert await ours.receive_some() == b"%d" % number
            await theirs.aclose()
            assert await ours.receive_some() == b""
            ours.close()
    assert len(descriptors) == 1


async def test_a_task_that_waits_for_a_socket_learns_that_it_was_closed() -> None:
    ours, theirs = await unix_pair()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()

    with trio.fail_after(DEADLINE):
        async with theirs, trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        ours.receive_now(1)
    with pytest.raises(trio.ClosedResourceError):
        await ours.wait_send_all_might_not_block()


# The wire over it.


async def test_a_wire_sends_and_receives_at_once_what_it_can() -> None:
    ours, theirs = await unix_pair()
    wire = Wire(ours)
    async with theirs:
        with trio.testing.assert_no_checkpoints():
            assert wire.receive_now() is None
            assert wire.send_now(b"hello") == b""
            assert theirs.receive_now(10) == b"hello"
            rest = wire.send_now(LARGE)
        assert LARGE.endswith(rest)
        assert rest
        await wire.aclose()


async def test_a_wire_over_another_stream_tries_nothing() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    wire = Wire(ours)
    await theirs.send_all(b"hello")
    assert wire.receive_now() is None
    assert wire.send_now(b"world") == b"world"
    assert await wire.receive_some() == b"hello"


async def test_a_broken_wire_is_unusable() -> None:
    ours, theirs = await tcp_pair()
    wire = Wire(ours)
    theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await theirs.aclose()
    with pytest.raises(WireError, match="connection reset by peer"):
        wire.receive_now()
    assert not wire.usable
    assert wire.send_now(b"x") == b"x"
    with pytest.raises(WireError):
        await wire.send_all(b"x")
    await wire.aclose()


async def test_a_wire_whose_peer_reads_no_more_is_unusable() -> None:
    ours, theirs = await unix_pair()
    wire = Wire(ours)
    await theirs.aclose()
    with pytest.raises(WireError, match="broken pipe"):
        wire.send_now(b"x")
    assert not wire.usable
    await wire.aclose()
