"""Whether an IP address and port belongs to a listener of this server: a socket bound there would answer.

A socket bound to every address (0.0.0.0, [::]) answers at the addresses of this machine, and at no other's.
"""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address

STRANGERS: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses that no machine has (RFC 5737, 3849)."""


def comes_to(bound: Iterable[tuple[str, int]], address: str, port: int) -> bool:
    """Whether a connection to an IP address and port comes to one of these sockets: addresses and ports as bound."""
    target = reached(address)
    for host, own_port in bound:
        if own_port != port:
            continue
        own = ip_address(host.partition("%")[0])
        if own.version == target.version and (own == target or (own.is_unspecified and is_own(target))):
            return True
    return False


def reached(address: str) -> IPv4Address | IPv6Address:
    """The address that a connection really goes to: an IPv4-mapped one is IPv4, and the unspecified one is loopback."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_unspecified:
        return ip_address("::1" if ip.version == 6 else "127.0.0.1")
    return ip


def is_own(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to this machine, now: interfaces come and go."""
    if address.is_loopback:
        return True
    # Where any address at all may be bound (net.ipv4.ip_nonlocal_bind), that tells nothing.
    return _may_bind(str(address)) and not _may_bind(STRANGERS[address.version])


def _may_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # nothing is sent, and no port of a listener is taken
            probe.bind((address, 0))
    except OSError:
        return False
    return True
