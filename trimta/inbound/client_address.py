"""The address of the SMTP client at the other end of an accepted connection."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import trio

UNIX = "unix"


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """Where a connection comes from."""

    host: str
    """An IP address (an IPv4-mapped one as IPv4), or "unix" for a unix socket."""
    port: int = 0

    @classmethod
    def of(cls, connection: trio.socket.SocketType) -> Self:
        """The client of a connected socket; one that is gone already is `0.0.0.0`, which is in nobody's network."""
        if connection.family == socket.AF_UNIX:
            return cls(UNIX)
        try:
            name = connection.getpeername()
        except OSError:
            return cls("0.0.0.0")
        host = name[0].partition("%")[0]
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            host = str(address.ipv4_mapped)
        return cls(host, name[1])

    @property
    def is_unix(self) -> bool:
        return self.host == UNIX

    @property
    def is_loopback(self) -> bool:
        """Whether the connection came from this machine; a unix socket did."""
        return self.is_unix or ipaddress.ip_address(self.host).is_loopback

    @property
    def trace(self) -> str:
        """The client as the Received field writes it: `127.0.0.1`, `IPv6:::1`, `unix socket`."""
        if self.is_unix:
            return "unix socket"
        return f"IPv6:{self.host}" if ":" in self.host else self.host

    def __str__(self) -> str:
        if self.is_unix:
            return UNIX
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
