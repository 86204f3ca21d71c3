"""A test's server as seen from inside its Trio run: its start and stop, and the operations that tests ask for."""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from trimta import real_time
from trimta.config.model import ListenTls
from trimta.outbound.transports.client_settings import TlsContexts
from trimta.server.mta_server import MtaServer
from trimta.store.arrivals import FOLDERS, MaildirWatch, unique_name
from trimta.store.queue.errors import NoSuchEntry
from trimta.store.queue.queue import Queue, exists
from trimta.testing.configuration import complete
from trimta.testing.frozen_time import keep_real_datetime
from trimta.testing.index import Index
from trimta.testing.leftovers import ResourceWatch
from trimta.testing.mail import Mailboxes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from email.message import EmailMessage

    from trimta.config.model import Configuration
    from trimta.runtime.events import Event
    from trimta.testing.configuration import ConfigurationSource
    from trimta.testing.mail import MessageQuery

EVENTS: Final = 10_000
"""Number of events that are kept, the latest."""

POLL: Final = 0.25
"""Seconds after which a wait looks at the Maildirs again without an event: other programs may deliver into them, too.
"""

SHARE: Final = 4
"""The pause between two looks at the Maildirs, in durations of a look: else looking would slow the server down."""

CLEAR_LIMIT: Final = 2.0
"""Seconds for deliveries under way to notice that their envelopes were removed."""


class Inside:
    """A running server; its methods may be called in the server's own Trio run only."""

    def __init__(self, server: MtaServer) -> None:
        self.server = server
        self.mailboxes = Mailboxes(server.mta.policy)
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self._news = trio.Event()
        self._index = Index(self.mailboxes.templates)
        self._looking = trio.CapacityLimiter(1)
        config = server.mta.configuration
        self._kept_messages = _messages(self.mailboxes)
        self._kept_entries = _entries(config.data_dir)
        server.mta.events.subscribe(self._note)

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()

    async def wait_for(self, query: MessageQuery, timeout: float) -> list[EmailMessage]:
        """The oldest messages that match; fewer than wanted if no more come within `timeout` seconds."""
        messages: list[EmailMessage] = []
        deadline = trio.current_time() + timeout
        while True:
            news = self._news  # taken before the look, so that an arrival during the look leads to another one
            began = trio.current_time()
            messages = await trio.to_thread.run_sync(
                self._index.find, query.criteria(), query.count, query.after, limiter=self._looking
            )
            now = trio.current_time()
            if len(messages) == query.count or began >= deadline:
                return messages
            with trio.move_on_at(min(deadline, now + POLL)):
                await news.wait()
            await trio.sleep_until(min(deadline, now + SHARE * (now - began)))

    async def settle(self, timeout: float) -> None:
        """Wait until nothing is due in the queue and no delivery is under way.

        Raises TimeoutError if that takes longer than `timeout` seconds.
        """
        with trio.move_on_after(timeout):
            await self.server.mta.scheduler.idle()
            return
        active = sorted(self.server.mta.scheduler.active)
        raise TimeoutError(f"after {timeout:g} s there is still work in the queue: {', '.join(active) or 'due'}")

    async def advance(self, length: float) -> None:
        """Move the queue's clock forward by `length` seconds; what falls due on the way happens before this returns."""
        await self.server.operations.advance(length)

    async def clear(self) -> None:
        """Remove the messages and envelopes that came since the start, the events, and the faults that were added."""
        mta = self.server.mta
        mta.faults.replace(mta.configuration.faults)
        await self._empty_queue()
        mta.scheduler.wake()
        with trio.move_on_after(CLEAR_LIMIT):
            await mta.scheduler.idle()
        await self._empty_queue()  # a delivery may have queued a report meanwhile
        await trio.to_thread.run_sync(self._empty_maildirs)
        self._index = Index(self.mailboxes.templates)
        self.events.clear()

    async def _empty_queue(self) -> None:
        def remove(queue: Queue) -> None:
            for listed in list(queue.entries.list_envelopes()):
                if listed.envelope.id not in self._kept_entries:
                    with suppress(NoSuchEntry):  # was delivered just now
                        queue.remove(listed.envelope.id)

        await self.server.mta.queue.run(remove)

    def _empty_maildirs(self) -> None:
        for path in _message_files(self.mailboxes):
            if (path.parent.parent, unique_name(path.name)) not in self._kept_messages:
                path.unlink(missing_ok=True)

    def take_bugs(self) -> list[Exception]:
        """The errors inside the server since the last call."""
        bugs = [*self.server.bugs]
        self.server.bugs.clear()
        return bugs


