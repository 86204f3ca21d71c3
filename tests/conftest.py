"""What all tests share."""

from __future__ import annotations

from tests.support.deadline import pytest_runtest_protocol

__all__ = ["pytest_runtest_protocol"]
