"""The search for garbage in a server."""

from __future__ import annotations

import subprocess
import sys


def test_what_is_there_at_the_start_is_left_alone_and_circles_are_still_found() -> None:
    program = """if True:
        import gc, weakref
        from trimta.runtime import garbage
        class Circle:
            def __init__(self): self.itself = self
        garbage.settle()
        before = gc.get_freeze_count()
        made = [weakref.ref(Circle()) for _ in range(2 * garbage.NEW_OBJECTS)]
        print(before > 5_000, any(circle() is None for circle in made), gc.get_freeze_count() == before)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True True True\n"
