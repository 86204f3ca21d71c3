"""The fixtures `trimta`, a mail server of one test alone, and `trimta_session`, one for the whole run that is emptied
for each test.  Tests may be of any style.

    def test_sign_up_sends_a_welcome(trimta):
        sign_up("alice@dev.test", smtp=(trimta.host, trimta.port))
        assert trimta.wait_for(to="alice")["Subject"] == "Welcome"

    @pytest.mark.trimta({"queue": {"retry": ["1m"]}})           # its configuration, for this test
    @pytest.fixture def trimta_config(): return "conf.toml"     # or for those of a module or a class

    @pytest.fixture(scope="session") def trimta_session_config(): return "conf.toml"

Every run of pytest loads this module, so the server is imported when a test wants one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from trimta.testing import BlockingServer, Configuration

SERVER: pytest.StashKey[BlockingServer] = pytest.StashKey()
"""Of a test: the server of its fixture `trimta`.  Of the run: that of `trimta_session`."""
BEGAN: pytest.StashKey[float] = pytest.StashKey()
"""Of a test: when it began, as `real_time.wall` has it."""
ASKED: pytest.StashKey[bool] = pytest.StashKey()
"""Of a test: whether somebody has asked for the configuration in its mark."""

EVENTS: Final = 200
"""The last events of a server that the report of a failed test has."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "trimta(config): what the server of the fixture `trimta` is like: a dict, TOML, or a path"
    )


# The server of one test.


@pytest.fixture
def trimta_config(request: pytest.FixtureRequest) -> Configuration:
    """What `trimta.testing.run_server` takes: here the argument of the mark `trimta`.  To be overridden; a fixture of
    this name that asks for this one gets what the mark says.
    """
    request.node.stash[ASKED] = True
    return _marked(request.node)


@pytest.fixture
def trimta(request: pytest.FixtureRequest, trimta_config: Configuration) -> Iterator[BlockingServer]:
    """A mail server on a free port of 127.0.0.1, with Maildirs in a temporary folder: `trimta.testing`."""
    from trimta.testing import run_server

    if _marked(request.node) is not None and not request.node.stash.get(ASKED, False):
        _fail("the mark trimta is not used: the fixture trimta_config of the tests does not ask for trimta_config")
    with run_server(trimta_config) as server:
        request.node.stash[SERVER] = server
        yield server


def _marked(item: pytest.Item) -> Configuration:
    """The configuration in a test's mark; None without one."""
    mark = item.get_closest_marker("trimta")
    if mark is None:
        return None
    given = [*mark.args, *(value for key, value in mark.kwargs.items() if key == "config")]
    unknown = [f"the keyword {key!r}" for key in mark.kwargs if key != "config"]
    if unknown or len(given) != 1:
        found = ", ".join([*unknown, *([] if len(given) == 1 else [f"{len(given)} configurations"])])
        _fail(f"the mark trimta takes one configuration, trimta({{…}}) or trimta(config={{…}}); found {found}")
    config: Configuration = given[0]
    return config


def _fail(text: str) -> None:
    pytest.fail(text, pytrace=False)


# The server of the whole run.


@pytest.fixture(scope="session")
def trimta_session_config() -> Configuration:
    """What `trimta.testing.run_server` takes, for the server of the whole run.  To be overridden."""
    return None


@pytest.fixture(scope="session")
def trimta_session(pytestconfig: pytest.Config, trimta_session_config: Configuration) -> Iterator[BlockingServer]:
    """A mail server like that of `trimta`, for the whole run (with pytest-xdist: of this worker), emptied before each
    test.
    """
    from trimta.testing import run_server

    with run_server(trimta_session_config) as server:
        pytestconfig.stash[SERVER] = server
        try:
            yield server
        finally:
            del pytestconfig.stash[SERVER]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of a test are made: what they send stays."""
    server = item.config.stash.get(SERVER, None)
    if server is not None:
        server.clear()
    from trimta import real_time

    item.stash[BEGAN] = real_time.wall()


# What went wrong.


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """After a test that passed: an error inside its server fails it, not just the fixture's end."""
    for server in _servers(item):
        server.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report of a failed test has the events of its servers."""
    report = yield
    testing: Any = sys.modules.get("trimta.testing.handle")
    if report.failed and testing is not None:
        since = item.stash.get(BEGAN, 0.0)
        for server in dict.fromkeys([*_servers(item), *testing.STARTED]):
            events = server.recent_events(since)
            if events:
                report.sections.append((f"trimta at {server.address}: events", "\n".join(events[-EVENTS:])))
    return report


def _servers(item: pytest.Item) -> list[BlockingServer]:
    found = (stash.get(SERVER, None) for stash in (item.stash, item.config.stash))
    return [server for server in found if server is not None]
