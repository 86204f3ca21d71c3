"""Load by Postfix's smtp-source, which costs the machine little, timed until the last message is where it belongs."""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench.arrivals import Arrivals, empty
from tests.bench.client import Client, content
from tests.bench.processes import program
from tests.bench.samples import Sample
from tests.bench.servers import REMOTE, SENDER, USER, users
from tests.support.process import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.bench.processes import ProcessTree
    from tests.bench.servers import Server

SIZE: Final = 4_096
SESSIONS: Final = 20

_SMALL: Final = 10_000
"""Octets of a message up to which the disk has room for all that a benchmark sends."""

_TIMEOUT: Final = 900.0


@dataclass(frozen=True, slots=True)
class Load:
    """What smtp-source sends in one run."""

    messages: int
    size: int = SIZE
    """Octets of a message, without its header."""
    sessions: int = SESSIONS
    """Connections at once."""
    recipients: int = 1
    """Recipients of each message."""
    reuse: bool = False
    """Whether a connection is used for more than one message."""

    def send(self, port: int, to: str) -> None:
        """Send it to a port of 127.0.0.1, until every message was acknowledged."""
        subprocess.run(self.command(port, to), check=True, timeout=_TIMEOUT)

    def command(self, port: int, to: str) -> list[str]:
        """The command that sends it."""
        sessions = min(self.sessions, self.messages)
        return [
            program("smtp-source"),
            *("-s", str(sessions), "-m", str(self.messages), "-l", str(self.size), "-f", SENDER, "-t", to),
            *(["-r", str(self.recipients)] if self.recipients > 1 else []),
            *(["-d"] if self.reuse else []),
            f"127.0.0.1:{port}",
        ]


def to_maildir(server: Server, load: Load) -> Sample:
    """Copies a second, from the start of smtp-source until the last file is in new/; big files are then removed."""
    copies = load.messages * load.recipients
    with new_mail(server, users(load.recipients)) as arrivals, _Meter(server.tree) as meter:
        load.send(server.port, f"{USER}@{server.domain}")
        meter.stop(arrivals.wait(copies))
    if load.size > _SMALL:
        empty(server.maildir(USER) / "new")
    return meter.sample(copies, load.messages)


def to_next_hop(server: Server, load: Load) -> Sample:
    """Messages a second, from the start of smtp-source until the last is at the sink."""
    before = server.sink.count
    with _Meter(server.tree) as meter:
        load.send(server.port, REMOTE)
        meter.stop(server.sink.wait(before + load.messages))
    return meter.sample(load.messages, load.messages)


@contextlib.contextmanager
def new_mail(server: Server, mailboxes: Sequence[str]) -> Iterator[Arrivals]:
    """Watch the Maildirs of local parts.

    What comes stays.  Removing some thousand files would slow down whoever has the next turn: ext4 looks at each inode
    that was freed in the last minutes before it gives out another one.
    """
    make_maildirs(server, mailboxes)
    with Arrivals(*(server.maildir(user) / "new" for user in mailboxes)) as arrivals:
        yield arrivals


def make_maildirs(server: Server, mailboxes: Sequence[str]) -> None:
    """Have Maildirs made where there are none, by a message to each, which is then removed."""
    missing = [user for user in mailboxes if not (server.maildir(user) / "new").is_dir()]
    if missing:
        with contextlib.closing(Client(server.port)) as client:
            client.send([f"{user}@{server.domain}" for user in missing], content(SIZE))
    for user in missing:
        _wait_for_first(server.maildir(user) / "new")


def _wait_for_first(new: Path) -> None:
    eventually(lambda: new.is_dir() and any(new.iterdir()), lambda: f"no message comes into {new}")
    empty(new)


class _Meter:
    """The time and processor time of a run."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree

    def __enter__(self) -> _Meter:
        self._processor = self._tree.processor_time()
        self._began = self._ended = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._processor = self._tree.processor_time() - self._processor

    def stop(self, moment: float) -> None:
        """The moment when all was done, as time.perf_counter tells it."""
        self._ended = moment

    def sample(self, count: int, messages: int) -> Sample:
        """`count` a second, with the processor time for each message."""
        return Sample(count / (self._ended - self._began), 1000 * self._processor / messages)
