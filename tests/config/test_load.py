"""From a file to a Configuration, and back to text."""

from __future__ import annotations

import json
import socket
from dataclasses import fields, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.config import model
from trimta.config.build_policy import alias_table, local_domains, policy_of, route_table
from trimta.config.errors import ConfigErrors, ConfigFileError
from trimta.config.find import find, state_folder
from trimta.config.load import load, parse
from trimta.config.model import Configuration, ListenSection
from trimta.config.render import document, to_toml, toml
from trimta.config.schema import SECTIONS, TABLES, section_schemas, top_schema
from trimta.mail.address import Mailbox
from trimta.routing.routes import MaildirRoute, MxRoute, TlsPolicy

FULL = """
hostname = "mail.a.test"
data_dir = "/var/lib/trimta"
user = "root"

[[listen]]
address = "0.0.0.0:25"
protocol = "smtp"
tls = "starttls"
auth = "none"
hide = ["dsn", "8BITMIME"]
[[listen]]
address = "unix:lmtp"
protocol = "lmtp"

[local]
domains = ["a.test", "bücher.test"]
maildir = "mail/{domain}/{user}"
users = ["Alice", "bob"]
subaddress = "-"

[aliases]
team = ["alice", "carol@partner.test"]
"info@partner.test" = "bob"

[routes]
"me@live.test" = "mx"
"partner.test" = "smtp:127.0.0.1:2600"
"safe.test" = "smtps:mail.safe.test"
".corp.test" = "lmtp:unix:/run/dovecot/lmtp"
"uucp.test" = "pipe:/usr/bin/uux - -r {nexthop}!rmail {recipients}"
"odd.test" = { transport = "pipe", command = ["/bin/x y", "a'b", "", '"'] }
"blackhole.test" = "discard"
"closed.test" = "reject:550 5.7.1 we do not talk to them"
"later.test" = "hold"
"live.test" = { transport = "mx", port = 26, tls = "verify" }
"relayed.test" = { transport = "smtp", host = "a.test", port = 587, tls = "none", username = "u", password_file = "pw" }
"inside.test" = { transport = "lmtp", path = "lmtp", tls = "encrypt" }
"*" = "maildir:remote/{domain}"

[relay]
networks = ["10.0.0.0/8", "::1"]

[queue]
retry = ["1s", "1.5s"]
lifetime = "90m"

[limits]
message_size = 1000
bare_newline = "reject"

[dns]
nameservers = ["127.0.0.1:5353", "::1"]
[dns.zones."Partner.test"]
mx = ["10 a.partner.test", "20 b.partner.test"]
[dns.zones."a.partner.test"]
address = ["127.0.0.2", "::1"]
[dns.zones."down.test"]
fail = "servfail"
[dns.zones."nomail.test"]
mx = ["0 ."]

[egress]
allow = ["127.0.0.0/8"]

[auth]
users = { alice = "topsecret", "b c" = "$scrypt$ln=10,r=8,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE" }

[[faults]]
stage = "rcpt"
recipient = "slow-*@dev.test"
reply = "451 4.3.0 try again later"
delay = "5s"
times = 2
[[faults]]
stage = "committed"
drop = true
probability = 0.1
seed = 7
"""


@pytest.fixture
def full(tmp_path: Path) -> Configuration:
    (tmp_path / "pw").write_text("topsecret")
    (tmp_path / "conf.toml").write_text(FULL)
    return load(tmp_path / "conf.toml")


def test_every_section_is_read(full: Configuration, tmp_path: Path) -> None:
    assert full.source == tmp_path / "conf.toml"
    assert full.hostname == "mail.a.test"
    assert full.data_dir == Path("/var/lib/trimta")
    assert [str(listener.address) for listener in full.listen] == ["0.0.0.0:25", f"unix:{tmp_path}/lmtp"]
    assert full.listen[0].hide == {"DSN", "8BITMIME"}
    assert full.local.maildir == f"{tmp_path}/mail/{{domain}}/{{user}}"
    assert full.local.users == ("alice", "bob")
    assert full.aliases["team"] == ("alice", Mailbox("carol", "partner.test"))
    assert full.routes["live.test"] == MxRoute(port=26, tls=TlsPolicy.VERIFY)
    assert full.relay.networks == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert full.queue.retry == (1.0, 1.5)
    assert full.queue.lifetime == 5400
    assert full.queue.per_domain == 5
    assert full.dns.zones["partner.test"].mx == (
        model.MxRecord(10, "a.partner.test"),
        model.MxRecord(20, "b.partner.test"),
    )
    assert full.dns.zones["down.test"].fail == "servfail"
    assert full.auth.users["alice"] == "topsecret"
    assert full.faults[0].delay == 5
    assert full.faults[1].probability == 0.1


