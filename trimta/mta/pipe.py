"""`pipe:` routes: a message on a command's standard input (UUCP, procmail, scripts).

No shell, a clean environment (PATH and LANG, nothing else), data_dir as working folder, a process group of its own
that is ended as a whole.  What the command says is kept to the last 4 KiB, for the DSN.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

import trio

from trimta.mail.outcome import Deferred, Delivered, Failed, Handover
from trimta.mail.routing import RECIPIENTS
from trimta.mail.status import EnhancedStatus
from trimta.mail.trace import return_path_field

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from trimta.mail.envelope import Recipient
    from trimta.mail.outcome import Outcome
    from trimta.mail.routing import Pipe
    from trimta.mta.disk import Disk
    from trimta.store.queue_values import StoredMessage

OUTPUT: Final = 4 * 1024
"""Octets of output that are kept: the last ones."""

LINGER: Final = 1.0
"""Seconds for output after the command has ended: a child in the background may keep the pipe open for ever."""

ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

EX_NOUSER: Final = 67
EX_TEMPFAIL: Final = 75
EX_NOPERM: Final = 77

_FAILURES: Final = {EX_NOUSER: EnhancedStatus(5, 1, 1), EX_NOPERM: EnhancedStatus(5, 7, 0)}
_FAILED: Final = EnhancedStatus(5, 3, 0)
_DEFERRED: Final = EnhancedStatus(4, 3, 0)
_CANNOT_RUN: Final = EnhancedStatus(4, 3, 5)
_BAD_RECIPIENT: Final = EnhancedStatus(5, 1, 3)
_BAD_SENDER: Final = EnhancedStatus(5, 1, 7)
_DELIVERED: Final = EnhancedStatus(2, 0, 0)


def arguments(route: Pipe, message: StoredMessage, recipients: Sequence[Recipient], domain: str) -> list[str]:
    """The command with its words filled in."""
    sender = "" if message.reverse_path is None else str(message.reverse_path)
    words = {"{nexthop}": domain, "{sender}": sender, "{id}": message.id}
    found: list[str] = []
    for word in route.argv:
        if word == RECIPIENTS:
            found.extend(str(recipient.address) for recipient in recipients)
            continue
        for name, value in words.items():
            word = value if word == name else word.replace(name, value)
        found.append(word)
    return found


async def deliver(
    route: Pipe,
    message: StoredMessage,
    recipients: Sequence[Recipient],
    domain: str,
    *,
    folder: Path,
    limit: float,
    disk: Disk,
) -> list[Outcome]:
    """Run the command once for all recipients; they share its outcome.  `limit` in seconds.

    An address that a command would take for an option does not get there.
    """
    if message.reverse_path is not None and str(message.reverse_path).startswith("-"):
        return [_option(recipient, _BAD_SENDER, "sender") for recipient in recipients]
    options = [recipient for recipient in recipients if str(recipient.address).startswith("-")]
    if options:
        rest = [recipient for recipient in recipients if recipient not in options]
        outcomes = await deliver(route, message, rest, domain, folder=folder, limit=limit, disk=disk) if rest else []
        return [*outcomes, *(_option(recipient, _BAD_RECIPIENT, "recipient") for recipient in options)]
    argv = arguments(route, message, recipients, domain)
    try:
        process = await trio.lowlevel.open_process(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=ENVIRONMENT,
            start_new_session=True,
        )
    except (OSError, ValueError) as cause:
        text = f"{argv[0]} can't be run: {cause}"
        return [Deferred(recipient=recipient, status=_CANNOT_RUN, diagnostic=text) for recipient in recipients]
    output = bytearray()
    try:
        with trio.move_on_after(limit) as timeout:
            await _converse(process, message, output, disk)
    finally:
        _end(process)
        with trio.CancelScope(shield=True):  # killed, so this is short; else it stays as a zombie
            await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await trio.aclose_forcefully(stream)
    said = bytes(output[-OUTPUT:]).decode(errors="backslashreplace").strip()
    if timeout.cancelled_caught:
        text = f"{argv[0]} took longer than {limit:g} s"
        return [Deferred(recipient=recipient, status=_DEFERRED, diagnostic=text) for recipient in recipients]
    return [_outcome(process.returncode, recipient, argv[0], said) for recipient in recipients]


async def _converse(process: trio.Process, message: StoredMessage, output: bytearray, disk: Disk) -> None:
    """Feed the command, take what it says, wait for its end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_feed, process, message, disk)
        reading = await nursery.start(_listen, process, output)
        await process.wait()
        reading.deadline = trio.current_time() + LINGER
    # A command may end without reading its input: feeding ends with the pipe.


async def _feed(process: trio.Process, message: StoredMessage, disk: Disk) -> None:
    assert process.stdin is not None
    try:
        async with process.stdin:
            await process.stdin.send_all(return_path_field(message.reverse_path) + message.trace)
            if message.content.in_memory:
                await process.stdin.send_all(message.content.read())
                return
            chunks: Iterator[bytes] = message.content.chunks()
            while chunk := await disk.run(next, chunks, b""):
                await process.stdin.send_all(chunk)
    except trio.BrokenResourceError:
        return  # it did not want to hear more; its exit code says what that means


async def _listen(
    process: trio.Process,
    output: bytearray,
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    assert process.stdout is not None
    with trio.CancelScope() as scope:
        task_status.started(scope)
        async for chunk in process.stdout:
            output += chunk
            del output[:-OUTPUT]


def _option(recipient: Recipient, status: EnhancedStatus, which: str) -> Failed:
    return Failed(recipient=recipient, status=status, diagnostic=f'a {which} that begins with "-" is no argument')


def _end(process: trio.Process) -> None:
    """End the command and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _outcome(code: int | None, recipient: Recipient, command: str, said: str) -> Outcome:
    text = f"{command} {_describe(code)}" + (f": {said}" if said else "")
    if code == 0:
        return Delivered(recipient=recipient, status=_DELIVERED, diagnostic=text, handover=Handover.FINAL)
    if code is None or code < 0 or code == EX_TEMPFAIL:
        return Deferred(recipient=recipient, status=_DEFERRED, diagnostic=text)
    return Failed(recipient=recipient, status=_FAILURES.get(code, _FAILED), diagnostic=text)


def _describe(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exited with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
