"""MX routing and host look-ups, against a scripted DNS server and `[dns.zones]`."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fake_dns import Behaviour, FakeDns
from trimta.config.model import DnsFail, DnsSection, MxRecord, Nameserver, Zone
from trimta.outbound import dns_client, dns_packets
from trimta.outbound.dns_answers import Cname, TimedAnswer
from trimta.outbound.resolver import Host, MxHosts, Resolver, Routing, RoutingFailure

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trimta.mail.address import IPAddress

Setup: TypeAlias = Callable[[FakeDns], None]

HOSTNAME = "mx.here.test"
NOWHERE = Path("/nonexistent")


def resolver_of(*servers: FakeDns | Nameserver, timeout: float = 5.0, **options: Any) -> Resolver:
    """A resolver that asks these servers, and no file of this machine."""
    zones: dict[str, Zone] = options.pop("zones", {})
    nameservers = tuple(
        server if isinstance(server, Nameserver) else Nameserver(IPv4Address("127.0.0.1"), server.port)
        for server in servers
    )
    defaults: dict[str, Any] = {
        "hostname": HOSTNAME,
        "hosts_file": NOWHERE,
        "resolv_conf": NOWHERE,
        "is_self": lambda address, port: (address, port) == ("127.0.0.99", 25),
        "system_lookup": lambda name: pytest.fail(f"the system was asked for {name}"),
    }
    return Resolver(DnsSection(nameservers=nameservers, timeout=timeout, zones=zones), **(defaults | options))


def records(*entries: str) -> Setup:
    """`records("a.test MX 10 mx.a.test.", "mx.a.test A 192.0.2.1")`: entries of one name and type are one answer."""

    def setup(fake: FakeDns) -> None:
        together: dict[tuple[str, str], list[str]] = {}
        for entry in entries:
            name, rdtype, *value = entry.split(" ", 2)
            together.setdefault((name, rdtype), []).extend(value)
        for (name, rdtype), values in together.items():
            fake.add(name, rdtype, *values)

    return setup


def misbehaving(name: str, behaviour: Behaviour, *entries: str) -> Setup:
    def setup(fake: FakeDns) -> None:
        records(*entries)(fake)
        fake.behave(name, behaviour)

    return setup


def answering(name: str, rcode: str, *entries: str) -> Setup:
    def setup(fake: FakeDns) -> None:
        records(*entries)(fake)
        fake.answer(name, rcode=rcode)

    return setup


def summary(routing: Routing) -> list[str] | str:
    """ "preference name address address" per host, or the status of a failure."""
    if isinstance(routing, RoutingFailure):
        assert routing.text
        return str(routing.status)
    return [f"{host.preference} {host.name} {' '.join(host.addresses)}" for host in routing.hosts]


A1, A2, SELF = "192.0.2.1", "192.0.2.2", "127.0.0.99"
MX_A = "d.test MX 10 a.test."
MX_B = "d.test MX 20 b.test."
A = f"a.test A {A1}"
B = f"b.test A {A2}"
HOST_A = f"10 a.test {A1}"
HOST_B = f"20 b.test {A2}"

ROUTING: list[tuple[str, Setup, list[str] | str]] = [
    ("one MX", records(MX_A, A), [HOST_A]),
    ("the lowest preference comes first", records(MX_B, MX_A, A, B), [HOST_A, HOST_B]),
    ("IPv4, then IPv6", records(MX_A, A, "a.test AAAA 2001:db8::1"), [f"10 a.test {A1} 2001:db8::1"]),
    ("IPv6 only", records(MX_A, "a.test AAAA 2001:db8::1"), ["10 a.test 2001:db8::1"]),
    ("all addresses in the order of the answer", records(MX_A, A, f"a.test A {A2}"), [f"10 a.test {A1} {A2}"]),
    ("upper case", records("d.test MX 10 A.TEST.", A), [HOST_A]),
    ("a host twice counts once, at its best", records(MX_A, "d.test MX 30 a.test.", A), [HOST_A]),
    ("an underscore in a host name", records("d.test MX 5 a_b.test.", f"a_b.test A {A1}"), [f"5 a_b.test {A1}"]),
    # no MX
    ("implicit MX", records(f"d.test A {A1}"), [f"0 d.test {A1}"]),
    ("implicit MX, IPv6 only", records("d.test AAAA 2001:db8::1"), ["0 d.test 2001:db8::1"]),
    ("no such domain", records(), "5.1.2"),
    ("neither MX nor address", records("d.test TXT hello"), "5.4.4"),
    ("implicit MX in trouble", misbehaving("d.test", Behaviour.MALFORMED, "d.test TXT hello"), "4.4.3"),
    # null MX
    ("null MX", records("d.test MX 0 ."), "5.1.10"),
    ("null MX of another preference", records("d.test MX 10 ."), "5.1.10"),
    ("null MX is not followed by the address", records("d.test MX 0 .", f"d.test A {A1}"), "5.1.10"),
    ("null MX among others is ignored", records("d.test MX 0 .", MX_A, A), [HOST_A]),
    # hosts of no use
    ("an IP literal as MX is skipped", records("d.test MX 5 192.0.2.9.", MX_A, A), [HOST_A]),
    ("only an IP literal as MX", records("d.test MX 5 192.0.2.9.", f"d.test A {A1}"), "5.4.4"),
    ("a name that is no host name is skipped", records("d.test MX 5 a\\032b.test.", MX_A, A), [HOST_A]),
    ("an MX that does not exist is skipped", records(MX_A, MX_B, B), [HOST_B]),
    ("an MX without address is skipped", records(MX_A, "a.test TXT hello", MX_B, B), [HOST_B]),
    ("no MX has an address", records(MX_A, "a.test TXT hello"), "5.4.4"),
    ("no MX exists; the domain's address does not count", records(MX_A, f"d.test A {A1}"), "5.4.4"),
    # trouble
    ("SERVFAIL", answering("d.test", "SERVFAIL"), "4.4.3"),
    ("REFUSED", answering("d.test", "REFUSED"), "4.4.3"),
    ("FORMERR", answering("d.test", "FORMERR"), "4.4.3"),
    ("NOTIMP", answering("d.test", "NOTIMP"), "4.4.3"),
    ("NXDOMAIN", answering("d.test", "NXDOMAIN"), "5.1.2"),
    ("malformed", misbehaving("d.test", Behaviour.MALFORMED, MX_A, A), "4.4.3"),
    ("three octets", misbehaving("d.test", Behaviour.SHORT, MX_A, A), "4.4.3"),
    ("an answer to another question", misbehaving("d.test", Behaviour.WRONG_QUESTION, MX_A, A), "4.4.3"),
    ("a stranger's answer before the right one", misbehaving("d.test", Behaviour.WRONG_ID_FIRST, MX_A, A), [HOST_A]),
    ("trouble with one MX, another is fine", answering("a.test", "SERVFAIL", MX_A, MX_B, B), [HOST_B]),
    ("trouble with one MX, another has no address", answering("a.test", "SERVFAIL", MX_A, MX_B), "4.4.3"),
    ("trouble with the only MX", answering("a.test", "REFUSED", MX_A), "4.4.3"),
    # truncation
    ("truncated, then TCP", misbehaving("d.test", Behaviour.TRUNCATED, MX_A, A), [HOST_A]),
    ("truncated over TCP too", misbehaving("d.test", Behaviour.TRUNCATED_TWICE, MX_A, A), "4.4.3"),
    ("truncated, TCP cut off", misbehaving("d.test", Behaviour.TRUNCATED_CUT, MX_A, A), "4.4.3"),
    # CNAME
    ("CNAME at the domain", records("d.test CNAME e.test.", "e.test MX 10 a.test.", A), [HOST_A]),
    ("CNAME at the domain, implicit MX", records("d.test CNAME e.test.", f"e.test A {A1}"), [f"0 d.test {A1}"]),
    ("CNAME at the MX host", records(MX_A, "a.test CNAME c.test.", f"c.test A {A1}"), [HOST_A]),
    ("CNAME to nowhere", records("d.test CNAME nowhere.test."), "5.1.2"),
    ("CNAME to a name without records", records("d.test CNAME e.test.", "e.test TXT hello"), "5.4.4"),
    ("CNAME loop", records("d.test CNAME e.test.", "e.test CNAME d.test."), "4.4.3"),
    ("CNAME to itself", records("d.test CNAME d.test."), "4.4.3"),
    ("CNAME loop at one MX, another is fine", records(MX_A, "a.test CNAME a.test.", MX_B, B), [HOST_B]),
    # ourselves
    ("self by name: it and higher ones go", records(MX_A, A, f"d.test MX 15 {HOSTNAME}.", MX_B, B), [HOST_A]),
    ("self by address", records(MX_A, A, MX_B, f"b.test A {SELF}"), [HOST_A]),
    ("self has the preference of others", records(MX_A, A, f"d.test MX 10 {HOSTNAME}."), "5.4.6"),
    ("self is the best", records(f"d.test MX 5 {HOSTNAME}.", MX_A, A), "5.4.6"),
    ("self by CNAME", records(MX_A, f"a.test CNAME {HOSTNAME}.", f"{HOSTNAME} A {A1}"), "5.4.6"),
    ("self by implicit MX", records(f"d.test A {SELF}"), "5.4.6"),
    ("one address of several is self", records(MX_A, A, f"a.test A {SELF}"), "5.4.6"),
    ("a better MX has no address, then self", records(MX_A, MX_B, f"b.test A {SELF}"), "5.4.6"),
    ("a better MX is in trouble, then self", answering("a.test", "SERVFAIL", MX_A, MX_B, f"b.test A {SELF}"), "4.4.3"),
    ("self, then an MX in trouble", answering("b.test", "SERVFAIL", MX_A, MX_B, f"a.test A {SELF}"), "5.4.6"),
]  # fmt: skip


@pytest.mark.parametrize(("setup", "expected"), [row[1:] for row in ROUTING], ids=[row[0] for row in ROUTING])
async def test_mx_routing(setup: Setup, expected: list[str] | str) -> None:
    with FakeDns() as fake:
        setup(fake)
        assert summary(await resolver_of(fake, timeout=0.5).resolve_mx("d.test")) == expected


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour.SILENT, Behaviour.WRONG_ID, Behaviour.TRUNCATED_SILENT],
    ids=lambda behaviour: behaviour.name.lower(),
)
async def test_no_answer_is_deferred_after_the_timeout(behaviour: Behaviour) -> None:
    with FakeDns() as fake:
        misbehaving("d.test", behaviour, MX_A, A)(fake)
        before = trio.current_time()
        routing = await resolver_of(fake, timeout=0.1).resolve_mx("d.test")
        assert 0.09 < trio.current_time() - before < 2
        assert isinstance(routing, RoutingFailure)
        assert "no answer" in routing.text
        assert fake.address in routing.text
        assert str(routing.status) == "4.4.3"


@pytest.mark.parametrize("chase", [True, False])
async def test_a_cname_that_the_server_leaves_to_us_is_followed(chase: bool) -> None:
    with FakeDns(chase=chase) as fake:
        records("d.test CNAME e.test.", "e.test CNAME f.test.", "f.test MX 10 a.test.", A)(fake)
        assert summary(await resolver_of(fake).resolve_mx("d.test")) == [HOST_A]


@pytest.mark.parametrize("names", [("d.test", "e.test"), tuple(f"n{number}.test" for number in range(30))])
async def test_a_loop_or_an_endless_chain_of_cnames_is_bounded(names: tuple[str, ...]) -> None:
    with FakeDns(chase=False) as fake:
        for name, target in zip(names, names[1:] + names[:1], strict=True):
            fake.add(name, "CNAME", f"{target}.")
        routing = await resolver_of(fake).resolve_mx(names[0])
        assert summary(routing) == "4.4.3"
        assert fake.count() < 20


async def test_a_lost_packet_is_asked_again() -> None:
    with FakeDns() as fake:
        misbehaving("*", Behaviour.LOST_ONCE, f"d.test MX 10 {A1}.a.test.", f"{A1}.a.test A {A1}")(fake)
        assert summary(await resolver_of(fake, timeout=0.4).resolve_mx("d.test")) == [f"10 {A1}.a.test {A1}"]
        assert fake.count("d.test", "MX") == 2


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR"])
async def test_the_next_nameserver_is_asked_when_one_is_in_trouble(rcode: str) -> None:
    with FakeDns() as bad, FakeDns() as good:
        for name in ("d.test", "a.test"):
            bad.answer(name, rcode=rcode)
        records(MX_A, A)(good)
        assert summary(await resolver_of(bad, good).resolve_mx("d.test")) == [HOST_A]


async def test_the_next_nameserver_is_asked_when_nobody_listens_at_one() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        closed = Nameserver(IPv4Address("127.0.0.1"), unused.getsockname()[1])
    with FakeDns() as fake:
        records(MX_A, A)(fake)
        before = trio.current_time()
        assert summary(await resolver_of(closed, fake).resolve_mx("d.test")) == [HOST_A]
        routing = await resolver_of(closed).resolve_mx("d.test")
        assert trio.current_time() - before < 2  # refused at once, not after the timeout of 5 s
    assert isinstance(routing, RoutingFailure)
    assert "refused" in routing.text


async def test_a_no_from_one_nameserver_is_not_asked_of_the_next() -> None:
    with FakeDns() as first, FakeDns() as second:
        assert summary(await resolver_of(first, second).resolve_mx("d.test")) == "5.1.2"
        assert second.count() == 0


async def test_without_any_nameserver_mail_is_deferred() -> None:
    routing = await resolver_of().resolve_mx("d.test")
    assert isinstance(routing, RoutingFailure)
    assert str(routing.status) == "4.4.3"
    assert "no nameserver" in routing.text


@pytest.mark.parametrize(
    ("entries", "bad", "rcode", "expected"),
    [
        ([f"d.test A {A1}"], "AAAA", "SERVFAIL", [f"0 d.test {A1}"]),
        ([f"d.test A {A1}"], "AAAA", "NXDOMAIN", [f"0 d.test {A1}"]),
        (["d.test AAAA 2001:db8::1"], "A", "REFUSED", ["0 d.test 2001:db8::1"]),
        ([f"d.test A {A1}"], "A", "SERVFAIL", "4.4.3"),
        (["d.test TXT hello"], "AAAA", "NXDOMAIN", "5.4.4"),
        ([f"d.test A {A1}"], "MX", "SERVFAIL", "4.4.3"),
        ([f"d.test A {A1}"], "MX", "NXDOMAIN", "5.1.2"),
    ],
)
async def test_what_is_found_counts_and_trouble_only_where_nothing_is(
    entries: list[str], bad: str, rcode: str, expected: list[str] | str
) -> None:
    with FakeDns() as fake:
        records(*entries)(fake)
        fake.answer("d.test", bad, rcode=rcode)
        assert summary(await resolver_of(fake).resolve_mx("d.test")) == expected


async def test_a_domain_that_vanishes_between_two_questions_does_not_exist() -> None:
    with FakeDns() as fake:
        records("d.test TXT hello")(fake)
        for rdtype in ("A", "AAAA"):
            fake.answer("d.test", rdtype, rcode="NXDOMAIN")
        assert summary(await resolver_of(fake).resolve_mx("d.test")) == "5.1.2"


def test_a_resolver_is_made_without_asking_or_reading_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **kwargs: object) -> None:
        pytest.fail("the network or a file was touched")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(Path, "read_text", forbidden)
    monkeypatch.setattr(Path, "stat", forbidden)
    Resolver(DnsSection(), hostname="box.test")


async def test_the_nameservers_of_resolv_conf_are_used_and_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# a comment\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch a.test\n")
    client = dns_client.DnsClient(DnsSection(), allowed=lambda address: True, resolv_conf=path)
    assert [str(server) for server in await client.nameservers()] == ["192.0.2.53", "2001:db8::53"]
    path.write_text("nameserver 192.0.2.54\n")
    assert [str(server) for server in await client.nameservers()] == ["192.0.2.54"]


async def test_equal_preferences_are_shuffled_within_their_rank() -> None:
    entries = [f"d.test MX {10 * (1 + number // 4)} h{number}.test." for number in range(8)]
    with FakeDns() as fake:
        records(*entries, *(f"h{number}.test A 192.0.2.{number + 1}" for number in range(8)))(fake)
        resolver = resolver_of(fake, rng=random.Random(1))
        orders: set[tuple[str, ...]] = set()
        for _ in range(10):
            routing = await resolver.resolve_mx("d.test")
            assert isinstance(routing, MxHosts)
            assert [host.preference for host in routing.hosts] == [10] * 4 + [20] * 4
            orders.add(tuple(host.name for host in routing.hosts))
        assert len(orders) > 3
        assert fake.count("d.test") == 1


async def test_the_port_of_the_route_decides_whether_an_address_is_self() -> None:
    with FakeDns() as fake:
        records(MX_A, f"a.test A {SELF}")(fake)
        resolver = resolver_of(fake)
        assert summary(await resolver.resolve_mx("d.test", port=25)) == "5.4.6"
        routing = await resolver.resolve_mx("d.test", port=2600)
        assert routing == MxHosts((Host("a.test", 10, (SELF,), 2600),))


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("[192.0.2.1]", ["0 192.0.2.1 192.0.2.1"]),
        ("[ipv6:2001:db8::1]", ["0 2001:db8::1 2001:db8::1"]),
        ("[IPv6:2001:DB8:0::1]", ["0 2001:db8::1 2001:db8::1"]),
        (f"[{SELF}]", "5.4.6"),
        ("[nonsense]", "5.1.2"),
        ("localhost", ["0 localhost 127.0.0.1 ::1"]),
        ("app.localhost", ["0 app.localhost 127.0.0.1 ::1"]),
        ("a" * 64 + ".test", "5.1.2"),
        ("☃" * 64 + ".test", "5.1.2"),
        (".".join(["a" * 63] * 4), "5.1.2"),
        ("a..test", "5.1.2"),
    ],
)
async def test_what_needs_no_nameserver_asks_none(domain: str, expected: list[str] | str) -> None:
    with FakeDns() as fake:
        assert summary(await resolver_of(fake).resolve_mx(domain)) == expected
        assert fake.count() == 0


async def test_idn_domains_are_asked_as_a_labels() -> None:
    with FakeDns() as fake:
        records("xn--bcher-kva.test MX 10 a.test.", A)(fake)
        assert summary(await resolver_of(fake).resolve_mx("xn--bcher-kva.test")) == [HOST_A]
        assert summary(await resolver_of(fake).resolve_mx("Bücher.test")) == [HOST_A]


def zone(*, mx: tuple[str, ...] = (), address: tuple[str, ...] = (), fail: DnsFail | None = None) -> Zone:
    split = [entry.split() for entry in mx]
    return Zone(
        mx=tuple(MxRecord(int(preference), host) for preference, host in split),
        address=tuple(ip_address(text) for text in address),
        fail=fail,
    )


ZONES = {
    "partner.test": zone(mx=("20 b.partner.test", "10 a.partner.test")),
    "a.partner.test": zone(address=("127.0.0.2", "::1")),
    "b.partner.test": zone(address=("127.0.0.3",)),
    "null.test": zone(mx=("0 .",)),
    "plain.test": zone(address=("127.0.0.4",)),
    "self.test": zone(mx=("10 self.test",), address=(SELF,)),
    "mxonly.test": zone(mx=("10 mxonly.test",)),
    "empty.test": zone(),
    "nx.test": zone(fail=DnsFail.NXDOMAIN),
    "down.test": zone(fail=DnsFail.SERVFAIL),
    "slow.test": zone(fail=DnsFail.TIMEOUT),
    "half.test": zone(mx=("10 down.test", "20 b.partner.test")),
    "worse.test": zone(mx=("10 nx.test", "20 down.test")),
    "real.test": zone(mx=("10 a.test",)),
    "localhost": zone(address=("127.0.0.5",)),
}


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("partner.test", ["10 a.partner.test 127.0.0.2 ::1", "20 b.partner.test 127.0.0.3"]),
        ("PARTNER.test.", ["10 a.partner.test 127.0.0.2 ::1", "20 b.partner.test 127.0.0.3"]),
        ("null.test", "5.1.10"),
        ("plain.test", ["0 plain.test 127.0.0.4"]),
        ("self.test", "5.4.6"),
        ("mxonly.test", "5.4.4"),
        ("empty.test", "5.4.4"),
        ("nx.test", "5.1.2"),
        ("down.test", "4.4.3"),
        ("half.test", ["20 b.partner.test 127.0.0.3"]),
        ("worse.test", "4.4.3"),
        ("localhost", ["0 localhost 127.0.0.5"]),
    ],
)
async def test_zones_are_not_asked_of_any_server(domain: str, expected: list[str] | str) -> None:
    with FakeDns() as fake:
        assert summary(await resolver_of(fake, zones=ZONES).resolve_mx(domain)) == expected
        assert fake.count() == 0


async def test_names_outside_of_the_zones_are_asked_of_a_server() -> None:
    with FakeDns() as fake:
        records(A)(fake)
        assert summary(await resolver_of(fake, zones=ZONES).resolve_mx("real.test")) == [HOST_A]
        assert fake.count() == 2


async def test_a_zone_that_times_out_takes_the_timeout(autojump_clock: MockClock) -> None:
    before = trio.current_time()
    routing = await resolver_of(timeout=5.0, zones=ZONES).resolve_mx("slow.test")
    assert trio.current_time() - before == 5.0
    assert summary(routing) == "4.4.3"


async def test_answers_are_kept_for_their_ttl_and_no_longer(mock_clock: MockClock) -> None:
    with FakeDns(negative_ttl=3600) as fake:
        fake.add("d.test", "MX", "10 a.test.", ttl=100)
        fake.add("a.test", "A", A1, ttl=1000)
        resolver = resolver_of(fake)

        async def asked() -> tuple[int, int, int]:
            assert summary(await resolver.resolve_mx("d.test")) == [HOST_A]
            return fake.count("d.test", "MX"), fake.count("a.test", "A"), fake.count("a.test", "AAAA")

        assert await asked() == (1, 1, 1)
        mock_clock.jump(50)
        assert await asked() == (1, 1, 1)
        mock_clock.jump(51)
        assert await asked() == (2, 1, 2)  # a negative answer is kept for a minute at most
        mock_clock.jump(950)
        assert await asked() == (3, 2, 3)


async def test_a_ttl_of_zero_and_trouble_are_not_kept() -> None:
    with FakeDns() as fake:
        fake.add("d.test", "MX", "0 .", ttl=0)
        fake.answer("down.test", rcode="SERVFAIL")
        resolver = resolver_of(fake)
        for _ in range(2):
            assert summary(await resolver.resolve_mx("d.test")) == "5.1.10"
            assert summary(await resolver.resolve_mx("down.test")) == "4.4.3"
        assert fake.count("d.test") == 2
        assert fake.count("down.test") == 2


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_client, "MAX_CACHED", 3)
    with FakeDns() as fake:
        resolver = resolver_of(fake)
        for number in (1, 2, 3, 4, 1):
            assert summary(await resolver.resolve_mx(f"n{number}.test")) == "5.1.2"
        assert fake.count("n1.test") == 2
        assert fake.count("n4.test") == 1


async def test_a_huge_answer_is_cut_to_its_best_hosts() -> None:
    with FakeDns() as fake:
        fake.add("d.test", "MX", *(f"{1000 - number} h{number}.test." for number in range(500)))
        fake.add("h499.test", "A", A1)
        fake.behave("d.test", Behaviour.TRUNCATED)
        assert summary(await resolver_of(fake).resolve_mx("d.test")) == [f"501 h499.test {A1}"]
        assert fake.count() < 110


async def test_a_nameserver_outside_of_egress_is_not_asked() -> None:
    with FakeDns() as fake:
        records(MX_A, A)(fake)
        routing = await resolver_of(fake, allowed=lambda address: False).resolve_mx("d.test")
        assert isinstance(routing, RoutingFailure)
        assert str(routing.status) == "4.4.3"
        assert f"{fake.address} is outside of [egress] allow" in routing.text
        assert fake.count() == 0


async def test_only_the_allowed_nameservers_are_asked() -> None:
    asked: list[IPAddress] = []

    def allowed(address: IPAddress) -> bool:
        asked.append(address)
        return address == IPv4Address("127.0.0.1")

    with FakeDns() as fake:
        records(MX_A, A)(fake)
        outside = Nameserver(IPv4Address("192.0.2.53"))
        assert summary(await resolver_of(outside, fake, allowed=allowed).resolve_mx("d.test")) == [HOST_A]
        assert outside.address in asked


async def test_the_notes_tell_what_was_dropped_and_why() -> None:
    with FakeDns() as fake:
        answering("b.test", "SERVFAIL", MX_A, A, MX_B, f"d.test MX 30 {HOSTNAME}.", "d.test MX 5 192.0.2.9.")(fake)
        routing = await resolver_of(fake).resolve_mx("d.test")
    assert summary(routing) == [HOST_A]
    notes = "\n".join(routing.notes)
    assert "MX 5 192.0.2.9 is skipped: an MX must be a name" in notes
    assert "MX 20 b.test is skipped" in notes
    assert "SERVFAIL" in notes
    assert f"MX 30 {HOSTNAME} is this server" in notes


# hosts of smtp: and lmtp: routes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("127.0.0.1", ["0 127.0.0.1 127.0.0.1"]),
        ("::1", ["0 ::1 ::1"]),
        ("[::1]", ["0 ::1 ::1"]),
        ("a.partner.test", ["0 a.partner.test 127.0.0.2 ::1"]),
        ("partner.test", "4.3.5"),
        ("nx.test", "4.3.5"),
        ("down.test", "4.4.3"),
        ("a.test", [f"0 a.test {A1}"]),
        ("d.test", "4.3.5"),
        ("nowhere.test", "4.3.5"),
        ("broken.test", "4.4.3"),
        ("listed", ["0 listed 192.0.2.7 2001:db8::7"]),
        ("box.localhost", ["0 box.localhost 127.0.0.1 ::1"]),
    ],
)
async def test_the_host_of_a_route_is_looked_up_without_mx(
    name: str, expected: list[str] | str, tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# comment listed\n192.0.2.7 other Listed # note\nnonsense listed\n2001:DB8::7\tlisted\n\n")
    with FakeDns() as fake:
        answering("broken.test", "SERVFAIL", A, MX_A)(fake)
        resolver = resolver_of(fake, zones=ZONES, hosts_file=hosts)
        assert summary(await resolver.resolve_host(name)) == expected
        assert fake.count(rdtype="MX") == 0


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["192.0.2.8", "192.0.2.8", "2001:db8::8"], ["0 box 192.0.2.8 2001:db8::8"]),
        ([], "4.3.5"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "4.3.5"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "4.4.3"),
        (UnicodeError("label too long"), "4.4.3"),
        (OSError(24, "Too many open files"), "4.4.3"),
    ],
)
async def test_without_nameservers_in_the_configuration_the_system_is_asked(
    found: list[str] | Exception, expected: list[str] | str
) -> None:
    def lookup(name: str) -> list[str]:
        if isinstance(found, Exception):
            raise found
        return found

    assert summary(await resolver_of(system_lookup=lookup).resolve_host("box")) == expected


async def test_a_system_that_hangs_is_not_waited_for() -> None:
    release = threading.Event()
    try:
        resolver = resolver_of(timeout=0.05, system_lookup=lambda name: ["::1"] if release.wait(5) else [])
        assert summary(await resolver.resolve_host("box")) == "4.4.3"
    finally:
        release.set()


async def test_the_system_is_not_asked_when_its_nameservers_are_outside_of_egress(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.53\n")
    routing = await resolver_of(resolv_conf=path, allowed=lambda address: False).resolve_host("box")
    assert isinstance(routing, RoutingFailure)
    assert str(routing.status) == "4.4.3"
    assert "192.0.2.53 is outside of [egress] allow" in routing.text


# hostile packets


@given(tail=st.binary(max_size=200), flags=st.sampled_from([b"\x81\x80", b"\x81\x83", b"\x00\x00", b"\xff\xff"]))
@settings(deadline=None, max_examples=100)
def test_any_octets_are_an_answer_or_malformed(tail: bytes, flags: bytes) -> None:
    question = dns_packets.Question("d.test.", "MX")
    head = question.wire
    for data in (head[:2] + flags + tail, head[:2] + flags + b"\0\1\0\1\0\0\0\0" + head[12:] + tail):
        meaning = question.meaning_of(data)
        assert isinstance(meaning, TimedAnswer | Cname | str)
