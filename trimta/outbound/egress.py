"""Egress: outgoing mail connections are made here, and nowhere else, once `[egress] allow` has allowed them."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import trio

from trimta.runtime.connected_socket import ConnectedSocket

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.config.model import EgressSection


class EgressDeniedError(Exception):
    """An address to which `[egress] allow` lets no connection be made: the envelope is held."""

    def __init__(self, host: str, address: str, port: int) -> None:
        endpoint = f"{host} [{address}]:{port}" if host != address else f"[{address}]:{port}"
        super().__init__(f"egress.allow has no room for {endpoint}")
        self.host = host
        self.address = address
        self.port = port


class EgressPolicy:
    """The policy of `[egress] allow`.  A unix socket is on this machine, and always allowed."""

    def __init__(self, egress: EgressSection) -> None:
        self._egress = egress

    def check(self, host: str, address: str, port: int) -> None:
        """EgressDeniedError unless a connection to the IP address may be made.  `host` is its name, for the message."""
        if not self._egress.allows(ipaddress.ip_address(address.partition("%")[0])):
            raise EgressDeniedError(host, address, port)

    async def connect(self, host: str, address: str, port: int) -> trio.abc.Stream:
        """A TCP connection to an IP address.  EgressDeniedError before any packet; OSError if nobody answers."""
        self.check(host, address, port)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return await _connect(trio.socket.socket(family, socket.SOCK_STREAM), (address, port))

    async def connect_unix(self, path: Path) -> trio.abc.Stream:
        """A connection to a unix stream socket; OSError if there is none to be had."""
        return await _connect(trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(path))


async def _connect(unconnected: trio.socket.SocketType, address: str | tuple[str, int]) -> ConnectedSocket:
    with ExitStack() as cleanup:
        cleanup.callback(unconnected.close)
        await unconnected.connect(address)
        cleanup.pop_all()
    family, kind, proto = unconnected.family, unconnected.type, unconnected.proto
    connection = socket.socket(family, kind, proto, fileno=unconnected.detach())
    if family != socket.AF_UNIX:  # commands go out at once, without Nagle's wait
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ConnectedSocket(connection)
