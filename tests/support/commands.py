"""trimta's commands, run in the test's own process: no start-up time, and what they print as a value."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.process import DEADLINE
from trimta.cli.main import main
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output as one JSON document."""
        return json.loads(self.out)


class Commands:
    """`commands("queue", "list")` is `trimta queue list` in `folder`."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        if not (folder / "conf.toml").exists():
            self.configure()

    def configure(self, text: str = "") -> None:
        """Write conf.toml."""
        (self.folder / "conf.toml").write_text(f'hostname = "mail.dev.test"\n{text}')

    def __call__(self, *arguments: str) -> Ended:
        self._capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as end:  # of a usage error
            code = int(end.code or 0)
        return Ended(code, *self._capsys.readouterr())

    def octets(self, *arguments: str) -> bytes:
        """The standard output of a command that succeeds, in a process of its own."""
        command = [sys.executable, "-m", "trimta", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, check=True, timeout=DEADLINE).stdout

    @property
    def data_dir(self) -> Path:
        return self.folder / "var"

    def queue(self) -> Queue:
        """The queue, made if there is none; to be closed."""
        return Queue(self.data_dir)
