"""The thread of a test's server, with a Trio run and a clock of its own, and calls into that run from other threads."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from trimta.testing.inside import inside
from trimta.testing.leftovers import LeftBehindError
from trimta.testing.real_clock import RealClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trimta.testing.configuration import ConfigurationSource
    from trimta.testing.inside import Inside

T = TypeVar("T")

START_LIMIT: Final = 60.0
"""Seconds for the start of a server, which may have to make a certificate, on a busy machine."""

END_LIMIT: Final = 60.0
"""Seconds for the end of a server; after them its thread counts as hanging."""

SECOND_CHANCE: Final = 5.0
"""Seconds that the end of a server may still take after Ctrl-C, so that it can remove its files."""


class ServerEndedError(Exception):
    """The server has ended; leaving the block raises the reason."""

    def __init__(self) -> None:
        super().__init__("the server has ended; if it was not the test that ended it, leaving the block tells why")


class ForkedError(Exception):
    """A forked child has called a method that works only in the process in which the server runs."""

    def __init__(self, owner: int) -> None:
        super().__init__(
            f"this is a forked child: the server runs in process {owner}.  Here it can be sent mail to, and mailbox,"
            " maildir, captured and wait_for work; all else is for the process that started it"
        )


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A call of a function in the server's run: the future of its result, and the scope that cancels it."""

    answer: Future[T] = field(default_factory=Future)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class ServerThread:
    """The thread of one server.  Its methods may be called from any thread, and block it."""

    def __init__(self, config: ConfigurationSource) -> None:
        self._config = config
        self._owner = os.getpid()
        self._thread = threading.Thread(target=self._run, name="trimta", daemon=True)
        self._started: Future[Inside] = Future()
        self._error: BaseException | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._stopping = False
        self.ended = threading.Event()
        """Set when the server takes no more calls."""
        self.finished: Future[None] = Future()
        """Done when the server's Trio run is over."""

    @property
    def forked(self) -> bool:
        """Whether this process is a forked child of the server's process, and so has no such thread."""
        return os.getpid() != self._owner

    def start(self) -> Inside:
        """Start the server.  Raises what keeps it from starting, and TimeoutError after START_LIMIT seconds."""
        self._thread.start()
        try:
            return self._started.result(START_LIMIT)
        except TimeoutError:
            if self._started.done():  # the start itself has raised TimeoutError
                raise
            raise TimeoutError(f"the server has not started within {START_LIMIT:g} s") from None

    def stop(self) -> BaseException | None:
        """Stop the server and wait for its end; returns the error inside it, if there was one."""
        if self.forked:
            return None
        self._stopping = True
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
        if self._thread.ident is not None:
            try:
                self._thread.join(END_LIMIT)
            except KeyboardInterrupt:
                self._thread.join(SECOND_CHANCE)
                raise
            if self._thread.is_alive():
                return LeftBehindError(f"the server has not ended within {END_LIMIT:g} s: its thread hangs")
        return self._error

    def begin(self, function: Callable[[], Awaitable[T]]) -> Call[T]:
        """Call an asynchronous function in the server's run and don't wait: `Call.answer` gets its result or error.

        Raises ServerEndedError and ForkedError.
        """
        if self.forked:
            raise ForkedError(self._owner)
        call: Call[T] = Call()
        answer = call.answer
        answer.set_running_or_notify_cancel()  # so that `answer.cancel` does nothing, and only `self.cancel` cancels

        async def work() -> None:
            try:
                with call.scope:
                    answer.set_result(await function())
            except Exception as error:  # noqa: BLE001 - raised in the caller
                answer.set_exception(error)
            finally:
                if not answer.done():  # cancelled by the caller, or by the end of the run
                    answer.set_exception(ServerEndedError())

        def spawn() -> None:
            try:
                trio.lowlevel.spawn_system_task(work)
            except RuntimeError:  # the run is at its end
                answer.set_exception(ServerEndedError())

        self.must_run()
        assert self._token is not None, "a handle exists only after the run has begun"
        try:
            self._token.run_sync_soon(spawn)
        except trio.RunFinishedError:
            raise ServerEndedError from None
        return call

    def cancel(self, call: Call[T]) -> None:
        """Cancel a call whose answer is no longer waited for."""
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(call.scope.cancel)

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Call an asynchronous function in the server's run and wait for it; returns or raises what it does.

        Raises ServerEndedError and ForkedError.
        """
        call = self.begin(function)
        try:
            return call.answer.result()  # bounded by the function's own deadline and by the server's end
        except KeyboardInterrupt:
            self.cancel(call)
            raise

    def must_run(self) -> None:
        """Raise ServerEndedError if the server has ended."""
        if self.ended.is_set():
            raise ServerEndedError

    # Called in the thread.

    def _run(self) -> None:
        try:
            trio.run(self._serve, clock=RealClock())
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised by `start`, or at the end of the test's block
            if self._started.done():
                self._error = error
            else:
                self._started.set_exception(error)
        finally:
            self.ended.set()
            self.finished.set_result(None)

    async def _serve(self) -> None:
        async with inside(self._config) as server:
            self._token = trio.lowlevel.current_trio_token()
            self._started.set_result(server)
            try:
                if not self._stopping:
                    await self._stop.wait()
            finally:
                self.ended.set()


def apart(function: Callable[[], T]) -> Future[T]:
    """Call a function that blocks in a new thread, so that no event loop waits for it; returns its future."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised in the caller
            answer.set_exception(error)

    answer.set_running_or_notify_cancel()
    threading.Thread(target=work, name="trimta-waiting", daemon=True).start()
    return answer
