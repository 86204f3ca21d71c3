"""Each command with each standard stream in each state: no traceback, and an exit code by what was done."""

from __future__ import annotations

import os
import re
import select
import signal
import smtplib
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.process import DEADLINE, TrimtaProcess, command_environment, eventually
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIGURATION: Final = '[routes]\n"later.test" = "hold"\n'
MESSAGE: Final = b"To: x@later.test\nSubject: s\n\nbody\n"
DIALOGUE: Final = (
    b"EHLO c\r\nMAIL FROM:<a@dev.test>\r\nRCPT TO:<x@later.test>\r\nDATA\r\nSubject: s\r\n\r\nbody\r\n.\r\nQUIT\r\n"
)
CLOSED: Final = "closed"
CLOSED_DESCRIPTOR: Final = -100
"""Stands for a stream that is closed."""

PRINTING: Final[dict[str, int]] = {
    "--help": 0,
    "check --json": 0,
    "route a@b.test": 0,
    "queue list": 0,
    "queue show {id} --json": 0,
    "log {id}": 0,
    "sendmail -bp": 0,
    "wait --to alice --print body": 0,
}
"""What is called for what it prints, with its exit code."""

DOING: Final[dict[str, int]] = {
    "sendmail x@later.test": 0,
    "queue hold {id}": 0,
    "queue retry --all --json": 0,
    "queue hold unknown": 65,
    "init folder-{count}": 0,
    "bogus": 64,
    "check -c missing.toml": 66,
}
"""What is called for what it does: a standard output that fails changes nothing about that."""

WITH_A_SERVER: Final = ("status", "time advance 1s --json")

STATES: Final = (CLOSED, "full", "wrong way", "no reader")
OUTPUTS: Final = [
    *((line, "full") for line in (*PRINTING, *DOING)),
    *((line, state) for line in ("queue list", "sendmail x@later.test", "queue hold {id}") for state in STATES),
]
"""All with one state, and a few with all."""


class States:
    """Opens a descriptor in each of the states that a stream may be in."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup

    def __call__(self, state: str) -> int:
        match state:
            case "full":
                return self._kept(os.open("/dev/full", os.O_RDWR))
            case "wrong way":
                return self._kept(os.open("/dev/null", os.O_RDONLY))
            case "wrong way in":
                return self._kept(os.open("/dev/null", os.O_WRONLY))
            case "broken":
                return self._kept(os.open("/proc/self/mem", os.O_RDONLY))
            case "no reader":
                read, write = os.pipe()
                os.close(read)
                return self._kept(write)
            case _:
                return CLOSED_DESCRIPTOR

    def _kept(self, descriptor: int) -> int:
        self._cleanup.callback(os.close, descriptor)
        return descriptor


@pytest.fixture
def state() -> Iterator[States]:
    with ExitStack() as cleanup:
        yield States(cleanup)


@pytest.fixture(scope="module", params=["server", "no server"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrimtaProcess]:
    """A folder with a queue in which a message is held, and one in alice's Maildir."""
    with TrimtaProcess(tmp_path_factory.mktemp("streams"), CONFIGURATION) as server:
        with smtplib.SMTP("127.0.0.1", server.port, timeout=DEADLINE) as client:
            client.sendmail("a@dev.test", ["alice@dev.test", "x@later.test"], "Subject: s\n\nbody\n")
        if request.param == "no server":
            server.stop()
        yield server


_count = iter(range(10**6))


def called(
    folder: Path,
    line: str,
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    text: bytes = MESSAGE,
) -> subprocess.CompletedProcess[bytes]:
    """A command with a stream that is given, or CLOSED_DESCRIPTOR."""
    streams = [stdin, stdout, stderr]
    closed = [number for number, stream in enumerate(streams) if stream == CLOSED_DESCRIPTOR]
    if "{id}" in line:
        with Queue(folder / "var") as queue:
            line = line.format(id=next(iter(queue.entries.list_envelopes())).envelope.id)
    opened = [subprocess.PIPE if stream in (None, CLOSED_DESCRIPTOR) else stream for stream in streams]
    arguments = line.format(count=next(_count)).split()
    shell = "exec " + "".join(f"{number}{'<' if number == 0 else '>'}&- " for number in closed) + '"$@"'
    with subprocess.Popen(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "trimta", *arguments],
        cwd=folder,
        env=command_environment(folder),
        stdin=opened[0],
        stdout=opened[1],
        stderr=opened[2],
    ) as process:
        try:
            out, err = process.communicate(text if process.stdin else None, timeout=DEADLINE)
        finally:
            process.kill()
    assert b"Traceback" not in (err or b"")
    assert b"Exception ignored" not in (err or b"")
    assert process.returncode >= 0, "a signal ended it"
    return subprocess.CompletedProcess(arguments, process.returncode, out, err or b"")


