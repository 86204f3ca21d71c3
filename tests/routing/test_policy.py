"""What the configuration decides about recipients."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trimta.config.build_policy import policy_of
from trimta.config.load import parse
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import Recipient
from trimta.routing.destination import LocalDestination, UnknownUser
from trimta.routing.policy import KNOWN
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import MaildirRoute

if TYPE_CHECKING:
    from trimta.routing.destination import Destination


def test_the_bare_postmaster_is_in_the_hostname_s_domain_however_that_is_written(tmp_path: Path) -> None:
    policy = policy_of(parse('hostname = "Mail.BÜCHER.test"', base=tmp_path, file="conf.toml"))
    names = [parse_mailbox("postmaster"), parse_mailbox("postmaster@mail.xn--bcher-kva.test")]
    (part,) = policy.route(Recipient(address=name, original=name) for name in names).envelopes
    assert part.domain == "mail.xn--bcher-kva.test"
    assert len(part.recipients) == 1, "the same mailbox"


RESOLVED = """
[local]
domains = ["dev.test"]
users = ["alice", "bob"]
[aliases]
team = ["alice", "bob@dev.test", "carol@far.test"]
alice = ["alice"]
[routes]
"far.test" = "discard"
"closed.test" = "reject:550 5.7.1 closed"
"""


@pytest.mark.parametrize(
    ("forward_path", "targets", "refusals"),
    [
        ("Alice+x@dev.test", ["Alice+x@dev.test dev.test alice"], ("", "")),  # its alias means itself
        ("bob@DEV.test", ["bob@DEV.test dev.test bob"], ("", "")),
        (
            "team@dev.test",
            ["alice@dev.test dev.test alice", "bob@dev.test dev.test bob", "carol@far.test far.test discard"],
            ("", ""),
        ),
        ("nobody@dev.test", ["nobody@dev.test dev.test nobody here"], ("5.1.1", "5.1.1")),
        ("x@FAR.test", ["x@FAR.test far.test discard"], ("", "5.7.1")),
        ("x@closed.test", ["x@closed.test closed.test reject:550 5.7.1 closed"], ("5.7.1", "5.7.1")),
    ],
)
def test_a_forward_path_has_targets_and_the_refusal_that_they_deserve(
    forward_path: str, targets: list[str], refusals: tuple[str, str], tmp_path: Path
) -> None:
    policy = policy_of(parse(RESOLVED, base=tmp_path, file="conf.toml"))
    resolved = policy.resolve(parse_mailbox(forward_path))

    def shown(destination: Destination) -> str:
        match destination:
            case LocalDestination(mailbox=mailbox):
                return mailbox.user
            case UnknownUser():
                return "nobody here"
            case MatchedRoute(route=route):
                return str(route)

    assert [f"{target.address} {target.domain} {shown(target.destination)}" for target in resolved.targets] == targets
    replies = (policy.refusal(resolved, may_relay=True), policy.refusal(resolved, may_relay=False))
    assert tuple("" if reply is None else str(reply.status) for reply in replies) == refusals


def test_an_address_that_is_resolved_again_keeps_its_spelling(tmp_path: Path) -> None:
    policy = policy_of(parse(RESOLVED, base=tmp_path, file="conf.toml"))
    for _ in range(2):
        for spelling in ("bob@dev.test", "BOB@dev.test", "bob@DEV.test", "x@far.test", "x@FAR.test"):
            resolved = policy.resolve(parse_mailbox(spelling))
            assert [str(resolved.forward_path), *(str(target.address) for target in resolved.targets)] == [spelling] * 2


def test_what_a_policy_remembers_of_addresses_and_clients_is_bounded(tmp_path: Path) -> None:
    policy = policy_of(parse(RESOLVED, base=tmp_path, file="conf.toml"))

    def ask(first: int) -> None:
        for number in range(first, first + 8 * KNOWN):
            for domain in ("dev.test", "far.test"):
                policy.resolve(parse_mailbox(f"bob+{number}@{domain}"))
            assert not policy.may_relay(f"2001:db8::{number:x}")

    ask(0)
    tracemalloc.start()
    try:
        ask(8 * KNOWN)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000, "of 3 MB"
    finally:
        tracemalloc.stop()
    assert policy.may_relay("127.0.0.1")


def test_two_spellings_of_a_recipient_are_one_target_and_of_two_routes_two(tmp_path: Path) -> None:
    policy = policy_of(parse(RESOLVED, base=tmp_path, file="conf.toml"))
    paths = [parse_mailbox(path) for path in ("Bob@dev.test", "team@dev.test", "bob+x@dev.test", "x@far.test")]
    routed = policy.route(Recipient(address=path, original=path) for path in paths)
    assert [[str(recipient.address) for recipient in envelope.recipients] for envelope in routed.envelopes] == [
        ["Bob@dev.test"],
        ["alice@dev.test"],
        ["carol@far.test", "x@far.test"],
        ["bob+x@dev.test"],
    ]
    assert [str(recipient.original) for recipient in routed.expanded] == ["team@dev.test"]


def test_every_way_to_the_mailbox_of_a_captured_folder_s_name_keeps_them_apart(tmp_path: Path) -> None:
    routes = '"*" = "maildir:mail/remote"\n".x.test" = "maildir:mail/far/{domain}"'
    text = f'[local]\nmaildir = "mail/{{user}}"\n[routes]\n{routes}\n'
    policy = policy_of(parse(text, base=tmp_path, file="conf.toml"))
    for address in ("remote@dev.test", "REMOTE@localhost", "remote+detail@dev.test"):
        found = policy.local.mailbox_of(parse_mailbox(address))
        assert found is not None
        assert policy.maildirs.path(found) == tmp_path / "mail" / "%72emote"


@pytest.mark.parametrize(
    ("links", "maildir", "capture"),
    [
        ({"link": "mail"}, "mail/{user}", "link/remote"),
        ({"link": "mail"}, "link/{user}", "mail/remote"),
        ({"link": "mail"}, "link/{user}", "link/../mail/remote"),
        ({"captured": "mail/remote"}, "mail/{user}", "captured"),
        ({"mail/remote": "captured"}, "mail/{user}", "captured"),
        ({"mail/dev.test": "there"}, "mail/{domain}/{user}", "there/remote"),
        ({}, "mail/{user}", "mail/Remote"),
    ],
)
def test_no_mailbox_is_a_captured_folder_behind_a_link_or_in_another_letter_case(
    links: dict[str, str], maildir: str, capture: str, tmp_path: Path
) -> None:
    (tmp_path / "mail").mkdir()
    for link, target in links.items():
        (tmp_path / target).mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(tmp_path / target)
    text = f'[local]\nmaildir = "{maildir}"\n[routes]\n"*" = "maildir:{capture}"\n'
    policy = policy_of(parse(text, base=tmp_path, file="conf.toml"))
    captured = policy.destination(parse_mailbox("x@far.test"))
    local = policy.destination(parse_mailbox("remote@dev.test"))
    assert isinstance(captured, MatchedRoute)
    assert isinstance(captured.route, MaildirRoute)
    assert isinstance(local, LocalDestination)
    assert local.maildir.name == "%72emote"
    folder = Path(captured.route.path("far.test"))
    for maildir_folder in (folder, local.maildir):
        maildir_folder.mkdir(parents=True, exist_ok=True)
    assert not folder.samefile(local.maildir)


@pytest.mark.parametrize(
    ("maildir", "capture", "domain", "folder"),
    [
        ("mail/{user}", "mail/{domain}", "far.test", "mail/far.test"),
        ("mail/{user}", "mail/{domain}", "alice", "mail/%%alice"),
        ("mail/{user}", "mail/{domain}", "[127.0.0.1]", "mail/%5B127.0.0.1%5D"),
        ("mail/{user}", "captured/{domain}", "alice", "captured/alice"),
        ("mail/{user}", "link/{domain}", "alice", "link/%%alice"),
    ],
)
def test_what_is_captured_for_a_single_label_is_in_no_user_s_mailbox(
    maildir: str, capture: str, domain: str, folder: str, tmp_path: Path
) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "link").symlink_to("mail")
    text = f'[local]\nmaildir = "{maildir}"\n[routes]\n"*" = "maildir:{capture}"\n'
    policy = policy_of(parse(text, base=tmp_path, file="conf.toml"))
    mailbox = parse_mailbox(f"x@{domain}")
    (routed,) = policy.route([Recipient(address=mailbox, original=mailbox)]).envelopes
    assert isinstance(routed.destination, MatchedRoute)
    assert isinstance(routed.destination.route, MaildirRoute)
    assert routed.destination.route.path(routed.domain) == str(tmp_path / folder)
    local = policy.destination(parse_mailbox("alice@dev.test"))
    assert isinstance(local, LocalDestination)
    assert local.maildir == tmp_path / "mail" / "alice"
