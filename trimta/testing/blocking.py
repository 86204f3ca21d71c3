"""The server for synchronous tests: its methods block until the server has answered."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Final, overload

from trimta import real_time
from trimta.testing.async_server import Server, beside, conclude
from trimta.testing.handle import DEADLINE, Handle
from trimta.testing.index import Index
from trimta.testing.mail import MessageQuery
from trimta.testing.scripting import Duration, seconds
from trimta.testing.thread import ServerThread

if TYPE_CHECKING:
    from email.message import EmailMessage
    from types import TracebackType

    from trimta.testing.configuration import ConfigurationSource

PAUSE: Final = 0.05
"""Seconds between two looks at the Maildirs in a forked child."""


class BlockingServer(Handle):
    """The server that `with run_server()` gives.  Methods may be called from any thread, and block it."""

    @overload
    def wait_for(
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
    def wait_for(
        self,
        *,
        to: str | None = None,
        from_: str | None = None,
        subject: str | None = None,
        count: int,
        after: EmailMessage | None = None,
        timeout: Duration = DEADLINE,
    ) -> list[EmailMessage]: ...

    def wait_for(
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
        if self._thread.forked:
            messages = self._look_until(query, limit)
        else:
            messages = self._thread.call(partial(self._inside.wait_for, query, limit))
        self._must_have(messages, query, limit)
        return messages[0] if count is None else messages

    def settle(self, timeout: Duration = DEADLINE) -> None:
        """Wait until nothing is due in the queue and no delivery is under way.

        Raises TimeoutError if that takes longer than `timeout`: seconds, "10s", or a timedelta.
        """
        self._thread.call(partial(self._inside.settle, seconds(timeout)))

    def advance(self, span: Duration) -> None:
        """Move the queue's clock forward by `span`: "4h", seconds, or a timedelta.

        Retries, delay warnings and expiry that fall due on the way happen, in order, before this returns.
        """
        self._thread.call(partial(self._inside.advance, seconds(span)))

    def _look_until(self, query: MessageQuery, timeout: float) -> list[EmailMessage]:
        """`wait_for` in a forked child, which the server can't tell of arrivals: it looks again and again."""
        deadline = real_time.monotonic() + timeout
        index = Index(self._mailboxes.templates)
        while True:
            messages = index.find(query.criteria(), query.count, query.after)
            left = deadline - real_time.monotonic()
            if len(messages) == query.count or left <= 0:
                return messages
            sleep(min(PAUSE, left))


class Running(AbstractContextManager[BlockingServer], AbstractAsyncContextManager[Server]):
    """The context manager that `run_server` returns."""

    def __init__(self, config: ConfigurationSource) -> None:
        self._config = config
        self._thread: ServerThread | None = None
        self._beside: AbstractAsyncContextManager[Server] | None = None

    def __enter__(self) -> BlockingServer:
        self._thread = ServerThread(self._config)
        try:
            return BlockingServer(self._thread.start(), self._thread)
        except BaseException as error:
            conclude(error, self._thread.stop())
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._thread is not None, "it has been entered"
        trouble = self._thread.stop()
        if trouble is not None:
            conclude(error, trouble)

    async def __aenter__(self) -> Server:
        self._beside = beside(self._config)
        return await self._beside.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._beside is not None, "it has been entered"
        return await self._beside.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - its own end is bounded


def run_server(config: ConfigurationSource = None) -> Running:
    """A mail server for the block of a `with` in synchronous code, or of an `async with` in asyncio.

    `config`, and what happens at the end of the block, are as with `open_server`.  `with` gives a BlockingServer.
    `async with` gives a Server, whose `wait_for`, `settle` and `advance` are awaited.
    """
    return Running(config)
