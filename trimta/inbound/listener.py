"""Listening sockets, and one session task for each connection, within the limits."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import resource
import socket
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import trio

from trimta.config.model import InetAddress, UnixAddress
from trimta.inbound.client_address import ClientAddress
from trimta.inbound.own_addresses import comes_to
from trimta.runtime.connected_socket import ConnectedSocket, prepare

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from trimta.config.model import ListenSection
    from trimta.inbound.connection_counts import ConnectionCounts

BACKLOG: Final = 512
ACCEPT_PAUSE: Final = 0.1
"""Seconds without accepting after the process ran out of descriptors: a session has to end first."""

AT_ONCE: Final = 16
"""Connections that are accepted in a row before other tasks have their turn."""

RESERVED: Final = 32
"""Descriptors that connections leave to the queue, Maildirs, bodies on disk and deliveries: these must go on working
behind a crowd that only sits there.
"""

PROBE_LIMIT: Final = 2.0
"""Seconds for a server to answer whose socket is in the way."""

_OUT_OF_RESOURCES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_CONNECTION_TROUBLE: Final = {
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EPERM", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ENOSR", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
}
"""What accept(2) says of a connection that broke, or that a firewall denied, before it was accepted."""
_NO_SUCH_FAMILY: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


class BindError(Exception):
    """An address that could not be listened on; the message says why and what to do."""

    def __init__(self, address: object, cause: OSError) -> None:
        super().__init__(f"cannot listen on {address}: {_explain(address, cause)}")
        self.permission = cause.errno in (errno.EACCES, errno.EPERM)


def _explain(address: object, cause: OSError) -> str:
    match cause.errno:
        case errno.EACCES | errno.EPERM if isinstance(address, UnixAddress):
            return "no permission in its folder; with `user` in conf.toml it is that account that makes a socket there"
        case errno.EADDRINUSE:
            return "the address is in use; stop the other server or choose another port with --listen"
        case errno.EACCES | errno.EPERM:
            return "no permission; ports below 1024 need root (see `user` in conf.toml), others do not"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case _:
            return cause.strerror or str(cause)


@dataclass(frozen=True, slots=True)
class Bound:
    """One `[[listen]]`, bound: a socket for each of its addresses."""

    listen: ListenSection
    sockets: tuple[trio.SocketListener, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """What was bound, ports as they really are: `127.0.0.1:2525`, `[::1]:2525`, `unix:PATH`."""
        if isinstance(self.listen.address, UnixAddress):
            return (str(self.listen.address),)
        return tuple(str(InetAddress(*listener.socket.getsockname()[:2])) for listener in self.sockets)

    def has(self, host: str, port: int) -> bool:
        """Whether a connection to this address would come to us."""
        names = [listener.socket.getsockname() for listener in self.sockets if listener.socket.family != socket.AF_UNIX]
        return comes_to([(name[0], name[1]) for name in names], host, port)

    async def close(self) -> None:
        """Stop listening, and take a unix socket's name away."""
        for listener in self.sockets:
            listener.socket.close()
        if isinstance(self.listen.address, UnixAddress):
            with contextlib.suppress(OSError):  # in a folder of root's, who we are no longer: a start removes it
                self.listen.address.path.unlink()
        await trio.lowlevel.checkpoint()


def wants_both_families(listen: ListenSection, others: Iterable[ListenSection]) -> bool:
    """Whether `[::]` means every IPv4 address, too: unless another `[[listen]]` has one with that port."""
    address = listen.address
    if not isinstance(address, InetAddress) or address.host != "::":
        return False
    return not any(
        isinstance(other.address, InetAddress)
        and other.address.port == address.port != 0
        and any(":" not in host for host in other.address.hosts)
        for other in others
    )


def hosts_to_bind(listen: ListenSection, others: Iterable[ListenSection]) -> tuple[str, ...]:
    """The IP addresses that one `[[listen]]` among others is bound to; none for a unix socket."""
    if not isinstance(listen.address, InetAddress):
        return ()
    return (*listen.address.hosts, *(["0.0.0.0"] if wants_both_families(listen, others) else []))


async def bind(listen: ListenSection, others: Iterable[ListenSection] = ()) -> Bound:
    """Bind every address of one `[[listen]]` among others; BindError names the one that could not be."""
    if isinstance(listen.address, UnixAddress):
        return Bound(listen, (await _bind_unix(listen.address),))
    port = listen.address.port
    bound: list[trio.SocketListener] = []
    for host in hosts_to_bind(listen, others):
        try:
            listener = await _bind_tcp(host, port)
        except OSError as cause:
            if bound and cause.errno in _NO_SUCH_FAMILY:
                continue  # localhost or [::] on a machine without the other family
            for earlier in bound:
                await earlier.aclose()
            raise BindError(InetAddress(host, port), cause) from cause
        bound.append(listener)
        port = listener.socket.getsockname()[1]  # port 0: the same free port for the other family
    return Bound(listen, tuple(bound))


