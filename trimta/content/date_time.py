"""Dates as header fields have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_time(moment: datetime) -> str:
    """A moment with a time zone as date-time (RFC 5322 3.3): `Wed, 25 Nov 2026 09:05:00 +0100`.

    `email.utils.format_datetime` writes the same; its module takes a tenth of what `trimta sendmail` may take.
    """
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04} {moment:%H:%M:%S %z}"
    )
