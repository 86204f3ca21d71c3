"""Dates of header fields."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from trimta.content.date_time import date_time


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-9, minutes=-30)), timezone(timedelta(hours=13))])
@pytest.mark.parametrize("month", range(1, 13))
def test_a_date_is_written_as_the_standard_library_writes_it(month: int, zone: timezone) -> None:
    moment = datetime(1999 + month, month, 2 * month, month, 3, 4, 999_999, tzinfo=zone)
    assert date_time(moment) == format_datetime(moment)


def test_a_date_is_english_and_has_its_zone() -> None:
    zone = timezone(timedelta(hours=1))
    assert date_time(datetime(2026, 11, 25, 9, 5, tzinfo=zone)) == "Wed, 25 Nov 2026 09:05:00 +0100"
