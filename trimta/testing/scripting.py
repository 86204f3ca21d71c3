"""Scripted faults (`[[faults]]` of conf.toml) that a test adds while its server runs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from trimta.config import load
from trimta.config.errors import BadValueError, ConfigErrors
from trimta.config.value_parsers import duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trimta.inbound.scripted_faults import FaultScript

Duration: TypeAlias = str | float | timedelta
"""A length of time: as in conf.toml ("90s", "5m", "4h", "5d"), in seconds, or a timedelta."""


def seconds(span: Duration) -> float:
    """The seconds of a span.  Raises ValueError for text that is none and below 0, TypeError for another type; both say
    what is expected.
    """
    if isinstance(span, str):
        try:
            return duration(0)(span)
        except BadValueError as error:
            raise ValueError(str(error)) from None
    if not isinstance(span, int | float | timedelta):
        raise TypeError(f'found {span!r}, expected a length of time: "90s", seconds, or a timedelta')
    length = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if not length >= 0:
        raise ValueError(f"found {span!r}, expected a length of time: time goes forward")
    return length


class Faults:
    """The scripted faults of one server: those of its configuration, then those that the test added."""

    def __init__(self, script: FaultScript, folder: Path, in_loop: Callable[[Callable[[], None]], None]) -> None:
        self._script = script
        self._folder = folder
        self._in_loop = in_loop

    def add(
        self,
        *,
        stage: str,
        reply: str | None = None,
        delay: Duration | None = None,
        drop: bool = False,
        recipient: str | None = None,
        sender: str | None = None,
        client: str | None = None,
        times: int | None = None,
        probability: float | None = None,
        seed: int | None = None,
    ) -> None:
        """Add a fault: `add(stage="rcpt", recipient="slow-*@dev.test", reply="451 4.3.0 later", times=2)`.

        Keys and values are those of `[[faults]]` in conf.toml.  Raises ValueError, which says what is wrong with them.
        """
        given: dict[str, Any] = {
            "stage": stage,
            "reply": reply,
            "delay": None if delay is None else f"{seconds(delay):.6f}s",
            "drop": drop,
            "recipient": recipient,
            "sender": sender,
            "client": client,
            "times": times,
            "probability": probability,
            "seed": seed,
        }
        table = {key: value for key, value in given.items() if value is not None}
        try:
            config = load.build({"faults": [table]}, base=self._folder, file="fault")
        except ConfigErrors as errors:
            texts = [f"{error.key or 'fault'}: {error.problem}, {error.expected}" for error in errors.errors]
            raise ValueError("; ".join(texts)) from None

        def add() -> None:
            for fault in config.faults:
                self._script.add(fault)

        self._in_loop(add)

    def clear(self) -> None:
        """Remove all faults, those of the configuration included."""
        self._in_loop(lambda: self._script.replace(()))
