"""Receiving, client to Maildir, every message fsynced: trimta beside aiosmtpd and Postfix where they are installed.

    python -m tests.bench.receive [--messages 2000] [--sessions 20] [--runs 3] [--beside PYTHON]

They take turns, so that other work on the machine hits all of them; what counts is the ratio of their best runs.
Processor time is that of the process and all its threads, for one message (Postfix is many processes: not measured).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.load import Command, Server, best, installed, send, wait_for_port
from tests.support.daemon import Postfix
from tests.support.software import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Runner:
    """One server that is measured."""

    name: str
    port: int
    to: str
    process: Command | None = None
    rates: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    """By whether connections are used again."""
    processor: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})
    """Milliseconds a message."""

    def measure(self, messages: int, sessions: int, *, reuse: bool) -> None:
        """One run."""
        before = self.process.processor_time() if self.process else 0.0
        self.rates[reuse].append(send(self.port, messages, to=self.to, reuse=reuse, sessions=sessions))
        if self.process:
            self.processor[reuse].append(1000 * (self.process.processor_time() - before) / messages)


def runners(folder: Path, cleanup: contextlib.ExitStack, beside: str | None) -> list[Runner]:
    """Start what there is; only another trimta, if the Python of its environment is given."""
    server = cleanup.enter_context(Server(folder))
    found = [Runner("trimta", server.port, "bob@dev.test", server)]
    if beside is not None:
        (folder / "other").mkdir()
        other = cleanup.enter_context(Server(folder / "other", python=beside))
        return [*found, Runner("the other", other.port, "bob@dev.test", other)]
    if importlib.util.find_spec("aiosmtpd") is not None:
        port = free_port()
        command = [sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{port}"]
        handler = ["-c", "aiosmtpd.handlers.Mailbox", str(folder / "aiosmtpd")]
        process = cleanup.enter_context(Command(*command, *handler, log=folder / "aiosmtpd.log"))
        wait_for_port(port)
        found.append(Runner("aiosmtpd", port, "bob@dev.test", process))
    if installed("postfix") and os.geteuid() == 0:
        postfix = Postfix()
        postfix.relay_to(server.port, postfix.certificates.ca)
        cleanup.enter_context(postfix)
        found.append(Runner("Postfix", postfix.port, f"ann@{postfix.domain}"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=2_000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--beside", metavar="PYTHON", help="of an environment with another version of trimta")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="trimta-bench-") as name, contextlib.ExitStack() as cleanup:
        found = runners(Path(name), cleanup, options.beside)
        for _ in range(options.runs):
            for reuse in (False, True):
                for runner in found:
                    runner.measure(options.messages, options.sessions, reuse=reuse)
    print(f"{'':<10} {'fresh connections':>30} {'reused':>30}")
    for runner in found:
        cells = []
        for reuse in (False, True):
            rate = best(runner.rates[reuse])
            ratio = best(found[0].rates[reuse]) / rate
            spent = f"{min(runner.processor[reuse]):.2f} ms" if runner.processor[reuse] else ""
            cells.append(f"{rate:6.0f}/s  {spent:>8}  trimta is {ratio:4.2f}")
        print(f"{runner.name:<10} {cells[0]:>30} {cells[1]:>30}")


if __name__ == "__main__":
    main()
