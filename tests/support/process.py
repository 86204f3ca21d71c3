"""A real `trimta serve` in a process of its own, for tests that look at it from outside.

    with TrimtaProcess(tmp_path, "[local]\nusers = ['alice']") as server:
        swaks(server.port)
        assert server.messages("alice")

Every wait has a deadline, and what a failing test leaves running is killed.
"""

from __future__ import annotations

import json
import mailbox
import os
import re
import signal
import subprocess
import sys
import threading
import time
from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tests.support.workers import worker_options
from trimta.store.maildir import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from email.message import EmailMessage
    from types import TracebackType
    from typing import Self

T = TypeVar("T")

DEADLINE: Final = 30.0
"""Seconds for whatever takes a fraction of one on an idle machine."""

POLL: Final = 0.02
"""Seconds between two looks at what another program does."""

ANY_PORT: Final = '\n[[listen]]\naddress = "127.0.0.1:0"\n'

_LISTENING: Final = re.compile(r"^listening on (\S+) \((.+)\)$", re.MULTILINE)


class TrimtaProcess:
    """`trimta serve` in `folder`, with `folder/conf.toml`; a configuration without [[listen]] gets a free port.

    As a context manager it is started, and stopped by SIGTERM, which it must answer with exit code 0.
    """

    def __init__(
        self,
        folder: Path,
        configuration: str = "",
        *options: str,
        wrapper: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.configure(configuration)
        self._options = options
        self._wrapper = wrapper
        self._environment = command_environment(folder) | dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False

    def configure(self, configuration: str) -> None:
        """Write conf.toml, for the next start or SIGHUP."""
        if "[[listen]]" not in configuration:
            configuration += ANY_PORT
        (self.folder / "conf.toml").write_text(configuration)

    # Its life.

    def start(self) -> Self:
        """Start it, and return when it serves."""
        self._lines, self._ended = [], False
        self._process = subprocess.Popen(
            [
                *self._wrapper,
                sys.executable,
                "-m",
                "trimta",
                "-c",
                "conf.toml",
                "serve",
                *worker_options(),
                *self._options,
            ],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()
        try:
            self.wait_for(r"started.*listening")
        except BaseException:  # Ctrl-C too; it is raised again
            self.kill()
            raise
        return self

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and the graceful end that it promises."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.log

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        process = self._running
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired as expired:
            self.kill()
            raise AssertionError(f"the server does not end:\n{self.log}") from expired
        self._gone()
        return process.returncode

    def kill(self) -> None:
        """SIGKILL: no farewell.  Nothing happens if it is gone already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._gone()

    def restart(self) -> None:
        """Start again on what the process before left; its log begins anew."""
        assert self._process is None, "it is still running"
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process is not None and error is None:
                self.stop()
        finally:
            self.kill()
        if error is None:
            assert " bug " not in self.log, self.log
            assert "Traceback" not in self.log, self.log
        else:
            error.add_note(f"the server's log:\n{self.log}")

    # What it says.

    @property
    def pid(self) -> int:
        return self._running.pid

    def writers(self) -> list[int]:
        """The ids of the processes that may write into Maildirs: the server, and its workers."""
        status = run_trimta(self.folder, "status", "-c", "conf.toml", "--json").stdout
        return [self.pid, *(worker["pid"] for worker in json.loads(status)["workers"])]

    @property
    def log(self) -> str:
        """The banner and the log, as far as they have come."""
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, *, count: int = 1) -> list[re.Match[str]]:
        """Wait until this many lines of the log match; returns their matches."""
        sought = re.compile(pattern)

        def found() -> list[re.Match[str]]:
            return [match for line in self._lines if (match := sought.search(line))]

        with self._news:
            self._news.wait_for(lambda: self._ended or len(found()) >= count, DEADLINE)
            matches = found()
        if len(matches) < count:
            raise AssertionError(f"{len(matches)} of {count} lines match {pattern!r} in\n{self.log}")
        return matches

    @property
    def addresses(self) -> dict[str, str]:
        """What it listens on, and what for, as its banner says: `{"127.0.0.1:40001": "smtp"}`."""
        return dict(_LISTENING.findall(self.log))

    def port_of(self, kind: str) -> int:
        """The port of the first listener for this: `port_of("submission, tls implicit")`."""
        address = next(address for address, protocol in self.addresses.items() if protocol == kind)
        return int(address.rpartition(":")[2])

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return int(next(iter(self.addresses)).rpartition(":")[2])

    # What it made.

    @property
    def ca(self) -> Path:
        """The development CA's certificate."""
        return self.folder / "var" / "tls" / "ca.pem"

    def maildir(self, user: str) -> Path:
        """A local mailbox's Maildir under the default configuration; `remote` is what was captured."""
        return self.folder / "maildir-example" / user

    def raw_messages(self, user: str) -> list[bytes]:
        """The files in a Maildir, oldest first."""
        return [path.read_bytes() for path in messages(self.maildir(user))]

    def messages(self, user: str) -> list[EmailMessage]:
        """The same, parsed."""
        return [parsed(octets) for octets in self.raw_messages(user)]

    def wait_for_message(self, user: str, is_it: Callable[[EmailMessage], bool]) -> EmailMessage:
        """The first message in a Maildir that is the one sought, when it has come."""

        def look() -> list[EmailMessage]:
            return [message for message in self.messages(user) if is_it(message)]

        return eventually(look, lambda: f"it has not come to {user}:\n{self.log}")[0]

    def command(self, *arguments: str, text: str = "", check: bool = True) -> str:
        """Run another of trimta's commands with the same configuration; returns its standard output."""
        done = run_trimta(self.folder, "-c", "conf.toml", *arguments, text=text)
        assert done.returncode == 0 or not check, (arguments, done.stderr)
        return done.stdout

    # Inside.

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "it is not running"
        return self._process

    def _collect(self) -> None:
        process = self._running
        assert process.stderr is not None
        with process.stderr as stream:
            for line in stream:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _gone(self) -> None:
        assert self._reader is not None
        self._reader.join(DEADLINE)
        self._process = None


def eventually(look: Callable[[], T], what: Callable[[], str]) -> T:
    """Look until there is something, and return it; `what` is said when it does not come.

    For what another program does in its own time and tells nobody about.
    """
    deadline = time.monotonic() + DEADLINE
    while not (found := look()):
        assert time.monotonic() < deadline, what()
        time.sleep(POLL)
    return found


def run_trimta(
    folder: Path, *arguments: str, text: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of trimta's commands in `folder`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "trimta", *arguments],
        cwd=folder,
        env=command_environment(folder) | dict(environment or {}),
        input=text,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def command_environment(folder: Path) -> dict[str, str]:
    """The environment for a command under test: nothing of the user's own configuration, state or mail."""
    passed_on = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR", "VIRTUAL_ENV")}
    package = Path(__file__).parents[2]
    return passed_on | {"HOME": str(folder), "PYTHONPATH": str(package), "PYTHONWARNINGS": "error"}


def parsed(octets: bytes) -> EmailMessage:
    return BytesParser(policy=policy.default).parsebytes(octets)


def read_by_mailbox(path: Path) -> Iterator[mailbox.MaildirMessage]:
    """A Maildir as Python's own `mailbox` sees it."""
    return iter(mailbox.Maildir(path, create=False))
