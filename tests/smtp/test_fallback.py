"""Which refusals may come of what our side did without."""

from __future__ import annotations

import pytest

from trimta.mail.reply import Reply
from trimta.smtp.fallback import Fallback
from trimta.smtp.reply_meaning import ReplyStage
from trimta.smtp.reply_reader import ReplyReader

REFUSAL = Reply.read(["550 no"])
ALL = Fallback(plain=True, anonymous=True, ehlo_refusal=REFUSAL)
PLAIN = Fallback(plain=True)
ANONYMOUS = Fallback(anonymous=True)
HELO = Fallback(ehlo_refusal=REFUSAL)


@pytest.mark.parametrize(
    ("text", "excused"),
    [
        ("530 Must issue STARTTLS first", [PLAIN, ANONYMOUS]),
        ("530 5.7.0 Must issue a STARTTLS command first", [PLAIN, ANONYMOUS]),
        ("550 5.7.1 Session encryption is required", [PLAIN]),
        ("554 5.7.1 TLS required", [PLAIN]),
        ("538 5.7.11 Encryption required for requested authentication mechanism", [PLAIN, ANONYMOUS]),
        ("523 5.7.10 encryption needed", [PLAIN]),
        ("501 no plaintext sessions, please", [PLAIN]),
        ("550 5.7.1 use a secure connection", [PLAIN]),
        ("530 5.7.1 Authentication required", [PLAIN, ANONYMOUS]),
        ("550 5.7.1 Client was not authenticated", [ANONYMOUS]),
        ("503 5.5.1 send EHLO first", [HELO]),
        ("550 5.1.1 no such user tls@x.test", []),
        ("550 5.7.1 blocked by policy", []),
        ("552 5.3.4 too big", []),
        ("550 relaying denied", []),
    ],
)
@pytest.mark.parametrize("stage", [ReplyStage.MAIL, ReplyStage.RCPT, ReplyStage.DATA])
def test_only_what_a_refusal_is_about_excuses_it(text: str, excused: list[Fallback], stage: ReplyStage) -> None:
    reader = ReplyReader()
    reader.feed(text.encode() + b"\r\n")
    reply = reader.next()
    assert reply is not None
    assert [fallback for fallback in (PLAIN, ANONYMOUS, HELO) if fallback.excuses(reply, stage)] == excused
    assert ALL.excuses(reply, stage) == bool(excused)
    assert not Fallback().excuses(reply, stage)
    assert not ALL.excuses(reply, ReplyStage.BODY)
