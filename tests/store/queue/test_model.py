"""The queue against a model of a few lines: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tests.store.support import deferred, envelope, message
from trimta.store.queue.errors import NoSuchEntry
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import EnvelopeState

HOPS = st.sampled_from(["a.test", "b.test", "c.test"])
MOMENTS = st.integers(0, 50).map(float)
NAMES = ("x", "y", "z")


@dataclass
class Entry:
    hop: str
    next_try: float
    left: dict[int, str] = field(default_factory=dict)
    held: bool = False
    attempts: int = 0


class QueueMachine(RuleBasedStateMachine):
    envelopes = Bundle("envelopes")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.queue = Queue(Path(self.directory.name))
        self.model: dict[str, Entry] = {}
        self.spared: dict[str, tuple[float, float]] = {}
        self.number = 0

    def teardown(self) -> None:
        self.queue.close()
        self.directory.cleanup()

    @initialize()
    def begin(self) -> None:
        assert self.queue.entries.count() == 0

    @rule(target=envelopes, parts=st.lists(st.tuples(HOPS, MOMENTS, st.integers(1, 3)), min_size=1, max_size=3))
    def accept(self, parts: list[tuple[str, float, int]]) -> object:
        self.number += 1
        message_id = f"m{self.number}"
        self.queue.accept(
            message(message_id), [envelope(*NAMES[:count], domain=hop, next_try=due) for hop, due, count in parts]
        )
        names = [message_id] if len(parts) == 1 else [f"{message_id}.{number + 1}" for number in range(len(parts))]
        for name, (hop, due, count) in zip(names, parts, strict=True):
            self.model[name] = Entry(hop, due, dict.fromkeys(range(count), ""))
        return multiple(*names)

    @rule(name=envelopes, done=st.sets(st.integers(0, 2)), due=MOMENTS, text=st.text(max_size=5))
    def settle(self, name: str, done: set[int], due: float, text: str) -> None:
        again = {number: deferred(text) for number in range(3) if number not in done}
        entry = self.model.get(name)
        assert self.queue.settle(name, now=due, next_try=due, done=done, deferred=again) == (entry is not None)
        if entry is None:
            return
        entry.left = {number: text for number in entry.left if number not in done}
        entry.next_try, entry.attempts = due, entry.attempts + 1
        if not entry.left:
            del self.model[name]

    @rule(name=envelopes)
    def hold(self, name: str) -> None:
        if self.known(name, lambda: self.queue.operator.hold(name)):
            self.model[name].held = True

    @rule(name=envelopes, now=MOMENTS)
    def release(self, name: str, now: float) -> None:
        if self.known(name, lambda: self.queue.operator.release(name, now)) and self.model[name].held:
            self.model[name].held, self.model[name].next_try = False, now

    @rule(name=envelopes, now=MOMENTS)
    def retry(self, name: str, now: float) -> None:
        entry = self.model.get(name)
        if self.known(name, lambda: self.queue.operator.retry(name, now)) and entry is not None and not entry.held:
            entry.next_try = min(entry.next_try, now)
            self.spared.pop(entry.hop, None)

    @rule(now=MOMENTS)
    def retry_all(self, now: float) -> None:
        queued = [entry for entry in self.model.values() if not entry.held]
        assert self.queue.operator.retry_all(now) == len(queued)
        for entry in queued:
            entry.next_try = min(entry.next_try, now)
        for entry in queued:
            self.spared.pop(entry.hop, None)

    @rule(name=envelopes, hop=HOPS)
    def reroute(self, name: str, hop: str) -> None:
        self.queue.reroute(name, hop)
        if name in self.model:
            self.model[name].hop = hop

    @rule(hop=HOPS, now=MOMENTS, until=MOMENTS)
    def defer(self, hop: str, now: float, until: float) -> None:
        self.queue.destinations.defer(hop, now, until)
        if any(entry.hop == hop and not entry.held for entry in self.model.values()):
            failed, not_before = self.spared.get(hop, (0.0, 0.0))
            self.spared[hop] = max(now, failed), max(until, not_before)

    @rule(name=consumes(envelopes))
    def remove(self, name: str) -> None:
        if self.known(name, lambda: self.queue.remove(name)):
            del self.model[name]

    @rule()
    def reopen(self) -> None:
        self.queue.close()
        self.queue = Queue(Path(self.directory.name))
        assert self.queue.repair.recover(0.0).set_aside == ()

    def known(self, name: str, action: object) -> bool:
        """Do it; whether the queue knew the envelope, which it must exactly if the model does.

        An id of a message that had one envelope names that one only, so ids never mean more than one here.
        """
        assert callable(action)
        try:
            action()
        except NoSuchEntry:
            assert name not in self.model
            return False
        assert name in self.model
        return True

    def due(self, entry: Entry) -> float:
        """Who has not been tried and came after the failure of its destination is not spared."""
        failed, not_before = self.spared.get(entry.hop, (0.0, 0.0))
        if entry.attempts == 0 and entry.next_try > failed:
            return entry.next_try
        return max(entry.next_try, not_before)

    @invariant()
    def they_agree(self) -> None:
        queued_hops = {entry.hop for entry in self.model.values() if not entry.held}
        self.spared = {hop: moments for hop, moments in self.spared.items() if hop in queued_hops}
        listed = {one.envelope.id: one.envelope for one in self.queue.entries.list_envelopes()}
        assert listed.keys() == self.model.keys()
        for name, entry in self.model.items():
            found = listed[name]
            assert (found.next_hop, found.next_try, found.attempts) == (entry.hop, entry.next_try, entry.attempts)
            assert (found.state is EnvelopeState.HELD) == entry.held
            assert {to.recipient.number: to.reply for to in found.recipients} == entry.left

    @invariant()
    def the_same_is_due(self) -> None:
        now = 25.0
        dues: dict[str, float] = {}
        for entry in self.model.values():
            if not entry.held:
                due = self.due(entry)
                dues[entry.hop] = min(due, dues.get(entry.hop, due))
        assert dict(self.queue.due.destinations(now, 100)) == {hop: due for hop, due in dues.items() if due <= now}
        assert self.queue.due.next_moment(now) == min((due for due in dues.values() if due > now), default=None)
        for hop in dues:
            expected = {
                name
                for name, entry in self.model.items()
                if entry.hop == hop and not entry.held and self.due(entry) <= now
            }
            assert set(self.queue.due.envelopes(hop, now, 100)) == expected

    @invariant()
    def nothing_is_left_of_what_is_gone(self) -> None:
        for table in ("messages", "contents"):
            (count,) = self.queue._connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert count == len({name.partition(".")[0] for name in self.model})


QueueMachine.TestCase.settings = settings(deadline=None, max_examples=30, stateful_step_count=25)
TestTheQueueIsItsModel = QueueMachine.TestCase
