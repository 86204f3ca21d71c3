"""What all tests share."""

from __future__ import annotations

from tests.support.deadline import pytest_runtest_protocol
from tests.support.workers import workers_by_default

__all__ = ["pytest_runtest_protocol", "workers_by_default"]
