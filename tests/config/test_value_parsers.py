"""Single values: what is taken, and what it means."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.config import address_parsers, keys, value_parsers
from trimta.config.errors import BadValueError
from trimta.config.model import FaultReply, InetAddress, MxRecord, Nameserver, UnixAddress
from trimta.mail.address import Mailbox
from trimta.mail.status import EnhancedStatus

BASE = Path("/etc/trimta")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("4h", 14400), ("5d", 432000), ("0.5s", 0.5), ("1.5h", 5400), ("5 m", 300), ("007s", 7)],
)
def test_a_duration_is_one_number_and_one_unit(text: str, seconds: float) -> None:
    assert value_parsers.duration()(text) == seconds


@pytest.mark.parametrize(
    "value",
    [90.0, 1.5, "90", "", "s", "5M", "5 minutes", "1h30m", "-5m", "+5m", "5m ", "٥m", "1e3s", "0s", "3651d", "5  m"],
)
def test_anything_else_is_no_duration(value: Any) -> None:
    with pytest.raises(BadValueError):
        value_parsers.duration()(value)


def test_no_grace_at_all_is_a_duration_where_that_makes_sense() -> None:
    assert value_parsers.duration(0)("0s") == 0


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 3650 * 86400) | st.decimals("0.001", "100000", places=3).map(float))
def test_a_duration_is_written_as_it_is_read(seconds: float) -> None:
    assert value_parsers.duration()(keys.write_duration(seconds)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (1, 1),
        (52428800, 52428800),
        ("25 MiB", 26214400),
        ("25MiB", 26214400),
        ("10 MB", 10_000_000),
        ("512 KiB", 524288),
        ("512 kib", 524288),
        ("1 GB", 10**9),
        ("1.5 GiB", 1610612736),
        ("100 B", 100),
    ],
)
def test_a_size_is_a_number_of_octets_or_has_a_unit(value: Any, octets: int) -> None:
    assert value_parsers.size(value) == octets


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "25", "25 M", "MiB", "-1 MB", "25 MiB ", "0.1 B", 2**63])
def test_anything_else_is_no_size(value: Any) -> None:
    with pytest.raises(BadValueError):
        value_parsers.size(value)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 2**63 - 1) | st.integers(1, 4096).map(lambda number: number * 1024**2))
def test_a_size_is_written_as_it_is_read(octets: int) -> None:
    assert value_parsers.size(keys.write_size(octets)) == octets


@pytest.mark.parametrize(
    ("text", "address", "hosts"),
    [
        ("localhost:2525", InetAddress("localhost", 2525), ("127.0.0.1", "::1")),
        ("LOCALHOST:0", InetAddress("localhost", 0), ("127.0.0.1", "::1")),
        ("127.0.0.1:25", InetAddress("127.0.0.1", 25), ("127.0.0.1",)),
        ("[::1]:2525", InetAddress("::1", 2525), ("::1",)),
        ("[0:0::1]:2525", InetAddress("::1", 2525), ("::1",)),
        ("0.0.0.0:65535", InetAddress("0.0.0.0", 65535), ("0.0.0.0",)),
    ],
)
def test_a_listen_address_has_a_port(text: str, address: InetAddress, hosts: tuple[str, ...]) -> None:
    parsed = address_parsers.listen_address(BASE)(text)
    assert parsed == address
    assert isinstance(parsed, InetAddress)
    assert parsed.hosts == hosts
    assert address_parsers.listen_address(BASE)(str(parsed)) == parsed


@pytest.mark.parametrize(("text", "path"), [("unix:var/lmtp", "/etc/trimta/var/lmtp"), ("unix:/run/lmtp", "/run/lmtp")])
def test_a_unix_socket_is_relative_to_the_file(text: str, path: str) -> None:
    assert address_parsers.listen_address(BASE)(text) == UnixAddress(Path(path))


@pytest.mark.parametrize(
    "value",
    ["", "2525", ":2525", "*:25", "localhost", "[127.0.0.1]:25", "::1", "127.1:25", "a.test:25", "127.0.0.1:-1"],
)
def test_anything_else_is_no_listen_address(value: str) -> None:
    with pytest.raises(BadValueError):
        address_parsers.listen_address(BASE)(value)


def test_a_single_address_is_a_network() -> None:
    assert address_parsers.network("10.0.0.1") == ip_network("10.0.0.1/32")
    assert address_parsers.network("2001:db8::/32") == ip_network("2001:db8::/32")


@pytest.mark.parametrize(
    ("text", "nameserver"),
    [
        ("9.9.9.9", Nameserver(ip_address("9.9.9.9"))),
        ("127.0.0.1:5353", Nameserver(ip_address("127.0.0.1"), 5353)),
        ("::1", Nameserver(ip_address("::1"))),
        ("[::1]:5353", Nameserver(ip_address("::1"), 5353)),
    ],
)
def test_a_nameserver_may_have_a_port(text: str, nameserver: Nameserver) -> None:
    assert address_parsers.nameserver(text) == nameserver
    assert str(nameserver) == text


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("10 MX.partner.test.", MxRecord(10, "mx.partner.test")),
        ("0 .", MxRecord(0, ".")),
        ("65535 bücher.test", MxRecord(65535, "xn--bcher-kva.test")),
        ("5 192.0.2.1", MxRecord(5, "192.0.2.1")),
    ],
)
def test_an_mx_record_is_a_preference_and_a_host(text: str, record: MxRecord) -> None:
    assert address_parsers.mx_record(text) == record


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("451 4.3.0 try again later", FaultReply(451, EnhancedStatus(4, 3, 0), "try again later")),
        ("550", FaultReply(550, None, "")),
        ("250 fine", FaultReply(250, None, "fine")),
        ("421 4.7.0", FaultReply(421, EnhancedStatus(4, 7, 0), "")),
    ],
)
def test_a_fault_replies_with_a_code_a_status_and_a_text(text: str, reply: FaultReply) -> None:
    assert address_parsers.fault_reply(text) == reply
    assert str(reply) == text


@pytest.mark.parametrize(
    "value", ["", "45", "999 x", "354 go", "451 4.3.0.1x\n", "451-x", "460 x", "451  \u0007", "421x"]
)
def test_anything_else_is_no_reply(value: str) -> None:
    with pytest.raises(BadValueError):
        address_parsers.fault_reply(value)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("alice", "alice"),
        ('"a b"', '"a b"'),
        ('"a@b"', '"a@b"'),
        ("carol@partner.test", Mailbox("carol", "partner.test")),
        ('"a b"@partner.test', Mailbox("a b", "partner.test")),
        ("user@[127.0.0.1]", Mailbox("user", "[127.0.0.1]")),
    ],
)
def test_an_alias_leads_to_a_local_part_or_an_address(text: str, target: Mailbox | str) -> None:
    assert address_parsers.alias_target(text) == target


def test_a_user_is_looked_up_without_case() -> None:
    assert address_parsers.user_name("Alice") == "alice"
    assert address_parsers.user_name('"a b"') == "a b"


@pytest.mark.parametrize("value", ["", "+", "-", "+-", "_"])
def test_a_subaddress_has_a_separator_or_none(value: str) -> None:
    assert address_parsers.subaddress(value) == value


@pytest.mark.parametrize("value", ["a", "@", " ", '"', "++++", "é", 5])
def test_a_letter_is_no_separator(value: Any) -> None:
    with pytest.raises(BadValueError):
        address_parsers.subaddress(value)


def test_a_maildir_is_relative_to_the_file_and_names_the_user() -> None:
    assert value_parsers.maildir_template(BASE)("mail/{domain}/{user}") == "/etc/trimta/mail/{domain}/{user}"
