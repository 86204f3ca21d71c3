"""The forms that a DSN may have.

FULL   what `compose` made
BRIEF  the header of the message instead of the message; diagnostics cut; 7 bits; several DSNs for many recipients
BARE   the same without the header
"""

from __future__ import annotations

import enum


class ReportForm(enum.StrEnum):
    """The form of a DSN: how much it holds."""

    FULL = "full"
    BRIEF = "brief"
    BARE = "bare"