def test_the_tables_look_up(full: Configuration) -> None:
    assert local_domains(full).is_local(Mailbox("x", "MAIL.a.test"))
    assert [str(leaf) for leaf in alias_table(full).expand(Mailbox("Team", "a.test"))] == [
        "alice@a.test",
        "carol@partner.test",
    ]
    assert route_table(full).lookup(Mailbox("x", "deep.corp.test")).key == ".corp.test"


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("", ["postmaster@dev.test"]),
        ('[local]\ndomains = ["dev.test"]\nusers = ["alice"]', ["postmaster@dev.test"]),
        ('[aliases]\npostmaster = ["alice", "far@x.test"]', ["alice@dev.test", "far@x.test"]),
        ('[aliases]\nmailer-daemon = "bob"', ["bob@dev.test"]),
        ('[aliases]\nMailer-Daemon = "bob"', ["bob@dev.test"]),
        ('[aliases]\n"mailer-daemon@dev.test" = "bob"', ["bob@dev.test"]),
        ('[local]\ndomains = ["dev.test"]\nusers = ["MAILER-DAEMON"]', ["MAILER-DAEMON@dev.test"]),
        ('[aliases]\npostmaster = "mailer-daemon"', ["MAILER-DAEMON@dev.test"]),
        ('[aliases]\npostmaster = "root"\nroot = "mailer-daemon"', ["MAILER-DAEMON@dev.test"]),
        ('[routes]\n"MAILER-daemon@dev.test" = "discard"', ["MAILER-DAEMON@dev.test"]),
    ],
)
def test_who_answers_a_report_reaches_postmaster_unless_it_is_said_otherwise(text: str, leaves: list[str]) -> None:
    head = 'hostname = "dev.test"\n'
    config = parse(head + text, base=Path("/"), file="conf.toml")
    policy = policy_of(config)
    found = policy.aliases.expand(Mailbox("MAILER-DAEMON", "dev.test"))
    assert [str(leaf) for leaf in found] == leaves
    assert (
        policy.refusal(policy.resolve(Mailbox("MAILER-DAEMON", "dev.test")), may_relay=False) is None
        or "discard" in text
    )


def test_a_configuration_is_written_as_it_is_read_but_for_passwords(full: Configuration, tmp_path: Path) -> None:
    text = toml(full)
    assert "topsecret" not in text
    (tmp_path / "again.toml").write_text(text)
    again = load(tmp_path / "again.toml")
    assert set(again.auth.users.values()) == {"***"}
    assert replace(again, auth=full.auth) == full


def test_the_document_is_json_of_the_same_schema(full: Configuration, tmp_path: Path) -> None:
    assert tomli.loads(toml(full)) == json.loads(json.dumps(document(full)))
    assert "topsecret" not in json.dumps(document(full))
    assert "topsecret" not in repr(full)


def test_without_a_file_all_state_is_in_the_users_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    config = load(None)
    assert config.source is None
    assert config.data_dir == tmp_path / "trimta" / "var"
    assert config.local.maildir == f"{tmp_path}/trimta/maildir-example/{{user}}"
    assert config.routes == {"*": MaildirRoute(f"{tmp_path}/trimta/maildir-example/remote")}
    assert [*tmp_path.iterdir()] == []


def test_the_state_folder_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert state_folder({"XDG_STATE_HOME": "/state"}) == Path("/state/trimta")
    assert state_folder({"XDG_STATE_HOME": "relative"}) == Path("/home/alice/.local/state/trimta")
    assert state_folder({}) == Path("/home/alice/.local/state/trimta")


def test_without_a_home_the_user_is_told_to_name_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(ConfigFileError, match="name a file with -c"):
        state_folder({})


def test_the_option_comes_before_the_variable_before_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find(None, {}) is None
    assert find(None, {"TRIMTA_CONF": ""}) is None
    (tmp_path / "conf.toml").touch()
    assert find(None, {}) == Path("conf.toml")
    assert find(None, {"TRIMTA_CONF": "b.toml"}) == Path("b.toml")
    assert find("a.toml", {"TRIMTA_CONF": "b.toml"}) == Path("a.toml")


