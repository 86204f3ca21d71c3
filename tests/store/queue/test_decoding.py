"""Values that the queue writes as JSON read back as they were."""

from __future__ import annotations

import pytest

from trimta.mail.address import Mailbox
from trimta.mail.envelope import OriginalRecipient, Recipient
from trimta.store.queue.decoding import dump_recipient, load_recipient

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
