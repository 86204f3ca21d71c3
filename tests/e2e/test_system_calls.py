"""What the kernel is asked for, seen with strace: nothing leaves the machine, and a 250 comes after the last sync."""

from __future__ import annotations

import re
import smtplib
from typing import TYPE_CHECKING, Final

from tests.support.process import TrimtaProcess
from tests.support.software import require

if TYPE_CHECKING:
    from pathlib import Path

CALLS: Final = "%network,write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2"

_LINE: Final = re.compile(r"(?P<task>\d+) +(?P<rest>.*)")
_UNFINISHED: Final = " <unfinished ...>"
_RESUMED: Final = re.compile(r"<\.\.\. \w+ resumed>")


def traced(folder: Path, recipient: str) -> list[str]:
    """The calls of a server, from its start to its end, that takes one message; in the order of their ends."""
    log = folder / "calls.txt"
    options = ("-D", "-f", "-yy", "-s", "200", "-e", f"trace={CALLS}", "-o", str(log))
    with (
        TrimtaProcess(folder, wrapper=(require("strace"), *options)) as server,
        smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client,
    ):
        client.sendmail("bob@dev.test", [recipient], "Subject: hi\n\nthere\n")
    return _calls(log.read_text())


def _calls(log: str) -> list[str]:
    """Join what strace had to interrupt because another task did something meanwhile."""
    calls: list[str] = []
    begun: dict[str, str] = {}
    for line in log.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        task, rest = found["task"], found["rest"]
        if rest.endswith(_UNFINISHED):
            begun[task] = rest.removesuffix(_UNFINISHED)
        else:
            calls.append(_RESUMED.sub(lambda _, task=task: begun.pop(task), rest))
    return calls


def test_by_default_no_connection_is_opened_and_nobody_is_asked(tmp_path: Path) -> None:
    calls = traced(tmp_path, "someone@example.com")
    assert [call for call in calls if "250 2.6.0" in call], "the trace shows nothing"
    assert not [call for call in calls if call.startswith("connect(") and "AF_INET" in call]
    assert not [call for call in calls if call.startswith(("sendto(", "sendmsg(", "sendmmsg(")) and "sa_family" in call]
    assert not [call for call in calls if re.match(r"socket\(AF_INET6?, SOCK_(DGRAM|RAW)", call)]


def test_a_250_comes_after_write_and_sync_of_the_file_then_rename_and_sync_of_the_directory(tmp_path: Path) -> None:
    calls = traced(tmp_path, "alice@dev.test")
    alice = re.escape(str(tmp_path / "maildir-example" / "alice"))
    sequence = [
        rf"write\(\d+<{alice}/tmp/[^>]+>, .*there",
        rf"fsync\(\d+<{alice}/tmp/[^>]+>\) += 0",
        rf'rename\("{alice}/tmp/[^"]+", "{alice}/new/[^"]+"\) += 0',
        rf"fsync\(\d+<{alice}/new>\) += 0",
        r'sendto\(\d+<TCP[^"]*"250 2\.6\.0',
    ]
    last = [max((place for place, call in enumerate(calls) if re.match(step, call)), default=-1) for step in sequence]
    assert -1 not in last, (sequence, calls)
    assert last == sorted(last)
