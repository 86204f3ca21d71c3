"""Address lists: their mailboxes, and what is wrong where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.content.address_list import addresses
from trimta.mail.address import AddressError


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("alice@dev.test", ["alice@dev.test"]),
        ("<alice@dev.test>", ["alice@dev.test"]),
        ("alice", ["alice@local.test"]),
        ("<alice>", ["alice@local.test"]),
        ("postmaster", ["postmaster@local.test"]),
        ("Alice <alice@dev.test>, bob@dev.test", ["alice@dev.test", "bob@dev.test"]),
        ('"Doe, Alice" <alice@dev.test>', ["alice@dev.test"]),
        ('"a \\" , b" <alice@dev.test>', ["alice@dev.test"]),
        ("=?utf-8?q?Caf=C3=A9=2C?= <cafe@dev.test>", ["cafe@dev.test"]),
        ("Müller <m@dev.test>", ["m@dev.test"]),
        ("M\udcfcller <m@dev.test>", ["m@dev.test"]),
        ("alice@dev.test (Alice (the first, really))", ["alice@dev.test"]),
        ("(Bob) bob(x)@(y)dev.test", ["bob@dev.test"]),
        ("a . b @ dev . test", ["a.b@dev.test"]),
        ('"a b"@dev.test', ['"a b"@dev.test']),
        ('"a@b"@dev.test', ['"a@b"@dev.test']),
        ('"just quoted"', ['"just quoted"@local.test']),
        ("a@[127.0.0.1], b@[IPv6:::1]", ["a@[127.0.0.1]", "b@[IPv6:::1]"]),
        ("undisclosed-recipients:;", []),
        ("undisclosed recipients: ;", []),
        ("team: alice@dev.test, Bob <bob@dev.test>;, carol@x.test", ["alice@dev.test", "bob@dev.test", "carol@x.test"]),
        ("one: a@x.test; two: b@x.test;", ["a@x.test", "b@x.test"]),
        ("a@x.test; b@x.test", ["a@x.test", "b@x.test"]),
        (",a@x.test,,b@x.test,", ["a@x.test", "b@x.test"]),
        ("<@one.test,@two.test:a@x.test>", ["a@x.test"]),
        ("jürgen@bücher.test", ["jürgen@bücher.test"]),
        ("a%b@x.test, a!b@x.test", ["a%b@x.test", "a!b@x.test"]),
    ],
)
def test_an_address_list_is_its_mailboxes(text: str, found: list[str]) -> None:
    assert [str(mailbox) for mailbox in addresses(text, "local.test")] == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("alice bob@dev.test", "a space"),
        ("<>", "empty"),
        ("Alice <alice@dev.test", "'>'"),
        ("<a@x.test> <b@x.test>", "a comma is missing"),
        ("<a@x.test> b@x.test", "a comma is missing"),
        ("(never closed", "a comment is not closed"),
        ('"never closed', "not closed"),
        ("a@x@y.test", "a second '@'"),
        ("a@", "empty"),
        ("@x.test", "empty"),
        ("a..b@x.test", "dot"),
        ("a@-x.test", "hyphen"),
        ("a\udcff@x.test", "0xFF"),
        ("a@x.test: b@x.test", "':'"),
        (".", ""),
    ],
)
def test_what_is_no_address_is_named(text: str, problem: str) -> None:
    with pytest.raises(AddressError) as caught:
        [*addresses(text, "local.test")]
    assert problem in str(caught.value)
    assert str(caught.value).isascii()


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from('ab@.<>,;:()"[]\\ \n\té'), max_size=40))
def test_any_text_is_addresses_or_an_error(text: str) -> None:
    try:
        found = [*addresses(text, "local.test")]
    except AddressError:
        return
    assert all(mailbox.domain for mailbox in found)
