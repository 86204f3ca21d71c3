"""The reload at SIGHUP: the configuration is read again, and changes as a whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trimta.config.errors import ConfigErrors, ConfigFileError
from trimta.outbound.transports.client_settings import TlsContexts
from trimta.runtime.tls import TlsError
from trimta.server.start import tls_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trimta.config.model import Configuration
    from trimta.server.wiring import Mta
    from trimta.server.workers.processes import WorkerProcesses


async def reload(mta: Mta, workers: WorkerProcesses | None, load: Callable[[], Configuration]) -> None:
    """Read the configuration again with `load`, and put it in place.

    If it has a mistake, event `reload_failed` tells so, and the present configuration and certificates stay.
    """
    old = mta.configuration
    try:
        loaded = await mta.disk.run(load)
        # Keys that only a restart can change keep their values; set first, so that no certificate is made elsewhere.
        config = replace(loaded, listen=old.listen, data_dir=old.data_dir, workers=old.workers)
        swap = None
        if mta.server_tls is not None:
            swap = await mta.disk.run(mta.server_tls.prepare, tls_settings(config))
        client_tls = await mta.disk.run(TlsContexts.load, config.tls.ca)
    except (ConfigErrors, ConfigFileError, TlsError, OSError) as cause:
        for line in str(cause).splitlines():
            mta.events.emit("reload_failed", reason=line)
        return
    # Everything was read, and nothing below can fail.
    kept = swap() if swap is not None else ""
    if kept:
        mta.events.emit("certificate_kept", reason=f"{kept}; a restart reads it")
    for name in ("listen", "data_dir", "workers"):
        if getattr(loaded, name) != getattr(old, name):
            mta.events.emit("needs_restart", key=name)
    mta.apply(config, client_tls)
    if workers is not None:
        await workers.apply()
    mta.events.emit("reloaded", file=str(config.source or "built-in defaults"))
    mta.scheduler.wake()
