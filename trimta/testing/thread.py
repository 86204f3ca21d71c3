"""The thread that a test's server runs in, with a Trio run and a clock of its own, and the ways into it."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from trimta.testing.clock import RealClock
from trimta.testing.inside import inside
from trimta.testing.leftovers import LeftBehindError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trimta.testing.configuration import ConfigurationSource
    from trimta.testing.inside import Inside

T = TypeVar("T")

START_LIMIT: Final = 60.0
"""Seconds for a start: a certificate may have to be made, on a machine with much else to do."""

END_LIMIT: Final = 60.0
"""Seconds for an end; what takes longer hangs."""

SECOND_CHANCE: Final = 5.0
"""Seconds that the end of a server may still take after Ctrl-C: its files should not stay."""


class ServerEndedError(Exception):
    """The server is not there any more; leaving the block raises the reason."""

    def __init__(self) -> None:
        super().__init__("the server has ended; if it was not the test that ended it, leaving the block tells why")


class ForkedError(Exception):
    """A forked child has asked for what only the process can do that the server runs in."""

    def __init__(self, owner: int) -> None:
        super().__init__(
            f"this is a forked child: the server runs in process {owner}.  Here it can be sent mail to, and mailbox,"
            " maildir, captured and wait_for work; all else is for the process that started it"
        )


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A function on its way through the server's run."""

    answer: Future[T] = field(default_factory=Future)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


class ServerThread:
    """One server.  Its methods may be called from any thread, and block it."""

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
        """Nothing can be asked of it any more."""
        self.finished: Future[None] = Future()
        """Done when its run is over."""

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one that it runs in: threads are not inherited."""
        return os.getpid() != self._owner

    def start(self) -> Inside:
        """Start it; raises what keeps it from starting."""
        self._thread.start()
        try:
            return self._started.result(START_LIMIT)
        except TimeoutError:
            if self._started.done():  # it is what kept it from starting
                raise
            raise TimeoutError(f"the server has not started within {START_LIMIT:g} s") from None

    def stop(self) -> BaseException | None:
        """End it and wait for that; returns what went wrong inside it."""
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
        """Run an asynchronous function in the server's run; `Call.answer` gets what it returns or raises."""
        if self.forked:
            raise ForkedError(self._owner)
        call: Call[T] = Call()
        answer = call.answer
        answer.set_running_or_notify_cancel()  # from here on only `cancel` does

        async def work() -> None:
            try:
                with call.scope:
                    answer.set_result(await function())
            except Exception as error:  # noqa: BLE001 - it is the caller's
                answer.set_exception(error)
            finally:
                if not answer.done():  # cancelled: by the caller, or the run is at its end
                    answer.set_exception(ServerEndedError())

        def spawn() -> None:
            try:
                trio.lowlevel.spawn_system_task(work)
            except RuntimeError:  # too late
                answer.set_exception(ServerEndedError())

        self.must_run()
        assert self._token is not None, "whoever has a handle has it from a run that has begun"
        try:
            self._token.run_sync_soon(spawn)
        except trio.RunFinishedError:
            raise ServerEndedError from None
        return call

    def cancel(self, call: Call[T]) -> None:
        """Nobody waits for the answer any more."""
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(call.scope.cancel)

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an asynchronous function in the server's run, and wait for what it returns or raises."""
        call = self.begin(function)
        try:
            return call.answer.result()  # bounded by the function's own deadline, and by the server's end
        except KeyboardInterrupt:
            self.cancel(call)
            raise

    def must_run(self) -> None:
        """ServerEndedError if it does not."""
        if self.ended.is_set():
            raise ServerEndedError

    # In the thread.

    def _run(self) -> None:
        try:
            trio.run(self._serve, clock=RealClock())
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised where the block ends, or did not begin
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
    """Call a function that blocks in a thread of its own, so that no event loop has to wait for it."""
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:  # noqa: BLE001, ASYNC103 - it is the caller's
            answer.set_exception(error)

    answer.set_running_or_notify_cancel()
    threading.Thread(target=work, name="trimta-waiting", daemon=True).start()
    return answer
