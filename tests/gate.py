"""The gate: every check that a change must pass, the same for people and CI.

.venv/bin/python -m tests.gate              all of it, the tests last
.venv/bin/python -m tests.gate tests/smtp   all checks, and of the tests these: the arguments are pytest's
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]

TRIO: Final = ("trimta/mta", "trimta/testing")
"""Where Trio's rules matter; reading all the rest as well would take a minute."""

CHECKS: Final = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "flake8-async": ["flake8", "--select=ASYNC10,ASYNC110,ASYNC111,ASYNC112,ASYNC113", "--ignore=ASYNC109", *TRIO],
    "mypy": ["mypy"],
}
"""What needs no tests to run; side by side."""


def main() -> int:
    """Run it; the exit code is 0 only if everything passed, and pytest's summary is then the last that is said."""
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
    tests = subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], cwd=ROOT, check=False)
    if failed:
        print(f"failed before the tests: {', '.join(failed)}", file=sys.stderr)
    return tests.returncode or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
