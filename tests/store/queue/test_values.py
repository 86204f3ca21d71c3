"""What the queue makes of an envelope that the routing hands over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.store.support import NOW, deferred, envelope, recipient
from trimta.config.build_policy import policy_of
from trimta.config.load import parse
from trimta.store.queue.values import EnvelopeState, NewEnvelope

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("domain", "next_hop", "state", "reason"),
    [
        ("held.test", "hold", EnvelopeState.HELD, "by its route"),
        ("far.test", "127.0.0.1:2500", EnvelopeState.QUEUED, ""),
        ("dev.test", "local", EnvelopeState.QUEUED, ""),
    ],
)
def test_an_envelope_is_held_where_its_route_says_so(
    domain: str, next_hop: str, state: EnvelopeState, reason: str, tmp_path: Path
) -> None:
    text = '[local]\ndomains = ["dev.test"]\n[routes]\n"held.test" = "hold"\n"*" = "smtp:127.0.0.1:2500"\n'
    policy = policy_of(parse(text, base=tmp_path, file="conf.toml"))
    (routed,) = policy.route([recipient("bob", domain)]).envelopes
    new = NewEnvelope.of(routed, next_try=NOW, warn_at=NOW + 60)
    assert (new.domain, new.recipients, new.next_try, new.warn_at) == (domain, routed.recipients, NOW, NOW + 60)
    assert (new.next_hop, new.state, new.hold_reason) == (next_hop, state, reason)
    assert (new.attempts, new.last_attempt, new.last_outcomes) == (0, None, ())


@pytest.mark.parametrize("count", [1, 3])
def test_an_attempt_has_one_outcome_for_each_recipient(count: int) -> None:
    new = envelope("a", "b")
    with pytest.raises(ValueError, match=f"{count} outcomes for 2 recipients"):
        replace(new, attempts=1, last_attempt=NOW, last_outcomes=(deferred(),) * count)
