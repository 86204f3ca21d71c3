"""What is this server is judged by the sockets that are bound, and by the addresses that this machine has."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack, closing
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import pytest
import trio

from trimta.config.load import parse
from trimta.inbound import own_addresses
from trimta.inbound.own_addresses import comes_to, is_own
from trimta.mail.status import EnhancedStatus
from trimta.outbound.resolver import MxHosts, RoutingFailure
from trimta.server.mta_server import MtaServer

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE: Final = 20.0
LOOP: Final = EnhancedStatus(5, 4, 6)


def own_address() -> str | None:
    """An address of this machine beside loopback, if it has one."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # no packet is sent
        except OSError:
            return None
        address = str(probe.getsockname()[0])
        return None if ip_address(address).is_loopback else address


LISTENED: Final = ["127.0.0.1", "0.0.0.0", "::1", "::"]


@pytest.mark.parametrize(
    ("address", "comes_by"),
    [
        ("127.0.0.1", {"127.0.0.1", "0.0.0.0"}),
        ("127.0.0.2", {"0.0.0.0"}),
        ("0.0.0.0", {"127.0.0.1", "0.0.0.0"}),
        ("::1", {"::1", "::"}),
        ("::", {"::1", "::"}),
        ("::ffff:127.0.0.1", {"127.0.0.1", "0.0.0.0"}),
        ("::ffff:0.0.0.0", {"127.0.0.1", "0.0.0.0"}),
        ("::ffff:127.0.0.2", {"0.0.0.0"}),
        ("192.0.2.1", set()),
        ("198.51.100.7", set()),
        ("::ffff:192.0.2.1", set()),
        ("2001:db8::1", set()),
        ("fe80::dead:beef%1", set()),
    ],
)
def test_a_connection_comes_to_the_sockets_that_would_answer_it(address: str, comes_by: set[str]) -> None:
    assert {host for host in LISTENED if comes_to([(host, 25)], address, 25)} == comes_by
    assert not comes_to([(host, 26) for host in LISTENED], address, 25)
    assert comes_to([("192.0.2.77", 25), *((host, 25) for host in LISTENED)], address, 25) is bool(comes_by)
    assert not comes_to([], address, 25)


def test_every_address_of_this_machine_is_its_own() -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address beside loopback")
    assert is_own(ip_address(address))
    assert comes_to([("0.0.0.0", 25)], address, 25)
    assert comes_to([("0.0.0.0", 25)], f"::ffff:{address}", 25)
    assert not comes_to([("127.0.0.1", 25)], address, 25)


def test_where_any_address_may_be_bound_only_loopback_is_known_to_be_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_addresses, "_may_bind", lambda _: True)
    assert not is_own(ip_address("198.51.100.7"))
    assert is_own(ip_address("127.0.0.3"))


ZONES: Final = """
[routes]
"*" = "mx"
[dns.zones."unspecified.test"]
mx = ["10 u.unspecified.test"]
[dns.zones."u.unspecified.test"]
address = ["0.0.0.0"]
[dns.zones."unspecified6.test"]
address = ["::"]
[dns.zones."mapped.test"]
address = ["::ffff:127.0.0.1"]
[dns.zones."near.test"]
address = ["127.0.0.1"]
[dns.zones."six.test"]
address = ["::1"]
[dns.zones."far.test"]
mx = ["10 a.far.test", "20 u.unspecified.test", "30 b.far.test"]
[dns.zones."a.far.test"]
address = ["192.0.2.1"]
[dns.zones."b.far.test"]
address = ["192.0.2.2", "2001:db8::1"]
"""


@pytest.mark.parametrize(
    ("listen", "ours"),
    [
        ("127.0.0.1", {"unspecified.test", "mapped.test", "near.test", "[127.0.0.1]", "[0.0.0.0]"}),
        ("0.0.0.0", {"unspecified.test", "mapped.test", "near.test", "[127.0.0.1]", "[0.0.0.0]", "[127.0.0.9]"}),
        ("[::1]", {"unspecified6.test", "six.test", "[ipv6:::1]", "[ipv6:::]"}),
        (
            "[::]",
            {"unspecified.test", "mapped.test", "near.test", "[127.0.0.1]", "[0.0.0.0]", "[127.0.0.9]"}
            | {"unspecified6.test", "six.test", "[ipv6:::1]", "[ipv6:::]"},
        ),
    ],
)
async def test_the_server_routes_by_what_it_really_listens_on(listen: str, ours: set[str], tmp_path: Path) -> None:
    text = f'hostname = "mx.dev.test"\n{ZONES}\n[[listen]]\naddress = "{listen}:0"'
    config = parse(text, base=tmp_path, file="conf.toml")
    everything = ["unspecified.test", "mapped.test", "near.test", "[127.0.0.1]", "[0.0.0.0]", "[127.0.0.9]"]
    everything += ["unspecified6.test", "six.test", "[ipv6:::1]", "[ipv6:::]", "[192.0.2.1]"]
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as cleanup:
            server = await MtaServer.start(config, cleanup)
            port = server.mta.bound[0].sockets[0].socket.getsockname()[1]
            found = {domain: await server.mta.resolver.resolve_mx(domain, port=port) for domain in everything}
            looping = {domain for domain, routing in found.items() if isinstance(routing, RoutingFailure)}
            assert looping == ours & set(everything)
            assert all(found[domain].status == LOOP for domain in looping)  # type: ignore[union-attr]
            far = await server.mta.resolver.resolve_mx("far.test", port=port)
            assert isinstance(far, MxHosts)
            expected = (
                ["a.far.test"] if "unspecified.test" in ours else ["a.far.test", "u.unspecified.test", "b.far.test"]
            )
            assert [host.name for host in far.hosts] == expected
            other = await server.mta.resolver.resolve_mx("near.test", port=port - 1)
            assert isinstance(other, MxHosts), "another port is another server"
