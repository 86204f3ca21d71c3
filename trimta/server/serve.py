"""The server: everything that can fail at the start fails before the first nursery, then the nursery tree runs.

log, history, group commit      they outlive all that uses them
└─ signals, control socket
   └─ scheduler and deliveries, sessions and acceptors
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TextIO

import trio

from trimta import __version__
from trimta.config.errors import ConfigErrors, ConfigFileError
from trimta.config.model import ListenTls, UnixAddress
from trimta.control import socket as control
from trimta.control.operations import CLOCK_OFFSET, TIME_SCALE, Console
from trimta.inbound.listener import (
    RESERVED,
    BindError,
    accept_connections,
    bind,
    raise_descriptor_limit,
    room_for_connections,
)
from trimta.inbound.session import Session
from trimta.outbound.transports.connection import TlsContexts
from trimta.routing.routes import DiscardRoute, HoldRoute, MaildirRoute, RejectRoute, describe
from trimta.runtime import privileges
from trimta.runtime.clock import QueueClock
from trimta.runtime.disk import ThreadDisk
from trimta.runtime.events import LogWriter, as_json, as_text
from trimta.runtime.privileges import AccountError
from trimta.runtime.tls import ServerTls, TlsError, TlsSettings
from trimta.runtime.wire import Wire
from trimta.server.site import Site, bound_waits
from trimta.store import durable
from trimta.store.lock import AlreadyLocked, DataDirLock, locked_by
from trimta.store.queue import loss
from trimta.store.queue.errors import QueueError, QueueUnreadable
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from trimta.config.model import Config, Listen
    from trimta.inbound.client import Peer
    from trimta.inbound.listener import Bound
    from trimta.runtime.events import Events
    from trimta.store.queue.values import RecoveryReport

CROWD_MARGIN: Final = 50
"""Connections beyond `limits.connections` that are accepted to be told 421; others wait in the kernel's backlog."""


class StartError(Exception):
    """The server can't start: one line that says why and what to do, and an exit code of sysexits.h."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How `trimta serve` was called."""

    time_scale: float = 1.0
    json_log: bool = False
    load: Callable[[], Config] | None = None
    """Reads the configuration again, for SIGHUP; what it raises is reported, and the old one stays."""


def run(config: Config, options: Options, stderr: TextIO) -> None:
    """Serve until SIGTERM or SIGINT.  StartError if that can't begin."""
    # A session may have a body on disk open besides its socket, and so may a delivery.
    raise_descriptor_limit(2 * (config.limits.connections + CROWD_MARGIN + config.queue.concurrency) + RESERVED)
    trio.run(_main, config, options, stderr)


async def _main(config: Config, options: Options, stderr: TextIO) -> None:
    # From the beginning: whoever sees the banner may send a signal, and it must find somebody.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        async with AsyncExitStack() as cleanup:
            await _serve(config, options, stderr, received, cleanup)


async def _serve(
    config: Config, options: Options, stderr: TextIO, received: AsyncIterator[int], cleanup: AsyncExitStack
) -> None:
    server = await Server.start(config, cleanup, time_scale=options.time_scale)
    print(*server.banner(), sep="\n", file=stderr, flush=True)
    log = LogWriter(stderr, as_json if options.json_log else as_text)
    server.site.events.subscribe(log)
    async with background(log.serve), trio.open_nursery() as nursery:
        await nursery.start(server.run)
        nursery.start_soon(_obey, server, received, options.load)
        await server.ended.wait()
        nursery.cancel_scope.cancel()


async def _obey(server: Server, signals: AsyncIterator[int], load: Callable[[], Config] | None) -> None:
    """Do what signals say."""
    async for number in signals:
        if number != signal.SIGHUP:
            server.stop()
        elif load is not None:
            await server.reload(load)


@asynccontextmanager
async def background(service: Callable[..., Awaitable[object]]) -> AsyncGenerator[None, None]:
    """Run a service beside the block, and cancel it at the end."""
    async with trio.open_nursery() as nursery:
        await nursery.start(service)
        yield
        nursery.cancel_scope.cancel()


