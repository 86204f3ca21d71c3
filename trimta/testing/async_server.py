"""The server for asynchronous tests, in Trio or asyncio: its methods are awaited in the test's own event loop."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar, overload

import trio

from trimta.testing.handle import DEADLINE, Handle
from trimta.testing.mail import MessageQuery
from trimta.testing.scripting import Duration, seconds
from trimta.testing.thread import ServerThread, apart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from concurrent.futures import Future
    from email.message import EmailMessage
    from types import TracebackType

    from trimta.testing.configuration import ConfigurationSource
    from trimta.testing.inside import Inside

T = TypeVar("T")


class Await(Protocol):
    """A function that waits for a future of another thread in one kind of event loop."""

    async def __call__(self, answer: Future[T]) -> T: ...


class Server(Handle):
    """The server that `async with open_server()` and `async with run_server()` give."""

    def __init__(self, inside: Inside, thread: ServerThread, wait: Await) -> None:
        super().__init__(inside, thread)
        self._wait = wait

    @overload
    async def wait_for(
        self,
        *,
        to: str | None = None,
        from_: str | None = None,
        subject: str | None = None,
        count: None = None,
        after: EmailMessage | None = None,
        timeout: Duration = DEADLINE,
    ) -> EmailMessage: ...

    @overload
    async def wait_for(
        self,
        *,
        to: str | None = None,
        from_: str | None = None,
        subject: str | None = None,
        count: int,
        after: EmailMessage | None = None,
        timeout: Duration = DEADLINE,
    ) -> list[EmailMessage]: ...

    async def wait_for(
        self,
        *,
        to: str | None = None,
        from_: str | None = None,
        subject: str | None = None,
        count: int | None = None,
        after: EmailMessage | None = None,
        timeout: Duration = DEADLINE,
    ) -> EmailMessage | list[EmailMessage]:
        """Wait for a message that all given criteria match, and return the oldest; it may be there already.

        All mailboxes are searched, also those of captured mail.
        `to`        the recipient that it was delivered to: an address or a local part
        `from_`     the sender, in the envelope or in From: an address, or "<>" for reports
        `subject`   a glob that matches the whole subject, without regard to case
        `count`     wait for that many messages and return them as a list, oldest first
        `after`     a message that the server returned before: only messages that came later
        `timeout`   how long: seconds, "10s", or a timedelta
        Raises NotArrivedError, an AssertionError that tells what did arrive, when the time is up.
        """
        __tracebackhide__ = True  # pytest then shows the line of the test that waits
        query = MessageQuery(to, from_, subject, 1 if count is None else count, after)
        limit = seconds(timeout)
        messages = await self._do(partial(self._inside.wait_for, query, limit))
        self._must_have(messages, query, limit)
        return messages[0] if count is None else messages

    async def settle(self, timeout: Duration = DEADLINE) -> None:
        """Wait until nothing is due in the queue and no delivery is under way.

        Raises TimeoutError if that takes longer than `timeout`: seconds, "10s", or a timedelta.
        """
        await self._do(partial(self._inside.settle, seconds(timeout)))

    async def advance(self, span: Duration) -> None:
        """Move the queue's clock forward by `span`: "4h", seconds, or a timedelta.

        Retries, delay warnings and expiry that fall due on the way happen, in order, before this returns.
        """
        await self._do(partial(self._inside.advance, seconds(span)))

    async def _do(self, function: Callable[[], Awaitable[T]]) -> T:
        call = self._thread.begin(function)
        try:
            return await self._wait(call.answer)
        finally:
            if not call.answer.done():
                self._thread.cancel(call)


class Opening(AbstractAsyncContextManager[Server]):
    """The context manager that `open_server` returns."""

    def __init__(self, config: ConfigurationSource) -> None:
        self._config = config
        self._opened: AbstractAsyncContextManager[Server] | None = None

    async def __aenter__(self) -> Server:
        if not trio.lowlevel.in_trio_run():
            raise RuntimeError("open_server is for Trio; in asyncio use `async with run_server(config) as server`")
        self._opened = in_trio(self._config)
        return await self._opened.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._opened is not None, "it has been entered"
        return await self._opened.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - its own end is bounded

    def __enter__(self) -> NoReturn:
        raise RuntimeError(
            "open_server is for `async with` in Trio; in synchronous code use `with run_server(config) as server`"
        )

    def __exit__(self, *_: object) -> None:
        """Never called; its presence lets `with` reach the explanation in `__enter__`."""


def open_server(config: ConfigurationSource = None) -> Opening:
    """A mail server for the block of an `async with` in Trio, with files of its own in a temporary folder.

    `config` is like conf.toml: a dict, the text, or a path.  By default the server listens on a free port of 127.0.0.1,
    mail for any user of dev.test and localhost is local, and all other mail is captured in a Maildir.  Retries have no
    jitter.  The server has a thread and a clock of its own: its waits pass in real time, also where the test's time is
    frozen.

    Leaving the block stops the server and raises the errors inside it, with their own tracebacks.  If there were none,
    it raises LeftBehindError if files or descriptors of the server are left.
    """
    return Opening(config)


@asynccontextmanager
async def in_trio(config: ConfigurationSource) -> AsyncGenerator[Server, None]:
    """A server for a block of a Trio program; an error that ends the server cancels the block."""
    thread = ServerThread(config)
    block: BaseException | None = None
    try:
        inside = await _trio_wait(apart(thread.start))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_the_end, thread, nursery.cancel_scope)
            try:
                yield Server(inside, thread, _trio_wait)
            except BaseException as error:  # noqa: ASYNC103 - the nursery would put it into a group; raised below
                if _is_cancelled(error):
                    raise
                block = error
            finally:
                nursery.cancel_scope.cancel()
    except BaseException as error:  # noqa: BLE001, ASYNC103 - kept apart from the server's; raised below
        block = error
    with trio.CancelScope(shield=True):  # bounded by ServerThread.stop; else the thread would outlive the block
        trouble = await _trio_wait(apart(thread.stop))
    conclude(block, trouble)


async def _cancel_at_the_end(thread: ServerThread, scope: trio.CancelScope) -> None:
    await _trio_wait(thread.finished)
    scope.cancel()


async def _trio_wait(answer: Future[T]) -> T:
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def tell(_: object) -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:  # the test's run is over, and with it the wait
            return

    answer.add_done_callback(tell)
    await done.wait()
    return answer.result()


@asynccontextmanager
async def in_asyncio(config: ConfigurationSource) -> AsyncGenerator[Server, None]:
    """A server for a block of an asyncio program."""
    thread = ServerThread(config)
    block: BaseException | None = None
    try:
        inside = await _asyncio_wait(apart(thread.start))
        yield Server(inside, thread, _asyncio_wait)
    except BaseException as error:  # noqa: BLE001, ASYNC103 - kept apart from the server's; raised below
        block = error
    conclude(block, await _asyncio_wait_shielded(apart(thread.stop)))


async def _asyncio_wait(answer: Future[T]) -> T:
    import asyncio

    return await asyncio.wrap_future(answer)


async def _asyncio_wait_shielded(answer: Future[T]) -> T:
    """Wait for a future, also if the task is cancelled meanwhile; the cancellation is raised after the wait.

    ServerThread.stop bounds the wait.
    """
    import asyncio

    waiting = asyncio.wrap_future(answer)
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError as error:  # noqa: ASYNC103 - raised below
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return waiting.result()


def beside(config: ConfigurationSource) -> AbstractAsyncContextManager[Server]:
    """A server for a block in the running event loop, Trio's or asyncio's.  Raises RuntimeError if there is none."""
    if trio.lowlevel.in_trio_run():
        return in_trio(config)
    if "asyncio" in sys.modules:
        import asyncio

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            return in_asyncio(config)
    raise RuntimeError("`async with run_server` is for asyncio and Trio; elsewhere use `with run_server(config)`")


def conclude(block: BaseException | None, trouble: BaseException | None) -> None:
    """Raise the error that matters most: `block`, with which a block ended, or `trouble`, that of its server.

    An error inside the server is the likely cause of an error in the test, and comes first.
    """
    if trouble is not None and (isinstance(block, Exception | None) or _is_cancelled(block)):
        raise trouble from block
    if block is not None:  # alone, or Ctrl-C or pytest's skip, which an error must not replace
        raise block


def _is_cancelled(error: BaseException) -> bool:
    """Whether an error is a cancellation, which must pass through the nursery unchanged."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(trio.Cancelled) is not None
    return isinstance(error, trio.Cancelled | GeneratorExit)
