"""A channel between two processes of one server: notices, which are not answered, and calls, which are.

Messages go over one end of a socket pair that only these two processes have, pickled, so that what comes in is as
trusted as the program itself.  All that was said since the last write goes in one frame:

    four octets, big-endian: the length of the rest
    the pickle of a list of messages, each a tuple: ("notice", name, arguments), ("call", number, name, arguments),
    ("cancel", number), ("result", number, value) or ("failure", number, exception)
"""

from __future__ import annotations

import math
import pickle
import struct
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

RECEIVE: Final = 256 * 1024
"""Octets taken from the socket at once."""

BACKLOG: Final = 50_000
"""Notices that wait to be written; what comes on top is counted and left out, as LogWriter does with its lines."""

MOMENT: Final = 0.003
"""Seconds that notices wait for others, so that the other process is woken once for many.  A call takes them along."""

BUSY_MOMENT: Final = 0.01
"""Seconds from one frame of notices to the next, at least: while they keep coming, a frame costs more than a notice."""

_LENGTH: Final = struct.Struct(">I")


class ChannelClosedError(Exception):
    """The other process has gone, so that a call has no result."""


class Channel:
    """One end of a channel.  `serve` must run for anything to be sent, received or answered."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        notices: Mapping[str, Callable[..., None]],
        calls: Mapping[str, Callable[..., Awaitable[object]]],
    ) -> None:
        """`notices` and `calls` are what the other end may say, by name; a call's function returns its result, and
        what it raises is raised where the call was made.
        """
        self.left_out = 0
        """Notices that were left out since they came faster than they could be written, and that is not told yet."""
        self._stream = stream
        self._notices = notices
        self._calls = calls
        self._outgoing: list[tuple[Any, ...]] = []
        self._work = trio.Event()
        self._urgent = trio.Event()
        """Set when the messages that wait are to be sent at once."""
        self._waiting: dict[int, _Call] = {}
        self._answering: dict[int, trio.CancelScope] = {}
        self._numbers = 0
        self._closed = False

    def tell(self, name: str, *arguments: object) -> None:
        """Say something that has no answer, and is never left out."""
        self._outgoing.append(("notice", name, arguments))
        self._work.set()

    def notify(self, name: str, *arguments: object) -> None:
        """Say something that has no answer, and may be left out; notice `left_out` tells how often that happened."""
        if len(self._outgoing) >= BACKLOG:
            self.left_out += 1
            return
        self._outgoing.append(("notice", name, arguments))
        self._work.set()

    async def call(self, name: str, *arguments: object) -> Any:
        """Have the other end do something: its result, or what it raises.  ChannelClosedError if that end has gone.

        If the caller is cancelled, so is the function at the other end, whose result is then of no interest.
        """
        if self._closed:
            raise ChannelClosedError
        self._numbers += 1
        number, call = self._numbers, _Call()
        self._waiting[number] = call
        self._put(("call", number, name, arguments))
        try:
            await call.done.wait()
        except trio.Cancelled:
            self._put(("cancel", number))
            raise
        finally:
            del self._waiting[number]
        if call.failure is not None:
            raise call.failure
        return call.result

    def _put(self, message: tuple[Any, ...]) -> None:
        self._outgoing.append(message)
        self._work.set()
        self._urgent.set()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send and receive until the other end closes the channel, or goes; calls that it made are cancelled then."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send)
                task_status.started()
                await self._receive(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._closed = True
            for call in self._waiting.values():
                call.failure = ChannelClosedError()
                call.done.set()

    async def flush(self) -> None:
        """Wait until the other end has taken what was said before this call."""
        await self.call("flush")

    async def _send(self) -> None:
        try:
            sent = -math.inf
            while True:
                await self._work.wait()
                with trio.move_on_at(max(trio.current_time() + MOMENT, sent + BUSY_MOMENT)):
                    await self._urgent.wait()
                sent = trio.current_time()
                self._work, self._urgent = trio.Event(), trio.Event()
                messages, self._outgoing = self._outgoing, []
                if self.left_out:
                    messages.append(("notice", "left_out", (self.left_out,)))
                    self.left_out = 0
                frame = pickle.dumps(messages, pickle.HIGHEST_PROTOCOL)
                await self._stream.send_all(_LENGTH.pack(len(frame)) + frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):  # the reader hears of it, too
            return

    async def _receive(self, nursery: trio.Nursery) -> None:
        received = bytearray()
        needed = _LENGTH.size
        while True:
            try:
                octets = await self._stream.receive_some(RECEIVE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not octets:
                return
            received += octets
            while len(received) >= needed:
                end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
                if len(received) < end:
                    needed = end
                    break
                frame = bytes(received[_LENGTH.size : end])
                del received[:end]
                needed = _LENGTH.size
                for message in pickle.loads(frame):
                    if message[0] == "notice":
                        self._notices[message[1]](*message[2])
                    else:
                        self._take(message, nursery)

    def _take(self, message: tuple[Any, ...], nursery: trio.Nursery) -> None:
        match message:
            case ("call", number, "flush", ()):
                self._put(("result", number, None))
            case ("call", number, name, arguments):
                self._answering[number] = scope = trio.CancelScope()
                nursery.start_soon(self._answer, scope, number, name, arguments)
            case ("cancel", number):
                if number in self._answering:
                    self._answering[number].cancel()
            case ("result", number, result):
                if number in self._waiting:
                    self._waiting[number].result = result
                    self._waiting[number].done.set()
            case ("failure", number, failure):
                if number in self._waiting:
                    self._waiting[number].failure = failure
                    self._waiting[number].done.set()
            case _:
                raise AssertionError(f"a message that no channel sends: {message[:1]}")

    async def _answer(self, scope: trio.CancelScope, number: int, name: str, arguments: tuple[object, ...]) -> None:
        try:
            with scope:
                try:
                    result = await self._calls[name](*arguments)
                except Exception as failure:  # noqa: BLE001 - it is raised where the call was made
                    self._put(("failure", number, _portable(failure)))
                else:
                    self._put(("result", number, result))
        finally:
            del self._answering[number]


class _Call:
    """A call that waits for its result."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: Any = None
        self.failure: Exception | None = None


def _portable(failure: Exception) -> Exception:
    """An exception that can be pickled: itself, or its text."""
    try:
        pickle.loads(pickle.dumps(failure))
    except Exception:  # noqa: BLE001 - whatever keeps it from it
        return RuntimeError(f"{type(failure).__name__}: {failure}")
    return failure
