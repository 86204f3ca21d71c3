"""The fixture `trimta`: a mail server of one test alone, for tests of any style.

    def test_sign_up_sends_a_welcome(trimta):
        sign_up("alice@dev.test", smtp=(trimta.host, trimta.port))
        assert trimta.wait_for(to="alice")["Subject"] == "Welcome"

    @pytest.mark.trimta({"queue": {"retry": ["1m"]}})           # its configuration, for this test
    @pytest.fixture def trimta_config(): return "conf.toml"     # or for those of a module or a class

Every run of pytest loads this module, so the server is imported when a test wants one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trimta.testing import BlockingServer, Configuration

SERVER: pytest.StashKey[BlockingServer] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "trimta(config): what the server of the fixture `trimta` is like: a dict, TOML, or a path"
    )


@pytest.fixture
def trimta_config(request: pytest.FixtureRequest) -> Configuration:
    """What `trimta.testing.run_server` takes: here the argument of the mark `trimta`.  To be overridden."""
    mark = request.node.get_closest_marker("trimta")
    return mark.args[0] if mark is not None and mark.args else None


@pytest.fixture
def trimta(request: pytest.FixtureRequest, trimta_config: Configuration) -> Iterator[BlockingServer]:
    """A mail server on a free port of 127.0.0.1, with Maildirs in a temporary folder: `trimta.testing`."""
    from trimta.testing import run_server

    with run_server(trimta_config) as server:
        request.node.stash[SERVER] = server
        yield server


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """After a test that passed: an error inside its server fails it, not just the fixture's end."""
    server = item.stash.get(SERVER, None)
    if server is not None:
        server.check()
