"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

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
from trimta.inbound import vrfy_expn_etrn

class Bug(Exception):
    pass

def the_culprit(*_, **__):
    raise Bug("here")

def test_a_bug(trimta, monkeypatch):
    monkeypatch.setattr(vrfy_expn_etrn, "vrfy", the_culprit)
    with smtplib.SMTP(trimta.host, trimta.port) as client:
        client.verify("alice")

def test_a_leftover(trimta):
    (trimta.data_dir / "spool").mkdir()
    (trimta.data_dir / "spool" / f"incoming-{os.getpid()}-x").touch()

def test_a_failure(trimta):
    trimta.wait_for(to="alice", timeout=0.01)
"""


SESSION = """
import smtplib
import pytest

ADDRESSES = set()

@pytest.fixture(scope="session")
def trimta_session_config():
    return {"routes": {"later.test": "hold"}}

@pytest.fixture(scope="session")
def app(trimta_session):
    return (trimta_session.host, trimta_session.port)

def send(app, to):
    with smtplib.SMTP(*app) as client:
        client.sendmail("app@app.test", [to], "Subject: welcome\\r\\n\\r\\nhi\\r\\n")

@pytest.mark.parametrize("number", range(6))
def test_emptied(trimta_session, app, number):
    ADDRESSES.add(trimta_session.address)
    assert len(ADDRESSES) == 1
    assert trimta_session.mailbox("alice") == []
    assert trimta_session.queue == []
    assert trimta_session.events == []
    trimta_session.faults.add(stage="helo", drop=True, client="10.*")
    send(app, "alice@dev.test")
    send(app, "bob@later.test")
    assert len(trimta_session.wait_for(to="alice", count=1)) == 1
    assert len(trimta_session.queue) == 1

def test_both(trimta_session, trimta, app):
    send(app, "alice@dev.test")
    assert trimta.mailbox("alice") == []
    assert len(trimta_session.mailbox("alice")) == 1
"""

SESSION_FAILS = """
import smtplib

def connect(server):
    with smtplib.SMTP(server.host, server.port) as client:
        client.ehlo("app.test")

def test_fine(trimta_session):
    connect(trimta_session)

def test_broken(trimta_session):
    connect(trimta_session)
    assert False

def test_own_server():
    from trimta.testing import run_server
    with run_server() as server:
        connect(server)
        assert False
"""

MISUSES = """
import pytest

@pytest.mark.trimta(config={"hostname": "mx.app.test"})
def test_keyword(trimta):
    assert trimta._server.mta.configuration.hostname == "mx.app.test"

@pytest.mark.trimta(configuration={})
def test_unknown_keyword(trimta):
    pass

@pytest.mark.trimta({}, {})
def test_two(trimta):
    pass

@pytest.mark.trimta
def test_none(trimta):
    pass

@pytest.mark.trimta({"hostnam": "x"})
def test_unknown_key(trimta):
    pass

class TestOverridden:
    @pytest.fixture
    def trimta_config(self):
        return {}

    @pytest.mark.trimta({"hostname": "mx.app.test"})
    def test_unused(self, trimta):
        pass

class TestMerged:
    @pytest.fixture
    def trimta_config(self, trimta_config):
        return {**trimta_config, "queue": {"retry": ["1m"]}}

    @pytest.mark.trimta({"hostname": "mx.app.test"})
    def test_used(self, trimta):
        assert trimta._server.mta.configuration.hostname == "mx.app.test"
"""

ASYNCIO = """
import asyncio, smtplib
import pytest
from trimta.testing import open_server, run_server

def send(server):
    with smtplib.SMTP(server.host, server.port) as client:
        client.sendmail("app@app.test", ["alice@dev.test"], "Subject: welcome\\r\\n\\r\\nhi\\r\\n")

async def test_run_server():
    async with run_server() as server:
        sending = asyncio.create_task(asyncio.to_thread(send, server))
        assert (await server.wait_for(to="alice"))["Subject"] == "welcome"
        await sending

async def test_fixture(trimta):
    await asyncio.to_thread(send, trimta)
    assert trimta.wait_for(to="alice")["Subject"] == "welcome"

async def test_open_server():
    with pytest.raises(RuntimeError, match="run_server"):
        async with open_server():
            pass
"""

RunPytest: TypeAlias = "Callable[..., str]"


@pytest.fixture
def run_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPytest:
    """Runs tests in a process and a folder of their own; returns what pytest prints."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # it may be installed, or not

    def run(text: str, *options: str, mode: str = "trio_mode = true", library: str = "pytest_trio.plugin") -> str:
        (tmp_path / "test_app.py").write_text(text)
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{mode}\n")
        plugins = ["-p", "trimta.pytest_plugin", "-p", library, "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", "--strict-markers", *plugins, "-W", "error", *options, "test_app.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE).stdout

    return run


@pytest.mark.parametrize("workers", [[], ["-p", "xdist.plugin", "-n", "2"]], ids=["alone", "xdist"])
def test_the_server_of_the_run_is_emptied_for_each_test(run_pytest: RunPytest, workers: list[str]) -> None:
    if workers:
        pytest.importorskip("xdist")
    told = run_pytest(SESSION, *workers)
    assert " 7 passed in " in told, told


def test_the_tests_of_every_style_run_side_by_side(run_pytest: RunPytest) -> None:
    pytest.importorskip("xdist")
    told = run_pytest(TESTS, "-p", "xdist.plugin", "-n", "2")
    assert " 6 passed in " in told, told


def test_a_failed_test_s_report_has_its_own_events(run_pytest: RunPytest) -> None:
    told = run_pytest(SESSION_FAILS)
    assert " 2 failed, 1 passed in " in told, told
    assert told.count(" connect client=127.0.0.1") == 2


def test_a_wrong_use_of_the_mark_is_an_error_that_says_so(run_pytest: RunPytest) -> None:
    told = run_pytest(MISUSES)
    assert " 2 passed, 5 errors in " in told, told
    found = "the mark trimta takes one configuration, trimta({…}) or trimta(config={…}); found "
    for problem in (
        f"{found}the keyword 'configuration', 0 configurations",
        f"{found}2 configurations",
        f"{found}0 configurations",
        "config:1: hostnam: unknown key",
        "the mark trimta is not used: the fixture trimta_config of the tests does not ask for trimta_config",
    ):
        assert problem in told, told


def test_tests_in_asyncio_get_a_server(run_pytest: RunPytest) -> None:
    pytest.importorskip("pytest_asyncio")
    mode = "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function"
    told = run_pytest(ASYNCIO, mode=mode, library="pytest_asyncio.plugin")
    assert " 3 passed in " in told, told


def test_tests_of_every_style_get_a_server_of_their_own(run_pytest: RunPytest) -> None:
    told = run_pytest(TESTS)
    assert " 6 passed in " in told, told


def test_errors_inside_the_server_and_leftovers_fail_the_test(run_pytest: RunPytest) -> None:
    told = run_pytest(FAILURES)
    assert " 2 failed, 1 passed, 1 error in " in told, told
    assert re.search(r"- trimta at 127\.0\.0\.1:\d+: events -.*\n\S+ connect client=127\.0\.0\.1", told)
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
