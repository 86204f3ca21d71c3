"""IP networks, as `[relay] networks` and `[egress] allow` of the configuration list them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from trimta.mail.address import IPAddress

IPNetwork: TypeAlias = IPv4Network | IPv6Network


def within(address: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    """Whether `address` is in one of `networks`; an IPv4-mapped IPv6 address counts as the IPv4 one."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
