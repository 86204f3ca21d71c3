"""Modules that are imported when they are first needed, inside of functions: most processes never do.

A process of root that becomes another account may be kept from Python's files, and imports them before that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LATE: Final = (
    *("difflib", "email.errors", "email.header", "hashlib", "hmac", "ssl", "tempfile"),
    "trimta.outbound.reports",
)
"""Modules that any process may need."""

DNS_PACKETS: Final = "trimta.outbound.dns_packets"
"""The module with dnspython behind it."""

LATE_IN_SERVER: Final = (DNS_PACKETS,)
"""Modules that only a server may need."""


def load(names: Iterable[str]) -> None:
    """Import modules by their names."""
    for name in names:
        importlib.import_module(name)
