"""`trimta COMMAND …` finds the command, runs it, and turns the error that ends it into a line and an exit code."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from trimta import __version__
from trimta.cli import streams
from trimta.cli.arguments import ArgumentParser
from trimta.cli.exits import BROKEN_PIPE, EX_IOERR, INTERRUPTED, CommandError
from trimta.cli.streams import OutputError
from trimta.config.errors import ConfigErrors, ConfigFileError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from trimta.cli.arguments import Subparsers

COMMANDS: Final[dict[str, str]] = {
    "serve": "run the server",
    "init": "write a commented conf.toml",
    "sendmail": "take a message from standard input, as sendmail(1) does",
    "wait": "wait until a message is in a Maildir",
    "check": "validate the configuration and print the effective one",
    "route": "explain where mail for an address goes",
    "queue": "look at the queue and steer it",
    "status": "what the running server is at",
    "tail": "follow the running server",
    "log": "one message's whole life",
    "time": "move the queue's clock",
}
"""The commands, each with a line of help.  The module of a command, in trimta.cli, is imported only to run it: imports
are most of the time that a short command takes.
"""


OWN_GRAMMAR: Final = frozenset({"sendmail"})
"""Commands that parse the arguments behind their name themselves, from `args.rest`: argparse can't read their flags."""


class CommandModule(Protocol):
    """The functions of a command's module."""

    def add_parser(self, subparsers: Subparsers) -> None:
        """Add the command's parser, named as in COMMANDS."""

    def run(self, args: argparse.Namespace) -> int:
        """Run the command; returns the exit code.  `args.config` is the path that -c names, or None.

        Raises CommandError, ConfigErrors and ConfigFileError.
        """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, without the program's name; returns the exit code.

    Without `argv` it is the command line of this process, and this function sets up the standard streams and Ctrl-C.
    Raises SystemExit for --help, --version and usage errors.
    """
    streams.occupy()
    if argv is not None:
        return _ended([*argv])
    streams.install()
    with _interruptible():
        return _ended(_called_with())


def _ended(arguments: list[str]) -> int:
    name = command_name(arguments)
    status: int | None = None
    try:
        try:
            status = _run(arguments)
        finally:
            sys.stdout.flush()
        failure = streams.output_failure()
    except OutputError as error:
        failure, status = error, None
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:  # from a nursery, which puts KeyboardInterrupt into a group
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        return INTERRUPTED
    if failure is None or failure.reader_is_gone:
        return BROKEN_PIPE if status is None else status
    streams.say(f"trimta {name}: {failure}" if name in COMMANDS else f"trimta: {failure}")
    return EX_IOERR if status is None else status


@contextmanager
def _interruptible() -> Iterator[None]:
    """A block in which Ctrl-C raises KeyboardInterrupt, unless the process was started with SIGINT ignored.

    Before and after the block, while the interpreter starts and ends, Ctrl-C ends the process without a traceback.
    """
    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
    if not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if not ignored:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(arguments: list[str]) -> int:
    name = command_name(arguments)
    command = _module(name) if name in COMMANDS else None
    parser = ArgumentParser(
        prog="trimta",
        description="A real mail server for your own machine, in one command.",
        epilog="example:\n  trimta init && trimta check",
    )
    parser.add_argument("--version", action="version", version=f"trimta {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", title="commands")
    if command is not None:  # the others are not looked at: making a parser takes most of a millisecond
        command.add_parser(subparsers)
    else:
        for known, text in COMMANDS.items():
            subparsers.add_parser(known, help=text)
    if name is not None and command is None:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        parser.error(f"no such command: {name}" + (f"; did you mean {near[0]}?" if near else ""))
    rest: list[str] = []
    if name in OWN_GRAMMAR:
        end = _command_place(arguments) + 1
        arguments, rest = arguments[:end], arguments[end:]
    args = parser.parse_args(arguments)
    if command is None:
        parser.error("a command is needed")
    args.config = getattr(args, "config", None)
    args.rest = rest
    if not gc.isenabled():
        gc.freeze()  # the program itself is never looked through again
        gc.enable()
    try:
        return command.run(args)
    except ConfigErrors as error:
        return _fail(str(error), error.exit_code)
    except ConfigFileError as error:
        return _fail(f"trimta: {error}", error.exit_code)
    except CommandError as error:
        return _fail(f"trimta {name}: {error}", error.code)


def command_name(arguments: Sequence[str]) -> str | None:
    """The command's name: the first argument that is neither an option nor the value of -c; None without one."""
    return next(iter(arguments[_command_place(arguments) :]), None)


def _command_place(arguments: Sequence[str]) -> int:
    """The index of the command's name in `arguments`; their number if there is no command."""
    waiting = iter(enumerate(arguments))
    for place, argument in waiting:
        if argument in ("-c", "--config"):
            next(waiting, None)
        elif not argument.startswith("-"):
            return place
    return len(arguments)


def _called_with() -> list[str]:
    """The arguments of this process.  Called as `sendmail`, through a link, trimta runs the command of that name."""
    called, *arguments = sys.argv
    return ["sendmail", *arguments] if Path(called).name == "sendmail" else arguments


def _module(name: str) -> CommandModule:
    return cast("CommandModule", importlib.import_module(f"trimta.cli.{name.replace('-', '_')}"))


def _fail(message: str, code: int) -> int:
    streams.say(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
