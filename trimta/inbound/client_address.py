"""The address of the SMTP client at the other end of an accepted connection."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

UNIX = "unix"


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """Where a connection comes from."""

    host: str
    """An IP address (an IPv4-mapped one as IPv4), or "unix" for a unix socket."""
    port: int = 0

    @classmethod
    def of(cls, connection: socket.socket) -> Self:
        """The client of a connected socket; one that is gone already is `0.0.0.0`, which is in nobody's network."""
        try:
            name = connection.getpeername()
        except OSError:
            name = None
        return cls.named(connection.family, name)

    @classmethod
    def named(cls, family: int, name: Any) -> Self:
        """The client with the name that `accept` or `getpeername` returned for a socket of this family."""
        if family == socket.AF_UNIX:
            return cls(UNIX)
        if not name:
            return cls("0.0.0.0")
        return cls(_host(name[0]), name[1])

    @property
    def is_unix(self) -> bool:
        return self.host == UNIX

    @property
    def is_loopback(self) -> bool:
        """Whether the connection came from this machine; a unix socket did."""
        return self.is_unix or _is_loopback(self.host)

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


@lru_cache
def _host(text: str) -> str:
    """The IP address that a socket's name has, without its zone; an IPv4-mapped one as IPv4."""
    host = text.partition("%")[0]
    address = ipaddress.ip_address(host)
    return str(getattr(address, "ipv4_mapped", None) or host)


@lru_cache
def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback
