"""What every server that is measured has in common, and the two that are one Python program: trimta and aiosmtpd.

Each is private: folders of its own, free ports of 127.0.0.1, a sink of its own behind it.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol, Self

from tests.bench.processes import PATIENCE, Command, ProcessTree, UnavailableError
from tests.bench.sink import Sink
from tests.support.software import free_port

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

USER: Final = "bob"
"""The local part of the recipient of most messages."""

SENDER: Final = "me@bench.test"

REMOTE: Final = "bob@sink.test"
"""A recipient to whom every server relays, to its sink."""

MANY: Final = 1_000
"""How many local recipients a message may have."""


def users(count: int) -> list[str]:
    """The local parts that smtp-source makes for a message with so many recipients."""
    return [USER, *(f"{number}{USER}" for number in range(2, count + 1))]


def remote_domains(count: int) -> list[str]:
    """Domains that each have a host of their own name, which is the sink."""
    return [f"d{number}.many.test" for number in range(count)]


class Server(Protocol):
    """A running server."""

    port: int
    domain: str
    """Its local domain."""
    sink: Sink

    @property
    def tree(self) -> ProcessTree:
        """Its processes."""

    def maildir(self, user: str) -> Path:
        """The mailbox of a local part."""


class Trimta:
    """`trimta serve` of the environment of a Python, which may be another than this one.

    `workers`: what --workers is given; None leaves the option out.  `domains`: how many of `remote_domains` it knows.
    """

    domain = "dev.test"

    def __init__(
        self, folder: Path, *, python: str = sys.executable, workers: str | None = None, domains: int = 0
    ) -> None:
        self.folder = folder
        self.started_in = 0.0
        """Seconds from the start to the first greeting."""
        self.python = python
        self.port = free_port()
        self.sink = Sink(folder)
        self.configuration = folder / "conf.toml"
        self.configuration.write_text(_configuration(self.port, self.sink.port, domains))
        self._command = Command(
            *self.command("serve", *(["--workers", workers] if workers is not None else [])), log=folder / "server.log"
        )

    def command(self, *arguments: str) -> list[str]:
        """One of trimta's commands, for this server's configuration."""
        # -P: not the trimta of the current directory
        return [self.python, "-P", "-m", "trimta", "-c", str(self.configuration), *arguments]

    def __enter__(self) -> Self:
        with ExitStack() as running:
            running.enter_context(self.sink)
            began = time.perf_counter()
            running.enter_context(self._command)
            _wait_for_greeting(self.port, self._command)
            self.started_in = time.perf_counter() - began
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)
        for line in self._command.log.read_text(errors="backslashreplace").splitlines():
            if " bug " in line or "Traceback" in line:
                print(f"{self._command.log.name}: {line}", file=sys.stderr)

    @property
    def tree(self) -> ProcessTree:
        """The server's processes."""
        return ProcessTree(self._command.pid)

    def maildir(self, user: str) -> Path:
        """The mailbox of a local part."""
        return self.folder / "mail" / user


def has_workers(python: str) -> bool:
    """Whether the trimta of this environment can use several processes."""
    command = [python, "-P", "-m", "trimta", "serve", "--help"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"{python} has no trimta") from error
    return "--workers" in done.stdout


class Aiosmtpd:
    """aiosmtpd with its Mailbox handler."""

    domain = "dev.test"

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("aiosmtpd") is None:
            raise UnavailableError("aiosmtpd is not installed (pip install aiosmtpd)")
        self._mailbox = folder / "mail"
        self.port = free_port()
        self.sink = Sink(folder)  # never started: it does not relay
        self._command = Command(
            *(sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{self.port}"),
            *("-c", "aiosmtpd.handlers.Mailbox", str(self._mailbox)),
            log=folder / "server.log",
        )

    def __enter__(self) -> Self:
        with ExitStack() as running:
            running.enter_context(self._command)
            _wait_for_greeting(self.port, self._command)
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    @property
    def tree(self) -> ProcessTree:
        """The server's process."""
        return ProcessTree(self._command.pid)

    def maildir(self, _user: str) -> Path:
        """The only mailbox."""
        return self._mailbox


def _wait_for_greeting(port: int, command: Command) -> None:
    give_up = time.monotonic() + PATIENCE
    while not greets(port):
        if command.ended or time.monotonic() > give_up:
            raise RuntimeError(f"no server:\n{command.log.read_text(errors='backslashreplace')}")
        time.sleep(0.002)


def greets(port: int) -> bool:
    """Whether an SMTP server answers at a port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False


def _configuration(port: int, sink: int, domains: int) -> str:
    zones = "".join(f'[dns.zones."{domain}"]\naddress = ["127.0.0.1"]\n' for domain in remote_domains(domains))
    return f"""\
hostname = "bench.test"
data_dir = "var"
[[listen]]
address = "127.0.0.1:{port}"
[local]
domains = ["{Trimta.domain}"]
maildir = "mail/{{user}}"
[routes]
"sink.test" = {{ transport = "smtp", host = "127.0.0.1", port = {sink}, tls = "none" }}
"*" = {{ transport = "mx", port = {sink}, tls = "none" }}
[limits]
connections = 2000
connections_per_client = 2000
message_size = "64 MiB"
[egress]
allow = ["127.0.0.0/8"]
{zones}"""
