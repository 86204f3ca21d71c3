"""Standard input for commands that are run inside the test process and read the descriptor itself."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def standard_input(octets: bytes) -> Iterator[None]:
    """Inside the block descriptor 0 reads these octets."""
    before = os.dup(0)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(octets)
            file.seek(0)
            os.dup2(file.fileno(), 0)
            yield
    finally:
        os.dup2(before, 0)
        os.close(before)
