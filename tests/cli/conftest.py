"""What the commands' tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.commands import Commands

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trimta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    """Commands run in this process, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIMTA_CONF", raising=False)
    return Commands(tmp_path, capsys)
