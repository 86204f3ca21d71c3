"""Access of the commands to the running server; every failure is a CommandError."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from trimta.cli.exits import EX_NOPERM, EX_TEMPFAIL, EX_UNAVAILABLE, CommandError
from trimta.control import asking
from trimta.control.asking import NoAnswer, NotRunning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trimta.config.model import Configuration
    from trimta.control.asking import Json


@contextmanager
def server_needed(config: Configuration) -> Iterator[None]:
    """A block that asks the running server; a server that is missing, silent or another user's is a CommandError."""
    try:
        yield
    except NotRunning as cause:
        raise CommandError(EX_UNAVAILABLE, f"{cause}; `trimta serve` starts one") from cause
    except NoAnswer as cause:
        raise CommandError(EX_TEMPFAIL, f"{cause}; try again") from cause
    except PermissionError as cause:
        raise CommandError(EX_NOPERM, f"the server on {config.data_dir} belongs to another user") from cause


def ask_server(config: Configuration, request: Json, *, timeout: float | None = 10.0) -> Json:
    """The running server's answer to a request, within `timeout` seconds.  Raises CommandError."""
    with server_needed(config):
        return asking.ask_once(config.data_dir, request, timeout=timeout)
