"""A server in the Trio run of its test."""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import trio

from trimta.mta.connection import TlsContexts
from trimta.mta.serve import Server as MtaServer
from trimta.testing.configuration import complete
from trimta.testing.handle import Handle, NotArrivedError
from trimta.testing.leftovers import Watch
from trimta.testing.mail import Wanted
from trimta.testing.scripting import Span, seconds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from email.message import EmailMessage

    from trimta.mta.events import Event
    from trimta.testing.configuration import Configuration

T = TypeVar("T")

DEADLINE = 5.0
"""Seconds that a test waits for what it expects, unless it says otherwise."""


class Server(Handle):
    """What `open_server` gives."""

    def __init__(self, server: MtaServer) -> None:
        super().__init__(server)
        self._news = trio.Event()
        server.site.events.subscribe(self._tell)

    def _in_loop(self, function: Callable[[], T]) -> T:
        return function()

    def _tell(self, _: Event) -> None:
        self._news.set()
        self._news = trio.Event()

    async def wait_for(
        self,
        *,
        to: str | None = None,
        from_: str | None = None,
        subject: str | None = None,
        timeout: float = DEADLINE,
    ) -> EmailMessage:
        """The oldest message in any mailbox, captured ones included, that all given criteria match; it may be there
        already.

        `to`: whom it was delivered to, an address or a local part.  `from_`: whom it is from, in the envelope ("<>" for
        reports) or the header.  `subject`: a glob for the whole of it, case aside.  NotArrivedError, an AssertionError
        that tells what did arrive, after `timeout` seconds.
        """
        __tracebackhide__ = True  # pytest: what is of interest is who waits
        wanted = Wanted(to, from_, subject)
        criteria = wanted.criteria()
        with trio.move_on_after(timeout):
            while True:
                news = self._news  # before looking: what comes while we look is looked at again
                found = self._mailboxes.find(criteria)
                if found is not None:
                    return found
                await news.wait()
        raise NotArrivedError(self._story(wanted, timeout))

    async def settle(self, timeout: float = DEADLINE) -> None:
        """Wait until nothing is due in the queue and no delivery is under way.  TimeoutError if that takes longer than
        `timeout` seconds.
        """
        with trio.move_on_after(timeout):
            await self._server.site.scheduler.idle()
            return
        active = sorted(self._server.site.scheduler.active)
        raise TimeoutError(f"after {timeout:g} s there is still work in the queue: {', '.join(active) or 'due'}")

    async def advance(self, span: Span) -> None:
        """Move the queue's clock forward: "4h", seconds, or a timedelta.  Retries, delay warnings and expiry that fall
        in between happen, in order, before this returns.
        """
        await self._server.console.advance(seconds(span))


@asynccontextmanager
async def open_server(config: Configuration = None) -> AsyncGenerator[Server, None]:
    """A mail server for the block, with files of its own in a temporary folder.

    `config` is like conf.toml: a dict, the text, or a path.  Where it says nothing else, the server listens on a free
    port of 127.0.0.1, mail for any user of dev.test and localhost is local, and everything else is captured.  Retries
    come without jitter.  It is not for a test with a MockClock that jumps: the server's threads work in real time.

    Leaving the block stops the server, raises what went wrong inside it, with its own traceback, and, if nothing did,
    LeftBehindError should anything be left of it.
    """
    block: BaseException | None = None
    trouble: BaseException | None = None
    bugs: list[Exception] = []
    with _temporary_folder() as folder:
        watch = Watch()
        try:
            async with AsyncExitStack() as cleanup:
                configuration = complete(config, folder)
                tls = _system_authorities(os.environ.get("SSL_CERT_FILE")) if configuration.tls.ca is None else None
                server = await MtaServer.start(configuration, cleanup, rng=_Steady(), client_tls=tls)
                bugs = server.bugs
                watch.follow(server)
                async with trio.open_nursery() as nursery:
                    await nursery.start(server.run)
                    try:
                        yield Server(server)
                    except BaseException as error:  # noqa: ASYNC103 - kept apart from the server's; raised below
                        if _is_cancelled(error):
                            raise
                        block = error
                    finally:
                        server.stop()
        except (BaseExceptionGroup, trio.Cancelled) as error:  # noqa: ASYNC103 - what it did not cancel is raised
            trouble = _besides_cancelled(error)
            if trouble is None and block is None and not bugs:
                raise
        trouble = _as_one([*([] if trouble is None else [trouble]), *bugs])
        if block is None and trouble is None:
            watch.check()
    conclude(block, trouble)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="trimta-test-") as name:
        yield Path(name).resolve()


def conclude(block: BaseException | None, trouble: BaseException | None) -> None:
    """Raise what has to be told of how a block ended, and of what went wrong inside its server: the reason first."""
    if trouble is not None and isinstance(block, Exception | None):  # Ctrl-C, and a test that is skipped, go first
        raise trouble from block
    if block is not None:
        raise block


def _is_cancelled(error: BaseException) -> bool:
    """Whether it has to go its way through the nursery."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(trio.Cancelled) is not None
    return isinstance(error, trio.Cancelled | GeneratorExit)


def _besides_cancelled(error: BaseExceptionGroup | trio.Cancelled) -> BaseException | None:
    """What a nursery raises, out of its wrappings where it is one; None if it is cancelled, and nothing else."""
    rest: BaseException | None = error.split(trio.Cancelled)[1] if isinstance(error, BaseExceptionGroup) else None
    while isinstance(rest, BaseExceptionGroup) and len(rest.exceptions) == 1:
        rest = rest.exceptions[0]
    return rest


def _as_one(errors: list[BaseException]) -> BaseException | None:
    if len(errors) > 1:
        return BaseExceptionGroup("errors inside the server", errors)
    return errors[0] if errors else None


@lru_cache(maxsize=1)
def _system_authorities(_: str | None) -> TlsContexts:
    """Read once for all servers of a test run: it is most of what a start takes."""
    return TlsContexts.load()


class _Steady(random.Random):
    """No jitter: a test that advances the clock by a wait of [queue] retry is at the next try, each time."""

    def random(self) -> float:
        return 0.5
