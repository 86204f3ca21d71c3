"""Connections handed over from the first process, which accepts them, to a worker process, over a socket pair.

Those that came together are handed over together: a record for each, with the descriptors beside them (SCM_RIGHTS).  A
record is of a fixed length: the connection's number, which the first process gave it, the number of its listener,
whether the limits admit it, its address family, and the client's port and address as text.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from trimta.inbound.client_address import ClientAddress
from trimta.inbound.connection_counts import Admission

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE: Final = 16
"""Connections that are handed over together, at most."""

_RECORD: Final = struct.Struct(">IBBBH46s")
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

_FULL: Final = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS}
"""What sendmsg(2) says while too many connections are on their way."""


class HandoverClosedError(Exception):
    """The other process has gone."""


class HandedOver(NamedTuple):
    """A connection on its way from the first process to a worker."""

    descriptor: int | None
    """The connection's descriptor in this process; None if it had no descriptor left for it: the client is hung up on.
    """
    family: int
    """The socket's address family."""
    client: ClientAddress
    number: int
    listener: int
    admission: Admission


def hand_over(way: socket.socket, connections: Sequence[HandedOver]) -> bool:
    """Hand AT_ONCE connections over, at most; our descriptors may be closed afterwards.  HandoverClosedError.

    Returns False, and does nothing, while the way is full of connections that the other process has not taken.
    """
    octets = b"".join(
        [
            _RECORD.pack(number, listener, admission.value, family, client.port, client.host.encode())
            for _, family, client, number, listener, admission in connections
        ]
    )
    descriptors = [connection.descriptor for connection in connections if connection.descriptor is not None]
    try:
        socket.send_fds(way, [octets], descriptors)
    except OSError as error:
        if error.errno in _FULL:
            return False
        raise HandoverClosedError from error
    return True


async def take_over(way: socket.socket) -> list[HandedOver]:
    """The connections that come next; an empty list when no more come."""
    while True:
        await trio.lowlevel.wait_readable(way)
        try:
            octets, descriptors, _, _ = socket.recv_fds(way, AT_ONCE * _RECORD.size, AT_ONCE, _CLOSE_ON_EXEC)
        except BlockingIOError:
            continue
        except OSError:
            return []
        taken = []
        for place, (number, listener, admission, family, port, host) in enumerate(_RECORD.iter_unpack(octets)):
            descriptor = descriptors[place] if place < len(descriptors) else None
            client = ClientAddress(host.rstrip(b"\0").decode(), port)
            taken.append(HandedOver(descriptor, family, client, number, listener, Admission(admission)))
        return taken
