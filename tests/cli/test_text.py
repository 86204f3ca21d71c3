"""Numbers as people read them."""

from __future__ import annotations

import pytest

from trimta.cli.text import duration, octets


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (60, "1m"),
        (61, "1m01s"),
        (600, "10m"),
        (3500, "58m20s"),
        (3599, "1h"),
        (3600, "1h"),
        (3900, "1h05m"),
        (14399, "4h"),
        (86400, "1d"),
        (86400 * 5 + 4 * 3600 - 5, "5d04h"),
        (86400 * 1000, "1000d"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0K"),
        (1434, "1.4K"),
        (23 * 1024, "23K"),
        (1024**2, "1.0M"),
        (50 * 1024**2, "50M"),
        (3 * 1024**4, "3072G"),
    ],
)
def test_a_size_is_short(count: int, text: str) -> None:
    assert octets(count) == text
