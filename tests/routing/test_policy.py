"""What the configuration decides about recipients."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimta.config.load import parse
from trimta.config.tables import policy_of
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import Recipient
from trimta.routing.destination import LocalDestination
from trimta.routing.route_table import MatchedRoute
from trimta.routing.routes import MaildirRoute


def test_the_bare_postmaster_is_in_the_hostname_s_domain_however_that_is_written(tmp_path: Path) -> None:
    policy = policy_of(parse('hostname = "Mail.BÜCHER.test"', base=tmp_path, file="conf.toml"))
    names = [parse_mailbox("postmaster"), parse_mailbox("postmaster@mail.xn--bcher-kva.test")]
    (part,) = policy.route(Recipient(address=name, original=name) for name in names).envelopes
    assert part.domain == "mail.xn--bcher-kva.test"
    assert len(part.recipients) == 1, "the same mailbox"


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
