"""`FakeMx` on real sockets for tests that are not asynchronous: it serves from a thread.

    with serving(FakeMx(), FakeMx({"connect": STALL})) as (healthy, silent):
        ...

The ports are in the order of the exchangers.  What they recorded is read when the client is known to be done.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.fake_mx import FakeMx


@contextmanager
def serving(*exchangers: FakeMx) -> Iterator[list[int]]:
    """Serve on a free port each until the end of the block."""
    ports: list[int] = []
    scope = trio.CancelScope()
    tokens: list[trio.lowlevel.TrioToken] = []
    ready = threading.Event()

    async def main() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                ports.extend([await exchanger.listen(nursery) for exchanger in exchangers])
                tokens.append(trio.lowlevel.current_trio_token())
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(main,), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield ports
    finally:
        tokens[0].run_sync_soon(scope.cancel)
        thread.join(30)
        assert not thread.is_alive()
