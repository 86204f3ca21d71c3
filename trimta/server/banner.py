"""The banner, which `trimta serve` writes to standard error when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimta import __version__
from trimta.config.model import ListenTls
from trimta.routing.routes import DiscardRoute, HoldRoute, MaildirRoute, RejectRoute, describe
from trimta.runtime import privileges
from trimta.store.queue import loss

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trimta.config.model import Configuration, ListenSection
    from trimta.server.wiring import Mta


def banner(mta: Mta, *, lost: bool, rescued: Sequence[Path]) -> list[str]:
    """The lines that say where the server listens, where local mail goes, and what happens to remote mail.

    `lost`: whether the queue of an earlier start is gone.  `rescued`: the files with the content of its messages.
    """
    config = mta.configuration
    lines = [f"trimta {__version__}, configuration: {config.source or 'built-in defaults'}"]
    for bound in mta.bound:
        lines.extend(f"listening on {address} ({_describe(bound.listen)})" for address in bound.addresses)
    domains = ", ".join(dict.fromkeys([*config.local.domains, config.hostname]))
    lines.append(f"local mail for {domains}: in {config.local.maildir}")
    lines.extend(_remote_lines(config))
    lines.append(f"queue and state: in {config.data_dir}")
    if mta.server_tls is not None:
        lines.extend(mta.server_tls.describe())
    if lost:
        lines.append(f"WARNING: {loss.explanation(config.data_dir)}")
        lines.extend(f"WARNING: the content of a message of it is kept: {path}" for path in rescued)
    if mta.client_settings.tls.trouble:
        lines.append(f'warning: {mta.client_settings.tls.trouble}; what is sent with tls = "verify" waits')
    if privileges.is_root() and not config.user:
        lines.append("warning: running as root; set `user` in conf.toml to the account to become")
    return lines


def _describe(listen: ListenSection) -> str:
    return str(listen.protocol) if listen.tls is ListenTls.NONE else f"{listen.protocol}, tls {listen.tls}"


def _remote_lines(config: Configuration) -> list[str]:
    lines = [f"mail for {key}: {describe(route)}" for key, route in config.routes.items() if key != "*"]
    rest = config.routes["*"]
    captured = all(
        isinstance(route, MaildirRoute | DiscardRoute | RejectRoute | HoldRoute) for route in config.routes.values()
    )
    lines.append(f"remote mail: {describe(rest)}" + ("; nothing leaves this machine" if captured else ""))
    return lines
