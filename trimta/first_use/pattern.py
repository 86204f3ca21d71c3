"""Regular expressions that are compiled at their first use.

`pattern(…)` is `re.compile(…)` to a type checker, and costs the same from its second use on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, AnyStr, Final, Generic

_METHODS: Final = ("findall", "finditer", "fullmatch", "match", "search", "split", "sub", "subn")


class LatePattern(Generic[AnyStr]):
    """A regular expression, compiled when one of its attributes is asked for.

    The methods of the compiled one are then in slots of this one, so that a call goes straight to them.
    """

    __slots__ = ("_arguments", "_compiled", *_METHODS)

    def __init__(self, expression: AnyStr, flags: int = 0) -> None:
        """Raises nothing for a wrong expression, unlike `re.compile`."""
        self._arguments: tuple[AnyStr, int] = (expression, flags)

    def __getattr__(self, name: str) -> Any:
        """Whatever attribute is not there yet."""
        if name == "_compiled":
            self._compiled: re.Pattern[AnyStr] = re.compile(*self._arguments)
            for method in _METHODS:
                setattr(self, method, getattr(self._compiled, method))
            return self._compiled
        return getattr(self._compiled, name)


if TYPE_CHECKING:
    pattern = re.compile
else:
    pattern = LatePattern
