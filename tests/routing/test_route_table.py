"""Which key of the table of routes an address has, and which keys are none."""

from __future__ import annotations

import pytest

from trimta.mail.address import parse_mailbox
from trimta.routing.route_table import RouteTable
from trimta.routing.routes import MaildirRoute, MxRoute, RouteError

# Each route of the table tells its own key, so that a test sees which was taken.
KEYS = [
    "me@live.test",
    "Partner.test",
    "sub.corp.test",
    ".corp.test",
    ".deep.corp.test",
    ".test",
    "bücher.example",
    "[127.0.0.1]",
    "postmaster@partner.test",
    '"a b"@live.test',
    "dev.test",
    "*",
]
TABLE = RouteTable({key: MaildirRoute(key) for key in KEYS})


@pytest.mark.parametrize(
    ("address", "key", "specific"),
    [
        ("me@live.test", "me@live.test", True),
        ("ME@LIVE.TEST", "me@live.test", True),
        ("you@live.test", ".test", False),
        ('"a b"@live.test', '"a b"@live.test', True),
        ("a@partner.test", "Partner.test", True),
        ("postmaster@partner.test", "postmaster@partner.test", True),
        ("a@sub.partner.test", ".test", False),
        ("a@corp.test", ".test", False),
        ("a@x.corp.test", ".corp.test", False),
        ("a@sub.corp.test", "sub.corp.test", True),
        ("a@x.sub.corp.test", ".corp.test", False),
        ("a@x.deep.corp.test", ".deep.corp.test", False),
        ("a@deep.corp.test", ".corp.test", False),
        ("a@y.x.deep.corp.test", ".deep.corp.test", False),
        ("a@xcorp.test", ".test", False),
        ("a@test", "*", False),
        ("a@bücher.example", "bücher.example", True),
        ("a@XN--BCHER-KVA.example", "bücher.example", True),
        ("a@x.bücher.example", "*", False),
        ("a@[127.0.0.1]", "[127.0.0.1]", True),
        ("a@[127.000.000.001]", "[127.0.0.1]", True),
        ("a@[127.0.0.2]", "*", False),
        ("a@[IPv6:::1]", "*", False),
        ("a@127.0.0.1", "*", False),
        ("postmaster", "*", False),
        # relay tricks are local parts
        ("x%partner.test@other.example", "*", False),
        ("partner.test!x@other.example", "*", False),
        ('"x@partner.test"@other.example', "*", False),
        ("<@partner.test:x@other.example>", "*", False),
        ("x%other.example@partner.test", "Partner.test", True),
    ],
)
def test_the_most_specific_key_wins(address: str, key: str, specific: bool) -> None:
    mailbox = parse_mailbox(address)
    matched = TABLE.lookup(mailbox)
    assert (matched.key, matched.route) == (key, MaildirRoute(key))
    assert TABLE.specific(mailbox) == (matched if specific else None)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["x.test"], '"*" is missing'),
        (["*", "x test"], "a space"),
        (["*", ""], "empty"),
        (["*", "."], "empty"),
        (["*", ".[127.0.0.1]"], "no domains below"),
        (["*", "*.corp.test"], 'did you mean ".corp.test"'),
        (["*", "@corp.test"], "local part is empty"),
        (["*", "a@b@c"], "second '@'"),
        (["*", "x.test."], "end with a dot"),
        (["*", "x.test", "X.test"], "'X.test' is the same as 'x.test'"),
        (["*", "a@x.test", "A@x.test"], "the same as"),
        (["*", "bücher.test", "xn--bcher-kva.test"], "the same as"),
    ],
)
def test_a_key_is_an_address_a_domain_a_suffix_or_a_star(keys: list[str], problem: str) -> None:
    with pytest.raises(RouteError) as error:
        RouteTable({key: MxRoute() for key in keys})
    assert problem in str(error.value)
    assert error.value.key == (keys[-1] if "*" in keys else "*")
