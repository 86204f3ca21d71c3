"""The paths of Maildirs: where names stand in a template, and how they are written there."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.routing.maildir_paths import maildir_path, template_fields


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
