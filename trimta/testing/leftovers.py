"""The check that a server has ended completely: it must leave no temporary file, no open descriptor, no lock.

Tasks need no check: a nursery does not end before its tasks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trimta import real_time
from trimta.control import socket_path
from trimta.runtime.connected_socket import ConnectedSocket
from trimta.store.lock import LOCK_FILE, locked_by
from trimta.store.queue.queue import Queue
from trimta.testing.mail import Mailboxes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

    from trimta.config.model import Configuration
    from trimta.outbound.transports.client_settings import ClientSettings, Endpoint
    from trimta.server.mta_server import MtaServer

DESCRIPTORS: Final = Path("/proc/self/fd")


class LeftBehindError(AssertionError):
    """A server has ended, and left files, descriptors, connections or a lock behind; the message names them."""


class ResourceWatch:
    """The files and sockets of one server, noted while it runs and looked for after its end.

    Only what is certainly the server's counts: a test may have files and connections of its own.
    """

    def __init__(self) -> None:
        self._before = _descriptors()
        self._outgoing: weakref.WeakKeyDictionary[trio.abc.Stream, Endpoint] = weakref.WeakKeyDictionary()
        self._addresses: set[object] = set()
        self._config: Configuration | None = None
        self._mailboxes: Mailboxes | None = None

    def follow(self, server: MtaServer) -> None:
        """Note the addresses and folders of a server, once it is bound, and the connections that it will make."""
        mta = server.mta
        self._config = mta.configuration
        self._mailboxes = Mailboxes(mta.policy)
        self._addresses = {listener.socket.getsockname() for bound in mta.bound for listener in bound.sockets}
        self._addresses.add(os.fspath(socket_path.address(self._config.data_dir)))
        mta.client_settings = self._watched(mta.client_settings)
        _FOLLOWED.add(self)

    def forget(self) -> None:
        """Forget the server in forked children; called before it closes its sockets."""
        _FOLLOWED.discard(self)

    def let_go(self) -> None:
        """Give up the sockets and the lock that a forked child has inherited; called in that child.

        Else, as long as the child lives, peers would not see the server close a connection, and its ports and lock
        would stay taken.
        """
        assert self._config is not None, "it follows a server"
        lock = str(self._config.data_dir / LOCK_FILE)
        outgoing = {stream.socket.fileno() for stream in self._outgoing if isinstance(stream, ConnectedSocket)}
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd, target in _descriptors().items():
            is_socket = target.startswith("socket:")
            if target == lock or (is_socket and (fd in outgoing or _name_of(fd) in self._addresses)):
                # Replaced and not closed: an inherited object may close this number later, when another file has it.
                os.dup2(nothing, fd, inheritable=False)
        os.close(nothing)

    def check(self) -> None:
        """Raise LeftBehindError if something of the server is left."""
        leftovers = [*self._files(), *self._open()]
        if leftovers:
            raise LeftBehindError("the server has ended, and left behind: " + "; ".join(leftovers))

    def _watched(self, settings: ClientSettings) -> ClientSettings:
        async def dial(endpoint: Endpoint) -> trio.abc.Stream:
            stream = await settings.connect(endpoint)
            self._outgoing[stream] = endpoint
            return stream

        return replace(settings, dial=dial)

    def _files(self) -> Iterator[str]:
        if self._config is None or self._mailboxes is None:
            return
        data_dir = self._config.data_dir
        mark = f"P{os.getpid()}Q"
        for folder in self._mailboxes.folders():
            with contextlib.suppress(FileNotFoundError):
                yield from (f"the file {path}" for path in (folder / "tmp").iterdir() if mark in path.name)
        if os.path.lexists(data_dir / socket_path.NAME):
            yield f"the socket {data_dir / socket_path.NAME}"
        if locked_by(data_dir) is not None:
            yield f"the lock of {data_dir}"
            return
        with Queue(data_dir) as queue:
            recovered = queue.repair.recover(real_time.wall())  # as the next start would; it has nothing to repair
        yield from (f"the file {path}, which belongs to no message" for path in recovered.removed)
        yield from (f"the damaged queue entry {aside.id}: {aside.reason}" for aside in recovered.set_aside)

    def _open(self) -> Iterator[str]:
        for stream, endpoint in tuple(self._outgoing.items()):
            if isinstance(stream, ConnectedSocket) and stream.socket.fileno() >= 0:
                yield f"a connection to {endpoint}"
        for fd, target in _descriptors().items():
            if self._before.get(fd) == target:
                continue
            if target.startswith("socket:"):
                name = _name_of(fd)
                if name in self._addresses:
                    yield f"a socket at {name} (descriptor {fd})"
            elif self._is_ours(fd, Path(target)):
                yield f"the open file {target} (descriptor {fd})"

    def _is_ours(self, fd: int, path: Path) -> bool:
        """Whether an open file is the server's: in data_dir, or written in a Maildir.  Tests may read there."""
        if self._config is None or self._mailboxes is None:
            return False
        if self._config.data_dir.resolve() in path.parents:
            return True
        folders = {folder.resolve() for folder in self._mailboxes.folders()}
        return path.parent.parent in folders and _is_written(fd)


_FOLLOWED: Final[weakref.WeakSet[ResourceWatch]] = weakref.WeakSet()
"""The watches of the servers that run, for a forked child."""


def _after_fork() -> None:
    for watch in tuple(_FOLLOWED):
        watch.let_go()
    _FOLLOWED.clear()


os.register_at_fork(after_in_child=_after_fork)


def _descriptors() -> dict[int, str]:
    """The open descriptors of this process, each with the file or socket it is open on; none where /proc is missing.

    A number alone would not do: the system uses it again.
    """
    targets: dict[int, str] = {}
    with contextlib.suppress(OSError):
        for path in DESCRIPTORS.iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile by another thread, or the one of this listing
                targets[int(path.name)] = str(path.readlink())
    return targets


def _is_written(fd: int) -> bool:
    """Whether a descriptor is open for writing; False if it has been closed meanwhile."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False


def _name_of(fd: int) -> object:
    """The local address of a socket; None if it has been closed meanwhile."""
    with contextlib.suppress(OSError):
        copy = os.dup(fd)
        try:
            opened = socket.socket(fileno=copy)
        except OSError:  # the number is that of another file meanwhile
            os.close(copy)
            return None
        with opened:
            return opened.getsockname()
    return None
