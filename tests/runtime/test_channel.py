"""The channel between two processes of one server: what is said arrives once, in order, and every call is answered."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trimta.runtime import channel as module
from trimta.runtime.channel import Channel, ChannelClosedError
from trimta.store.queue.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping


@asynccontextmanager
async def joined(
    calls: Mapping[str, Callable[..., Awaitable[object]]] | None = None,
    notices: Mapping[str, Callable[..., None]] | None = None,
    *,
    octet_by_octet: bool = False,
) -> AsyncGenerator[tuple[Channel, trio.abc.Stream]]:
    """A channel whose other end has these notices and calls, and the stream of that other end."""
    near, far = trio.testing.memory_stream_pair()
    if octet_by_octet:
        whole = far.receive_some

        async def receive_some(_: int | None = None) -> bytes:
            return bytes(await whole(1))

        far.receive_some = receive_some  # type: ignore[assignment, method-assign]
    here = Channel(near, notices={}, calls={})
    there = Channel(far, notices=notices or {}, calls=calls or {})
    async with trio.open_nursery() as nursery:
        await nursery.start(here.serve)
        await nursery.start(there.serve)
        yield here, far
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("octet_by_octet", [False, True])
async def test_notices_and_calls_arrive_in_their_order(
    autojump_clock: trio.testing.MockClock, octet_by_octet: bool
) -> None:
    heard: list[Any] = []

    async def double(number: int) -> int:
        heard.append(number)
        return 2 * number

    async with joined({"double": double}, {"note": heard.append}, octet_by_octet=octet_by_octet) as (here, _):
        here.notify("note", "first")
        here.notify("note", {"second": [b"\x00\xff" * 300]})
        assert await here.call("double", 21) == 42
        here.notify("note", "last")
        await here.flush()
    assert heard == ["first", {"second": [b"\x00\xff" * 300]}, 21, "last"]


async def test_calls_do_not_wait_for_each_other(autojump_clock: trio.testing.MockClock) -> None:
    async def after(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    done: list[float] = []
    async with joined({"after": after}) as (here, _):

        async def ask(seconds: float) -> None:
            done.append(await here.call("after", seconds))

        async with trio.open_nursery() as nursery:
            for seconds in (3, 1, 2):
                nursery.start_soon(ask, seconds)
    assert done == [1, 2, 3]


class UnportableError(Exception):
    """An exception that pickle can't make again."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(f"{text} {number}")


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (QueueUnavailable("no room"), QueueUnavailable, "no room"),
        (UnportableError("odd", 1), RuntimeError, "UnportableError: odd 1"),
    ],
)
async def test_what_a_call_raises_is_raised_where_it_was_made(
    raised: Exception, expected: type[Exception], text: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def fail() -> None:
        raise raised

    async with joined({"fail": fail}) as (here, _):
        with pytest.raises(expected, match=text):
            await here.call("fail")


async def test_a_call_whose_caller_leaves_is_cancelled_at_the_other_end(autojump_clock: trio.testing.MockClock) -> None:
    left = trio.Event()

    async def hang() -> None:
        try:
            await trio.sleep_forever()
        finally:
            left.set()

    async with joined({"hang": hang}) as (here, _):
        with trio.move_on_after(1) as scope:
            await here.call("hang")
        assert scope.cancelled_caught
        with trio.fail_after(1):
            await left.wait()
        await here.flush()  # and both ends go on


async def test_when_one_end_goes_its_calls_end_and_those_to_it_fail(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[str] = []

    async def hang() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("the call that was made here")

    near, far = trio.testing.memory_stream_pair()
    here = Channel(near, notices={}, calls={})
    there = Channel(far, notices={}, calls={"hang": hang})
    async with trio.open_nursery() as nursery:
        await nursery.start(here.serve)
        await nursery.start(there.serve)

        async def ask() -> None:
            with pytest.raises(ChannelClosedError):
                await here.call("hang")
            ended.append("the call to the other end")

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await near.aclose()
        await far.aclose()
    assert sorted(ended) == ["the call that was made here", "the call to the other end"]
    with pytest.raises(ChannelClosedError):
        await here.call("hang")


async def test_notices_beyond_the_backlog_are_counted_and_calls_and_what_must_be_told_still_go(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKLOG", 3)
    heard: list[int] = []

    async def ask() -> str:
        return "answer"

    left_out: list[int] = []
    async with joined({"ask": ask}, {"note": heard.append, "left_out": left_out.append}) as (here, _):
        for number in range(5):
            here.notify("note", number)
        here.tell("note", 5)
        assert await here.call("ask") == "answer"
        await here.flush()
    assert heard == [0, 1, 2, 5]
    assert left_out == [2]


async def test_notices_that_keep_coming_are_gathered_and_a_call_takes_them_along_at_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOMENT", 2.5)
    monkeypatch.setattr(module, "BUSY_MOMENT", 10.0)
    heard: list[tuple[int, float]] = []
    began = trio.current_time()

    def note(number: int) -> None:
        heard.append((number, trio.current_time() - began))

    async def ask() -> None:
        note(-1)

    async with joined({"ask": ask}, {"note": note}) as (here, _):
        for second in range(20):
            here.notify("note", second)
            await trio.sleep(1)
        await trio.sleep(80)
        assert heard == [(second, 2.5 if second < 3 else 12.5 if second < 13 else 22.5) for second in range(20)]
        heard.clear()
        here.notify("note", 100)
        await trio.sleep(4)
        here.notify("note", 104)
        await here.call("ask")
        assert heard == [(100, 102.5), (104, 104), (-1, 104)]
