"""Modules that are imported when they are first needed, and those that a command does without."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import trimta
from trimta.first_use.modules import LATE, LATE_IN_SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(trimta.__file__).parent

BEFORE: Final = {"__main__.py", "pytest_plugin.py", "cli/main.py", "server/start.py"}
"""What imports in functions, but in a process that has not changed its account."""

BEFORE_SUBMISSION: Final = {"trimta.cli.main", "trimta.runtime.tls", "trimta.server", "trio"}
"""What `trimta sendmail` imports in functions before it becomes another account."""

OPTIONAL: Final = {"cryptography", "trustme"}
"""Packages that need not be installed."""


def imported_in_functions(path: Path) -> Iterator[str]:
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                match node:
                    case ast.Import(names=names):
                        yield from (alias.name for alias in names)
                    case ast.ImportFrom(module="trimta.outbound", names=names):
                        yield from (f"trimta.outbound.{alias.name}" for alias in names)
                    case ast.ImportFrom(module=str(module)):
                        yield module


def modules_after(statement: str) -> set[str]:
    """The modules that are loaded after a statement in a new Python, which no coverage is taken of: that loads some."""
    program = f"import sys\n{statement}\nprint(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def test_what_a_function_imports_is_loaded_before_the_account_changes() -> None:
    late = {
        name
        for path in ROOT.rglob("*.py")
        if str(path.relative_to(ROOT)) not in BEFORE and path.parent.name not in ("testing", "workers")
        for name in imported_in_functions(path)
    }
    needed = {name for name in late if name.partition(".")[0] not in OPTIONAL} - BEFORE_SUBMISSION
    assert not {*LATE, *LATE_IN_SERVER} - needed
    loaded = modules_after(f"from trimta.first_use.modules import load\nload({[*LATE, *LATE_IN_SERVER]})")
    assert needed <= loaded


SMALL: Final = {
    "argparse",
    "asyncio",
    "cryptography",
    "difflib",
    "dns",
    "email",
    "hashlib",
    "http",
    "logging",
    "random",
    "secrets",
    "ssl",
    "subprocess",
    "tempfile",
    "trimta.content.dsn.compose",
    "trimta.content.mime.structure",
    "trio",
    "trustme",
}


@pytest.mark.parametrize(
    ("command", "loaded"),
    [
        ("status", set()),
        ("sendmail", set()),
        ("queue", set()),
        ("check", set()),
    ],
)
def test_a_command_starts_without_what_it_does_not_need(command: str, loaded: set[str]) -> None:
    assert modules_after(f"import trimta.cli.main, trimta.cli.{command}") & SMALL == {"argparse", *loaded}


@pytest.mark.parametrize("command", ["status", "time", "tail"])
def test_a_command_that_asks_the_server_starts_without_the_queue(command: str) -> None:
    assert not modules_after(f"import trimta.cli.{command}") & {"sqlite3", "trimta.store.queue.queue"}


def test_a_server_listens_without_what_only_some_mail_needs() -> None:
    modules = modules_after("import trimta.cli.main, trimta.cli.serve")
    assert not modules & {"asyncio", "cryptography", "difflib", "dns", "email", "http", "trustme"}
    assert not modules & {"trimta.outbound.dns_packets", "trimta.server.workers.processes"}
