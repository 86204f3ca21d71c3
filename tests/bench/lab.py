"""The servers of one run of the benchmark, started when they are first needed and ended with it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, cast

from tests.bench.backlog import fill
from tests.bench.postfix import Postfix
from tests.bench.processes import UnavailableError
from tests.bench.servers import Aiosmtpd, Trimta, has_workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

S = TypeVar("S", Trimta, Postfix, Aiosmtpd)

DOMAINS: Final = 100
"""Remote domains of a message that is for many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line says."""

    rounds: int
    quick: bool
    """Small loads, to see whether everything works."""
    workers: str | None
    """For `trimta serve --workers`; None leaves the option out."""
    beside: str | None
    """The Python of the environment with the other trimta."""

    def scaled(self, count: int, quick: int) -> int:
        """A count, or the smaller one."""
        return quick if self.quick else count


class Lab:
    """Everything below `folder`."""

    def __init__(self, folder: Path, settings: Settings, cleanup: ExitStack) -> None:
        self.folder = folder
        self.settings = settings
        self._cleanup = cleanup
        self._servers: dict[str, Trimta | Postfix | Aiosmtpd] = {}
        self._unavailable: dict[str, UnavailableError] = {}
        self._backlogs: dict[int, Path] = {}

    def trimta(self) -> Trimta:
        """Trimta with the workers of the settings."""
        return self._server("trimta", lambda folder: Trimta(folder, workers=self.settings.workers))

    def one_process(self) -> Trimta:
        """Trimta as one process."""
        return self._server("one-process", lambda folder: one_process(folder, sys.executable))

    def before(self) -> Trimta:
        """The other version of trimta, as one process."""
        return self._server("before", lambda folder: one_process(folder, self.python_before()))

    def many_domains(self) -> Trimta:
        """Trimta with the workers of the settings, which knows hosts of many remote domains."""
        return self._server("domains", lambda folder: Trimta(folder, workers=self.settings.workers, domains=DOMAINS))

    def backlog(self) -> Trimta:
        """Trimta with the workers of the settings and a queue full of deferred envelopes."""
        return self._server("backlog", self.with_backlog)

    def postfix(self) -> Postfix:
        """Postfix."""
        return self._server("postfix", Postfix)

    def aiosmtpd(self) -> Aiosmtpd:
        """Python's aiosmtpd."""
        return self._server("aiosmtpd", Aiosmtpd)

    def with_backlog(self, folder: Path, envelopes: int | None = None) -> Trimta:
        """A trimta in this folder, not started, with so many deferred envelopes in its queue; by default 100 000."""
        count = self.settings.scaled(100_000, 2_000) if envelopes is None else envelopes
        if count not in self._backlogs:
            self._backlogs[count] = self.new_folder("filled")
            fill(self._backlogs[count], count)
        shutil.copytree(self._backlogs[count], folder / "var")
        return Trimta(folder, workers=self.settings.workers)

    def python_before(self) -> str:
        """The Python of the environment with the other trimta.  Raises UnavailableError."""
        if self.settings.beside is None:
            raise UnavailableError("no other trimta was named (--beside PYTHON)")
        return self.settings.beside

    def new_folder(self, name: str) -> Path:
        """A folder that nobody has yet."""
        number = 1
        while (folder := self.folder / f"{name}-{number}").exists():
            number += 1
        folder.mkdir()
        return folder

    def _server(self, name: str, make: Callable[[Path], S]) -> S:
        if name in self._unavailable:
            raise self._unavailable[name]
        if name not in self._servers:
            try:
                self._servers[name] = self._cleanup.enter_context(make(self.new_folder(name)))
            except UnavailableError as error:
                self._unavailable[name] = error
                raise
        return cast("S", self._servers[name])


def one_process(folder: Path, python: str) -> Trimta:
    """A trimta as one process, with or without the option for it."""
    return Trimta(folder, python=python, workers="1" if has_workers(python) else None)
