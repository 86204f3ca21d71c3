"""Servers to be measured, and the load: Postfix's smtp-source, which costs the machine little."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tests.support.software import free_port

if TYPE_CHECKING:
    from types import TracebackType

SESSIONS: Final = 20
SIZE: Final = 4_096
DEADLINE: Final = 30.0

CONFIGURATION: Final = """
hostname = "bench.test"
[[listen]]
address = "127.0.0.1:0"
[local]
domains = ["dev.test"]
maildir = "mail/{{user}}"
[routes]
"sink.test" = {{ transport = "smtp", host = "127.0.0.1", port = {sink}, tls = "none" }}
"*" = {{ transport = "mx", tls = "none" }}
[egress]
allow = ["127.0.0.0/8"]
"""


def send(port: int, messages: int, *, to: str = "bob@dev.test", reuse: bool = False, sessions: int = SESSIONS) -> float:
    """Send messages to a port of this machine; how many a second were acknowledged."""
    command = ["smtp-source", "-s", str(sessions), "-m", str(messages), "-l", str(SIZE), "-f", "me@dev.test", "-t", to]
    began = time.perf_counter()
    subprocess.run([*command, *(["-d"] if reuse else []), f"127.0.0.1:{port}"], check=True, timeout=600)
    return messages / (time.perf_counter() - began)


def best(rates: list[float]) -> float:
    """The fastest run: other work on the machine only ever makes one slower."""
    return max(rates)


def wait_for_port(port: int) -> None:
    """Until somebody listens."""
    give_up = time.monotonic() + DEADLINE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
        else:
            return


class Command:
    """A program that runs as long as the block does."""

    def __init__(self, *command: str, log: Path) -> None:
        self._command = command
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(DEADLINE)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def processor_time(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def memory(self) -> float:
        """Its resident memory, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s*(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024


class Server(Command):
    """`trimta serve` in a folder, and a sink for what it relays to sink.test.

    `python`: the Python of the environment whose trimta it is.
    """

    def __init__(self, folder: Path, *, python: str = sys.executable) -> None:
        self._folder = folder
        port = free_port()
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._sink = Command("smtp-sink", *user, f"127.0.0.1:{port}", "1000", log=folder / "sink.log")
        (folder / "conf.toml").write_text(CONFIGURATION.format(sink=port))
        super().__init__(
            # -P: not the trimta of the current directory
            *(python, "-P", "-m", "trimta", "serve", "-c", str(folder / "conf.toml")),
            log=folder / "server.log",
        )
        self.port = 0
        self.started_in = 0.0

    def __enter__(self) -> Self:
        self._sink.__enter__()
        began = time.perf_counter()
        super().__enter__()
        while (found := re.search(rb"listening on 127\.0\.0\.1:(\d+)", self.log.read_bytes())) is None:
            if time.perf_counter() - began > DEADLINE:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.01)
        self.port = int(found[1])
        wait_for_port(self.port)
        self.started_in = time.perf_counter() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._sink.__exit__(kind, error, trace)

    def deliver(self, messages: int, *, to: str) -> float:
        """Send messages; how many a second were delivered, as its log says."""
        before = self._delivered()
        began = time.perf_counter()
        send(self.port, messages, to=to)
        while self._delivered() < before + messages:
            if time.perf_counter() - began > 20 * DEADLINE:
                raise RuntimeError("not everything was delivered")
            time.sleep(0.02)
        return messages / (time.perf_counter() - began)

    def _delivered(self) -> int:
        return self.log.read_bytes().count(b" delivered ")


def installed(program: str) -> bool:
    """Whether there is such a program."""
    return shutil.which(program) is not None
