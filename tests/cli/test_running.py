"""`status`, `tail`, `log`, `time` and `queue` with a server that runs, in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.commands import Commands
from tests.support.process import DEADLINE, TrimtaProcess, command_environment
from trimta.control import socket_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIGURATION = """
hostname = "mail.dev.test"
[routes]
"held.test" = "hold"
"dead.test" = "smtp:127.0.0.1:1"
"silent.test" = "smtp:127.0.0.1:{silent}"
[auth.users]
alice = "open sesame"
"""

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def silent() -> Iterator[socket.socket]:
    """A host that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, silent: socket.socket) -> Iterator[TrimtaProcess]:
    """Its data_dir's path is too long for a socket, as those of test folders are on some systems."""
    folder = tmp_path_factory.mktemp("server") / ("long" * 30)
    folder.mkdir()
    with TrimtaProcess(folder, CONFIGURATION.format(silent=silent.getsockname()[1])) as running:
        yield running


@pytest.fixture
def trimta(server: TrimtaProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    monkeypatch.chdir(server.folder)
    monkeypatch.delenv("TRIMTA_CONF", raising=False)
    return Commands(server.folder, capsys)


def send(server: TrimtaProcess, *to: str, sender: str = "alice@dev.test", text: str = "Subject: hi\n\nhello\n") -> str:
    """Send a message; returns its id."""
    with smtplib.SMTP("127.0.0.1", server.port, timeout=DEADLINE) as client:
        client.ehlo()
        assert client.mail(sender)[0] == 250
        assert all(client.rcpt(address)[0] == 250 for address in to)
        code, reply = client.data(text)
    assert code == 250
    return reply.decode().rpartition(" ")[2]


def until(condition: Callable[[], Any]) -> Any:
    """The first true value, which a process of its own is to bring about: within a second, but machines are slow."""
    give_up = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    return value


def listed(trimta: Commands, message: str) -> dict[str, Any] | None:
    found = [one for one in trimta("queue", "list", "--json").json if one["id"] == message]
    return found[0] if found else None


# queue


def test_a_released_message_goes_out(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@held.test")
    held = listed(trimta, message)
    assert held is not None
    assert (held["state"], held["recipients"][0]["reply"]) == ("held", "by its route")
    assert trimta("queue", "release", message).code == 0
    until(lambda: listed(trimta, message) is None)
    assert any(message.encode() in octets for octets in server.raw_messages("remote"))


def test_a_message_is_redirected(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@held.test")
    assert trimta("queue", "release", message, "--to", "fred+detail@dev.test").code == 0
    until(lambda: server.messages("fred"))
    (found,) = server.messages("fred")
    assert (found["Delivered-To"], found["X-Original-To"]) == ("fred@dev.test", "x@held.test")
    assert listed(trimta, message) is None


def test_a_message_goes_by_another_route(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@dead.test")
    assert trimta("queue", "release", message, "--via", '{ transport = "maildir", path = "elsewhere" }').code == 0
    until(lambda: listed(trimta, message) is None)
    assert len([*(server.folder / "elsewhere" / "new").iterdir()]) == 1


def test_a_bounced_message_is_reported_to_its_sender(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@held.test", sender="grace@dev.test")
    assert trimta("queue", "bounce", message).code == 0
    until(lambda: server.messages("grace"))
    (report,) = server.messages("grace")
    assert report.get_content_type() == "multipart/report"
    assert "returned to the sender by the operator" in report.as_string()
    assert listed(trimta, message) is None


def test_a_report_to_postmaster_can_be_bounced_too(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "postmaster@held.test", "x@held.test", sender="")
    assert trimta("queue", "bounce", message).code == 0
    until(lambda: listed(trimta, message) is None)


def test_a_removed_message_is_gone_and_nobody_is_told(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@held.test", sender="nobody@dev.test")
    assert trimta("queue", "remove", message).code == 0
    assert listed(trimta, message) is None
    assert not server.maildir("nobody").exists()


def test_a_retried_message_is_tried_now(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@dead.test")
    until(lambda: (listed(trimta, message) or {}).get("attempts") == 1)
    assert trimta("queue", "retry", "--domain", "dead.test").code == 0
    tried = until(
        lambda: (one := listed(trimta, message)) and one["attempts"] == 2 and one["state"] == "deferred" and one
    )
    assert tried["recipients"][0]["status"] == "4.4.1"
    assert "cannot connect to [127.0.0.1]:1: connection refused" in tried["recipients"][0]["reply"]
    trimta("queue", "hold", message)
    assert trimta("queue", "retry", "--all").code == 0
    assert (listed(trimta, message) or {})["state"] == "held"
    trimta("queue", "remove", message)


def test_what_is_being_delivered_is_active_and_can_be_removed(
    server: TrimtaProcess, silent: socket.socket, trimta: Commands
) -> None:
    message = send(server, "x@silent.test")
    silent.settimeout(DEADLINE)
    connection, _ = silent.accept()
    until(lambda: (listed(trimta, message) or {}).get("state") == "active")
    assert [one["id"] for one in trimta("queue", "list", "--json", "--state", "active").json] == [message]
    assert "  state:    active\n" in trimta("queue", "show", message).out
    assert trimta("status", "--json").json["deliveries"] == 1
    assert trimta("queue", "remove", message).code == 0
    assert listed(trimta, message) is None
    connection.close()
    until(lambda: trimta("status", "--json").json["deliveries"] == 0)


# status


def test_status(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@held.test", "y@dev.test")
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as session:
        session.recv(1000)
        status = trimta("status", "--json").json
        text = trimta("status").out
    assert status["pid"] == server.pid
    assert status["listening"] == [f"127.0.0.1:{server.port}"]
    assert status["sessions"] >= 1
    assert status["queue"]["held.test"] == status["held"] == 1
    assert status["counters"]["accepted"] >= 1
    assert text.startswith(f"process {server.pid}, running for ")
    assert f"listening on 127.0.0.1:{server.port}\n" in text
    assert "        1 held.test\n" in text
    trimta("queue", "remove", message)


# log


def test_a_log_has_the_dialogue_and_what_came_of_it(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@dead.test", "henry@dev.test", sender="henry@dev.test")
    until(lambda: (listed(trimta, f"{message}") or {}).get("attempts") == 1)
    trimta("queue", "bounce", message)
    until(lambda: listed(trimta, message) is None)
    ended = trimta("log", "--json", message)
    assert ended.json["id"] == message
    # The verbs as smtplib of Python 3.13 and of those before it write them.
    lines = [re.sub("^C: rcpt to", "C: rcpt TO", line["text"]) for line in ended.json["lines"]]
    order = [
        "S: 220 mail.dev.test ESMTP trimta",
        "C: rcpt TO:<x@dead.test>",
        "S: 250 2.1.5 <x@dead.test> recipient ok",
        "C: (22 octets of content)",
        "accepted sender=<henry@dev.test> to=x@dead.test,henry@dev.test size=22",
        "delivered to=henry@dev.test maildir=",
        f"S: 250 2.6.0 queued as {message}",
        "connecting to [127.0.0.1]:1",
        "cannot connect: connection refused",
        "deferred to=x@dead.test host=[127.0.0.1]:1 status=4.4.1",
        "bounced to=x@dead.test status=5.7.0",
    ]
    assert [start for start in order if not any(line.startswith(start) for line in lines)] == [], lines
    places = [next(index for index, line in enumerate(lines) if line.startswith(start)) for start in order]
    assert places == sorted(places)
    assert f"to be returned to its sender, by the operator: {message}" in lines
    assert any(line.startswith("report id=") for line in lines)
    assert "hello" not in ended.out
    times = [line["time"] for line in ended.json["lines"]]
    assert times == sorted(times)
    assert trimta("log", f"{message}.1").out == trimta("log", message).out


def test_each_message_of_a_session_has_its_own_dialogue(server: TrimtaProcess, trimta: Commands) -> None:
    with smtplib.SMTP("127.0.0.1", server.port, timeout=DEADLINE) as client:
        for name in ("iris", "jack"):
            client.sendmail("a@dev.test", [f"{name}@dev.test"], "Subject: hi\n\nhello\n")
    (first,), (second,) = server.messages("iris"), server.messages("jack")
    first_id, second_id = (found["Received"].split(" id ")[1].split(";")[0].split()[0] for found in (first, second))
    first_log, second_log = trimta("log", first_id).out, trimta("log", second_id).out
    assert f"S: 250 2.6.0 queued as {first_id}" in first_log
    assert "jack" not in first_log
    assert f"S: 250 2.6.0 queued as {second_id}" in second_log
    assert "iris" not in second_log
    assert first_id not in second_log


def test_no_password_is_written_down_anywhere(server: TrimtaProcess, trimta: Commands) -> None:
    plain = base64.b64encode(f"\0alice\0{PASSWORD}".encode()).decode()
    with smtplib.SMTP("127.0.0.1", server.port, timeout=DEADLINE) as client:
        client.ehlo()
        assert client.docmd("AUTH PLAIN " + plain + "AAAA")[0] in (501, 535)  # with a slip at the end
        assert client.docmd("AUTH", "LOGIN")[0] == 334
        assert client.docmd(base64.b64encode(b"alice").decode())[0] == 334
        assert client.docmd(base64.b64encode(PASSWORD.encode()).decode())[0] == 235
        client.sendmail("alice@dev.test", ["kate@dev.test"], "Subject: hi\n\nhello\n")
    (found,) = server.messages("kate")
    message = found["Received"].split(" id ")[1].split(";")[0].split()[0]
    log = trimta("log", message).out
    assert "C: AUTH PLAIN ***" in log
    assert "as alice" in log
    for text in (log, server.log):
        for secret in (PASSWORD, plain[:12], base64.b64encode(PASSWORD.encode()).decode()):
            assert secret not in text


# tail


@contextlib.contextmanager
def following(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`trimta tail` at work."""
    command = [sys.executable, "-m", "trimta", "tail", *options]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # else it inherits what a shell's & ignores
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=command_environment(folder) | {"PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    killer = threading.Timer(DEADLINE, process.kill)
    killer.start()
    try:
        with process:
            yield process
            process.kill()
    finally:
        killer.cancel()


def events_of(process: subprocess.Popen[str], server: TrimtaProcess, trigger: str) -> Iterator[dict[str, Any]]:
    """What it prints, once it is surely connected: that is when it prints something at all."""
    assert process.stdout is not None
    done = threading.Event()

    def poke() -> None:
        while not done.wait(0.05):
            send(server, trigger)

    poker = threading.Thread(target=poke)
    poker.start()
    first = process.stdout.readline()
    done.set()
    poker.join()
    yield json.loads(first)
    for line in process.stdout:
        yield json.loads(line)


def test_tail_follows_and_ends_at_ctrl_c(server: TrimtaProcess) -> None:
    with following(server.folder, "--json") as process:
        events = events_of(process, server, "leo@dev.test")
        next(events)
        message = send(server, "leo@dev.test")
        delivered = next(event for event in events if event["event"] == "delivered" and event["id"] == message)
        assert delivered["to"] == "leo@dev.test"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_tail_ends_when_the_server_does(tmp_path: Path) -> None:
    with TrimtaProcess(tmp_path) as server, following(tmp_path, "--json") as process:
        events = events_of(process, server, "mia@dev.test")
        next(events)
        server.stop()
        names = [event["event"] for event in events]
        assert names[-1] == "stopped"
        assert "stopping" in names[-3:], "a worker process may tell of an end behind it"
        assert process.wait(DEADLINE) == 0


def test_a_tail_that_is_not_read_stops_nothing(server: TrimtaProcess, trimta: Commands) -> None:
    with socket.socket(socket.AF_UNIX) as stalled:
        stalled.connect(str(socket_path.address(server.folder / "var")))
        stalled.sendall(b'{"command": "tail"}\n')
        for _ in range(30):
            send(server, "nina@dev.test", text="Subject: " + "x" * 900 + "\n\n")
        assert len(server.messages("nina")) == 30
        assert trimta("status").code == 0


# time


def test_time_moves_the_queue_on(server: TrimtaProcess, trimta: Commands) -> None:
    message = send(server, "x@dead.test", sender="olga@dev.test")
    ended = trimta("time", "advance", "5d", "--json")
    assert ended.code == 0
    answer = ended.json
    names = [event["event"] for event in answer["events"] if message in (event["id"], event.get("about"))]
    assert names.count("deferred") >= 10
    assert names.count("delay_warning") == 1
    assert names.count("bounced") == 1
    assert answer["moments"] >= 10
    assert answer["offset_s"] == pytest.approx(5 * 86400, abs=60)
    assert len(server.messages("olga")) == 2
    assert listed(trimta, message) is None
    text = trimta("time", "advance", "4h").out
    assert text.startswith("the queue's clock is 4h further, at ")
    assert text.endswith(": nothing fell due\n")
    assert "the queue's clock is 5d04h ahead\n" in trimta("status").out


# route


def test_route_knows_where_the_running_server_listens(server: TrimtaProcess, trimta: Commands) -> None:
    # The configuration says "any free port": only the server knows which.
    zones = '[dns.zones."near.test"]\naddress = ["127.0.0.1"]\n'
    (trimta.folder / "other.toml").write_text(
        f'[[listen]]\naddress = "127.0.0.1:0"\n[routes]\n"*" = {{ transport = "mx", port = {server.port} }}\n{zones}'
    )
    ended = trimta("route", "a@near.test", "-c", "other.toml")
    assert (ended.code, "5.4.6" in ended.out) == (67, True), ended.out
