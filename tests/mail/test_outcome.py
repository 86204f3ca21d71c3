"""The cause of an outcome: a peer's reply, or what this server found."""

from __future__ import annotations

import pytest

from trimta.mail.outcome import LocalCause, PeerReply, cause_of
from trimta.mail.reply import Reply


@pytest.mark.parametrize("code", ["200", "250", "354", "450", "550", "599"])
def test_a_code_of_smtp_makes_a_reply(code: str) -> None:
    reply = Reply.read([f"{code} what"])
    assert cause_of(reply, "mx.x.test") == PeerReply(reply, "mx.x.test")


@pytest.mark.parametrize("code", ["000", "099", "150", "600", "650", "999"])
def test_a_code_of_no_class_makes_a_local_cause(code: str) -> None:
    reply = Reply.read([f"{code} what"])
    assert cause_of(reply, "mx.x.test") == LocalCause(f"{code} what", "mx.x.test")


@pytest.mark.parametrize("lines", [["550 5.1.1 nobody"], ["550-5.1.1 no such", "550 5.1.1 user"], ["550"]])
def test_a_diagnostic_is_one_line_whatever_the_cause(lines: list[str]) -> None:
    cause = PeerReply(Reply.read(lines))
    assert cause.diagnostic == " ".join(lines)
    assert LocalCause(cause.diagnostic).diagnostic == cause.diagnostic