async def _bind_tcp(host: str, port: int) -> trio.SocketListener:
    listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    return listeners[0]


async def _bind_unix(address: UnixAddress) -> trio.SocketListener:
    unbound = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await _remove_stale(address.path)
        await unbound.bind(str(address.path))
        unbound.listen(BACKLOG)
    except OSError as cause:
        unbound.close()
        raise BindError(address, cause) from cause
    return trio.SocketListener(unbound)


async def _remove_stale(path: Path) -> None:
    """Take away a socket that a killed server left behind; one that answers, or a file of another kind, stays."""
    try:
        mode = path.lstat().st_mode  # noqa: ASYNC240 - nobody is served yet
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EADDRINUSE, "there is a file of that name")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with trio.move_on_after(PROBE_LIMIT):  # a server that takes nobody on is there all the same
                await probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # noqa: ASYNC240
        else:
            raise OSError(errno.EADDRINUSE, "in use")


def raise_descriptor_limit(descriptors: int) -> None:
    """Let this process have `descriptors` descriptors, or as many as its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < descriptors:
        most = descriptors if hard == resource.RLIM_INFINITY else min(descriptors, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def room_for_connections() -> int:
    """How many connections this process has descriptors for; one at least."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - RESERVED)


class AcceptedConnection(NamedTuple):
    """A connection that was accepted, and is not counted yet."""

    descriptor: int
    """The connection's descriptor, which who takes the connection closes."""
    family: int
    """The socket's address family."""
    client: ClientAddress


Take: TypeAlias = "Callable[[Sequence[AcceptedConnection]], Awaitable[None]]"
"""What connections are given to in the order in which they came: it counts each, and no longer once it has ended."""


def in_tasks(
    nursery: trio.Nursery,
    session: Callable[[ConnectedSocket, ClientAddress], Awaitable[None]],
    counts: ConnectionCounts,
) -> Take:
    """What takes connections in this process: `session` runs in the nursery, one task for each connection."""

    async def run(connection: ConnectedSocket, client: ClientAddress) -> None:
        try:
            await session(connection, client)
        finally:
            counts.leave(client)

    async def take(connections: Sequence[AcceptedConnection]) -> None:
        for descriptor, family, client in connections:
            counts.enter(client)
            nursery.start_soon(run, ConnectedSocket.of(descriptor, family), client)

    return take


async def accept_connections(
    listener: trio.SocketListener,
    take: Take,
    counts: ConnectionCounts,
    ceiling: Callable[[], int],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept until cancelled; `take` is given what has come.

    Beyond `ceiling()` connections nothing more is accepted: those wait in the kernel's backlog.
    """
    task_status.started()
    with socket.socket(fileno=os.dup(listener.socket.fileno())) as listening:
        prepare(listening)
        while True:
            most = min(AT_ONCE, ceiling() - counts.total)
            if most <= 0:
                await counts.change()
                continue
            accepted, why = _accept_some(listening, most)
            if accepted:
                await take(accepted)
            match why:
                case _Pause.NONE_WAITS:
                    await trio.lowlevel.wait_readable(listening)
                case _Pause.OUT_OF_RESOURCES:
                    await trio.sleep(ACCEPT_PAUSE)
                case None:  # a crowd that comes at once must not keep the sessions waiting
                    await trio.lowlevel.checkpoint()


class _Pause(enum.Enum):
    """Why nothing more is accepted at this moment."""

    NONE_WAITS = enum.auto()
    OUT_OF_RESOURCES = enum.auto()


def _accept_some(listening: socket.socket, most: int) -> tuple[list[AcceptedConnection], _Pause | None]:
    """Accept `most` connections at most, and tell why there are no more now."""
    accepted: list[AcceptedConnection] = []
    family = listening.family
    for _ in range(most):
        try:
            # Not accept(): its socket object, which costs as much as the call, is of no use where the descriptor is
            # handed over to another process.
            descriptor, name = listening._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return accepted, _Pause.NONE_WAITS
        except OSError as cause:
            if cause.errno in _OUT_OF_RESOURCES:
                return accepted, _Pause.OUT_OF_RESOURCES
            if cause.errno in _CONNECTION_TROUBLE:
                continue
            if not accepted:  # else it is met again once these are taken
                raise
            break
        accepted.append(AcceptedConnection(descriptor, family, ClientAddress.named(family, name)))
    return accepted, None
