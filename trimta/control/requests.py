"""The requests of the control socket: the JSON in which other processes ask for `operations`, and get the results."""

from __future__ import annotations

import os
from collections import deque
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from trimta.control.answering import Following, single
from trimta.runtime.events import as_object, timestamp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from trimta.control.answering import Handler
    from trimta.control.asking import Json
    from trimta.control.operations import Operations
    from trimta.runtime.events import Event

TOLD: Final = 1_000
"""Events in the answer to `trimta time`, at most: the last ones."""

LONGEST: Final = 10 * 365 * 86400
"""Seconds by which the clock can be moved at once, at most: ten years."""


def handlers(operations: Operations, data_dir: Path) -> Mapping[str, Handler]:
    """The handler of each request, by its "command".  `data_dir` names the server in the first line of a tail."""

    async def status(_: Json) -> Json:
        state = await operations.status()
        return {
            "pid": os.getpid(),
            "uptime_s": round(state.uptime, 1),
            "listening": [*state.listening],
            "sessions": state.sessions,
            "workers": [asdict(worker) for worker in state.workers],
            "deliveries": state.deliveries,
            "queue": state.queued_by_domain,
            "queued": sum(state.queued_by_domain.values()),
            "held": state.held,
            "clock_offset_s": round(state.clock_offset, 3),
            "counters": dict(sorted(state.counters.items())),
        }

    async def active(_: Json) -> Json:
        return {"active": sorted(operations.active())}

    async def wake(_: Json) -> Json:
        operations.wake()
        return {"ok": True}

    async def submitted(request: Json) -> Json:
        await operations.announce(str(request.get("id")))
        return {"ok": True}

    async def flush(_: Json) -> Json:
        await operations.flush_message_log()
        return {"ok": True}

    async def advance(request: Json) -> Json:
        seconds = request.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < LONGEST:
            raise ValueError("advance wants a number of seconds, from 0 to ten years")
        told: deque[Event] = deque(maxlen=TOLD)
        unsubscribe = operations.record(lambda event: told.append(event) if "id" in event.fields else None)
        try:
            moments = await operations.advance(float(seconds))
        finally:
            unsubscribe()
        return {
            "now": timestamp(operations.now()),
            "offset_s": round(operations.clock_offset, 3),
            "moments": moments,
            "events": [as_object(event) for event in told],
        }

    async def tail(_: Json) -> AsyncGenerator[Json, None]:
        with operations.follow() as following:
            yield {"following": str(data_dir)}
            async with aclosing(following.events()) as events:
                async for event in events:
                    yield as_object(event)

    return {
        "status": single(status),
        "active": single(active),
        "wake": single(wake),
        "submitted": single(submitted),
        "flush": single(flush),
        "advance": single(advance),
        "tail": Following(tail),
    }
