"""`trimta queue`: looking at the queue and steering it, with and without a server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.store.support import deferred, envelope, message
from tests.support.commands import Commands
from trimta.control import socket_path
from trimta.mail.envelope import BodyKind
from trimta.store.queue.entries import Entries
from trimta.store.queue.meta import CLOCK_OFFSET
from trimta.store.queue.sql_schema import FILE
from trimta.store.queue.values import EnvelopeState
from trimta.store.spool import MEMORY_LIMIT, Body

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trimta.store.queue.queue import Queue

NOW = float(int(time.time()))
DAY = 86_400.0
KEYS = {
    "id",
    "state",
    "arrived",
    "age_s",
    "size",
    "sender",
    "domain",
    "next_hop",
    "attempts",
    "next_try",
    "recipients",
}


@pytest.fixture
def queue(trimta: Commands) -> Iterator[Queue]:
    """m1: to a.test, deferred, and to b.test, held; m2: a report to c.test, never tried."""
    with trimta.queue() as queue:
        with queue.transaction():
            queue.accept(
                message("m1", b"Subject: hi\n\tthere\nX-Evil: \x1b[31m\n\nbody\n"),
                [envelope("ann", "abe", domain="a.test", next_try=NOW), envelope(domain="b.test")],
            )
            queue.settle("m1.1", now=NOW, next_try=NOW + 10 * DAY, deferred={0: deferred("450 4.2.1 \x1b[31mlater")})
            queue.operator.hold("m1.2", "to be looked at")
            queue.accept(message("m2", sender=None), [envelope("bob", domain="c.test", next_try=NOW + 60)])
        yield queue


def ids(queue: Queue, state: EnvelopeState | None = None) -> list[str]:
    return [listed.envelope.id for listed in queue.entries.list_envelopes(state=state)]


# list


@pytest.mark.parametrize("existing", [False, True], ids=["no queue", "an empty one"])
def test_an_empty_queue_is_listed_and_none_is_made(existing: bool, trimta: Commands) -> None:
    if existing:
        trimta.queue().close()
    assert trimta("queue", "list").out == "the queue is empty\n"
    assert trimta("queue", "list", "--json").json == []
    assert trimta.data_dir.exists() is existing


def test_the_list_says_what_each_envelope_waits_for(trimta: Commands, queue: Queue) -> None:
    ended = trimta("queue", "list")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["ID", "AGE", "SIZE", "TRIES", "NEXT", "TRY", "STATE", "SENDER", "->", "DOMAIN"]
    assert [line.split()[0] for line in lines if line[0] != " "] == ["ID", "m1.1", "m1.2", "m2"]
    first, held, report = (line for line in lines[1:] if line[0] != " ")
    assert first.split()[3:] == ["1", "in", "10d", "deferred", "<alice@dev.test>", "->", "a.test"]
    assert held.split()[3:] == ["0", "-", "held", "<alice@dev.test>", "->", "b.test"]
    assert report.split()[-3:] == ["<>", "->", "c.test"]
    assert r"    ann@a.test: 4.3.0 450 4.2.1 \x1b[31mlater" in lines
    assert "    abe@a.test" in lines
    assert "    held: to be looked at" in lines
    assert len({line.index("->") - len(line.split()[-3]) for line in (first, held)}) == 1  # the columns are aligned


def test_json_has_every_key_of_every_envelope(trimta: Commands, queue: Queue) -> None:
    first, held, report = trimta("queue", "list", "--json").json
    assert {*first} == {*held} == {*report} == KEYS
    assert (first["id"], first["state"], first["attempts"]) == ("m1.1", "deferred", 1)
    assert (first["sender"], first["domain"], first["next_hop"]) == ("alice@dev.test", "a.test", "a.test")
    assert first["recipients"] == [
        {"address": "ann@a.test", "status": "4.3.0", "reply": "450 4.2.1 \x1b[31mlater"},
        {"address": "abe@a.test", "status": "", "reply": ""},
    ]
    assert first["arrived"] == "2023-11-14T22:13:20.000Z"
    assert first["age_s"] == pytest.approx(NOW - 1_700_000_000, abs=600)
    assert first["next_try"] == time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW + 10 * DAY)) + ".000Z"
    assert first["size"] == len(b"Subject: hi\r\n\tthere\r\nX-Evil: \x1b[31m\r\n\r\nbody\r\n")
    assert (held["state"], held["next_try"], held["recipients"][0]["reply"]) == ("held", None, "to be looked at")
    assert (report["sender"], report["attempts"]) == ("", 0)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], ["m1.1", "m1.2", "m2"]),
        (["--domain", "B.test"], ["m1.2"]),
        (["--domain", "nowhere.test"], []),
        (["--state", "held"], ["m1.2"]),
        (["--state", "deferred"], ["m1.1", "m2"]),
        (["--state", "active"], []),
        (["--sender", "<>"], ["m2"]),
        (["--sender", ""], ["m2"]),
        (["--sender", "<Alice@dev.test>"], ["m1.1", "m1.2"]),
        (["--sender", "al*"], ["m1.1", "m1.2"]),
        (["--recipient", "abe@a.test"], ["m1.1"]),
        (["--recipient", "*@?.test"], ["m1.1", "m1.2", "m2"]),
        (["--recipient", "*@a.test", "--state", "held"], []),
    ],
)
def test_the_list_is_filtered(filters: list[str], found: list[str], trimta: Commands, queue: Queue) -> None:
    assert [one["id"] for one in trimta("queue", "list", "--json", *filters).json] == found
    text = trimta("queue", "list", *filters).out
    assert [line.split()[0] for line in text.splitlines()[1:] if line[0] != " "] == found
    assert found or text == "nothing in the queue matches\n"


def test_age_and_next_try_are_those_of_the_queues_clock(trimta: Commands, queue: Queue) -> None:
    queue.meta.set(CLOCK_OFFSET, repr(20 * DAY))
    first, *_ = trimta("queue", "list", "--json").json
    assert first["age_s"] == pytest.approx(NOW + 20 * DAY - 1_700_000_000, abs=600)
    assert trimta("queue", "list").out.splitlines()[1].split()[4] == "now"


def test_the_first_of_many_rows_does_not_wait_for_the_others(trimta: Commands) -> None:
    with trimta.queue() as queue, queue.transaction():
        for number in range(3000):
            queue.accept(message(f"m{number:04}"), [envelope(next_try=NOW + 600)])
    read, write = os.pipe()
    command = [sys.executable, "-m", "trimta", "-c", str(trimta.folder / "conf.toml"), "queue", "list"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, env=environment) as process:
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.readline().startswith(b"ID ")
            assert pipe.readline().startswith(b"m0000 ")
        # The reader goes away, as `head` does.
        assert process.wait(20) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


# show


def test_a_message_is_shown_with_envelopes_and_header(trimta: Commands, queue: Queue) -> None:
    text = trimta("queue", "show", "m1").out
    assert text.startswith("message m1\n  arrived:  2023-11-14T22:13:20.000Z, ")
    for line in (
        "  sender:   <alice@dev.test>",
        "envelope m1.1",
        "  state:    deferred",
        "  to:       a.test, next hop a.test",
        r"  ann@a.test: 4.3.0 450 4.2.1 \x1b[31mlater",
        "envelope m1.2",
        "  held: to be looked at",
        "header",
        "  Received: x",
        "  Subject: hi",
        "      there",
        r"  X-Evil: \x1b[31m",
    ):
        assert line in text.splitlines(), text
    assert "body" not in text


def test_an_envelope_is_shown_alone(trimta: Commands, queue: Queue) -> None:
    assert "envelope m1.1\n" not in trimta("queue", "show", "m1.2").out
    (shown,) = trimta("queue", "show", "--json", "m1.2").json
    assert [one["id"] for one in shown["envelopes"]] == ["m1.2"]
    assert shown["envelopes"][0]["hold_reason"] == "to be looked at"
    assert shown["header"].startswith("Received: x\nSubject: hi\n\tthere\n")


def test_a_header_of_any_length_is_shown_whole(trimta: Commands) -> None:
    header = b"".join(b"X-Field-%06d: %s\n" % (number, b"x" * 60) for number in range(8_000)) + b"Subject: last\n"
    with trimta.queue() as queue:
        queue.accept(message("m1", Body.of(header + b"\nbody\n" * 1000)), [envelope()])
    (shown,) = trimta("queue", "show", "--json", "m1").json
    assert shown["header"].encode().endswith(header)


@pytest.mark.parametrize(
    ("content", "kind", "trace"),
    [
        (b"Subject: hi\n\n\xff\0\n.\nno end", BodyKind.EIGHT_BIT, b"Received: here\n"),
        (b"", BodyKind.SEVEN_BIT, b"Received: here\n"),
        (b"x" * (2 * MEMORY_LIMIT) + b"\n", BodyKind.SEVEN_BIT, b"Received: here\n"),
        (b"A: b\r\n\r\na\rb\nc\r\n", BodyKind.BINARY, b"Received: here\r\n"),
    ],
)
def test_raw_is_the_message_as_it_is_kept_and_nothing_else(
    content: bytes, kind: BodyKind, trace: bytes, trimta: Commands
) -> None:
    with trimta.queue() as queue:
        stored = replace(message("m1", content, body=kind), trace=b"Received: here\n")
        queue.accept(stored, [envelope("ann"), envelope("bob", domain="b.test")])
    for entry_id in ("m1", "m1.2"):
        assert trimta.octets("queue", "show", entry_id, "--raw") == trace + content
    for arguments in (("m1", "m1.2"), ("m1", "--json")):
        ended = trimta("queue", "show", "--raw", *arguments)
        assert (ended.code, ended.err) == (64, "trimta queue: show: --raw is for one ID, without --json\n")
    ended = trimta("queue", "show", "--raw", "m9")
    assert (ended.code, ended.out, ended.err.count("\n")) == (65, "", 1)


@pytest.mark.parametrize("options", [(), ("--json",), ("--raw",)])
def test_a_message_that_leaves_while_it_is_shown_is_no_traceback(
    options: tuple[str, ...], trimta: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trimta.queue() as queue:
        stored = queue.accept(message("m1", Body.of(b"x" * (MEMORY_LIMIT + 1))), [envelope()])
    path = stored.content.path
    assert path is not None
    show = Entries.show

    def shown_then_gone(*arguments: Any) -> Any:
        found = show(*arguments)
        path.unlink()
        return found

    monkeypatch.setattr(Entries, "show", shown_then_gone)
    ended = trimta("queue", "show", "m1", *options)
    assert (ended.code, ended.err) == (65, f"trimta queue: {path} is missing\n")


def test_what_is_not_there_is_said_and_the_others_are_shown(trimta: Commands, queue: Queue) -> None:
    ended = trimta("queue", "show", "m9", "m2", "m1.7")
    assert ended.code == 65
    assert ended.out.startswith("message m2\n")
    assert ended.err == (
        "trimta queue: no message or envelope 'm9' in the queue\n"
        "trimta queue: no message or envelope 'm1.7' in the queue\n"
    )


# The verbs.


def test_retry_makes_envelopes_due_and_leaves_held_ones(trimta: Commands, queue: Queue) -> None:
    ended = trimta("queue", "retry", "m1")
    assert (ended.code, ended.out) == (0, "m1.1 is tried now\n")
    assert trimta("queue", "retry", "m1.2").out == "m1.2 is held and stays so; `trimta queue release` sends it\n"
    assert [hop for hop, _ in queue.due.destinations(time.time(), 9)] == ["a.test"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--all"], "2 envelopes are tried now\n"),
        (["--domain", "C.TEST"], "1 envelope is tried now\n"),
        (["--domain", "b.test"], "0 envelopes are tried now\n"),
    ],
)
def test_retry_takes_many(arguments: list[str], line: str, trimta: Commands, queue: Queue) -> None:
    assert trimta("queue", "retry", *arguments).out == line
    assert trimta("queue", "retry", *arguments, "--json").json == {"count": int(line.split()[0])}


@pytest.mark.parametrize("arguments", [[], ["m1", "--all"], ["--all", "--domain", "a.test"], ["--domain", "a..test"]])
def test_retry_wants_to_know_what(arguments: list[str], trimta: Commands, queue: Queue) -> None:
    ended = trimta("queue", "retry", *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (64, "", 1)
    assert "--all" in ended.err or "a..test" in ended.err


def test_hold_keeps_and_release_sends(trimta: Commands, queue: Queue) -> None:
    assert trimta("queue", "hold", "m2").out == "m2 is held\n"
    assert trimta("queue", "hold", "m2").out == "m2 is held already\n"
    assert ids(queue, EnvelopeState.HELD) == ["m1.2", "m2"]
    assert trimta("queue", "release", "m2").out == "m2 goes out now\n"
    assert ids(queue, EnvelopeState.HELD) == ["m1.2"]
    assert [hop for hop, _ in queue.due.destinations(time.time(), 9)] == [
        f"maildir:{trimta.folder}/maildir-example/remote"
    ]


def test_what_is_not_held_is_not_released(trimta: Commands, queue: Queue) -> None:
    ended = trimta("queue", "release", "m2")
    assert (ended.code, ended.err) == (65, "trimta queue: m2 is not held; `trimta queue retry m2` tries it now\n")


ROUTES = (
    '[routes]\n"b.test" = "hold"\n".test" = "smtp:127.0.0.1:2600"\n"c.test" = "reject:550 5.7.1 no"\n"*" = "hold"\n'
)


def test_release_goes_by_the_route_that_there_is_without_hold(trimta: Commands, queue: Queue) -> None:
    trimta.configure(ROUTES)
    assert trimta("queue", "release", "m1").out == "m1.2 goes out now\n"
    found = queue.entries.load("m1.2")
    assert found is not None
    assert (found[1].next_hop, found[1].released, found[1].via) == ("127.0.0.1:2600", True, "")


def test_where_every_route_is_hold_release_asks_for_one(trimta: Commands, queue: Queue) -> None:
    trimta.configure('[routes]\n"*" = "hold"\n')
    ended = trimta("queue", "release", "m1.2")
    assert ended.code == 65
    assert ended.err == "trimta queue: bob@b.test has no route but `hold`: say where to, with --via ROUTE\n"
    assert ids(queue, EnvelopeState.HELD) == ["m1.2"]


@pytest.mark.parametrize(
    ("route", "kept", "next_hop"),
    [
        ("discard", "discard", "discard"),
        ("mx", "mx", "b.test"),
        ("smtp:127.0.0.1:2601", "smtp:127.0.0.1:2601", "127.0.0.1:2601"),
        ("lmtp:unix:sock", "lmtp:unix:{}/sock", "unix:{}/sock"),
        ("maildir:a b", "maildir:{}/a b", "maildir:{}/a b"),
        (
            '{ transport = "smtp", host = "x.test", tls = "none", username = "u", password_file = "p" }',
            '{ transport = "smtp", host = "x.test", port = 25, tls = "none", username = "u", password_file = "{}/p" }',
            "x.test:25 tls=none username=u",
        ),
    ],
)
def test_release_by_another_route(route: str, kept: str, next_hop: str, trimta: Commands, queue: Queue) -> None:
    assert trimta("queue", "release", "m1", "--via", route).out == "m1.1 goes out now\nm1.2 goes out now\n"
    found = queue.entries.load("m1.2")
    assert found is not None
    folder = str(trimta.folder)
    assert (found[1].via, found[1].next_hop) == (kept.replace("{}", folder), next_hop.replace("{}", folder))
    assert found[1].state is EnvelopeState.QUEUED


@pytest.mark.parametrize("route", ["hold", "nonsense", "{ transport = ", "{}\nx = 1", "smtp:"])
def test_a_route_that_is_none_is_wrong_usage(route: str, trimta: Commands, queue: Queue) -> None:
    ended = trimta("queue", "release", "m1.2", "--via", route)
    assert (ended.code, ended.out) == (64, "")
    assert "--via" in ended.err
    assert ids(queue, EnvelopeState.HELD) == ["m1.2"]


def test_release_to_another_address(trimta: Commands, queue: Queue) -> None:
    trimta.configure(ROUTES + '[aliases]\nteam = ["carl", "dora@d.test"]\n')
    assert trimta("queue", "release", "m1.1", "--to", "carol@b.test").out == "m1.3 goes out now\n"
    assert trimta("queue", "release", "m1.2", "--to", "team@dev.test").out == "m1.4 goes out now\nm1.5 goes out now\n"
    envelopes = {listed.envelope.id: listed.envelope for listed in queue.entries.list_envelopes(domain=None)}
    assert {
        name: ([str(one.recipient.address) for one in found.recipients], found.next_hop, found.state)
        for name, found in envelopes.items()
        if name != "m2"
    } == {
        "m1.3": (["carol@b.test"], "127.0.0.1:2600", EnvelopeState.QUEUED),
        "m1.4": (["carl@dev.test"], "local", EnvelopeState.QUEUED),
        "m1.5": (["dora@d.test"], "127.0.0.1:2600", EnvelopeState.QUEUED),
    }
    assert [str(one.recipient.original) for one in envelopes["m1.4"].recipients] == ["bob@b.test"]


@pytest.mark.parametrize(
    ("address", "code", "reason"),
    [
        ("zoe@dev.test", 67, "--to zoe@dev.test: there is no such user here"),
        ("x@c.test", 67, "--to x@c.test would be refused: 550 5.7.1 no"),
        ("x@far.away", 65, "x@far.away has no route but `hold`"),
        ("x@", 64, "--to"),
        ("nobody", 64, "--to"),
    ],
)
def test_an_address_that_would_be_refused_is_no_way_out(
    address: str, code: int, reason: str, trimta: Commands, queue: Queue
) -> None:
    trimta.configure(ROUTES + '[local]\nusers = ["alice"]\n')
    ended = trimta("queue", "release", "m1.2", "--to", address)
    assert ended.code == code
    assert reason in ended.err
    assert ended.err.count("\n") == 1
    assert ids(queue, EnvelopeState.HELD) == ["m1.2"]


def test_remove_and_bounce(trimta: Commands, queue: Queue) -> None:
    assert trimta("queue", "remove", "m1.2", "--json").json == {"ids": ["m1.2"]}
    assert trimta("queue", "bounce", "m1").out == "m1.1 is returned to its sender now\n"
    found = queue.entries.load("m1.1")
    assert found is not None
    assert found[1].bounce
    assert ids(queue) == ["m1.1", "m2"]


def test_what_the_operator_did_is_in_the_messages_log(trimta: Commands, queue: Queue) -> None:
    for verb in ("hold", "release", "bounce", "retry", "remove"):
        trimta("queue", verb, "m1.1")
    assert [line for _, line in queue.log.read("m1")] == [
        "held by the operator: m1.1",
        "released by the operator: m1.1",
        "to be returned to its sender, by the operator: m1.1",
        "to be tried now, by the operator: m1.1",
        "removed by the operator: m1.1",
    ]


@pytest.mark.parametrize("verb", ["show", "retry", "hold", "release", "remove", "bounce"])
@pytest.mark.parametrize("existing", [False, True], ids=["no queue", "another entry"])
def test_an_unknown_id_is_65_and_one_line(verb: str, existing: bool, trimta: Commands) -> None:
    if existing:
        with trimta.queue() as queue:
            queue.accept(message("m1"), [envelope(state=EnvelopeState.HELD)])
    ended = trimta("queue", verb, "m9\x1b")
    assert ended.code == 65
    assert ended.err == "trimta queue: no message or envelope 'm9\\x1b' in the queue\n"


def test_with_several_ids_those_that_are_there_are_done(trimta: Commands, queue: Queue) -> None:
    ended = trimta("queue", "remove", "m9", "m2", "m8")
    assert (ended.code, ended.out, ended.err.count("\n")) == (65, "m2 is removed\n", 2)
    assert ids(queue) == ["m1.1", "m1.2"]


@pytest.mark.parametrize("arguments", [[], ["bogus"], ["hold"], ["show"], ["list", "--state", "lost"], ["list", "x"]])
def test_wrong_usage_is_64_and_one_line(arguments: list[str], trimta: Commands) -> None:
    ended = trimta("queue", *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (64, "", 1)


@pytest.mark.parametrize("action", ["list", "show", "retry", "hold", "release", "remove", "bounce"])
def test_every_actions_help_has_an_example(action: str, trimta: Commands) -> None:
    ended = trimta("queue", action, "--help")
    assert ended.code == 0
    assert f"example:\n  trimta queue {action}" in ended.out


# What can be wrong with the queue itself.


def test_a_database_that_cannot_be_read_is_75_and_named(trimta: Commands) -> None:
    trimta.data_dir.mkdir()
    (trimta.data_dir / FILE).write_bytes(b"not a database, but long enough to look like one" * 100)
    for arguments in (["list"], ["retry", "--all"], ["hold", "m1"]):
        ended = trimta("queue", *arguments)
        assert (ended.code, ended.out, ended.err.count("\n")) == (75, "", 1)
        assert str(trimta.data_dir / FILE) in ended.err


def test_a_damaged_entry_is_listed_and_is_65_to_show(trimta: Commands) -> None:
    with trimta.queue() as queue:
        stored = queue.accept(message("m1", Body.of(b"x" * (MEMORY_LIMIT + 1))), [envelope()])
        assert stored.content.path is not None
        stored.content.path.unlink()
    assert [one["id"] for one in trimta("queue", "list", "--json").json] == ["m1"]
    ended = trimta("queue", "show", "m1")
    assert (ended.code, ended.err) == (65, "trimta queue: queue entry m1 is damaged: its spool file is missing\n")
    assert trimta("queue", "remove", "m1").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_elses_queue_is_77(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        trimta = Commands(Path(folder), capsys)
        with trimta.queue() as queue:
            queue.accept(message("m1"), [envelope()])
        for command in ("queue list", "queue hold m1", "log m1", "status", "tail"):
            trimta(*command.split())  # imports what nobody else can
        listener = socket.socket(socket.AF_UNIX)
        with listener:
            listener.bind(str(trimta.data_dir / socket_path.NAME))
            listener.listen()
            os.seteuid(65534)
            try:
                ended = [
                    trimta(*command.split()) for command in ("queue list", "queue hold m1", "log m1", "status", "tail")
                ]
            finally:
                os.seteuid(0)
    assert [(one.code, one.out, one.err.count("\n")) for one in ended] == [(77, "", 1)] * 5
    assert all(str(trimta.data_dir) in one.err for one in ended)
