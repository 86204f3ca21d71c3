"""Worker processes for the servers of the tests: TRIMTA_TEST_WORKERS=2 gives two to each that says nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from trimta.config.model import Configuration

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT: Final = int(os.environ.get("TRIMTA_TEST_WORKERS", "1"))


def worker_options() -> list[str]:
    """The options of `trimta serve`."""
    return [f"--workers={COUNT}"] if COUNT > 1 else []


@pytest.fixture(autouse=True)
def workers_by_default(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have configurations without `workers` mean as many, in this process; one for a test marked `one_process`, which
    changes the program itself for its sessions.
    """
    if Configuration.__init__.__kwdefaults__ is None:  # until its first call
        cast("Any", Configuration)(hostname="", data_dir=None, local=None, routes={})
    defaults = cast("dict[str, Any]", Configuration.__init__.__kwdefaults__)
    defaults["workers"] = 1 if request.node.get_closest_marker("one_process") else COUNT
    yield
    defaults["workers"] = 1
