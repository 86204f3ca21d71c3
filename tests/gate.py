"""The gate: every check that a change must pass, the same for people and CI.

.venv/bin/python -m tests.gate              all of it, the tests last
.venv/bin/python -m tests.gate tests/smtp   all checks, and of the tests these: the arguments are pytest's
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

TRIO: Final = tuple(f"trimta/{floor}" for floor in ("runtime", "outbound", "inbound", "control", "server", "testing"))
"""Where Trio's rules matter; reading all the rest as well would take a minute."""

CHECKS: Final = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "flake8-async": ["flake8", "--select=ASYNC10,ASYNC110,ASYNC111,ASYNC112,ASYNC113", "--ignore=ASYNC109", *TRIO],
    "mypy": ["mypy"],
}
"""What needs no tests to run; side by side."""


WORKERS: Final = "2"
"""Tests that run at once: most of them wait, for a disk or for a process."""


END_TO_END: Final = ("tests/e2e", "--ignore=tests/e2e/test_workers.py")
"""The tests that are run with worker processes, too; those left out always have some."""


def main() -> int:
    """Run it; the exit code is 0 only if everything passed, and enough was covered."""
    if importlib.util.find_spec("trio_typing") is not None:
        print("trio-typing is installed here and hides Trio's own types from mypy: use an environment without it")
        return 1
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for name, command in CHECKS.items()
    }
    failed = []
    for name, process in running.items():
        output, _ = process.communicate()
        print(f"{name}: {'failed' if process.returncode else 'ok'}", flush=True)
        if process.returncode:
            failed.append(name)
            sys.stdout.buffer.write(output)
            sys.stdout.flush()
    code = run_tests(sys.argv[1:])
    if failed:
        print(f"failed before the tests: {', '.join(failed)}", file=sys.stderr)
    return code or int(bool(failed))


def run_tests(arguments: list[str]) -> int:
    """With two workers, and, where it is all of them, with what they have to cover."""
    if arguments:
        return python("pytest", *arguments)
    python("coverage", "erase")
    print("the end-to-end tests with two worker processes a server, then all tests:", flush=True)
    with_workers = python("coverage", "run", "-m", "pytest", "-q", "-n", WORKERS, *END_TO_END, TRIMTA_TEST_WORKERS="2")
    code = python("coverage", "run", "-m", "pytest", "-n", WORKERS) or with_workers
    python("coverage", "combine", "--quiet")
    return python("coverage", "report", "--skip-covered", "--skip-empty", "--sort=cover") or code


def python(*command: str, **environment: str) -> int:
    """Run a module of this environment; returns its exit code."""
    variables = os.environ | environment
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
