"""The command line of sendmail(1), parsed: flags in clusters (`-ti`), values attached or apart (`-fA`, `-f A`).

Flags of other sendmails that mean nothing to trimta are accepted, and have no effect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from trimta.cli.exits import EX_USAGE, CommandError
from trimta.mail.envelope import Notify, Ret
from trimta.mail.limits import MAX_ENVID

if TYPE_CHECKING:
    from collections.abc import Sequence

_WITH_VALUE: Final = frozenset("ABCDFLNOPRVXbcefhopr")
_WITH_ATTACHED_VALUE: Final = frozenset("dq")
_WITHOUT_VALUE: Final = frozenset("GIUimnstvx")
_BODIES: Final = frozenset({"7BIT", "8BITMIME"})
_ELSEWHERE: Final = {
    "d": "runs the server: use `trimta serve`",
    "D": "runs the server: use `trimta serve`",
    "a": "is not spoken here",
    "h": "shows host statistics: use `trimta status`",
    "H": "clears host statistics: there are none that stay",
    "P": "counts the queue: use `trimta status`",
    "t": "tests addresses: use `trimta route ADDRESS...`",
    "v": "verifies addresses: use `trimta route ADDRESS...`",
}
"""The modes (-bX) that are refused, each with the reason or the command to use instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags and recipients of a sendmail command line."""

    mode: str = "m"
    """The letter after -b: "m" takes a message, "s" speaks SMTP, "p" shows the queue, "i" does nothing."""
    config: str | None = None
    help: bool = False
    from_header: bool = False
    """Recipients come from the header, too (-t)."""
    dot_is_data: bool = False
    """A line of one dot does not end the message (-i, -oi)."""
    sender: str | None = None
    """The text of -f or -r, not parsed."""
    name: str = ""
    """The author's full name, for a From field that is missing (-F)."""
    notify: frozenset[Notify] | None = None
    ret: Ret | None = None
    envid: str | None = None
    flush: bool = False
    """The queue is to be tried now (-q)."""
    recipients: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Flags:
    """The flags of the arguments behind `trimta sendmail`.  Raises CommandError for an unknown flag or a bad value."""
    flags = Flags()
    recipients: list[str] = []
    waiting = list(reversed(arguments))
    while waiting:
        argument = waiting.pop()
        if argument == "--":
            recipients.extend(reversed(waiting))
            break
        if argument == "--help" or (argument == "-h" and not (waiting and waiting[-1].isdecimal())):
            flags = replace(flags, help=True)
        elif argument == "--config" or argument.startswith("--config="):
            _, equals, value = argument.partition("=")
            flags = replace(flags, config=value if equals else _next(waiting, "--config"))
        elif argument.startswith("--"):
            raise _wrong(f"unrecognized argument: {argument}")
        elif argument.startswith("-") and argument != "-":
            flags = _cluster(flags, argument[1:], waiting)
        else:
            recipients.append(argument)
    return replace(flags, recipients=tuple(recipients))


def _cluster(flags: Flags, cluster: str, waiting: list[str]) -> Flags:
    """Apply the letters of one argument; the last letter may have a value, in the same argument or the next."""
    for place, letter in enumerate(cluster):
        rest = cluster[place + 1 :]
        if letter in _WITH_ATTACHED_VALUE:
            return _apply(flags, letter, rest)
        if letter in _WITH_VALUE:
            return _apply(flags, letter, rest or _next(waiting, f"-{letter}"))
        if letter not in _WITHOUT_VALUE:
            raise _wrong(f"unrecognized flag: -{letter}")
        flags = _apply(flags, letter, "")
    return flags


def _next(waiting: list[str], flag: str) -> str:
    if not waiting:
        raise _wrong(f"{flag} wants a value")
    return waiting.pop()


def _apply(flags: Flags, letter: str, value: str) -> Flags:  # noqa: C901 - a table of flags, one line each
    match letter:
        case "t":
            return replace(flags, from_header=True)
        case "i":
            return replace(flags, dot_is_data=True)
        case "I":
            return replace(flags, mode="i")
        case "o":
            return replace(flags, dot_is_data=True) if value == "i" else flags
        case "O":
            ignored_dots = value.lower().replace("=", " ").split() in (["ignoredots"], ["ignoredots", "true"])
            return replace(flags, dot_is_data=True) if ignored_dots else flags
        case "f" | "r":
            return replace(flags, sender=value)
        case "F":
            return replace(flags, name=value)
        case "c":
            return replace(flags, config=value)
        case "b":
            return _mode(flags, value)
        case "B":
            if value.upper() not in _BODIES:
                raise _wrong(f"-B {value}: expected 7BIT or 8BITMIME")
        case "N":
            return replace(flags, notify=_notify(value))
        case "R":
            return replace(flags, ret=_ret(value))
        case "V":
            return replace(flags, envid=_envid(value))
        case "q" if not value:
            return replace(flags, flush=True)
    return flags


def _mode(flags: Flags, mode: str) -> Flags:
    if mode in ("m", "s", "i", "p"):
        return replace(flags, mode=mode)
    if mode in _ELSEWHERE:
        raise _wrong(f"-b{mode} {_ELSEWHERE[mode]}")
    raise _wrong(f"-b{mode}: no such mode")


def _notify(value: str) -> frozenset[Notify]:
    words = [word.strip().upper() for word in value.split(",")]
    try:
        notify = frozenset(map(Notify, words))
    except ValueError:
        notify = frozenset()
    if not notify or (Notify.NEVER in notify and len(notify) > 1):
        raise _wrong(f"-N {value}: expected never, or a list of failure, delay, success")
    return notify


def _ret(value: str) -> Ret:
    try:
        return Ret(value.upper())
    except ValueError:
        raise _wrong(f"-R {value}: expected full or hdrs") from None


def _envid(value: str) -> str:
    if not 0 < len(value) <= MAX_ENVID or not (value.isascii() and value.isprintable()):
        raise _wrong(f"-V: expected 1 to {MAX_ENVID} printable ASCII characters")
    return value


def _wrong(problem: str) -> CommandError:
    return CommandError(EX_USAGE, f"{problem}; see trimta sendmail --help")
