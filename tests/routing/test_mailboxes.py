from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.address import AddressError, Mailbox, parse_mailbox
from trimta.routing.mailboxes import LocalDomains, LocalMailbox


def local(
    *domains: str,
    hostname: str = "host.test",
    users: Literal["any"] | tuple[str, ...] = "any",
    subaddress: str = "+",
) -> LocalDomains:
    return LocalDomains(domains or ("localhost", "dev.test"), hostname, users, subaddress)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("alice@dev.test", True),
        ("alice@DEV.Test", True),
        ("alice@localhost", True),
        ("alice@host.test", True),
        ("postmaster", True),
        ("alice@sub.dev.test", False),
        ("alice@test", False),
        ("alice@xdev.test", False),
        ("alice@[127.0.0.1]", False),
        ("alice@other.test", False),
        # relay tricks: local is what is behind the last "@", and nothing else
        ("user%other.test@dev.test", True),
        ("other.test!user@dev.test", True),
        ('"user@other.test"@dev.test', True),
        ("<@other.test:user@dev.test>", True),
        ("<@dev.test:user@other.test>", False),
        ('"alice@dev.test"@other.test', False),
        ("alice%dev.test@other.test", False),
    ],
)
def test_local_is_a_listed_domain_or_the_hostname(address: str, expected: bool) -> None:
    mailbox = parse_mailbox(address)
    assert local().is_local(mailbox) is expected
    if not expected:
        assert local().mailbox_of(mailbox) is None


@pytest.mark.parametrize("address", ["a@bücher.test", "a@BÜCHER.test", "a@xn--bcher-kva.test", "a@[127.0.0.1]"])
def test_a_local_domain_is_compared_as_dns_would(address: str) -> None:
    assert local("Bücher.test", "[127.0.0.1]").is_local(parse_mailbox(address))


@pytest.mark.parametrize(
    ("address", "user", "detail", "domain"),
    [
        ("alice@dev.test", "alice", "", "dev.test"),
        ("Alice@Dev.Test", "alice", "", "dev.test"),
        ("alice+lists@dev.test", "alice", "lists", "dev.test"),
        ("Alice+Lists+More@dev.test", "alice", "lists+more", "dev.test"),
        ("alice+@dev.test", "alice", "", "dev.test"),
        ("postmaster", "postmaster", "", "host.test"),
        ("POSTMASTER", "postmaster", "", "host.test"),
        ('"a b"@dev.test', "a b", "", "dev.test"),
        ("user%other.test@dev.test", "user%other.test", "", "dev.test"),
        ("JOSÉ@dev.test", "josé", "", "dev.test"),
    ],
)
def test_an_address_means_the_mailbox_of_its_user(address: str, user: str, detail: str, domain: str) -> None:
    assert local().mailbox_of(parse_mailbox(address)) == LocalMailbox(user, detail, domain)


@pytest.mark.parametrize("address", ['""@dev.test', "+@dev.test", "+lists@dev.test", '""@other.test'])
def test_an_empty_user_has_no_mailbox(address: str) -> None:
    assert local().mailbox_of(parse_mailbox(address)) is None


def test_a_user_who_needs_quotes_without_the_detail_and_has_no_room_for_them_has_no_mailbox() -> None:
    address = parse_mailbox(f"{'a' * 243}.+@dev.test")
    assert len(str(address)) == 254
    assert local().mailbox_of(address) is None


@pytest.mark.parametrize(
    ("address", "user", "detail"),
    [
        ("alice@dev.test", "alice", ""),
        ("ALICE@dev.test", "alice", ""),
        ("Bob@dev.test", "bob", ""),
        ("alice+x@dev.test", "alice", "x"),
        ("root+cron@dev.test", "root+cron", ""),
        ("postmaster@dev.test", "postmaster", ""),
        ("Postmaster+x@host.test", "postmaster", "x"),
        ("postmaster", "postmaster", ""),
        ("carol@dev.test", None, ""),
        ("root@dev.test", None, ""),
        ("root+cron+x@dev.test", None, ""),
        ("alic@dev.test", None, ""),
        ('""@dev.test', None, ""),
    ],
)
def test_with_a_list_only_listed_users_and_postmaster_have_mailboxes(
    address: str, user: str | None, detail: str
) -> None:
    found = local(users=("alice", "BOB", "root+cron")).mailbox_of(parse_mailbox(address))
    assert (found is None) if user is None else (found is not None and (found.user, found.detail) == (user, detail))


@pytest.mark.parametrize(
    ("subaddress", "user", "detail"),
    [("", "a-b+c", ""), ("+", "a-b", "c"), ("-", "a", "b+c"), ("+-", "a", "b+c")],
)
def test_any_character_of_subaddress_separates_and_none_if_empty(subaddress: str, user: str, detail: str) -> None:
    found = local(subaddress=subaddress).mailbox_of(parse_mailbox("a-b+c@dev.test"))
    assert found == LocalMailbox(user, detail, "dev.test")


def test_delivered_to_is_the_address_in_lower_case_without_the_detail() -> None:
    found = local().mailbox_of(parse_mailbox("Alice+Lists@Dev.Test"))
    assert found is not None
    assert str(found.address) == "alice@dev.test"


def test_a_name_without_a_domain_is_at_the_first_local_domain() -> None:
    assert local("Dev.Test", "other.test").first == "dev.test"
    assert LocalDomains((), "Host.test").first == "host.test"


@pytest.mark.parametrize("domain", ["", "dev.test.", "dev test", "*.test"])
def test_a_local_domain_is_a_domain(domain: str) -> None:
    with pytest.raises(AddressError):
        local(domain)
    with pytest.raises(AddressError):
        local(hostname=domain)


def test_postmaster_has_an_address_at_the_hostname() -> None:
    found = local(hostname="Host.test").mailbox_of(parse_mailbox("postmaster"))
    assert found is not None
    assert str(found.address) == "postmaster@host.test"
    with pytest.raises(AddressError, match="too long"):
        local(hostname=".".join(["x" * 61] * 4))


@given(st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=30))
@settings(deadline=None, max_examples=100)
def test_any_local_part_has_a_mailbox_in_lower_case_or_none(local_part: str) -> None:
    table = local()
    found = table.mailbox_of(Mailbox(local_part, "dev.test"))
    if found is None:
        assert local_part == "" or local_part.startswith("+")
    else:
        assert table.mailbox_of(found.address) == LocalMailbox(found.user, "", "dev.test")
