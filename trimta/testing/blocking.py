"""A server in a thread of its own, for tests that know nothing of Trio."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from trimta.testing.handle import Handle, NotArrivedError, ServerEndedError
from trimta.testing.server import DEADLINE, Server, conclude, open_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from email.message import EmailMessage

    from trimta.testing.configuration import Configuration
    from trimta.testing.scripting import Span

T = TypeVar("T")

SECOND_CHANCE: Final = 5.0
"""Seconds that the end of a server may still take after Ctrl-C: its files should not stay."""


class BlockingServer(Handle):
    """What `run_server` gives.  It may be used from any thread; where it waits, it blocks that thread."""

    def __init__(self, inner: Server, loop: _Loop) -> None:
        super().__init__(inner._server)
        self._inner = inner
        self._loop = loop

    def _in_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._loop.call(call)

    def wait_for(
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
        try:
            return self._loop.call(lambda: self._inner.wait_for(to=to, from_=from_, subject=subject, timeout=timeout))
        except NotArrivedError as error:
            raise error.with_traceback(None) from None

    def settle(self, timeout: float = DEADLINE) -> None:
        """Wait until nothing is due in the queue and no delivery is under way.  TimeoutError if that takes longer than
        `timeout` seconds.
        """
        self._loop.call(lambda: self._inner.settle(timeout))

    def advance(self, span: Span) -> None:
        """Move the queue's clock forward: "4h", seconds, or a timedelta.  Retries, delay warnings and expiry that fall
        in between happen, in order, before this returns.
        """
        self._loop.call(lambda: self._inner.advance(span))


@contextlib.contextmanager
def run_server(config: Configuration = None) -> Iterator[BlockingServer]:
    """The same as `open_server`, for synchronous code: the server runs in a thread beside the block."""
    loop = _Loop(config)
    block: BaseException | None = None
    try:
        yield loop.start()
    except BaseException as error:  # noqa: BLE001, ASYNC103 - kept apart from the server's
        block = error
    conclude(block, loop.stop())


class _Loop:
    """The thread, and the way into it."""

    def __init__(self, config: Configuration) -> None:
        self._config = config
        self._thread = threading.Thread(target=self._run, name="trimta", daemon=True)
        self._started: Future[BlockingServer] = Future()
        self._error: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._stopping = False

    def start(self) -> BlockingServer:
        """Start it; raises what keeps it from starting."""
        self._thread.start()
        return self._started.result()

    def stop(self) -> BaseException | None:
        """End it and wait for that; returns what went wrong inside it."""
        self._stopping = True
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
        if self._thread.ident is not None:
            try:
                self._thread.join()
            except KeyboardInterrupt:
                self._thread.join(SECOND_CHANCE)
                raise
        return self._error

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an asynchronous function in the server's Trio run, and wait for what it returns or raises."""
        answer: Future[T] = Future()

        async def work() -> None:
            try:
                answer.set_result(await function())
            except Exception as error:  # noqa: BLE001 - it is the caller's
                answer.set_exception(error)
            finally:
                if not answer.done():  # cancelled: the run is at its end
                    answer.set_exception(ServerEndedError())

        def begin() -> None:
            try:
                trio.lowlevel.spawn_system_task(work)
            except RuntimeError:  # too late
                answer.set_exception(ServerEndedError())

        assert self._token is not None, "whoever has a handle has it from a run that has begun"
        try:
            self._token.run_sync_soon(begin)
        except trio.RunFinishedError:
            raise ServerEndedError from None
        return answer.result()

    # In the thread.

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised where the block ends, or did not begin
            if self._started.done():
                self._error = error
            else:
                self._started.set_exception(error)

    async def _serve(self) -> None:
        async with open_server(self._config) as server:
            self._token = trio.lowlevel.current_trio_token()
            self._started.set_result(BlockingServer(server, self))
            if not self._stopping:
                await self._stop.wait()
