"""Connection counts: how many clients are connected, against `limits.connections` and `connections_per_client`."""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trimta.config.model import LimitsSection
    from trimta.inbound.client_address import ClientAddress


class Admission(enum.Enum):
    """Whether a connection is within the limits; its session says 421 if it is not."""

    ADMITTED = enum.auto()
    CROWDED = enum.auto()
    """Its client has more connections than `limits.connections_per_client`."""
    FULL = enum.auto()
    """There are more connections than `limits.connections`."""


class ConnectionCounts:
    """Open connections, in all and by the client's address."""

    def __init__(self) -> None:
        self.total = 0
        self._by_client: Counter[str] = Counter()
        self._waiting = trio.lowlevel.ParkingLot()

    def enter(self, client: ClientAddress) -> None:
        """Count a connection that was accepted."""
        self.total += 1
        self._by_client[client.host] += 1

    def leave(self, client: ClientAddress) -> None:
        """Count a connection no longer: it has ended."""
        self.total -= 1
        self._by_client[client.host] -= 1
        if not self._by_client[client.host]:
            del self._by_client[client.host]
        if self._waiting:
            self.look_again()

    async def change(self) -> None:
        """Wait until there may be room: a connection has ended, or `look_again` was called."""
        await self._waiting.park()

    def look_again(self) -> None:
        """Wake those who wait for a change: the limits may be others now."""
        self._waiting.unpark_all()

    def admission(self, client: ClientAddress, limits: LimitsSection) -> Admission:
        """Whether this client, one of whose connections was just counted, is within the limits."""
        if self._by_client[client.host] > limits.connections_per_client:
            return Admission.CROWDED
        return Admission.FULL if self.total > limits.connections else Admission.ADMITTED
