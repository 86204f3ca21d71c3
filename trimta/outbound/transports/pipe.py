"""The transport of `pipe:` routes, which gives a message to a command on its standard input (UUCP, procmail, scripts).

The command may hand the message on to another mail system, or deliver it; trimta can't know.  So the outcome is
"relayed" and not "delivered" (RFC 3461 5.2.4), and DELIVERBY is handled as with a host that lacks it (RFC 2852 4.1.5).

The command runs without a shell, in data_dir, with PATH and LANG as its environment.  It has a process group of its
own, which is killed as a whole when the time limit has passed.  The end of its output is kept for the DSN.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

import trio

from trimta.content.trace import return_path_field
from trimta.first_use.pattern import pattern
from trimta.mail.envelope import ByMode
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover, LocalCause
from trimta.mail.status import (
    BAD_CONFIGURATION,
    BAD_RECIPIENT_SYNTAX,
    BAD_SENDER_SYNTAX,
    DELIVERED,
    NO_SUCH_MAILBOX,
    NOT_CAPABLE,
    POLICY_TROUBLE,
    SYSTEM_TROUBLE,
    EnhancedStatus,
)
from trimta.routing.routes import RECIPIENTS
from trimta.runtime.body_reader import BodyReader
from trimta.store.spool import BodyDamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trimta.mail.envelope import Recipient
    from trimta.mail.outcome import Outcome
    from trimta.routing.routes import PipeRoute
    from trimta.runtime.disk import Disk
    from trimta.store.queue.values import StoredMessage

OUTPUT: Final = 4 * 1024
"""Octets of the end of a command's output that are kept."""

LINGER: Final = 1.0
"""Seconds to wait for output after the command has ended: a child in the background may keep the pipe open for ever."""

ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

EX_NOUSER: Final = 67
EX_TEMPFAIL: Final = 75
EX_NOPERM: Final = 77

_FAILURES: Final = {EX_NOUSER: NO_SUCH_MAILBOX.permanent, EX_NOPERM: POLICY_TROUBLE.permanent}

_PLACEHOLDER: Final = pattern(r"\{(nexthop|sender|id)\}")


def arguments(route: PipeRoute, message: StoredMessage, recipients: Sequence[Recipient], domain: str) -> list[str]:
    """The words of a route's command, with the placeholders in them filled in."""
    values = {"nexthop": domain, "sender": _sender(message), "id": message.id}
    words: list[str] = []
    for word in route.argv:
        if word == RECIPIENTS:
            words.extend(str(recipient.address) for recipient in recipients)
        else:
            words.append(_PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], word))
    return words


async def deliver(
    route: PipeRoute,
    message: StoredMessage,
    recipients: Sequence[Recipient],
    domain: str,
    *,
    folder: Path,
    limit: float,
    disk: Disk,
    now: float,
) -> list[Outcome]:
    """Run the command of a route once for all recipients, which share its outcome.

    `domain` fills {nexthop}; `folder` is where the command runs; `limit` is its time in seconds; `now` is the moment in
    seconds since the epoch, on the queue's clock.  An address that begins with "-" fails and is not given to the
    command, which would take it for an option.

    Raises BodyDamagedError or OSError for a message that can't be read.  The command was killed before it could take
    the part that it has read for the whole message.
    """
    by = message.terms.deliver_by
    if by is not None and by.mode is ByMode.RETURN:
        cause = LocalCause(f"{route.argv[0]} knows nothing of DELIVERBY, without which mode R forbids relaying")
        return [Failed(recipient=recipient, status=NOT_CAPABLE.permanent, cause=cause) for recipient in recipients]
    if _sender(message).startswith("-") and any(word.startswith("{sender}") for word in route.argv):
        return [_option(recipient, BAD_SENDER_SYNTAX.permanent, "sender") for recipient in recipients]
    options = [
        recipient for recipient in recipients if RECIPIENTS in route.argv and str(recipient.address).startswith("-")
    ]
    others = [recipient for recipient in recipients if recipient not in options]
    outcomes: list[Outcome] = []
    if others:
        words = arguments(route, message, others, domain)
        dropped = by is not None and now < by.deadline
        outcomes += await _run(words, message, others, folder=folder, limit=limit, disk=disk, deadline_dropped=dropped)
    return [*outcomes, *(_option(recipient, BAD_RECIPIENT_SYNTAX.permanent, "recipient") for recipient in options)]


