"""No Maildir of a local mailbox is one that a route captures into, however the two are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.address import AddressError, parse_domain
from trimta.routing.local_maildirs import LocalMaildirs
from trimta.routing.mailboxes import LocalMailbox
from trimta.routing.maildir_paths import maildir_path
from trimta.routing.routes import MaildirRoute


@pytest.mark.parametrize(
    ("user", "template", "capture", "folder"),
    [
        ("remote", "/m/{user}", "/m/remote", "/m/%72emote"),
        ("remote", "/m/{user}/", "/m//x/../remote", "/m/%72emote"),
        ("alice", "/m/{user}", "/m/remote", "/m/alice"),
        ("remotes", "/m/{user}", "/m/remote", "/m/remotes"),
        ("new", "/m/{user}", "/m", "/m/%6Eew"),
        ("tmp", "/m/{user}/x", "/m", "/m/%74mp/x"),
        ("box", "/m/{user}", "/m/box/cur", "/m/%62ox"),
        ("box", "/m/{user}", "/m/box/captured", "/m/box"),
        ("partner.test", "/m/{user}", "/m/{domain}", "/m/%70artner.test"),
        ("alice", "/m/{user}", "/m/{domain}", "/m/alice"),
        ("a.b", "/m/{user}", "/m/far/{domain}", "/m/a.b"),
        # Letter case, which some file systems don't know.
        ("remote", "/m/{user}", "/m/Remote", "/m/%72emote"),
        ("remote", "/M/{user}", "/m/REMOTE", "/M/%72emote"),
        ("new", "/m/{user}", "/m/New/Cur", "/m/%6Eew"),
        ("~", "/m/{user}", "/m/%7e", "/m/%%%7E"),
        # Domains that are no domain names.
        ("[127.0.0.1]", "/m/{user}", "/m/{domain}", "/m/%%%5B127.0.0.1%5D"),
        ("[ipv6:::1]", "/m/{user}", "/m/{domain}", "/m/%%%5Bipv6%3A%3A%3A1%5D"),
        # A domain in the middle of a path, and a template with more than the user.
        ("x", "/m/{domain}/{user}", "/m/{domain}/x", "/m/dev.test/%78"),
        ("x", "/m/{domain}/{user}", "/m/{domain}/y", "/m/dev.test/x"),
        ("x.y", "/m/box-{user}", "/m/box-{domain}", "/m/box-%78.y"),
        # Nothing helps where all mailboxes are inside of it.
        ("alice", "/m/new/{user}", "/m", "/m/new/alice"),
    ],
)
def test_no_mailbox_is_a_maildir_that_is_captured_into(user: str, template: str, capture: str, folder: str) -> None:
    mailbox = LocalMailbox(user, "", "dev.test")
    usual = Path(maildir_path(template, user, "dev.test", ""))
    assert str(LocalMaildirs(template, (capture,)).path(mailbox)) == folder
    assert str(LocalMaildirs(template, ("/elsewhere", capture)).path(mailbox)) == folder
    assert LocalMaildirs(template).path(mailbox) == usual


@pytest.mark.parametrize(
    ("captures", "folder"),
    [
        (("/m/%72emote",), "/m/remote"),
        (("/m/remote", "/m/%72emote"), "/m/%%%%remote"),
        (("/m/remote", "/m/{domain}", "/m/%72EMOTE", "/m/%%%%remote"), "/m/%%%%%%remote"),
    ],
)
def test_the_name_that_a_mailbox_has_instead_is_not_captured_into_either(
    captures: tuple[str, ...], folder: str
) -> None:
    assert str(LocalMaildirs("/m/{user}", captures).path(LocalMailbox("remote", "", "dev.test"))) == folder


@pytest.mark.parametrize(
    ("template", "capture", "links", "folder"),
    [
        ("/m/{user}", "/link/remote", {"/link": "/m"}, "/m/%72emote"),
        ("/link/{user}", "/m/remote", {"/link": "/m"}, "/link/%72emote"),
        ("/m/{user}", "/captured", {"/captured": "/m/remote"}, "/m/%72emote"),
        ("/m/{user}", "/captured", {"/m/remote": "/captured"}, "/m/%72emote"),
        ("/link/{user}", "/captured", {"/link": "/m", "/m/remote": "/captured"}, "/link/%72emote"),
        ("/m/{user}/Maildir", "/home/r/Maildir", {"/m/remote": "/home/r"}, "/m/%72emote/Maildir"),
        ("/m/{user}", "/x/../remote", {"/x": "/m/deep"}, "/m/%72emote"),
        ("/m/{user}", "/x/../remote", {}, "/m/remote"),
        ("/m/{user}", "/captured", {"/m/remote": "/elsewhere"}, "/m/remote"),
        ("/m/{user}", "/link/{domain}", {"/link": "/m"}, "/m/remote"),
    ],
)
def test_links_are_followed(template: str, capture: str, links: dict[str, str], folder: str) -> None:
    maildirs = LocalMaildirs(template, (capture,), links)
    assert str(maildirs.path(LocalMailbox("remote", "", "dev.test"))) == folder


@pytest.mark.parametrize(
    ("template", "capture", "may_meet"),
    [
        ("/m/{user}", "/m/{domain}", True),
        ("/m/{user}", "/M/x-{domain}", True),
        ("/m/{user}", "/m/far/{domain}", False),
        ("/m/{user}", "/m/{domain}/cur", True),
        ("/m/{user}/x", "/m/{domain}", False),
        ("/m/{user}/{detail}", "/m/{domain}", True),
        ("/m/{user}/.{detail}", "/m/{domain}", True),
        ("/m/{domain}/{user}", "/m/{domain}", True),  # where the user is "new"
        ("/m/{user}", "/far/{domain}", False),
        ("/m/{user}", "/link/{domain}", True),
    ],
)
def test_a_folder_of_captured_mail_may_be_a_mailbox_s_or_not(template: str, capture: str, may_meet: bool) -> None:
    assert LocalMaildirs(template, (), {"/link": "/m"}).may_meet(capture) is may_meet


NAMES = st.one_of(st.text(st.sampled_from("ab.%-[]:+~é"), min_size=1, max_size=6), st.sampled_from(["intranet", "new"]))
CAPTURES = st.sampled_from(["/m/{domain}", "/m/a", "/m/%61", "/m/New", "/m/b/cur", "/m", "/m/{domain}.b"])


@given(NAMES, NAMES, st.lists(CAPTURES, unique=True))
@settings(deadline=None, max_examples=200)
def test_whatever_is_captured_is_no_mailbox_s_and_no_two_mailboxes_are_one(
    user: str, other: str, captures: list[str]
) -> None:
    maildirs = LocalMaildirs("/m/{user}", tuple(captures))
    path = maildirs.path(LocalMailbox(user, "", "dev.test"))
    assert path.parent == Path("/m")
    another = maildirs.path(LocalMailbox(other, "", "dev.test"))
    assert (str(path).casefold() == str(another).casefold()) is (user == other)
    for capture in captures:
        route = MaildirRoute(capture, labels_apart=maildirs.may_meet(capture))
        for domain in (user, other, f"{user}.test", "[127.0.0.1]", "[ipv6:::1]"):
            try:
                key = parse_domain(domain)
            except AddressError:
                continue
            assert str(path).casefold() != route.path(key).casefold()
            assert str(path).casefold() not in (f"{route.path(key).casefold()}/{name}" for name in ("new", "cur"))
