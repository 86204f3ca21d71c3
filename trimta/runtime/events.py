"""Events: what happens in a server, announced to all subscribers (log, `trimta tail`, counters, the message log)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from trimta import real_time
from trimta.first_use.pattern import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trimta.runtime.event_declarations import EventName

FieldValue: TypeAlias = str | int | float | bool | list[str] | None

_CONTROLS: Final = (
    r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # those that turn the direction of writing
)
_CONTROL: Final = pattern(rf"[{_CONTROLS}]")
_BARE: Final = pattern(rf"[^\s\"'=\\{_CONTROLS}]+")


@dataclass(frozen=True, slots=True)
class Event:
    """An event: its name, its fields, and its moment in seconds since the epoch."""

    name: EventName
    fields: dict[str, FieldValue] = field(default_factory=dict)
    at: float = field(default_factory=real_time.wall)
    _written: dict[str, str] | None = field(default=None, init=False, repr=False, compare=False)
    """Each field as `as_line` writes it, once that was asked for: the log and the message log write the same."""

    def as_line(self, *, without: str = "") -> str:
        """The event as a line without its time, and without one of its fields: `accepted id=… sender=…`."""
        written = self._written
        if written is None:  # may be two threads at once: each makes the same
            written = {key: _field(key, value) for key, value in self.fields.items()}
            object.__setattr__(self, "_written", written)
        if without in written:
            return self.name + "".join([text for key, text in written.items() if key != without])
        return self.name + "".join(written.values())


class Events:
    """The events of one server: `emit` calls every subscriber at once, in the order of subscription."""

    def __init__(self) -> None:
        self._subscribers: tuple[Callable[[Event], None], ...] = ()
        self.counters: Counter[EventName] = Counter()

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Add a subscriber, a quick function that does not raise; calling the result removes it."""
        self._subscribers += (subscriber,)
        return lambda: self._unsubscribe(subscriber)

    def _unsubscribe(self, subscriber: Callable[[Event], None]) -> None:
        others = [*self._subscribers]
        others.remove(subscriber)
        self._subscribers = tuple(others)

    def emit(self, name: EventName, **fields: FieldValue) -> None:
        """Announce an event to all subscribers; fields that are None or empty are left out."""
        values = fields.values()
        if None in values or "" in values:
            fields = {key: value for key, value in fields.items() if value is not None and value != ""}
        self.publish(Event(name, fields))

    def publish(self, event: Event) -> None:
        """Announce an event that has happened, in this process or in another of the server."""
        self.counters[event.name] += 1
        for subscriber in self._subscribers:
            subscriber(event)


def timestamp(at: float) -> str:
    """A moment in seconds since the epoch as text in UTC: `2026-11-23T16:00:00.000Z`."""
    seconds, microseconds = divmod(round(at * 1_000_000), 1_000_000)
    return f"{_second(seconds)}.{microseconds // 1000:03}Z"


@lru_cache(maxsize=16)  # a busy server has many events in each
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().removesuffix("+00:00")


def escape(text: str) -> str:
    """Text with its control characters as `\\xNN` or `\\uNNNN`: a peer could else steer a terminal or forge lines."""
    if text.isprintable():  # nearly all is, and no control character is
        return text
    return _CONTROL.sub(
        lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else f"\\u{ord(match[0]):04x}", text
    )


def _field(key: str, value: FieldValue) -> str:
    """A field as it stands in a line, behind a space."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    else:
        text = ",".join(value) if isinstance(value, list) else str(value)
    if _BARE.fullmatch(text):
        return f" {key}={text}"
    return f' {key}="' + escape(text.replace("\\", "\\\\")).replace('"', '\\"') + '"'


def as_text(event: Event) -> str:
    """An event as a line of the log, without line end: `2026-11-23T16:00:00.000Z accepted id=… sender=…`."""
    return f"{timestamp(event.at)} {event.as_line()}"


def as_object(event: Event) -> dict[str, FieldValue]:
    """An event as a JSON object: "time", "event" and the fields."""
    return {"time": timestamp(event.at), "event": event.name, **event.fields}


def object_as_text(document: Mapping[str, FieldValue]) -> str:
    """An event as a line of the log, from its JSON object: `as_text` for what `as_object` returned."""
    fields = {key: value for key, value in document.items() if key not in ("time", "event")}
    return f"{document['time']} {document['event']}{''.join(_field(key, value) for key, value in fields.items())}"


def as_json(event: Event) -> str:
    """An event as a JSON document on one line, in ASCII, without line end."""
    return json.dumps(as_object(event), ensure_ascii=True)
