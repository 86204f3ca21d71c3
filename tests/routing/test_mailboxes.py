from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.address import AddressError, Mailbox, parse_mailbox
from trimta.routing.mailboxes import LocalDomains, LocalMailbox, maildir_path, template_fields


@pytest.mark.parametrize(
    ("user", "template", "capture", "folder"),
    [
        ("remote", "/m/{user}", "/m/remote", "/m/%72emote"),
        ("remote", "/m/{user}/", "/m//x/../remote", "/m/%72emote/"),
        ("alice", "/m/{user}", "/m/remote", "/m/alice"),
        ("remotes", "/m/{user}", "/m/remote", "/m/remotes"),
        ("new", "/m/{user}", "/m", "/m/%6Eew"),
        ("tmp", "/m/{user}/x", "/m", "/m/%74mp/x"),
        ("box", "/m/{user}", "/m/box/cur", "/m/%62ox"),
        ("box", "/m/{user}", "/m/box/captured", "/m/box"),
        ("partner.test", "/m/{user}", "/m/{domain}", "/m/%70artner.test"),
        ("alice", "/m/{user}", "/m/{domain}", "/m/alice"),
        ("a.b", "/m/{user}", "/m/far/{domain}", "/m/a.b"),
    ],
)
def test_no_mailbox_is_a_maildir_that_is_captured_into(user: str, template: str, capture: str, folder: str) -> None:
    mailbox = LocalMailbox(user, "", "dev.test")
    assert mailbox.maildir(template, [capture]) == folder
    assert mailbox.maildir(template, ["/elsewhere", capture]) == folder
    assert mailbox.maildir(template) == maildir_path(template, user, "dev.test", "")


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


@pytest.mark.parametrize(
    ("user", "component"),
    [
        ("alice", "alice"),
        ("a.b_c+d=e-f9", "a.b_c+d=e-f9"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a.", "a."),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        ("/", "%2F"),
        ("%2E", "%252%45"),
        ("%2f", "%252f"),
        ("a b", "a%20b"),
        ("{domain}", "%7Bdomain%7D"),
        ("~", "%7E"),
        ("josé", "jos%C3%A9"),
        ("new", "new"),
        ("a:2,S", "a%3A2%2C%53"),
    ],
)
def test_a_name_is_percent_encoded_in_a_path(user: str, component: str) -> None:
    assert maildir_path("mail/{user}", user, "dev.test", "") == f"mail/{component}"


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("{user}", "alice"),
        ("m/{domain}/{user}", "m/dev.test/alice"),
        ("m/{user}/.{detail}", "m/alice/.lists"),
        ("m/{user}@{domain}", "m/alice@dev.test"),
        ("m/{other}/{user}", "m/{other}/alice"),
        ("m/shared", "m/shared"),
    ],
)
def test_a_template_says_where_maildirs_are(template: str, path: str) -> None:
    assert maildir_path(template, "alice", "dev.test", "lists") == path
    assert LocalMailbox("alice", "lists", "dev.test").maildir(template) == path


def test_a_literal_is_a_path_component_too() -> None:
    assert maildir_path("{domain}", "a", "[ipv6:::1]", "") == "%5Bipv6%3A%3A%3A1%5D"


@pytest.mark.parametrize("detail", ["cur", "new", "tmp"])
def test_a_detail_is_never_a_folder_of_the_users_own_maildir(detail: str) -> None:
    path = maildir_path("{user}/{detail}", "alice", "dev.test", detail)
    assert path not in {"alice/cur", "alice/new", "alice/tmp"}


def test_a_maildir_has_a_user() -> None:
    with pytest.raises(ValueError, match="name"):
        maildir_path("{user}", "", "dev.test", "")


def test_a_template_tells_its_fields() -> None:
    assert template_fields("a/{user}/{usr}/{}") == {"user", "usr"}


NAMES = st.one_of(
    st.text(st.sampled_from("ab./%2EeF\\~\x00é{}"), min_size=1, max_size=8),
    st.text(min_size=1, max_size=200),
)


@given(NAMES, NAMES, NAMES)
@settings(deadline=None, max_examples=100)
def test_no_two_names_share_a_path_and_none_leaves_the_folder(one: str, other: str, detail: str) -> None:
    first = maildir_path("mail/{user}", one, "dev.test", "")
    second = maildir_path("mail/{user}", other, "dev.test", "")
    assert (first == second) is (one == other)
    for path in (PurePosixPath(first), PurePosixPath(maildir_path("mail/{detail}", "a", "dev.test", detail))):
        assert len(path.parts) == 2
        assert path.parts[0] == "mail"
        assert not path.name.startswith(".")
        assert len(path.name.encode()) <= 255
        assert path.name.isascii()


@given(st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=30))
@settings(deadline=None, max_examples=100)
def test_any_local_part_has_a_mailbox_in_lower_case_or_none(local_part: str) -> None:
    table = local()
    found = table.mailbox_of(Mailbox(local_part, "dev.test"))
    if found is None:
        assert local_part == "" or local_part.startswith("+")
    else:
        assert table.mailbox_of(found.address) == LocalMailbox(found.user, "", "dev.test")
