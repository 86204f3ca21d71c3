"""Commands that need a running server, where there is none; `log` and others that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.store.support import NOW, envelope, message

if TYPE_CHECKING:
    from tests.support.commands import Commands


@pytest.mark.parametrize(
    "arguments", [["status"], ["status", "--json"], ["tail"], ["tail", "--json"], ["time", "advance", "4h"]]
)
def test_without_a_server_it_is_69_and_says_how_to_start_one(arguments: list[str], trimta: Commands) -> None:
    ended = trimta(*arguments)
    assert (ended.code, ended.out) == (69, "")
    assert ended.err == f"trimta {arguments[0]}: no server is running on {trimta.data_dir}; `trimta serve` starts one\n"
    assert not trimta.data_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["time"], "ACTION"),
        (["time", "advance"], "DURATION"),
        (["time", "advance", "4x"], '"4x"'),
        (["time", "advance", "4"], '"4"'),
        (["time", "advance", "0s"], '"0s"'),
        (["time", "advance", "99999d"], '"99999d"'),
        (["time", "back", "4h"], "back"),
        (["status", "x"], "x"),
        (["log"], "ID"),
    ],
)
def test_wrong_usage_is_64_and_one_line(arguments: list[str], part: str, trimta: Commands) -> None:
    ended = trimta(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (64, "", 1)
    assert part in ended.err


def test_the_log_of_a_message_that_has_left_can_be_read(trimta: Commands) -> None:
    with trimta.queue() as queue:
        queue.log.append("m1", ["C: EHLO x", "S: 250 \x1b[31m"], NOW)
        queue.log.append("m1", ["delivered to=a@x.test"], NOW + 60)
    assert trimta("log", "m1").out == (
        "2023-11-14T22:13:20.000Z C: EHLO x\n"
        "2023-11-14T22:13:20.000Z S: 250 \\x1b[31m\n"
        "2023-11-14T22:14:20.000Z delivered to=a@x.test\n"
    )
    assert trimta("log", "m1.2", "--json").json == {
        "id": "m1",
        "lines": [
            {"time": "2023-11-14T22:13:20.000Z", "text": "C: EHLO x"},
            {"time": "2023-11-14T22:13:20.000Z", "text": "S: 250 \x1b[31m"},
            {"time": "2023-11-14T22:14:20.000Z", "text": "delivered to=a@x.test"},
        ],
    }


def test_a_message_to_which_nothing_has_happened_is_said_to_wait(trimta: Commands) -> None:
    with trimta.queue() as queue:
        queue.accept(message("m1"), [envelope()])
    assert trimta("log", "m1").out == "m1 is in the queue; nothing has happened to it yet\n"
    assert trimta("log", "m1", "--json").json == {"id": "m1", "lines": []}


@pytest.mark.parametrize("existing", [False, True], ids=["no queue", "an empty one"])
def test_the_log_of_an_unknown_message_is_65(existing: bool, trimta: Commands) -> None:
    if existing:
        trimta.queue().close()
    ended = trimta("log", "m9\x1b")
    assert (ended.code, ended.out) == (65, "")
    assert ended.err == "trimta log: nothing is known of a message 'm9\\x1b'\n"
    assert trimta.data_dir.exists() is existing


@pytest.mark.parametrize(
    ("option", "value", "found"),
    [
        ("--remote", "", "''"),
        ("--remote", "nonsense", "'nonsense'"),
        ("--listen", "", '""'),
        ("--listen", "localhost", '"localhost"'),
    ],
)
def test_a_server_does_not_start_without_what_its_option_says(
    option: str, value: str, found: str, trimta: Commands
) -> None:
    """An empty value, as of a variable that is not set, is no leave to fall back to the configuration's."""
    ended = trimta("serve", option, value)
    assert (ended.code, ended.out, ended.err.count("\n")) == (64, "", 1)
    assert ended.err.startswith(f"trimta serve: {option}: found {found}, expected ")