async def _run(
    words: Sequence[str],
    message: StoredMessage,
    recipients: Sequence[Recipient],
    *,
    folder: Path,
    limit: float,
    disk: Disk,
    deadline_dropped: bool,
) -> list[Outcome]:
    command = words[0]
    try:
        process = await trio.lowlevel.open_process(
            [word.encode() for word in words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=ENVIRONMENT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        cause = LocalCause(f"{command} can't be run: {getattr(error, 'strerror', None) or error}")
        return [
            Deferred(recipient=recipient, status=BAD_CONFIGURATION.transient, cause=cause) for recipient in recipients
        ]
    run = _RunningCommand(process, message, disk)
    try:
        with trio.move_on_after(limit):
            await run.converse()
    finally:
        # A killed process ends at once, but stays a zombie until it is waited for.
        with trio.move_on_after(LINGER, shield=True):
            await run.end()
    if run.unreadable is not None:
        raise run.unreadable
    if run.overdue:
        cause = LocalCause(f"{command} took longer than {limit:g} s")
        return [Deferred(recipient=recipient, status=SYSTEM_TROUBLE.transient, cause=cause) for recipient in recipients]
    output = bytes(run.output).decode(errors="backslashreplace").strip()
    cause = LocalCause(f"{command} {_describe(process.returncode)}" + (f": {output}" if output else ""))
    return [
        _outcome(process.returncode, recipient, cause, deadline_dropped=deadline_dropped) for recipient in recipients
    ]


class _RunningCommand:
    """A running command, with the message that it is given."""

    def __init__(self, process: trio.Process, message: StoredMessage, disk: Disk) -> None:
        self._process = process
        self._message = message
        self._disk = disk
        self.output = bytearray()
        """The end of the command's output, OUTPUT octets at most."""
        self.overdue = False
        """Whether the command had to be killed when its time was over."""
        self.unreadable: BodyDamagedError | OSError | None = None
        """The error by which the message could not be read to its end."""

    async def converse(self) -> None:
        """Write the message to the command, read its output, and wait for its end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed)
            nursery.start_soon(self._listen)
            await self._process.wait()
            # A process that the command left in the background may keep its pipes open and never use them.
            nursery.cancel_scope.deadline = trio.current_time() + LINGER
            nursery.cancel_scope.shield = True  # the command has ended: a cancelled delivery would be run again

    async def end(self) -> None:
        """Kill the command and all processes of its group, if the command still runs, and wait for its end."""
        self.overdue = self._kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            await trio.aclose_forcefully(stream)
        await self._process.wait()

    async def _feed(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        message = self._message
        try:
            content = message.content
            with contextlib.closing(BodyReader(content.chunks(), self._disk, in_memory=content.in_memory)) as pieces:
                await stdin.send_all(return_path_field(message.terms.reverse_path) + message.trace)
                while some := await pieces.some():
                    await stdin.send_all(b"".join(some))
        except trio.BrokenResourceError:
            pass  # the command has closed its input; its exit code says what that means
        except (BodyDamagedError, OSError) as error:
            self.unreadable = error
            self._kill()  # else the command would see the end of its input, and take a part for the whole message
        await stdin.aclose()

    async def _listen(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        async for chunk in stdout:
            self.output += chunk
            del self.output[:-OUTPUT]

    def _kill(self) -> bool:
        """Kill the command's process group if the command still runs; returns whether it did.

        The group of a command that has ended is left alone: the system may have given its id to another.
        """
        if self._process.poll() is not None:
            return False
        with contextlib.suppress(PermissionError):  # the command has changed to another account
            os.killpg(self._process.pid, signal.SIGKILL)
        return True


def _sender(message: StoredMessage) -> str:
    return "" if message.terms.reverse_path is None else str(message.terms.reverse_path)


def _option(recipient: Recipient, status: EnhancedStatus, which: str) -> Failed:
    cause = LocalCause(f'a {which} that begins with "-" is no argument')
    return Failed(recipient=recipient, status=status, cause=cause)


def _outcome(code: int | None, recipient: Recipient, cause: LocalCause, *, deadline_dropped: bool) -> Outcome:
    """The outcome of an exit code, as sendmail and procmail mean it (sysexits.h)."""
    if code == 0:
        return Delivered(
            recipient=recipient,
            status=DELIVERED,
            cause=cause,
            handover=Handover.RELAYED,
            deadline_dropped=deadline_dropped,
        )
    if code is None or code < 0 or code == EX_TEMPFAIL:
        return Deferred(recipient=recipient, status=SYSTEM_TROUBLE.transient, cause=cause)
    return Failed(recipient=recipient, status=_FAILURES.get(code, SYSTEM_TROUBLE.permanent), cause=cause)


def _describe(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exited with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
