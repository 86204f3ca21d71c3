"""Other people's programs: found or the test is skipped; in CI, which installs them all, missing ones are failures."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Final, NoReturn

import pytest

from tests.support.process import DEADLINE, command_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IN_CI: Final = bool(os.environ.get("CI"))

_PATH: Final = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/lib/postfix/sbin"])


def require(program: str) -> str:
    """The program's path: $TEST_PROGRAM, or where it is found."""
    path = os.environ.get(f"TEST_{program.upper()}") or shutil.which(program, path=_PATH)
    if path is None:
        missing(f"{program} is not installed")
    return path


def require_root(why: str) -> None:
    """Some servers can't be started by anybody else."""
    if os.geteuid() != 0:
        missing(f"{why} needs root")


def missing(what: str) -> NoReturn:
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)


def run(
    folder: Path,
    program: str,
    *arguments: str | Path,
    text: str = "",
    environment: Mapping[str, str] | None = None,
    exit_code: int | None = 0,
) -> str:
    """Run a program of this machine to its end, which is `exit_code` (None: any); returns what it wrote."""
    done = subprocess.run(
        [require(program), *map(str, arguments)],
        cwd=folder,
        env=command_environment(folder) | {"PATH": _PATH} | dict(environment or {}),
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE,
        check=False,
    )
    output = done.stdout.decode(errors="backslashreplace")
    assert exit_code is None or done.returncode == exit_code, f"{program}: exit {done.returncode}\n{output}"
    return output


def free_port() -> int:
    """A port for a server that can't say which one it got."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
