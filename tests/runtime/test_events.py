"""Events: the same facts for the log, for tail and for people, on one line whatever the network put into them."""

from __future__ import annotations

import contextlib
import io
import json
import os
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.runtime.events import (
    Event,
    Events,
    as_json,
    as_object,
    as_text,
    escape,
    object_as_text,
    timestamp,
)
from trimta.runtime.log_writer import LogWriter

if TYPE_CHECKING:
    from trimta.runtime.events import FieldValue

AT = 1_700_000_000.0
TIME = "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("abc", "abc"),
        ("a@b.test", "a@b.test"),
        ("<>", "<>"),
        ("bücher", "bücher"),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a\r\nfake id=1", r'"a\x0d\x0afake id=1"'),
        ("\x1b[31mred", r'"\x1b[31mred"'),
        ("\x9b31mred", r'"\x9b31mred"'),
        ("nul\0", r'"nul\x00"'),
        ("line\u2028end", r'"line\u2028end"'),
        ("\u202egnp.exe", r'"\u202egnp.exe"'),
        ("\udcff", r'"\udcff"'),
        (7, "7"),
        (True, "yes"),
        (False, "no"),
        (["a", "b c"], '"a,b c"'),
    ],
)
def test_a_value_is_shown_so_that_it_neither_ends_nor_forges_anything(value: FieldValue, shown: str) -> None:
    assert as_text(Event("deferred", {"key": value}, AT)) == f"{TIME} deferred key={shown}"


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (AT, TIME),
        (AT + 0.001, "2023-11-14T22:13:20.001Z"),
        (AT + 0.123, "2023-11-14T22:13:20.123Z"),
        (AT + 0.9994, "2023-11-14T22:13:20.999Z"),
        (AT + 0.9999999, "2023-11-14T22:13:21.000Z"),
        (AT + 60, "2023-11-14T22:14:20.000Z"),
    ],
)
def test_a_moment_is_shown_with_its_milliseconds(at: float, shown: str) -> None:
    assert timestamp(at) == shown


values = st.one_of(st.text(), st.integers(), st.booleans(), st.lists(st.text()))


@given(st.dictionaries(st.sampled_from(["id", "to", "reply", "client"]), values))
@settings(deadline=None, max_examples=100)
def test_an_event_is_one_printable_line_in_every_form(fields: dict[str, FieldValue]) -> None:
    event = Event("deferred", fields, AT)
    text = as_text(event)
    assert text.splitlines() == [text]
    assert escape(text) == text
    assert json.loads(as_json(event)) == as_object(event)
    assert as_json(event).isascii()
    assert object_as_text(json.loads(as_json(event))) == text


def test_a_line_may_leave_one_field_out() -> None:
    event = Event("accepted", {"id": "x", "to": ["a", "b c"]}, AT)
    assert event.as_line() == 'accepted id=x to="a,b c"'
    assert event.as_line(without="id") == 'accepted to="a,b c"'
    assert event.as_line(without="about") == event.as_line()
    assert event == Event("accepted", {"id": "x", "to": ["a", "b c"]}, AT)


def test_subscribers_hear_of_every_event_until_they_leave() -> None:
    events = Events()
    heard: list[str] = []
    unsubscribe = events.subscribe(lambda event: heard.append(event.name))
    events.emit("accepted", id="x", empty="", nothing=None)
    unsubscribe()
    events.emit("delivered")
    events.emit("delivered")
    assert heard == ["accepted"]
    assert events.counters == {"accepted": 1, "delivered": 2}


def test_facts_that_are_not_there_are_left_out() -> None:
    events = Events()
    found: list[Event] = []
    events.subscribe(found.append)
    events.emit("accepted", id="x", empty="", nothing=None, zero=0, no=False)
    assert found[0].fields == {"id": "x", "zero": 0, "no": False}


# The log.


def named(name: str) -> Event:
    return Event("bug", {"name": name})


def name_of(event: Event) -> str:
    count, name = event.fields.get("count"), event.fields.get("name", event.name)
    return str(name) if count is None else f"{name} {count}"


async def test_what_waits_is_written_when_the_log_ends() -> None:
    stream = io.StringIO()
    log = LogWriter(stream, name_of)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.serve)
        log(named("one"))
        log(named("two"))
        nursery.cancel_scope.cancel()
    assert stream.getvalue() == "one\ntwo\n"


async def test_a_reader_that_stops_reading_blocks_nobody_and_is_told_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LogWriter, "BACKLOG", 10)
    monkeypatch.setattr("trimta.runtime.log_writer.MOMENT", 0)
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read, "rb") as reader, trio.fail_after(10):
        log = LogWriter(stream, name_of)
        async with trio.open_nursery() as nursery:
            await nursery.start(log.serve)
            log(named("x" * 200_000))  # more than a pipe holds
            await trio.testing.wait_all_tasks_blocked(0.01)
            for number in range(15):
                log(named(str(number)))
            first = await trio.to_thread.run_sync(reader.read, 200_001)
            rest = await trio.to_thread.run_sync(reader.read, len("0\n" * 10 + "log_lines_lost 5\n"))
            nursery.cancel_scope.cancel()
    assert first == b"x" * 200_000 + b"\n"
    assert rest == b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\nlog_lines_lost 5\n"


async def test_a_reader_that_went_away_is_no_trouble() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w")
    log = LogWriter(stream, name_of)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(log.serve)
            log(named("one"))
            nursery.cancel_scope.cancel()
    with contextlib.suppress(BrokenPipeError):
        stream.close()
