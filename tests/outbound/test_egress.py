"""Outgoing connections: how they are made, and how their sockets are set."""

from __future__ import annotations

import socket
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
import trio

from trimta.config.model import EgressSection
from trimta.outbound.egress import EgressPolicy
from trimta.runtime.connected_socket import ConnectedSocket

if TYPE_CHECKING:
    from pathlib import Path

POLICY = EgressPolicy(EgressSection(allow=(ip_network("127.0.0.0/8"),)))


async def test_commands_go_out_without_waiting_for_more() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, await POLICY.connect(*loopback(listener)) as stream:
        assert isinstance(stream, ConnectedSocket)
        assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        async with await listener.accept() as peer:
            assert stream.send_now(b"EHLO") == 4
            assert await peer.receive_some() == b"EHLO"


async def test_a_unix_socket_is_connected_to_as_well(tmp_path: Path) -> None:
    path = tmp_path / "lmtp"
    with trio.socket.socket(socket.AF_UNIX) as listening:
        await listening.bind(str(path))
        listening.listen()
        async with await POLICY.connect_unix(path) as stream:
            assert isinstance(stream, ConnectedSocket)


async def test_a_port_where_nobody_listens_leaves_no_socket_open() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, address, port = loopback(listener)
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):  # a socket that is left open is a ResourceWarning, which fails the test
        await POLICY.connect(host, address, port)


def loopback(listener: trio.SocketListener) -> tuple[str, str, int]:
    """The host, its address and the port of a listener, as `connect` takes them."""
    return "localhost", "127.0.0.1", listener.socket.getsockname()[1]
