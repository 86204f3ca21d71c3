"""Scripted faults (`[[faults]]`): which one strikes at a stage of a session; `server_conversation` carries it out."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trimta.config.model import Fault, FaultStage


NULL_PATH: Final = "<>"
"""How globs see the sender of a report."""


class _Armed:
    """A fault with what it remembers: how often it may still strike, and its dice."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.times
        self._dice = random.Random(fault.seed)

    def strikes(self) -> bool:
        if self.left == 0:
            return False
        if self.fault.probability is not None and self._dice.random() >= self.fault.probability:
            return False
        if self.left is not None:
            self.left -= 1
        return True


class FaultSource(Protocol):
    """Where a session learns which fault strikes: the script in its own process, or in the first of several."""

    def may_strike(self, stage: FaultStage) -> bool:
        """Whether any fault is scripted for a stage."""

    async def find(
        self, stage: FaultStage, *, client: str, sender: str | None = None, recipients: Sequence[str] = ()
    ) -> Fault | None:
        """The fault that strikes here; None if there is none."""


class FaultScript:
    """All faults of a server, in the order of the configuration; the first that matches and strikes is it."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.on_change: Callable[[frozenset[FaultStage]], None] = lambda _: None
        """Called with the stages at which a fault may strike, whenever the script changes."""
        self._armed = [_Armed(fault) for fault in faults]
        self._stages = self.stages

    def add(self, fault: Fault) -> None:
        """Script one more."""
        self._armed.append(_Armed(fault))
        self._stages = self.stages
        self.on_change(self._stages)

    def replace(self, faults: Iterable[Fault]) -> None:
        """Script these, and no others any more."""
        self._armed = [_Armed(fault) for fault in faults]
        self._stages = self.stages
        self.on_change(self._stages)

    @property
    def stages(self) -> frozenset[FaultStage]:
        """The stages at which a fault may strike."""
        return frozenset(armed.fault.stage for armed in self._armed)

    def may_strike(self, stage: FaultStage) -> bool:
        return stage in self._stages

    async def find(
        self, stage: FaultStage, *, client: str, sender: str | None = None, recipients: Sequence[str] = ()
    ) -> Fault | None:
        """The fault that strikes here.  A glob on what is not known yet at this stage does not match; one on recipients
        matches if any of them does.
        """
        for armed in self._armed:
            fault = armed.fault
            if (
                fault.stage is stage
                and (fault.client is None or _like(client, fault.client))
                and (fault.sender is None or (sender is not None and _like(sender, fault.sender)))
                and (fault.recipient is None or any(is_meant(fault, address) for address in recipients))
                and armed.strikes()
            ):
                return fault
        return None


def is_meant(fault: Fault, recipient: str) -> bool:
    """Whether a fault is about this recipient."""
    return fault.recipient is None or _like(recipient, fault.recipient)


def _like(text: str, glob: str) -> bool:
    """Whether they are the same, brackets of an address literal included, or the glob matches."""
    text, glob = text.lower(), glob.lower()
    return text == glob or fnmatchcase(text, glob)
