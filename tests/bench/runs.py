"""What one run does, besides load by smtp-source: waiting times, commands and memory.  Each makes one `Sample`."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Final

from tests.bench.client import Client, clients, content, send_unfinished
from tests.bench.load import SIZE, Load, new_mail
from tests.bench.processes import MB, PATIENCE, Command
from tests.bench.samples import Sample
from tests.bench.servers import USER, remote_domains

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.processes import ProcessTree
    from tests.bench.servers import Server, Trimta

OTHER_USER: Final = f"2{USER}"
"""Whose mail is waited for while others send to USER."""

BIG: Final = 10 * 1024 * 1024
"""Octets of a big message."""

_MESSAGE: Final = content(SIZE)
_SETTLE: Final = 0.3
"""Seconds after which a server that was just started has done what it does by itself."""


def waiting_time(server: Server, messages: int) -> Sample:
    """The median of the milliseconds from connect until the file is in new/, one client after the other."""
    times = []
    with new_mail(server, [OTHER_USER]) as arrivals:
        for number in range(messages):
            began = time.perf_counter()
            with contextlib.closing(Client(server.port)) as client:
                client.begin([f"{OTHER_USER}@{server.domain}"])
                client.socket.sendall(_MESSAGE + b".\r\n")
                times.append(arrivals.wait(number + 1) - began)
                client.reply()
    return Sample(1000 * statistics.median(times))


def waiting_time_beside_big(server: Server, messages: int, log: Path) -> Sample:
    """The same while 20 sessions send big messages."""
    with new_mail(server, [USER]) as arrivals:
        load = Load(10**9, size=BIG, reuse=True)
        with Command(*load.command(server.port, f"{USER}@{server.domain}"), log=log):
            arrivals.wait(1)
            sample = waiting_time(server, messages)
        time.sleep(_SETTLE)  # for those that were acknowledged at that moment
    return sample


def waiting_time_beside_idle(server: Server, messages: int, sessions: int) -> Sample:
    """The same while so many sessions are connected and idle."""
    with clients(server.port, sessions):
        return waiting_time(server, messages)


def to_many_domains(server: Server, messages: int, domains: int) -> Sample:
    """Transactions a second at the next hop for messages with recipients in so many domains, sent by one client."""
    recipients = [f"{USER}@{domain}" for domain in remote_domains(domains)]
    before = server.sink.count
    processor = server.tree.processor_time()
    began = time.perf_counter()
    with contextlib.closing(Client(server.port)) as client:
        for _ in range(messages):
            client.send(recipients, _MESSAGE)
        ended = server.sink.wait(before + messages * domains)
    spent = server.tree.processor_time() - processor
    return Sample(messages * domains / (ended - began), 1000 * spent / messages / domains)


def start(server: Trimta) -> Sample:
    """Seconds from the start until the server greets."""
    with server:
        return Sample(server.started_in)


def submit(server: Trimta) -> Sample:
    """Seconds that `trimta sendmail` takes."""
    began = time.perf_counter()
    command = server.command("sendmail", f"{USER}@{server.domain}")
    subprocess.run(command, input=_MESSAGE, check=True, timeout=PATIENCE)
    return Sample(time.perf_counter() - began)


def first_line(server: Trimta, *options: str) -> Sample:
    """Seconds until `trimta queue list` has written its first line."""
    began = time.perf_counter()
    with subprocess.Popen(server.command("queue", "list", *options), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.perf_counter() - began
        process.stdout.read()
    return Sample(first)


def memory_after_start(server: Trimta) -> Sample:
    """Resident memory of a server that has done nothing, in MB."""
    with server:
        time.sleep(_SETTLE)
        return _memory(server)


def memory_with_idle(server: Trimta, sessions: int) -> Sample:
    """The same with so many idle sessions, each of which said EHLO."""
    with server, clients(server.port, sessions):
        return _memory(server)


def memory_in_transit(server: Trimta, sessions: int, size: int) -> Sample:
    """The most resident memory while so many sessions send messages of this size at once, in MB."""
    with server, clients(server.port, sessions) as connections:
        peak = Peak(server.tree)
        send_unfinished(connections, f"{USER}@{server.domain}", size, peak.look)
        peak.look()
    return Sample(peak.resident / MB)


def _memory(server: Server) -> Sample:
    return Sample(server.tree.memory().resident / MB)


class Peak:
    """The most memory that was seen, in octets."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self.resident = 0
        self.proportional = 0

    def look(self) -> None:
        """See what it is now."""
        memory = self._tree.memory()
        self.resident = max(self.resident, memory.resident)
        self.proportional = max(self.proportional, memory.proportional)
