"""100 000 deferred envelopes: what they cost at the start, in memory, in speed, and in `trimta queue list`.

    python -m tests.bench.backlog [--envelopes 100000] [--messages 2000]

Each line has the limit that it is held to; the exit code is 1 if one is not kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.load import Server, best
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import Recipient, Terms
from trimta.mail.outcome import Deferred, LocalCause
from trimta.mail.status import EnhancedStatus
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import NewEnvelope, StoredMessage
from trimta.store.spool import Body

if TYPE_CHECKING:
    from collections.abc import Sequence

DOMAINS: Final = 2_000
BATCH: Final = 2_000
RUNS: Final = 3

START: Final = 2.0
MEMORY: Final = 150.0
SPEED: Final = 0.8
FIRST_LINE: Final = 0.5


def fill(data_dir: Path, count: int) -> None:
    """Put deferred envelopes into a queue, half of them for one domain, due over the next hours."""
    now = time.time()
    content = Body.of(b"Subject: waiting\n\n" + b"x" * 2_000 + b"\n")
    sender = parse_mailbox("me@dev.test")

    def accept(queue: Queue, number: int) -> None:
        domain = "big.test" if number % 2 else f"d{number % DOMAINS}.test"
        mailbox = parse_mailbox(f"user{number}@{domain}")
        recipient = Recipient(address=mailbox, original=mailbox)
        last = Deferred(
            recipient=recipient, status=EnhancedStatus(4, 4, 1), cause=LocalCause("no route to host", f"mx.{domain}")
        )
        queue.accept(
            StoredMessage(
                id=f"backlog{number}",
                arrived=now,
                terms=Terms(reverse_path=sender),
                content=content,
                trace=b"Received: x\n",
            ),
            [
                NewEnvelope(
                    domain=domain,
                    next_hop=domain,
                    recipients=(recipient,),
                    next_try=now + 3_600 + number % 3_600,
                    warn_at=now + 14_400,
                    attempts=1,
                    last_attempt=now,
                    last_outcomes=(last,),
                )
            ],
        )

    with Queue(data_dir) as queue:
        for first in range(0, count, BATCH):
            with queue.transaction():
                for number in range(first, min(count, first + BATCH)):
                    accept(queue, number)


def first_line(folder: Path, *options: str) -> tuple[float, float, int]:
    """Seconds to the first line of `trimta queue list`, to its end, and how many lines."""
    command = [sys.executable, "-m", "trimta", "queue", "list", *options, "-c", str(folder / "conf.toml")]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.perf_counter() - began
        lines = 1 + sum(1 for _ in process.stdout)
    return first, time.perf_counter() - began, lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envelopes", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=2_000)
    options = parser.parse_args(arguments)
    failed = []

    def judge(what: str, value: float, limit: float, unit: str, *, at_least: bool = False) -> None:
        good = value >= limit if at_least else value <= limit
        bound = "at least" if at_least else "at most"
        print(f"{'ok  ' if good else 'FAIL'} {what:<58} {value:8.2f} {unit:<4} ({bound} {limit:g})")
        if not good:
            failed.append(what)

    with tempfile.TemporaryDirectory(prefix="trimta-bench-") as name:
        empty, full = Path(name) / "empty", Path(name) / "full"
        for folder in (empty, full):
            folder.mkdir()
        began = time.perf_counter()
        fill(full / "var", options.envelopes)
        print(f"     {options.envelopes} envelopes put into a queue in {time.perf_counter() - began:.1f} s")

        with Server(empty) as idle, Server(full) as loaded:
            judge("start with the backlog, until it listens", loaded.started_in, START, "s")
            for kind, to in (("local", "bob@dev.test"), ("relayed", "bob@sink.test")):
                rates: dict[str, list[float]] = {"empty": [], "full": []}
                for _ in range(RUNS):  # by turns: other work on the machine hits both
                    rates["empty"].append(idle.deliver(options.messages, to=to))
                    rates["full"].append(loaded.deliver(options.messages, to=to))
                ratio = best(rates["full"]) / best(rates["empty"])
                judge(f"speed of {kind} mail, of that with an empty queue", ratio, SPEED, "", at_least=True)
                print(f"     {kind}: {best(rates['empty']):.0f}/s empty, {best(rates['full']):.0f}/s with the backlog")
            judge("memory of the server", loaded.memory(), MEMORY, "MiB")
            domain = f"d{2 % DOMAINS}.test"
            for options_of_list in ([], ["--domain", domain], ["--domain", "big.test"], ["--json", "--domain", domain]):
                first, whole, lines = first_line(full, *options_of_list)
                judge(f"queue list {' '.join(options_of_list)}: its first line", first, FIRST_LINE, "s")
                print(f"     {lines} lines in {whole:.2f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
