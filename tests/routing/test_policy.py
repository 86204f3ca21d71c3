"""What the configuration decides about recipients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimta.config.load import parse
from trimta.config.tables import policy_of
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import Envelope, Recipient

if TYPE_CHECKING:
    from pathlib import Path


def test_the_bare_postmaster_is_in_the_hostname_s_domain_however_that_is_written(tmp_path: Path) -> None:
    policy = policy_of(parse('hostname = "Mail.BÜCHER.test"', base=tmp_path, file="conf.toml"))
    names = [parse_mailbox("postmaster"), parse_mailbox("postmaster@mail.xn--bcher-kva.test")]
    recipients = tuple(Recipient(address=name, original=name) for name in names)
    (part,) = policy.route(Envelope(reverse_path=None, recipients=recipients)).envelopes
    assert part.domain == "mail.xn--bcher-kva.test"
    assert len(part.recipients) == 1, "the same mailbox"


def test_every_way_to_the_mailbox_of_a_captured_folder_s_name_keeps_them_apart(tmp_path: Path) -> None:
    routes = '"*" = "maildir:mail/remote"\n".x.test" = "maildir:mail/far/{domain}"'
    text = f'[local]\nmaildir = "mail/{{user}}"\n[routes]\n{routes}\n'
    policy = policy_of(parse(text, base=tmp_path, file="conf.toml"))
    for address in ("remote@dev.test", "REMOTE@localhost", "remote+detail@dev.test"):
        found = policy.local.mailbox_of(parse_mailbox(address))
        assert found is not None
        assert policy.maildir(found) == tmp_path / "mail" / "%72emote"
