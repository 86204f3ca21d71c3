"""Several connections in one process: what one of them does must not take the locks of another away."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.store.support import envelope, message
from trimta.store.queue.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEADLINE = 20.0


def open_and_close(data_dir: Path) -> None:
    Queue(data_dir).close()


def open_and_close_the_file(data_dir: Path) -> None:
    os.close(os.open(data_dir / "queue.sqlite3", os.O_RDONLY))


@pytest.mark.parametrize(("do", "kept"), [(open_and_close, True), (open_and_close_the_file, False)])
def test_another_process_finds_the_queue_in_use(do: Callable[[Path], None], kept: bool, tmp_path: Path) -> None:
    """The last one to leave removes the log; the second case shows that it would, were the locks gone."""
    log = tmp_path / "queue.sqlite3-wal"
    with Queue(tmp_path) as queue:
        queue.accept(message("a1"), [envelope()])
        do(tmp_path)
        program = (
            "from pathlib import Path; from trimta.store.queue.queue import Queue;"
            f" Queue(Path({str(tmp_path)!r})).close()"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE)
        assert log.exists() is kept
