"""Python's search for garbage: objects that refer to each other in a circle, and that nothing else refers to."""

from __future__ import annotations

import gc
from typing import Final

NEW_OBJECTS: Final = 3_000
"""By how many objects a process grows before the new ones are looked through.  A message leaves few behind; with
Python's 700, the search took a fiftieth of the time of each.
"""


def settle() -> None:
    """Search as a server does, from now on: never again through what is there at its start, which took 13 ms each time,
    and less often through what is new.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(NEW_OBJECTS)
