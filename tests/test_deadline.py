"""The deadline that every test has, in runs of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE = 60.0

TESTS = """
import threading, time
import pytest, trio

pytestmark = pytest.mark.deadline(0.3)

def test_in_a_lock():
    threading.Lock().acquire() or threading.Event().wait()
    threading.Event().wait()

async def test_in_trio():
    await trio.sleep_forever()

def test_in_a_thread():
    thread = threading.Thread(target=time.sleep, args=(3,), daemon=True)
    thread.start()
    thread.join()

@pytest.fixture
def hanging():
    threading.Event().wait()

def test_in_a_fixture(hanging):
    pass

@pytest.fixture
def hanging_at_its_end():
    yield
    threading.Event().wait()

def test_in_the_end_of_a_fixture(hanging_at_its_end):
    pass

@pytest.mark.deadline(30)
def test_after_all_that():
    time.sleep(0.4)
"""


@pytest.mark.parametrize("workers", [[], ["-p", "xdist.plugin", "-n", "1"]], ids=["alone", "xdist"])
def test_whatever_a_test_hangs_in_it_fails_and_the_run_goes_on(workers: list[str], tmp_path: Path) -> None:
    if workers:
        pytest.importorskip("xdist")
    (tmp_path / "conftest.py").write_text("from tests.support.deadline import pytest_runtest_protocol\n")
    (tmp_path / "test_app.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\ntrio_mode = true\npythonpath = {ROOT}\nmarkers =\n    deadline(seconds): how long a test may take\n"
    )
    options = ["-p", "pytest_trio.plugin", "-p", "no:cacheprovider", *workers]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_app.py"],
        cwd=tmp_path,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert " 3 failed, 2 passed, 2 errors in " in run.stdout, run.stdout
    assert "DeadlineError: the test took longer than 0.3 s" in run.stdout
