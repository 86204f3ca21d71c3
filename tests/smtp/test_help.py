"""The reply to HELP."""

from __future__ import annotations

import pytest

from trimta.smtp.extensions import MailProtocol, Offer
from trimta.smtp.help import help_reply

SMTP = Offer(starttls=True, auth=("PLAIN", "LOGIN"), size_limit=1000, max_recipients=5)
SUBMISSION = Offer(protocol=MailProtocol.SUBMISSION, starttls=True, auth=("PLAIN", "LOGIN"))
LMTP = Offer(protocol=MailProtocol.LMTP)


def test_help_lists_what_is_on_offer() -> None:
    assert "ETRN" in help_reply(SMTP).lines[0]
    assert "ETRN" not in help_reply(SUBMISSION).lines[0]
    assert "LHLO" in help_reply(LMTP).lines[0]
    assert str(help_reply(SMTP, "mail")) == "214 2.0.0 MAIL FROM:<address> [parameters]"
    assert help_reply(SMTP, "LHLO").code == help_reply(SMTP, "foo").code == 504


@pytest.mark.parametrize("offer", [SMTP, SUBMISSION, LMTP])
def test_help_shows_the_syntax_of_each_command_that_it_lists(offer: Offer) -> None:
    listed = help_reply(offer).lines[0].removeprefix("commands: ").split()
    assert "MAIL" in listed
    for name in listed:
        reply = help_reply(offer, f" {name.lower()} ")
        assert reply.code == 214
        assert reply.text.split()[0] == name
