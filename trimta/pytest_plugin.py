"""The pytest fixtures `trimta`, a mail server for one test, and `trimta_session`, a mail server for the whole run.

The second is emptied before each test.  Tests may be synchronous or asynchronous.

    def test_sign_up_sends_a_welcome(trimta):
        sign_up("alice@dev.test", smtp=(trimta.host, trimta.port))
        assert trimta.wait_for(to="alice")["Subject"] == "Welcome"

    @pytest.mark.trimta({"queue": {"retry": ["1m"]}})           # its configuration, for this test
    @pytest.fixture def trimta_config(): return "conf.toml"     # or for those of a module or a class

    @pytest.fixture(scope="session") def trimta_session_config(): return "conf.toml"

Every run of pytest loads this module, so the server is only imported by the fixtures.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from trimta.testing import BlockingServer, Configuration

SERVER: pytest.StashKey[BlockingServer] = pytest.StashKey()
"""Key of the server: of the fixture `trimta` in a test's stash, of `trimta_session` in that of the run."""
BEGAN: pytest.StashKey[float] = pytest.StashKey()
"""Key of the moment at which a test began, from `real_time.wall`."""
ASKED: pytest.StashKey[bool] = pytest.StashKey()
"""Key of the note that a fixture has asked for the configuration in a test's mark."""

EVENTS: Final = 200
"""Events of a server in the report of a failed test, at most: the last ones."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "trimta(config): what the server of the fixture `trimta` is like: a dict, TOML, or a path"
    )


# The server of one test.


@pytest.fixture
def trimta_config(request: pytest.FixtureRequest) -> Configuration:
    """The configuration of the fixture `trimta`, as `trimta.testing.run_server` takes it; tests may override it.

    This one returns the argument of the mark `trimta`; a fixture that overrides it may ask for it.
    """
    request.node.stash[ASKED] = True
    return _marked(request.node)


@pytest.fixture
def trimta(request: pytest.FixtureRequest, trimta_config: Configuration) -> Iterator[BlockingServer]:
    """A mail server on a free port of 127.0.0.1, with Maildirs in a temporary folder (see `trimta.testing`)."""
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
        problems = ", ".join([*unknown, *([] if len(given) == 1 else [f"{len(given)} configurations"])])
        _fail(f"the mark trimta takes one configuration, trimta({{…}}) or trimta(config={{…}}); found {problems}")
    config: Configuration = given[0]
    return config


def _fail(text: str) -> None:
    pytest.fail(text, pytrace=False)


# The server of the whole run.


@pytest.fixture(scope="session")
def trimta_session_config() -> Configuration:
    """The configuration of `trimta_session`, as `trimta.testing.run_server` takes it; tests may override it."""
    return None


@pytest.fixture(scope="session")
def trimta_session(pytestconfig: pytest.Config, trimta_session_config: Configuration) -> Iterator[BlockingServer]:
    """A mail server like that of `trimta` for the whole run (with pytest-xdist: of a worker), emptied for each test."""
    from trimta.testing import run_server

    with run_server(trimta_session_config) as server:
        pytestconfig.stash[SERVER] = server
        try:
            yield server
        finally:
            del pytestconfig.stash[SERVER]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Empty the server of the whole run before a test's fixtures are made, so that mail of the fixtures stays."""
    server = item.config.stash.get(SERVER, None)
    if server is not None:
        server.clear()
    from trimta import real_time

    item.stash[BEGAN] = real_time.wall()


# Errors inside servers.


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a test that passed if there was an error inside its server; else only the fixture's end would fail."""
    for server in _servers(item):
        server.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the events of a test's servers to the report of its failure."""
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
    servers = (stash.get(SERVER, None) for stash in (item.stash, item.config.stash))
    return [server for server in servers if server is not None]
