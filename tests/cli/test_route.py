"""`trimta route`: where mail would go, and why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.commands import Commands

CONFIGURATION = """
[[listen]]
address = "127.0.0.1:2525"
[local]
users = ["alice", "bob"]
maildir = "/mail/{user}"
[aliases]
team = ["alice", "crew", "carol@partner.test"]
crew = ["bob", "dave@nowhere.test"]
bob = ["bob", "bobby@[127.0.0.5]"]
"list@partner.test" = "alice"
[routes]
"me@later.test" = "mx"
"later.test" = "hold"
"closed.test" = "reject:550 5.7.1 we do not talk to them"
"greylisted.test" = "reject:450 4.7.1 later"
"blackhole.test" = "discard"
"piped.test" = "pipe:/bin/cat {recipients}"
"caught.test" = "maildir:/caught/{domain}"
"smart.test" = { transport = "smtp", host = "127.0.0.3", port = 587, tls = "none", username = "u", password_file = "p" }
"unix.test" = "lmtp:unix:/run/lmtp"
"lost.test" = "smtp:gone.test"
".sub.test" = "smtp:[::1]:26"
"*" = "mx"
[dns]
nameservers = ["127.0.0.1:1"]
timeout = "0.1s"
[dns.zones."later.test"]
address = ["127.0.0.4"]
[dns.zones."partner.test"]
mx = ["20 b.partner.test", "10 a.partner.test", "30 192.0.2.9"]
[dns.zones."a.partner.test"]
address = ["127.0.0.2", "::1"]
[dns.zones."b.partner.test"]
address = ["192.0.2.1"]
[dns.zones."far.test"]
address = ["192.0.2.7"]
[dns.zones."nowhere.test"]
fail = "nxdomain"
[dns.zones."gone.test"]
fail = "nxdomain"
[dns.zones."null.test"]
mx = ["0 ."]
[dns.zones."down.test"]
fail = "servfail"
[dns.zones."self.test"]
mx = ["10 mail.dev.test"]
[dns.zones."mail.dev.test"]
address = ["127.0.0.1"]
[egress]
allow = ["127.0.0.0/8", "::1/128"]
"""


@pytest.fixture
def route(trimta: Commands) -> Commands:
    (trimta.folder / "p").write_text("secret")
    trimta.configure(CONFIGURATION)
    return trimta


@pytest.mark.parametrize(
    ("address", "code", "lines"),
    [
        ("alice@dev.test", 0, ["local part alice, domain dev.test", "local mailbox alice, in the Maildir /mail/alice"]),
        ("Alice+Lists@DEV.test", 0, ["local mailbox alice (detail lists), in the Maildir /mail/alice"]),
        ("<alice@dev.test>", 0, ["local mailbox alice, in the Maildir /mail/alice"]),
        ("postmaster", 0, ["local part postmaster, domain mail.dev.test", "local mailbox postmaster"]),
        ("zoe@dev.test", 67, ["refused: 550 5.1.1 <zoe@dev.test>: no such user here"]),
        ("a b@dev.test", 67, ["refused: 501 5.1.3 a space is not allowed"]),
        ("alice", 67, ["refused: 501 5.1.3"]),
        ("", 67, ["refused: 501 5.1.3"]),
        ("x@\x1b[31m.test", 67, ["\\x1b[31m.test"]),
        (
            "crew@dev.test",
            67,
            [
                "alias crew: crew@dev.test means bob@dev.test, dave@nowhere.test",
                "alias bob: bob@dev.test means bob@dev.test, bobby@[127.0.0.5]",
                "127.0.0.5 is an address literal: no MX look-up",
                "refused: 5.1.2 nowhere.test: there is no such domain (NXDOMAIN)",
            ],
        ),
        ("list@partner.test", 0, ["alias list@partner.test: list@partner.test means alice@", "local mailbox alice"]),
        (
            "x@partner.test",
            0,
            [
                'route "*" = mx: sent by MX look-up',
                "note: MX 30 192.0.2.9 is skipped",
                "1. a.partner.test, preference 10",
                "127.0.0.2:25",
                "[::1]:25",
                "2. b.partner.test, preference 20",
                "192.0.2.1:25: not in egress.allow",
            ],
        ),
        ("x@far.test", 0, ["192.0.2.7:25: not in egress.allow", "would be held in the queue"]),
        ("x@later.test", 0, ['route "later.test" = hold: held in the queue', "would be held in the queue"]),
        ("me@later.test", 0, ['route "me@later.test" = mx', "127.0.0.4:25"]),
        ("x@null.test", 67, ["refused: 5.1.10 null.test does not accept mail (null MX)"]),
        ("x@self.test", 67, ["refused: 5.4.6 mail for self.test loops back to this server"]),
        ("x@down.test", 75, ["deferred: 4.4.3 MX of down.test: [dns.zones] says SERVFAIL"]),
        ("x@unasked.test", 75, ["deferred: 4.4.3"]),
        ("x@lost.test", 75, ["deferred: 4.3.5 the route's host gone.test does not exist"]),
        ("x@closed.test", 67, ['route "closed.test" = reject:', "refused: 550 5.7.1 we do not talk to them"]),
        ("x@greylisted.test", 67, ["refused: 450 4.7.1 later"]),
        ("x@blackhole.test", 0, ['route "blackhole.test" = discard: discarded']),
        ("x@piped.test", 0, ["piped to /bin/cat"]),
        ("x@caught.test", 0, ["in the Maildir /caught/caught.test"]),
        ("x@smart.test", 0, ["smtp:127.0.0.3:587 tls=none username=u", "127.0.0.3:587"]),
        ("x@unix.test", 0, ["lmtp:unix:/run/lmtp"]),
        ("x@a.b.sub.test", 0, ['route ".sub.test" = smtp:[::1]:26', "[::1]:26"]),
        ("x@[192.0.2.3]", 0, ["192.0.2.3:25: not in egress.allow"]),
        ("x@bücher.caught.test", 75, ["domain xn--bcher-kva.caught.test"]),
    ],
)
def test_an_address_is_explained(address: str, code: int, lines: list[str], route: Commands) -> None:
    ended = route("route", "--", address)
    assert (ended.code, ended.err) == (code, "")
    position = 0
    for line in lines:
        assert line in ended.out[position:], ended.out
        position = ended.out.index(line, position)
    assert "secret" not in ended.out
    assert "\x1b" not in ended.out


def test_the_worst_address_gives_the_exit_code(route: Commands) -> None:
    assert route("route", "alice@dev.test", "x@down.test").code == 75
    assert route("route", "x@down.test", "zoe@dev.test", "alice@dev.test").code == 67


def test_json_is_one_array_with_an_object_for_each_address(route: Commands) -> None:
    ended = route("route", "--json", "alice+x@dev.test", "x@partner.test", "zoe@dev.test", "@")
    assert ended.code == 67
    local, remote, unknown, wrong = ended.json
    assert local == {
        "address": "alice+x@dev.test",
        "local_part": "alice+x",
        "domain": "dev.test",
        "targets": [
            {
                "address": "alice+x@dev.test",
                "verdict": "ok",
                "local": True,
                "user": "alice",
                "detail": "x",
                "maildir": "/mail/alice",
            }
        ],
        "verdict": "ok",
    }
    hosts: list[Any] = remote["targets"][0]["hosts"]
    assert [(host["name"], host["preference"], host["port"]) for host in hosts] == [
        ("a.partner.test", 10, 25),
        ("b.partner.test", 20, 25),
    ]
    assert [address["allowed"] for host in hosts for address in host["addresses"]] == [True, True, False]
    assert (unknown["verdict"], unknown["reply"]) == ("refused", "550 5.1.1 <zoe@dev.test>: no such user here")
    assert wrong["verdict"] == "refused"
    assert wrong["reply"].startswith("501 5.1.3 ")


def test_without_an_address_the_usage_is_wrong(route: Commands) -> None:
    assert route("route").code == 64


def test_nothing_is_made(route: Commands) -> None:
    route("route", "x@partner.test")
    assert sorted(path.name for path in route.folder.iterdir()) == ["conf.toml", "p"]


@pytest.mark.parametrize(
    ("listen", "address", "looping"),
    [
        ("0.0.0.0:25", "192.0.2.1", False),
        ("0.0.0.0:25", "127.0.0.9", True),
        ("[::]:25", "192.0.2.1", False),
        ("[::]:25", "127.0.0.9", True),
        ("[::]:25", "::1", True),
        ("localhost:25", "0.0.0.0", True),
        ("localhost:25", "::", True),
        ("127.0.0.1:25", "::ffff:127.0.0.1", True),
        ("127.0.0.1:25", "127.0.0.9", False),
        ("127.0.0.1:26", "127.0.0.1", False),
    ],
)
def test_what_the_server_would_take_for_itself_is_taken_so(
    listen: str, address: str, looping: bool, trimta: Commands
) -> None:
    trimta.configure(
        f'[[listen]]\naddress = "{listen}"\n[routes]\n"*" = "mx"\n[dns.zones."x.test"]\naddress = ["{address}"]\n'
    )
    ended = trimta("route", "a@x.test")
    assert ("5.4.6" in ended.out) is looping
    assert ended.code == (67 if looping else 0)