@pytest.mark.parametrize(("line", "output"), [pair for pair in dict.fromkeys(OUTPUTS) if pair[0] in PRINTING])
def test_what_could_not_be_printed_is_a_failure(line: str, output: str, place: TrimtaProcess, state: States) -> None:
    done = called(place.folder, line, stdout=state(output))
    if output == "no reader":  # as Unix tools: without a word
        assert (done.returncode, done.stderr) == (141, b"")
    else:
        assert done.returncode == 74
        assert re.fullmatch(rb"trimta[^\n]*: standard output [^\n]*\n", done.stderr), done.stderr


@pytest.mark.parametrize(("line", "output"), [pair for pair in dict.fromkeys(OUTPUTS) if pair[0] in DOING])
def test_what_was_done_is_done_whatever_becomes_of_the_output(
    line: str, output: str, place: TrimtaProcess, state: States
) -> None:
    done = called(place.folder, line, stdout=state(output))
    assert done.returncode == DOING[line], done.stderr
    assert done.stderr.count(b"\n") <= 1
    if line.startswith("sendmail "):
        assert done.stderr == b""


@pytest.mark.parametrize(
    ("line", "errors"),
    [
        *((line, CLOSED) for line in ("check --json", "sendmail x@later.test", "bogus", "queue hold unknown")),
        *(("check -c missing.toml", state) for state in STATES),
    ],
)
def test_errors_that_nobody_hears_change_no_exit_code(
    line: str, errors: str, place: TrimtaProcess, state: States
) -> None:
    done = called(place.folder, line, stderr=state(errors))
    assert done.returncode == (PRINTING | DOING)[line]
    assert bool(done.stdout) == (line in PRINTING)


@pytest.mark.parametrize(
    ("line", "given"),
    [
        *((line, CLOSED) for line in ("check --json", "queue list", "sendmail -bp")),
        *(("sendmail x@later.test", state) for state in (CLOSED, "wrong way in", "broken")),
    ],
)
def test_only_sendmail_misses_its_input(line: str, given: str, place: TrimtaProcess, state: States) -> None:
    done = called(place.folder, line, stdin=state(given))
    if line == "sendmail x@later.test":
        assert done.returncode == 74
        assert re.fullmatch(rb"trimta sendmail: standard input [^\n]*; nothing was sent\n", done.stderr)
    else:
        assert done.returncode == (PRINTING | DOING)[line], done.stderr


@pytest.mark.parametrize("line", ["queue list", "sendmail -bs", "bogus"])
def test_without_any_stream_nothing_goes_wrong_but_what_must(line: str, place: TrimtaProcess) -> None:
    done = called(place.folder, line, stdin=CLOSED_DESCRIPTOR, stdout=CLOSED_DESCRIPTOR, stderr=CLOSED_DESCRIPTOR)
    assert done.returncode == (64 if line == "bogus" else 74)


@pytest.mark.parametrize("line", WITH_A_SERVER)
@pytest.mark.parametrize("broken", ["stdout", "stderr"])
@pytest.mark.parametrize("how", [CLOSED, "no reader"])
def test_questions_to_a_server(line: str, broken: str, how: str, place: TrimtaProcess, state: States) -> None:
    if place._process is None:
        pytest.skip("needs a server")
    stream = state(how)
    done = called(
        place.folder,
        line,
        stdout=stream if broken == "stdout" else None,
        stderr=stream if broken == "stderr" else None,
    )
    failed = 141 if how == "no reader" else 74
    assert done.returncode == (failed if broken == "stdout" and line.startswith("status") else 0), done.stderr


@pytest.mark.parametrize(
    ("given", "output", "code", "told"),
    [
        (None, CLOSED, 74, b"standard output is closed: replies have no way out; nothing was sent"),
        (None, "wrong way", 74, b"standard output is closed: replies have no way out; nothing was sent"),
        (None, "full", 74, b"standard output can't be written: No space left on device; the client was not answered"),
        (None, "no reader", 0, b""),
        (CLOSED, None, 74, b"standard input is closed; nothing was sent"),
        ("wrong way in", None, 74, b"standard input is closed; nothing was sent"),
    ],
)
def test_smtp_on_streams_that_fail(
    given: str | None, output: str | None, code: int, told: bytes, place: TrimtaProcess, state: States
) -> None:
    before = len(_queued(place.folder))
    done = called(
        place.folder,
        "sendmail -bs",
        stdin=None if given is None else state(given),
        stdout=None if output is None else state(output),
        text=DIALOGUE,
    )
    assert done.returncode == code
    assert done.stderr == (b"trimta sendmail: " + told + b"\n" if told else b"")
    assert len(_queued(place.folder)) == before


def _queued(folder: Path) -> list[str]:
    with Queue(folder / "var") as queue:
        return [listed.envelope.id for listed in queue.entries.list_envelopes()]