def _messages(mailboxes: Mailboxes) -> frozenset[tuple[Path, str]]:
    """The messages that are in the Maildirs already, which `clear` must not remove.

    A configuration may name Maildirs that a person uses.
    """
    return frozenset((arrival.path.parent.parent, arrival.name) for arrival in MaildirWatch(mailboxes.templates).look())


def _message_files(mailboxes: Mailboxes) -> Iterator[Path]:
    for maildir in mailboxes.folders():
        for name in FOLDERS:
            with suppress(FileNotFoundError, NotADirectoryError):
                yield from (path for path in list((maildir / name).iterdir()) if path.is_file())


def _entries(data_dir: Path) -> frozenset[str]:
    """The ids of the envelopes that are in the queue already."""
    if not exists(data_dir):
        return frozenset()
    with Queue(data_dir) as queue:
        return frozenset(listed.envelope.id for listed in queue.entries.list_envelopes())


@asynccontextmanager
async def inside(config: ConfigurationSource) -> AsyncGenerator[Inside, None]:
    """A server that runs during the block, in the Trio run of the caller.

    Leaving the block stops the server and raises its errors.  If there are none, it raises LeftBehindError if files or
    descriptors of the server are left.
    """
    trouble: BaseException | None = None
    bugs: list[Exception] = []
    with _temporary_folder() as folder:
        watch = ResourceWatch()
        try:
            async with AsyncExitStack() as cleanup:
                server = await _start(complete(config, folder), cleanup)
                bugs = server.bugs
                watch.follow(server)
                cleanup.callback(watch.forget)
                async with trio.open_nursery() as nursery:
                    await nursery.start(server.run)
                    try:
                        yield Inside(server)
                    finally:
                        server.stop()
        except (BaseExceptionGroup, trio.Cancelled) as error:  # noqa: ASYNC103 - raised below, unless only cancelled
            trouble = _besides_cancelled(error)
            if trouble is None and not bugs:
                raise
        trouble = _combined([*([] if trouble is None else [trouble]), *bugs])
        if trouble is None:
            watch.check()
    if trouble is not None:
        raise trouble


async def _start(config: Configuration, cleanup: AsyncExitStack) -> MtaServer:
    if any(listen.tls is not ListenTls.NONE for listen in config.listen):
        keep_real_datetime()
    tls = _system_authorities(os.environ.get("SSL_CERT_FILE")) if config.tls.ca is None else None
    server = await MtaServer.start(config, cleanup, rng=_Steady(), client_tls=tls, wall=real_time.wall)
    server.mta.sessions.delays_guesses = False
    return server


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that is removed at the block's end, or at the interpreter's; never by a forked child."""
    folder, owner = Path(tempfile.mkdtemp(prefix="trimta-test-")).resolve(), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    try:
        yield folder
    finally:
        remove()
        atexit.unregister(remove)


def _besides_cancelled(error: BaseExceptionGroup | trio.Cancelled) -> BaseException | None:
    """The error of a nursery without trio.Cancelled, and without groups round a single error; None if none is left."""
    rest: BaseException | None = error.split(trio.Cancelled)[1] if isinstance(error, BaseExceptionGroup) else None
    while isinstance(rest, BaseExceptionGroup) and len(rest.exceptions) == 1:
        rest = rest.exceptions[0]
    return rest


def _combined(errors: list[BaseException]) -> BaseException | None:
    if len(errors) > 1:
        return BaseExceptionGroup("errors inside the server", errors)
    return errors[0] if errors else None


@lru_cache(maxsize=1)
def _system_authorities(_: str | None) -> TlsContexts:
    """The client's TLS contexts, whose authorities are read once for all servers of a test run."""
    return TlsContexts.load()


class _Steady(random.Random):
    """A source of jitter that gives none: a test that advances the clock by a wait of [queue] retry meets the retry."""

    def random(self) -> float:
        return 0.5
