"""What was acknowledged is there after `kill -9`, and what is there is whole."""

from __future__ import annotations

import hashlib
import json
import random
import smtplib
import threading
from typing import TYPE_CHECKING, Final

from tests.support.fake_mx import FakeMx
from tests.support.process import TrimtaProcess
from tests.support.sink import serving
from tests.support.software import free_port

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS: Final = 4
ROUNDS: Final = 3
ACKNOWLEDGED: Final = 25
"""Messages of a round after which the server is killed, in the middle of others."""

SIZES: Final = (0, 100, 4_000, 60_000, 400_000)
"""Octets of a message; the last is too large for the database and has a file of its own."""


class Burst:
    """Clients that send as fast as they can until the server is gone, and keep what they were promised."""

    def __init__(self, port: int, number: int) -> None:
        self.acknowledged: set[str] = set()
        self._enough = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._send, args=(port, f"{number}-{client}"), daemon=True)
            for client in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self._enough.acquire(timeout=20)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _send(self, port: int, name: str) -> None:
        rng = random.Random(name)
        recipients = ["alice@dev.test", "bob@captured.test", "carol@queued.test"]
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                for number in range(10_000):
                    token = f"{name}-{number}"
                    client.sendmail("me@dev.test", recipients, sealed(token, rng.choice(SIZES)))
                    self.acknowledged.add(token)
                    self._enough.release()
        except (smtplib.SMTPException, OSError):
            return


def sealed(token: str, size: int) -> str:
    """A message that shows whether it is whole."""
    text = "".join(f"line {number} of {token}\n" for number in range(size // 20))
    return f"Subject: {token}\n\n{text}{hashlib.sha256(text.encode()).hexdigest()}\n"


def unsealed(message: bytes) -> str:
    """The token of a message that came from `sealed`."""
    header, body = message.replace(b"\r\n", b"\n").split(b"\n\n", 1)
    text, seal = body[:-65], body[-65:]
    assert seal == hashlib.sha256(text).hexdigest().encode() + b"\n"
    return header.rpartition(b"Subject: ")[2].decode()


def test_nothing_acknowledged_is_missing_and_everything_is_whole(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    unreachable = f'[routes]\n"queued.test" = "smtp:127.0.0.1:{free_port()}"\n'
    server = TrimtaProcess(tmp_path, unreachable)
    for number in range(ROUNDS):
        server.start()
        burst = Burst(server.port, number)
        try:
            burst.wait(ACKNOWLEDGED)
        finally:
            server.kill()
        burst.join()
        acknowledged |= burst.acknowledged
    assert len(acknowledged) >= ROUNDS * ACKNOWLEDGED

    mx = FakeMx()
    with serving(mx) as (port,):
        server.configure(unreachable.partition("smtp:")[0] + f'smtp:127.0.0.1:{port}"\n')
        with server:
            assert "damaged" not in server.log
            server.command("queue", "retry", "--all")
            while json.loads(server.command("queue", "list", "--json")):
                pass  # each look takes its time
            assert not list((tmp_path / "var" / "spool").iterdir())
            for found in (server.raw_messages("alice"), server.raw_messages("remote"), [m.body for m in mx.accepted]):
                tokens = [unsealed(octets) for octets in found]
                assert set(tokens) >= acknowledged
                assert len(tokens) == len(set(tokens)), "nobody sent anything twice"
