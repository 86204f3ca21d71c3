"""The parts of a session that are in the first process, as a worker process has them: behind its channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import trio

from trimta.runtime.channel import ChannelClosedError
from trimta.store.queue.errors import QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.config.model import Fault, FaultStage
    from trimta.runtime.channel import Channel
    from trimta.runtime.events import Event
    from trimta.server.workers.shared_page import SharedPage
    from trimta.store.queue.values import NewEnvelope, StoredMessage


class RemoteIntake:
    """The queue's intake."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def accept(self, message: StoredMessage, envelopes: Sequence[NewEnvelope]) -> None:
        try:
            await self._call("accept", message, envelopes)
        except trio.Cancelled:
            # The result may be on its way: what was committed in that moment is taken back, too.
            self._channel.tell("forget", message.id)
            raise

    async def accept_all(self, messages: Sequence[tuple[StoredMessage, Sequence[NewEnvelope]]]) -> None:
        await self._call("accept_all", messages)

    async def remove(self, message_id: str) -> None:
        try:
            await self._call("remove", message_id)
        except trio.Cancelled:
            self._channel.tell("forget", message_id)
            raise

    async def retry_domain(self, domain: str, now: float, *, subdomains: bool) -> int:
        return cast("int", await self._call("retry_domain", domain, now, subdomains))

    def wake(self) -> None:
        self._channel.tell("wake")

    async def _call(self, name: str, *arguments: object) -> object:
        try:
            return await self._channel.call(name, *arguments)
        except ChannelClosedError as cause:
            raise QueueUnavailable("the server has ended") from cause


class RemoteFaults:
    """The scripted faults; the first process is asked only at stages at which one may strike."""

    def __init__(self, channel: Channel, page: SharedPage) -> None:
        self._channel = channel
        self._page = page

    def may_strike(self, stage: FaultStage) -> bool:
        return self._page.has_faults(stage)

    async def find(
        self, stage: FaultStage, *, client: str, sender: str | None = None, recipients: Sequence[str] = ()
    ) -> Fault | None:
        try:
            fault: Fault | None = await self._channel.call("find_fault", stage, client, sender, recipients)
        except ChannelClosedError:  # the server has ended, and so does this process
            return None
        return fault


class RemoteMessageLog:
    """The message log."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def note_dialogue(self, message: str, lines: Sequence[tuple[float, str]]) -> None:
        self._channel.notify("dialogue", message, lines)


def forward(channel: Channel) -> Callable[[Event], None]:
    """A subscriber that gives each event to the first process."""

    def subscriber(event: Event) -> None:
        channel.notify("event", event.name, event.fields, event.at)

    return subscriber