class Server:
    """A server whose sockets are bound and whose queue is open: `start` makes one, `run` runs it, `stop` ends it."""

    def __init__(
        self, site: Site, control_socket: trio.SocketListener, recovered: RecoveryReport, *, queue_was_lost: bool
    ) -> None:
        self.site = site
        self.console = Console(site)
        self.bugs = site.bugs
        """What was caught at the door of a session or a delivery: nobody but a programmer can answer it."""
        self.ended = trio.Event()
        self._control_socket = control_socket
        self._recovered = recovered
        self._queue_was_lost = queue_was_lost
        self._acceptors = trio.CancelScope()
        self._work = trio.CancelScope()
        """Sessions and deliveries."""

    @classmethod
    async def start(
        cls,
        config: Config,
        cleanup: AsyncExitStack,
        *,
        time_scale: float = 1.0,
        rng: random.Random | None = None,
        client_tls: TlsContexts | None = None,
        wall: Callable[[], float] = time.time,
    ) -> Server:
        """Bind, become the configured account, lock data_dir, open the queue.  StartError if any of it fails;
        `cleanup` undoes it all.  `rng` decides the jitter of retries and the order of equal hosts; `client_tls` spares
        reading the authorities that `tls.ca` means; `wall` is what the queue's clock goes by, in seconds of the epoch.
        """
        bound = await _bind_all(config, cleanup)
        with _tls_at_start():
            # A key is often root's alone; a development certificate is the account's, under the lock of data_dir.
            own_tls = await trio.to_thread.run_sync(_server_tls, config) if config.tls.certificate else None
        _give_up_root(config)
        _lock(config, cleanup)
        queue = _open_queue(config, cleanup)
        with _tls_at_start():
            server_tls = own_tls or await trio.to_thread.run_sync(_server_tls, config)
            if client_tls is None:
                client_tls = await trio.to_thread.run_sync(TlsContexts.load, config.tls.ca)
        site = Site(
            config,
            queue,
            ThreadDisk(),
            clock=_clock(queue, wall),
            server_tls=server_tls,
            client_tls=client_tls,
            time_scale=time_scale,
            rng=rng,
        )
        site.bound = bound
        queue_was_lost = loss.is_lost(config.data_dir)
        recovered = _recover(site, queue, time_scale, wall())
        try:
            control_socket = await control.listen(config.data_dir)
        except OSError as cause:
            raise StartError(
                f"cannot make the control socket in {config.data_dir}: {cause}", os.EX_CANTCREAT
            ) from cause
        cleanup.callback(control.remove, config.data_dir)
        cleanup.push_async_callback(control_socket.aclose)
        return cls(site, control_socket, recovered, queue_was_lost=queue_was_lost)

    # While it runs.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`."""
        site = self.site
        async with background(site.serve_batches), background(site.history.serve), trio.open_nursery() as helpers:
            helpers.start_soon(_tell_of_unsynced, site.events)
            if self._queue_was_lost:
                data_dir = site.config.data_dir
                kept = [str(path) for path in self._recovered.rescued]
                site.events.emit("queue_lost", reason=loss.explanation(data_dir), kept=kept or None)
            for aside in self._recovered.set_aside:
                site.events.emit("damaged", id=aside.id, reason=aside.reason, kept=str(aside.path))
            await helpers.start(control.serve, self._control_socket, self.console.handlers)
            with self._work:
                async with trio.open_nursery() as nursery:
                    await nursery.start(site.scheduler.run)
                    await nursery.start(self._serve_sessions)
                    site.events.emit("started", listening=self.addresses)
                    task_status.started()
            site.events.emit("stopped")
            await self.console.farewell()
            helpers.cancel_scope.cancel()
        self.ended.set()

    def stop(self) -> None:
        """Stop gracefully: nothing new begins, what is under way has `timeouts.shutdown`.  Twice: at once."""
        site = self.site
        if site.drain.started:
            site.drain.start(trio.current_time())
            self._work.cancel()
            return
        site.events.emit("stopping", sessions=site.crowd.total, deliveries=site.scheduler.in_flight)
        self._acceptors.cancel()
        end = trio.current_time() + site.config.timeouts.shutdown
        site.drain.start(end)
        site.scheduler.stop()
        self._work.deadline = end

    async def _serve_sessions(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        site = self.site

        def ceiling() -> int:
            return min(site.config.limits.connections + CROWD_MARGIN, room_for_connections())

        async with trio.open_nursery() as sessions:
            with self._acceptors:
                async with trio.open_nursery() as acceptors:
                    for bound in site.bound:
                        session = self._session_for(bound.listen)
                        for listener in bound.sockets:
                            await acceptors.start(accept_connections, listener, sessions, session, site.crowd, ceiling)
                    task_status.started()
            for bound in site.bound:
                await bound.close()

    def _session_for(self, listen: Listen) -> Callable[[trio.SocketStream, Peer], Awaitable[None]]:
        async def session(stream: trio.SocketStream, peer: Peer) -> None:
            try:
                await Session(self.site, listen, Wire(stream), peer).run()
            except Exception as bug:  # noqa: BLE001 - the one door: a bug in one session must not end the others
                self.site.bug(bug, client=str(peer))

        return session

    async def reload(self, load: Callable[[], Config]) -> None:
        """Read the configuration again.  A broken one is reported and the old one stays, certificates included."""
        site, old = self.site, self.site.config
        try:
            config = await site.disk.run(load)
            swap = None
            if site.server_tls is not None:
                swap = await site.disk.run(site.server_tls.prepare, _tls_settings(config))
            client_tls = await site.disk.run(TlsContexts.load, config.tls.ca)
        except (ConfigErrors, ConfigFileError, TlsError, OSError) as cause:
            for line in str(cause).splitlines():
                site.events.emit("reload_failed", reason=line)
            return
        # Everything is read: from here on nothing can fail, and all of it changes together.
        kept = swap() if swap is not None else ""
        if kept:
            site.events.emit("certificate_kept", reason=f"{kept}; a restart reads it")
        for name in ("listen", "data_dir"):
            if getattr(config, name) != getattr(old, name):
                site.events.emit("needs_restart", key=name)
        site.apply(replace(config, listen=old.listen, data_dir=old.data_dir), client_tls)
        site.events.emit("reloaded", file=str(config.source or "built-in defaults"))
        site.scheduler.wake()

    # What people are told.

    @property
    def addresses(self) -> list[str]:
        """What was bound."""
        return [address for bound in self.site.bound for address in bound.addresses]

    def banner(self) -> list[str]:
        """Where it listens, where local mail goes, and what happens to remote mail."""
        config = self.site.config
        lines = [f"trimta {__version__}, configuration: {config.source or 'built-in defaults'}"]
        for bound in self.site.bound:
            lines.extend(f"listening on {address} ({_describe(bound.listen)})" for address in bound.addresses)
        domains = ", ".join(dict.fromkeys([*config.local.domains, config.hostname]))
        lines.append(f"local mail for {domains}: in {config.local.maildir}")
        lines.extend(_remote_lines(config))
        lines.append(f"queue and state: in {config.data_dir}")
        if self.site.server_tls is not None:
            lines.extend(self.site.server_tls.describe())
        if self._queue_was_lost:
            lines.append(f"WARNING: {loss.explanation(config.data_dir)}")
            lines.extend(f"WARNING: the content of a message of it is kept: {path}" for path in self._recovered.rescued)
        if self.site.sending.tls.trouble:
            lines.append(f'warning: {self.site.sending.tls.trouble}; what is sent with tls = "verify" waits')
        if privileges.is_root() and not config.user:
            lines.append("warning: running as root; set `user` in conf.toml to the account to become")
        return lines


def _describe(listen: Listen) -> str:
    return str(listen.protocol) if listen.tls is ListenTls.NONE else f"{listen.protocol}, tls {listen.tls}"


def _remote_lines(config: Config) -> list[str]:
    lines = [f"mail for {key}: {describe(route)}" for key, route in config.routes.items() if key != "*"]
    rest = config.routes["*"]
    captured = all(
        isinstance(route, MaildirRoute | DiscardRoute | RejectRoute | HoldRoute) for route in config.routes.values()
    )
    lines.append(f"remote mail: {describe(rest)}" + ("; nothing leaves this machine" if captured else ""))
    return lines


async def _tell_of_unsynced(events: Events) -> None:
    """Until cancelled, log once for each file system that its directories can't be synced."""
    loop = trio.lowlevel.current_trio_token()

    def tell(folder: Path, cause: OSError) -> None:  # in any thread
        reason = f"{cause.strerror}: a power failure may lose new files on this file system"
        with suppress(trio.RunFinishedError):
            loop.run_sync_soon(lambda: events.emit("folders_not_synced", folder=str(folder), reason=reason))

    forget = durable.on_unsynced(tell)
    try:
        await trio.sleep_forever()
    finally:
        forget()


# The start.


async def _bind_all(config: Config, cleanup: AsyncExitStack) -> list[Bound]:
    found = []
    for listen in config.listen:
        try:
            with _hands_for(listen, config.user):
                bound = await bind(listen, config.listen)
        except AccountError as cause:
            raise StartError(str(cause), os.EX_NOPERM) from cause
        except BindError as cause:
            owner = locked_by(config.data_dir)
            if owner is not None:  # the same configuration served twice: the address is the lesser part of it
                raise StartError(str(AlreadyLocked(config.data_dir, owner or None)), os.EX_TEMPFAIL) from cause
            code = os.EX_NOPERM if cause.permission else os.EX_UNAVAILABLE
            raise StartError(str(cause), code) from cause
        cleanup.push_async_callback(bound.close)
        found.append(bound)
    return found


def _hands_for(listen: Listen, user: str) -> AbstractContextManager[None]:
    """A socket's name in a folder that is not root's alone is the account's to make, not root's."""
    if isinstance(listen.address, UnixAddress):
        return privileges.hands_for(user, listen.address.path.parent)
    return nullcontext()


def _give_up_root(config: Config) -> None:
    if not privileges.is_root() or not config.user:
        return
    try:
        privileges.become(config.user, privileges.folders(config))
    except AccountError as cause:
        raise StartError(str(cause), os.EX_NOPERM) from cause


def _lock(config: Config, cleanup: AsyncExitStack) -> None:
    lock = DataDirLock(config.data_dir)
    try:
        lock.acquire()
    except AlreadyLocked as cause:
        raise StartError(str(cause), os.EX_TEMPFAIL) from cause
    except PermissionError as cause:
        name = privileges.name()
        remedy = f"chown -R {name} it, and let {name} into the folders above it"
        raise StartError(f"data_dir {config.data_dir}: {cause.strerror} for {name}; {remedy}", os.EX_NOPERM) from cause
    except OSError as cause:
        raise StartError(f"data_dir {config.data_dir}: {cause.strerror}", os.EX_CANTCREAT) from cause
    cleanup.callback(lock.release)


def _open_queue(config: Config, cleanup: AsyncExitStack) -> Queue:
    try:
        queue = Queue(config.data_dir)
    except QueueUnreadable as cause:
        raise StartError(str(cause), os.EX_TEMPFAIL) from cause
    cleanup.callback(queue.close)
    return queue


def _clock(queue: Queue, wall: Callable[[], float]) -> QueueClock:
    try:
        return QueueClock(offset=float(queue.meta.get(CLOCK_OFFSET) or 0.0), wall=wall)
    except QueueError as cause:
        raise StartError(str(cause), os.EX_TEMPFAIL) from cause


def _recover(site: Site, queue: Queue, time_scale: float, now: float) -> RecoveryReport:
    try:
        if queue.meta.get(TIME_SCALE) != repr(time_scale):
            queue.meta.set(TIME_SCALE, repr(time_scale))
        recovered = queue.repair.recover(now)
        bound_waits(queue, site.policy.retry, site.clock.now())
        loss.note(site.config.data_dir, told=True)  # by the banner and the log of this start
        return recovered
    except QueueError as cause:
        raise StartError(str(cause), os.EX_TEMPFAIL) from cause
    except OSError as cause:
        raise StartError(f"data_dir {site.config.data_dir}: {cause.strerror}", os.EX_CANTCREAT) from cause


@contextmanager
def _tls_at_start() -> Iterator[None]:
    try:
        yield
    except (TlsError, OSError) as cause:
        raise StartError(f"tls: {cause}", os.EX_CONFIG) from cause


def _server_tls(config: Config) -> ServerTls | None:
    if all(listen.tls is ListenTls.NONE for listen in config.listen):
        return None
    return ServerTls(_tls_settings(config))


def _tls_settings(config: Config) -> TlsSettings:
    return TlsSettings(
        hostname=config.hostname, data_dir=config.data_dir, certificate=config.tls.certificate, key=config.tls.key
    )
