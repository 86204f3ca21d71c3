"""Several processes at one queue, and processes that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.support import NOW
from trimta.store.queue import loss
from trimta.store.queue.queue import Queue
from trimta.store.queue.sql_schema import FILE
from trimta.store.spool import MEMORY_LIMIT

ROOT = Path(__file__).parents[3]

ACCEPT = """
import sys, pathlib
from tests.store.support import envelope, message
from trimta.store.queue import loss
from trimta.store.queue.queue import Queue
from trimta.store.queue.sql_schema import FILE
from trimta.store.spool import SpoolWriter

data_dir, prefix, count, size = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with Queue(data_dir) as queue:
    for number in range(count):
        ids = [f"{prefix}{number}-{place}" for place in range(3)]
        batch = []
        for message_id in ids:
            writer = SpoolWriter(queue.spool)
            writer.append(message_id.encode())
            writer.append(b"x" * size)
            body = writer.finish()
            batch.append(lambda queue, i=message_id, b=body: queue.accept(message(i, b), [envelope("bob")]))
        for answer in queue.run(batch):
            if isinstance(answer, Exception):
                raise answer
            print(answer.id, flush=True)
"""

SETTLE = """
import sys, pathlib
from trimta.store.queue.queue import Queue

with Queue(pathlib.Path(sys.argv[1])) as queue:
    for _, batch in zip(range(100_000), iter(lambda: queue.due.envelopes("far.test", 1e12, 4), None)):
        for envelope_id in batch:
            if queue.settle(envelope_id, now=0.0, next_try=0.0, done=[0]):
                print(envelope_id, flush=True)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def whole(queue: Queue, envelope_id: str) -> bool:
    found = queue.entries.load(envelope_id)
    return found is not None and found[0].content.read().startswith(envelope_id.encode())


def killed_after(process: subprocess.Popen[bytes], lines: int) -> list[str]:
    """What it had said when it was killed, which is at its own pace after `lines` lines."""
    assert process.stdout is not None
    with process:
        said = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        said += process.stdout.readlines()
    return [line.decode().strip() for line in said if line.endswith(b"\n")]


def test_what_was_acknowledged_before_a_kill_is_there(tmp_path: Path) -> None:
    for prefix, size, lines in (("s", 100, 60), ("l", MEMORY_LIMIT, 20), ("t", 100, 1)):
        acknowledged = killed_after(start(ACCEPT, tmp_path, prefix, 100_000, size), lines)
        assert len(acknowledged) >= lines
        with Queue(tmp_path) as queue:
            found = queue.repair.recover(NOW)
            assert found.set_aside == ()
            assert all(whole(queue, envelope_id) for envelope_id in acknowledged)
            stored = [listed.envelope.id for listed in queue.entries.list_envelopes()]
            assert all(whole(queue, envelope_id) for envelope_id in stored)
            if queue.spool.exists():
                assert {path.name for path in queue.spool.iterdir()} == {one for one in stored if one[0] == "l"}


def test_what_was_settled_before_a_kill_does_not_come_back(tmp_path: Path) -> None:
    with start(ACCEPT, tmp_path, "m", 100, 100) as accepting:
        accepting.communicate()
    gone = killed_after(start(SETTLE, tmp_path), 50)
    with Queue(tmp_path) as queue:
        assert queue.repair.recover(NOW).set_aside == ()
        left = {listed.envelope.id for listed in queue.entries.list_envelopes()}
        assert not left & set(gone)
        assert 300 - len(gone) - 1 <= len(left) <= 300 - len(gone)


@pytest.mark.parametrize("lost", [False, True])
def test_two_processes_make_and_write_one_queue_at_once(lost: bool, tmp_path: Path) -> None:
    if lost:
        Queue(tmp_path).close()
        (tmp_path / FILE).unlink()
    writers = [start(ACCEPT, tmp_path, prefix, 40, 100) for prefix in ("a", "b")]
    acknowledged = [line.decode() for writer in writers for line in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(acknowledged) == 240
    with Queue(tmp_path) as queue:
        assert {listed.envelope.id for listed in queue.entries.list_envelopes()} == set(acknowledged)
    assert loss.is_lost(tmp_path) is lost
    assert {path.name for path in tmp_path.iterdir()} == {FILE, loss.MARKER}


def test_the_operator_steers_while_the_server_works(tmp_path: Path) -> None:
    with Queue(tmp_path) as server, Queue(tmp_path) as operator:
        writer = start(ACCEPT, tmp_path, "m", 5, 100)
        writer.communicate()
        operator.operator.hold("m0-0")
        assert server.claim("m0-0", 1e12) is None
        operator.remove("m0-1")
        assert not server.settle("m0-1", now=NOW, next_try=NOW, done=[0])
        operator.operator.release("m0-0", NOW + 5)
        assert server.claim("m0-0", NOW + 5) is not None
        assert "m0-0" in server.due.envelopes("far.test", NOW + 5, 100)
