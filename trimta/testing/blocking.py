"""A server in a thread of its own, for tests that know nothing of event loops."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Final, overload

from trimta import real_time
from trimta.testing.handle import DEADLINE, Handle
from trimta.testing.index import Index
from trimta.testing.mail import Wanted
from trimta.testing.scripting import Duration, seconds
from trimta.testing.server import Server, beside, conclude
from trimta.testing.thread import ServerThread

if TYPE_CHECKING:
    from email.message import EmailMessage
    from types import TracebackType

    from trimta.testing.configuration import ConfigurationSource

PAUSE: Final = 0.05
"""Seconds between two looks of a forked child."""


class BlockingServer(Handle):
    """What `run_server` gives.  It may be used from any thread; where it waits, it blocks that thread."""

    @overload
    def wait_for(
        self,
        *,
        to: str | None = None,
        from_: str | None = None,
        subject: str | None = None,
        count: None = None,
        after: EmailMessage | None = None,
        timeout: float = DEADLINE,
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
        timeout: float = DEADLINE,
    ) -> list[EmailMessage]: ...

    def wait_for(
        self,
        *,
        to: str | None = None,
        from_: str | None = None,
        subject: str | None = None,
        count: int | None = None,
        after: EmailMessage | None = None,
        timeout: float = DEADLINE,
    ) -> EmailMessage | list[EmailMessage]:
        """The oldest message in any mailbox, captured ones included, that all given criteria match; it may be there
        already.

        `to`: whom it was delivered to, an address or a local part.  `from_`: whom it is from, in the envelope ("<>" for
        reports) or the header.  `subject`: a glob for the whole of it, case aside.  `count`: that many,
        as a list.  `after`: only what came after this message.  NotArrivedError, an AssertionError that tells what did
        arrive, after `timeout` seconds.
        """
        __tracebackhide__ = True  # pytest: what is of interest is who waits
        wanted = Wanted(to, from_, subject, 1 if count is None else count, after)
        if self._thread.forked:
            found = self._look_until(wanted, timeout)
        else:
            found = self._thread.call(partial(self._inside.wait_for, wanted, timeout))
        self._must_have(found, wanted, timeout)
        return found[0] if count is None else found

    def settle(self, timeout: float = DEADLINE) -> None:
        """Wait until nothing is due in the queue and no delivery is under way.  TimeoutError if that takes longer than
        `timeout` seconds.
        """
        self._thread.call(partial(self._inside.settle, timeout))

    def advance(self, span: Duration) -> None:
        """Move the queue's clock forward: "4h", seconds, or a timedelta.  Retries, delay warnings and expiry that fall
        in between happen, in order, before this returns.
        """
        self._thread.call(partial(self._inside.advance, seconds(span)))

    def _look_until(self, wanted: Wanted, timeout: float) -> list[EmailMessage]:
        """wait_for in a forked child, where nobody tells that something has come."""
        deadline = real_time.monotonic() + timeout
        index = Index(self._mailboxes.templates)
        while True:
            found = index.find(wanted.criteria(), wanted.count, wanted.after)
            left = deadline - real_time.monotonic()
            if len(found) == wanted.count or left <= 0:
                return found
            sleep(min(PAUSE, left))


class Running(AbstractContextManager[BlockingServer], AbstractAsyncContextManager[Server]):
    """What `run_server` returns."""

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
    """The same as `open_server`, for `with` in synchronous code, and for `async with` in asyncio, where `wait_for`,
    `settle` and `advance` are awaited.
    """
    return Running(config)