def test_paths_are_relative_to_the_folder_of_the_file_as_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "conf.toml").write_text("")
    (tmp_path / "conf.toml").symlink_to("real/conf.toml")
    monkeypatch.chdir(tmp_path)
    assert load(Path("conf.toml")).data_dir == tmp_path / "var"


def test_a_hostname_that_is_no_domain_is_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my laptop")
    assert parse("", base=Path("/b"), file="x").hostname == "localhost"
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop")
    assert parse("", base=Path("/b"), file="x").hostname == "laptop"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("bücher.test", "xn--bcher-kva.test"),
        ("BÜCHER.Test", "xn--bcher-kva.test"),
        ("mail.例え.テスト", "mail.xn--r8jz45g.xn--zckzah"),
        ("xn--bcher-kva.test", "xn--bcher-kva.test"),
        ("Mail.Dev.Test", "Mail.Dev.Test"),
    ],
)
def test_a_hostname_is_what_the_wire_can_carry(written: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(f'hostname = "{written}"', base=Path("/b"), file="x").hostname == expected
    monkeypatch.setattr(socket, "gethostname", lambda: written)
    assert parse("", base=Path("/b"), file="x").hostname == expected


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "conf.toml").write_bytes(b'\xef\xbb\xbfhostname = "a.test"\r\n[queue]\r\nper_domain = 7\r\n')
    assert load(tmp_path / "conf.toml").queue.per_domain == 7


@pytest.mark.parametrize(
    "document",
    [
        '[[listen]]\naddress = "127.0.0.1:0"\n[[listen]]\naddress = "127.0.0.1:0"',
        '[[listen]]\naddress = "0.0.0.0:25"\n[[listen]]\naddress = "[::]:25"',
        '[[listen]]\naddress = "127.0.0.1:25"\n[[listen]]\naddress = "127.0.0.2:25"',
        '[auth]\nany = true\n[[listen]]\nauth = "required"',
        '[timeouts]\nshutdown = "0s"',
        '[aliases]\nalice = ["alice", "bob@partner.test"]',
        "[routes]\n[aliases]\n[dns.zones]\n[tls]",
        "dns.zones = {}",
        "[local]\nusers = []\ndomains = []",
    ],
)
def test_what_is_unusual_is_no_mistake(document: str) -> None:
    parse(document, base=Path("/b"), file="x")


@pytest.mark.parametrize(
    ("address", "allowed"), [("127.0.0.1", True), ("::ffff:127.0.0.1", True), ("::1", False), ("192.0.2.1", False)]
)
def test_a_mapped_address_is_judged_as_what_it_maps(address: str, allowed: bool) -> None:
    assert model.EgressSection(allow=(ip_network("127.0.0.0/8"),)).allows(ip_address(address)) is allowed


def test_the_schema_has_every_field_of_the_model() -> None:
    schemas = section_schemas(Path("/b"))
    sections: dict[str, Any] = {**SECTIONS, "listen": ListenSection, "faults": model.Fault}
    for name, kind in sections.items():
        assert [*schemas[name]] == [field.name for field in fields(kind)] or name == "local", name
        assert {*schemas[name]} == {field.name for field in fields(kind)}, name
    tables = {*top_schema(Path("/b")), *TABLES}
    assert tables == {field.name for field in fields(Configuration)} - {"source", "links"}


def test_own_certificates_are_checked_with_their_key(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    for name in ("one", "two"):
        certificate = authority.issue_cert("a.test")
        certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    good = '[tls]\ncertificate = "one.pem"\nkey = "one.key"\nca = "ca.pem"'
    assert parse(good, base=tmp_path, file="x").tls == model.TlsSection(
        certificate=tmp_path / "one.pem", key=tmp_path / "one.key", ca=tmp_path / "ca.pem"
    )
    with pytest.raises(ConfigErrors, match="key values mismatch"):
        parse('[tls]\ncertificate = "one.pem"\nkey = "two.key"', base=tmp_path, file="x")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
SECTION = st.dictionaries(TEXTS, PLAIN, max_size=3)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(TEXTS, PLAIN, max_size=4), st.dictionaries(TEXTS, SECTION, max_size=3))
def test_any_document_is_written_as_it_is_read(top: dict[str, Any], dns: dict[str, Any]) -> None:
    whole = {**top, "dns": dns}
    assert tomli.loads(to_toml(whole)) == whole