def test_a_message_that_was_taken_is_taken_once_though_output_and_errors_are_closed(tmp_path: Path) -> None:
    (tmp_path / "conf.toml").write_text(CONFIGURATION)
    done = called(tmp_path, "sendmail x@dev.test", stdout=CLOSED_DESCRIPTOR, stderr=CLOSED_DESCRIPTOR)
    assert done.returncode == 0
    assert len(_queued(tmp_path)) == 1


# The server.


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_a_server_without_streams_serves_and_opens_nothing_in_their_place(
    closed: tuple[int, ...], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "conf.toml").write_text(f'[[listen]]\naddress = "127.0.0.1:{port}"\n')
    shell = "exec " + "".join(f"{number}{'<' if number == 0 else '>'}&- " for number in closed) + '"$@"'
    server = subprocess.Popen(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "trimta", "serve"],
        cwd=tmp_path,
        env=command_environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def connection() -> smtplib.SMTP | None:
            with suppress(OSError):
                return smtplib.SMTP("127.0.0.1", port, timeout=DEADLINE)
            return None

        client = eventually(connection, lambda: f"it does not listen; exit code {server.poll()}")
        assert client is not None
        with client:
            client.sendmail("a@dev.test", ["alice@dev.test", "x@far.test"], "Subject: s\n\nbody\n")
        for number in closed:
            assert Path(f"/proc/{server.pid}/fd/{number}").readlink() == Path(os.devnull)
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE) == 0
    finally:
        server.kill()
        server.wait()


def test_a_server_whose_log_is_full_or_whose_reader_is_gone_serves(tmp_path: Path, state: States) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for errors in ("full", "no reader"):
        server = subprocess.Popen(
            [sys.executable, "-m", "trimta", "serve", "--listen", f"127.0.0.1:{port}"],
            cwd=tmp_path,
            env=command_environment(tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=state("full"),
            stderr=state(errors),
        )
        try:

            def answers() -> bool:
                with suppress(OSError), smtplib.SMTP("127.0.0.1", port, timeout=DEADLINE) as client:
                    return client.noop()[0] == 250
                return False

            eventually(answers, lambda: f"it does not answer; exit code {server.poll()}")  # noqa: B023
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE) == 0
        finally:
            server.kill()
            server.wait()


# Readers that go away, and signals.


@contextmanager
def _started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "trimta", *arguments],
        cwd=folder,
        env=command_environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_tail_ends_with_its_reader_though_nothing_happens(place: TrimtaProcess) -> None:
    if place._process is None:
        pytest.skip("needs a server")
    with _started(place.folder, "tail") as tail:
        assert tail.stdout is not None
        output = tail.stdout.fileno()

        def follows() -> bool:  # it shows what happens after it has begun
            with smtplib.SMTP("127.0.0.1", place.port, timeout=DEADLINE):
                return bool(select.select([output], [], [], 0.1)[0])

        eventually(follows, lambda: "it shows nothing")
        tail.stdout.close()
        assert tail.wait(DEADLINE) == 141
        assert tail.stderr is not None
        assert tail.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("sendmail", "x@later.test"), b"Subject: s\n"),
        (("sendmail", "-bs"), b"EHLO x\r\n"),
        (("wait", "--to", "nobody", "--timeout", "30s"), b""),
        (("tail",), b""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_signal_is_no_traceback(
    arguments: tuple[str, ...], text: bytes, number: signal.Signals, place: TrimtaProcess
) -> None:
    if place._process is None and arguments == ("tail",):
        pytest.skip("needs a server")
    before = len(_queued(place.folder))
    with _started(place.folder, *arguments) as process:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.flush()
        if arguments[-1] == "-bs":
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"220")
        eventually(_blocked(process), lambda: "it does not come to wait")
        process.send_signal(number)
        assert process.wait(DEADLINE) in ({0, 130} if number == signal.SIGINT else {-signal.SIGTERM})
        assert process.stderr is not None
        errors = process.stderr.read()
    assert errors == b""
    assert len(_queued(place.folder)) == before


def _blocked(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    """Whether it has slept through three looks in a row: it waits for us, or for time to pass."""
    slept: list[bool] = []

    def look() -> bool:
        status = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        slept.append(status[0] == "S" and int(status[11]) > 1)
        return len(slept) > 3 and all(slept[-3:])

    return look


def test_an_interrupt_while_the_commands_are_imported_is_no_traceback() -> None:
    """The interpreter's own handler would raise KeyboardInterrupt in the middle of an import."""
    script = """if True:
        import signal, sys, types
        from trimta import __main__
        def main():
            print(signal.getsignal(signal.SIGINT) is signal.SIG_DFL)
            return 0
        sys.modules["trimta.cli.main"] = types.SimpleNamespace(main=main)
        sys.exit(__main__.main())
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
