"""Connections handed over from the first process, which accepts them, to a worker process, over a socket pair.

Each connection is six octets, with its descriptor beside them (SCM_RIGHTS): its number, which the first process gave
it, the number of its listener, and whether the limits admit it.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

import trio

from trimta.inbound.connection_counts import Admission

_FORMAT: Final = struct.Struct(">IBB")
_CLOSE_ON_EXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class HandoverClosedError(Exception):
    """The other process has gone."""


def hand_over(way: socket.socket, connection: int, *, number: int, listener: int, admission: Admission) -> bool:
    """Hand a connection's descriptor over; ours may be closed afterwards.  HandoverClosedError.

    Returns False, and does nothing, while the way is full of connections that the other process has not taken.
    """
    octets = _FORMAT.pack(number, listener, admission.value)
    try:
        socket.send_fds(way, [octets], [connection])
    except BlockingIOError:
        return False
    except OSError as error:
        raise HandoverClosedError from error
    return True


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A connection that was handed over."""

    connection: socket.socket | None
    """None if this process had no descriptor left for it: the client is hung up on."""
    number: int
    listener: int
    admission: Admission


async def take_over(way: socket.socket) -> HandedOver | None:
    """The next connection; None when no more come."""
    while True:
        try:
            octets, descriptors, _, _ = socket.recv_fds(way, _FORMAT.size, 1, _CLOSE_ON_EXEC)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(way)
            continue
        except OSError:
            return None
        if not octets:
            return None
        number, listener, admission = _FORMAT.unpack(octets)
        connection = socket.socket(fileno=descriptors[0]) if descriptors else None
        return HandedOver(connection, number, listener, Admission(admission))
