"""What a worker process is given at its start, and what may change while it runs."""

from __future__ import annotations

import copyreg
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trimta.config.model import Configuration, ListenSection
    from trimta.runtime.tls import TlsMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """The setup of a worker process, as the first process of the server has it at this moment."""

    configuration: Configuration
    listen: tuple[ListenSection, ...]
    """The listeners, by the number under which connections are handed over: those of the start, whatever a reload
    says.
    """
    tls: TlsMaterial | None
    """None where no listener has TLS."""
    spool: Path
    """The folder of large content."""
    time_scale: float
    """How many times faster than configured the queue's waits pass."""
    delays_guesses: bool
    """Whether the reply to a wrong password is delayed."""


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


def _reduce(
    mapping: MappingProxyType[Any, Any],
) -> tuple[Callable[..., MappingProxyType[Any, Any]], tuple[dict[Any, Any]]]:
    return _read_only, (dict(mapping),)


copyreg.pickle(MappingProxyType, _reduce)  # the configuration's mappings, which pickle does not know
