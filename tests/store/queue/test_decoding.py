"""Values that the queue writes as JSON read back as they were."""

from __future__ import annotations

import json

import pytest

from trimta.mail.address import Mailbox
from trimta.mail.envelope import OriginalRecipient, Recipient
from trimta.mail.outcome import Cause, Deferred, LocalCause, PeerReply
from trimta.mail.reply import Reply
from trimta.mail.status import NO_ANSWER
from trimta.store.queue.decoding import dump_deferred, dump_recipient, load_deferred, load_recipient

ALICE = Mailbox("alice", "dev.test")


@pytest.mark.parametrize("received", ["", r"j\x{fc}@b.test", "jü@b.test"])
def test_what_orcpt_was_on_the_wire_is_kept(received: str) -> None:
    orcpt = OriginalRecipient("utf-8", "jü@b.test", received)
    found = load_recipient(dump_recipient(Recipient(address=ALICE, original=ALICE, orcpt=orcpt))).orcpt
    assert found is not None
    assert (found.addr_type, found.address, found.received) == ("utf-8", "jü@b.test", received)


@pytest.mark.parametrize("orcpt", ['"a"', '["a"]', '["a","b","c","d"]', '["a",1]', "{}", "1"])
def test_an_orcpt_that_is_none_is_damage(orcpt: str) -> None:
    with pytest.raises(ValueError, match="recipient fields"):
        load_recipient(f'{{"to":["alice","dev.test"],"orcpt":{orcpt}}}')


def outcome(cause: Cause) -> Deferred:
    return Deferred(recipient=Recipient(address=ALICE, original=ALICE), status=NO_ANSWER.transient, cause=cause)


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (PeerReply(Reply.read(["450 4.2.0 later"]), "mx.x.test"), '["4.4.1","450 4.2.0 later","mx.x.test",true]'),
        (PeerReply(Reply.read(["450"])), '["4.4.1","450","",true]'),
        (PeerReply(Reply.read(["354 go on"]), "mx.x.test"), '["4.4.1","354 go on","mx.x.test",true]'),
        (LocalCause("450 as it were", "mx.x.test"), '["4.4.1","450 as it were","mx.x.test",false]'),
        (LocalCause("no route"), '["4.4.1","no route","",false]'),
    ],
)
def test_the_cause_of_a_deferral_is_kept(cause: Cause, text: str) -> None:
    assert dump_deferred(outcome(cause)) == text
    assert load_deferred(text, outcome(cause).recipient) == outcome(cause)


def test_a_reply_of_several_lines_is_kept_as_its_diagnostic() -> None:
    reply = Reply.read(["450-4.2.0 not", "450 4.2.0 now"])
    text = dump_deferred(outcome(PeerReply(reply, "mx.x.test")))
    cause = load_deferred(text, outcome(LocalCause("")).recipient).cause
    assert isinstance(cause, PeerReply)
    assert cause.diagnostic == reply.diagnostic == "450-4.2.0 not 450 4.2.0 now"
    assert dump_deferred(outcome(cause)) == text


@pytest.mark.parametrize("diagnostic", ["no reply at all", "", "450x", "45", "650 what", "099 what", "150 what"])
def test_a_text_that_an_older_version_took_for_a_reply_is_a_local_cause(diagnostic: str) -> None:
    text = json.dumps(["4.4.1", diagnostic, "mx.x.test", True])
    assert load_deferred(text, outcome(LocalCause("")).recipient).cause == LocalCause(diagnostic, "mx.x.test")


@pytest.mark.parametrize(
    "text", [None, "1", "{}", '["4.4.1","a","b"]', '["4.4.1",1,"b",true]', '["5.4.1","a","b",true]']
)
def test_an_outcome_that_is_none_is_damage(text: str | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the texts differ
        load_deferred(text, outcome(LocalCause("")).recipient)
