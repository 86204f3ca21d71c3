"""What routes say to people, and which of them share a next hop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimta.config.route_syntax import parse_route
from trimta.routing.routes import HostRoute, RouteError, TlsPolicy, describe, next_hop

BASE = Path("/base")


@pytest.mark.parametrize(
    ("text", "described", "hop"),
    [
        ("mx", "sent by MX look-up", "far.test"),
        ("smtp:127.0.0.1:2600", "relayed to 127.0.0.1:2600", "127.0.0.1:2600"),
        ("smtps:[::1]", "relayed to [::1]:465", "[::1]:465"),
        ("lmtp:unix:/run/l", "relayed by LMTP to unix:/run/l", "unix:/run/l"),
        ("pipe:/bin/x {recipients}", "piped to /bin/x", "pipe:/bin/x"),
        ("maildir:/m/{domain}", "captured in /m/{domain}", "maildir:/m/far.test"),
        ("maildir:/m", "captured in /m", "maildir:/m"),
        ("discard", "discarded", "discard"),
        ("reject:550 5.7.1 no", "refused with 550 5.7.1 no", "reject"),
        ("hold", "held in the queue", "hold"),
    ],
)
def test_a_route_is_described_and_has_a_next_hop(text: str, described: str, hop: str) -> None:
    route = parse_route(text, BASE)
    assert describe(route) == described
    assert next_hop(route, "far.test") == hop


def test_what_a_host_cannot_do_for_one_route_delays_no_other() -> None:
    def hop(**options: str) -> str:
        return next_hop(parse_route({"transport": "smtp", "host": "mx.test", **options}, BASE), "far.test")

    def mx(**options: str | int) -> str:
        return next_hop(parse_route({"transport": "mx", **options}, BASE), "far.test")

    assert mx() == mx(port=25, tls="may") == "far.test"
    assert len({mx(), mx(port=26), mx(tls="verify"), mx(port=26, tls="verify")}) == 4
    assert hop(tls="may") == "mx.test:25"
    assert hop(tls="verify") == "mx.test:25 tls=verify"
    assert hop(username="u", password_file="p") == "mx.test:25 username=u"


def test_a_relative_path_stays_relative_below_a_relative_base() -> None:
    route = parse_route("maildir:maildir-example/remote", Path())
    assert describe(route) == "captured in maildir-example/remote"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"host": "h"},
        {"port": 25},
        {"host": "h", "port": 70000},
        {"host": "h", "unix_path": "/x"},
        {"unix_path": "/x", "implicit_tls": True, "tls": TlsPolicy.VERIFY},
        {"host": "h", "port": 25, "implicit_tls": True},
        {"host": "h", "port": 25, "username": "u"},
    ],
)
def test_a_relay_that_leads_nowhere_cannot_be_built(options: dict[str, Any]) -> None:
    with pytest.raises(RouteError):
        HostRoute(**options)
