"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 60.0

TESTS = """
import smtplib, unittest
import pytest, trio

def send(trimta, to="alice@dev.test", sender="app@app.test"):
    with smtplib.SMTP(trimta.host, trimta.port) as client:
        client.sendmail(sender, [to], "Subject: welcome\\r\\n\\r\\nhi\\r\\n")

def test_plain(trimta):
    send(trimta)
    assert trimta.wait_for(to="alice")["Subject"] == "welcome"

def test_of_its_own(trimta):
    assert trimta.mailbox("alice") == []

async def test_trio(trimta):
    await trio.to_thread.run_sync(send, trimta)
    assert len(trimta.mailbox("alice")) == 1

@pytest.mark.trimta({"routes": {"*": "hold"}})
def test_marked(trimta):
    send(trimta, "bob@example.com")
    assert [entry.state for entry in trimta.queue] == ["held"]

@pytest.mark.usefixtures("mail")
class TestCase(unittest.TestCase):
    @pytest.fixture
    def mail(self, trimta):
        self.mail = trimta

    def test_unittest(self):
        send(self.mail)
        self.assertEqual(len(self.mail.mailbox("alice")), 1)

class TestConfigured:
    @pytest.fixture
    def trimta_config(self):
        return '[local]\\ndomains = ["app.test"]'

    def test_overridden(self, trimta):
        send(trimta, "alice@app.test")
        assert trimta.mailbox("alice@app.test")
        assert trimta.captured() == []
"""

FAILURES = """
import os, smtplib
from trimta.mta import inquiries

class Bug(Exception):
    pass

def the_culprit(*_, **__):
    raise Bug("here")

def test_a_bug(trimta, monkeypatch):
    monkeypatch.setattr(inquiries, "vrfy", the_culprit)
    with smtplib.SMTP(trimta.host, trimta.port) as client:
        client.verify("alice")

def test_a_leftover(trimta):
    (trimta.data_dir / "spool").mkdir()
    (trimta.data_dir / "spool" / f"incoming-{os.getpid()}-x").touch()

def test_a_failure(trimta):
    trimta.wait_for(to="alice", timeout=0.01)
"""


@pytest.fixture
def run_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Runs tests in a process and a folder of their own; returns what pytest prints."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # it may be installed, or not

    def run(text: str) -> str:
        (tmp_path / "test_app.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
        options = ["-p", "trimta.pytest_plugin", "-p", "pytest_trio.plugin", "-p", "no:cacheprovider", "-W", "error"]
        command = [sys.executable, "-m", "pytest", "--strict-markers", *options, "test_app.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE).stdout

    return run


def test_tests_of_every_style_get_a_server_of_their_own(run_pytest: Callable[[str], str]) -> None:
    told = run_pytest(TESTS)
    assert " 6 passed in " in told, told


def test_errors_inside_the_server_and_leftovers_fail_the_test(run_pytest: Callable[[str], str]) -> None:
    told = run_pytest(FAILURES)
    assert " 2 failed, 1 passed, 1 error in " in told, told
    assert "FAILED test_app.py::test_a_bug - test_app.Bug: here" in told
    assert 'raise Bug("here")' in told
    assert "FAILED test_app.py::test_a_failure - trimta.testing.handle.NotArrivedError" in told
    assert "ERROR test_app.py::test_a_leftover - trimta.testing.leftovers.LeftBehindError" in told


@pytest.mark.parametrize(
    ("module", "absent"), [("trimta.pytest_plugin", "trio"), ("trimta.testing", "pytest"), ("trimta", "trio")]
)
def test_nobody_pays_for_what_he_does_not_use(module: str, absent: str) -> None:
    program = f"import {module}, sys; sys.exit({absent!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE)


def test_pytest_finds_the_plugin_by_itself() -> None:
    project = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"trimta": "trimta.pytest_plugin"}
