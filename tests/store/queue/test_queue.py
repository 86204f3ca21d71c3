from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.store.support import ALICE, NOW, deferred, envelope, message, recipient
from trimta.content.dsn.report_form import ReportForm
from trimta.mail.address import Mailbox
from trimta.mail.body import BodyForm
from trimta.mail.envelope import BodyKind, ByMode, DeliverBy, Notify, OriginalRecipient, Recipient, Ret
from trimta.store import durable
from trimta.store.queue import message_log_table
from trimta.store.queue.errors import NoSuchEntry, QueueUnavailable
from trimta.store.queue.operator import BOUNCE_HOP
from trimta.store.queue.queue import Queue
from trimta.store.queue.sql_schema import FILE
from trimta.store.queue.values import EnvelopeState, NewEnvelope, QueuedEnvelope
from trimta.store.spool import MEMORY_LIMIT, Body, SpoolWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with Queue(tmp_path / "var") as queue:
        yield queue


def large(queue: Queue) -> Body:
    writer = SpoolWriter(queue.spool)
    for _ in range(5):
        writer.append(b"x" * (MEMORY_LIMIT // 4 - 1) + b"\n")
    return writer.finish()


def spooled(queue: Queue) -> list[str]:
    return sorted(path.name for path in queue.spool.iterdir()) if queue.spool.exists() else []


def loaded(queue: Queue, envelope_id: str) -> QueuedEnvelope:
    found = queue.entries.load(envelope_id)
    assert found is not None
    return found[1]


# Storing


def test_a_message_reads_back_as_it_was_stored(queue: Queue) -> None:
    stored = replace(
        message(
            "m1",
            b"a\r\nb\n\0",
            sender=Mailbox('a "b', "bücher.test"),
            body=BodyKind.BINARY,
            smtputf8=True,
            envid="QQ+314",
            ret=Ret.HEADERS,
            deliver_by=DeliverBy(NOW + 60, ByMode.RETURN, trace=True),
            hold_until=NOW + 5,
            hold_request="for;5",
        ),
        origin="127.0.0.1 (\udcff)",
        helo="\udcff",
        report=ReportForm.BRIEF,
    )
    to = (
        Recipient(
            address=Mailbox("bob", "far.test"),
            original=Mailbox("team", "dev.test"),
            notify=frozenset({Notify.DELAY, Notify.SUCCESS}),
            orcpt=OriginalRecipient("utf-8", "böb@far.test"),
        ),
        Recipient(address=Mailbox("x", "far.test"), original=Mailbox("x", "FAR.test"), notify=frozenset()),
    )
    new = NewEnvelope(
        domain="far.test",
        next_hop="127.0.0.1:25",
        recipients=to,
        next_try=NOW,
        via="smtp:h:25",
        attempts=1,
        last_attempt=NOW - 1,
        warn_at=NOW + 9,
        last_outcomes=(deferred("first", to=to[0]), deferred(to=to[1])),
    )
    assert queue.accept(stored, [new]) == stored
    found = queue.entries.load("m1")
    assert found is not None
    assert found[0] == stored
    queued = found[1]
    assert tuple(to.recipient for to in queued.recipients) == to
    assert [to.recipient.number for to in queued.recipients] == [0, 1]
    assert queued.recipients[0].last_outcome == deferred("first", to=to[0])
    assert queued.recipients[1].last_outcome == deferred(to=to[1])
    assert (queued.recipients[1].status, queued.recipients[1].reply) == ("4.3.0", "try again later")
    assert replace(queued, recipients=()) == QueuedEnvelope(
        id="m1",
        message_id="m1",
        number=1,
        domain="far.test",
        next_hop="127.0.0.1:25",
        state=EnvelopeState.QUEUED,
        hold_reason="",
        via="smtp:h:25",
        released=False,
        bounce=False,
        attempts=1,
        next_try=NOW,
        not_before=0.0,
        last_attempt=NOW - 1,
        warn_at=NOW + 9,
        warned=False,
        deadline=NOW + 60,
        recipients=(),
    )


def test_it_survives_closing(tmp_path: Path) -> None:
    with Queue(tmp_path) as queue:
        queue.accept(message("m1", sender=None), [envelope()])
    with Queue(tmp_path) as queue:
        found = queue.entries.load("m1")
        assert found is not None
        assert found[0].terms.reverse_path is None


def test_several_envelopes_are_numbered_and_one_has_the_messages_id(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(domain="a.test"), envelope(domain="b.test")])
    queue.accept(message("m2"), [envelope()])
    assert [listed.envelope.id for listed in queue.entries.list_envelopes()] == ["m1.1", "m1.2", "m2"]
    assert [one.id for one in queue.entries.show("m1")[1]] == ["m1.1", "m1.2"]
    assert [one.id for one in queue.entries.show("m1.2")[1]] == ["m1.2"]


def test_a_recipient_that_was_not_tried_has_no_outcome(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope("a", "b")])
    recipients = loaded(queue, "m1").recipients
    assert [(to.recipient.number, to.last_outcome, to.status, to.reply) for to in recipients] == [
        (0, None, "", ""),
        (1, None, "", ""),
    ]


@pytest.mark.parametrize("bad", ["", "a.1", "../x", "a b", "ä", "x" * 65])
def test_an_id_that_is_no_file_name_is_a_mistake_of_the_caller(queue: Queue, bad: str) -> None:
    with pytest.raises(ValueError, match="not a message id"):
        queue.accept(message(bad), [envelope()])


def test_a_message_without_envelopes_or_recipients_is_a_mistake_of_the_caller(queue: Queue) -> None:
    with pytest.raises(ValueError, match="needs"):
        queue.accept(message("m1"), [])
    with pytest.raises(ValueError, match="needs"):
        queue.accept(message("m1"), [replace(envelope(), recipients=())])


def test_files_are_private(queue: Queue, tmp_path: Path) -> None:
    queue.accept(message("m1", large(queue)), [envelope()])
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700
    for path in (tmp_path / "var").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


# Large bodies


def test_a_spooled_body_becomes_the_messages_file_and_leaves_with_it(queue: Queue) -> None:
    body = large(queue)
    content = body.read()
    stored = queue.accept(message("m1", body), [envelope(domain="a.test"), envelope(domain="b.test")])
    assert spooled(queue) == ["m1"]
    assert stored.content.read() == content
    body.discard()
    queue.remove("m1.1")
    assert queue.entries.show("m1")[0].content.read() == content
    queue.remove("m1")
    assert spooled(queue) == []


def test_the_file_and_its_name_are_on_the_disk_before_the_commit(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    queue._connection.set_trace_callback(lambda statement: happened.append(statement.split()[0]))
    rename, sync, fsync = durable.rename, durable.fsync_dir, durable.fsync
    body = large(queue)

    def record_fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            happened.append("fsync")
        fsync(descriptor)

    def record_rename(source: Path, target: Path) -> None:
        happened.append("rename")
        rename(source, target)

    def record_sync(path: Path) -> None:
        happened.append(f"sync {path.name}")
        sync(path)

    monkeypatch.setattr(durable, "fsync", record_fsync)
    monkeypatch.setattr(durable, "rename", record_rename)
    monkeypatch.setattr(durable, "fsync_dir", record_sync)
    queue.accept(message("m1", body), [envelope()])
    assert happened.index("fsync") < happened.index("rename") < happened.index("sync spool") < happened.index("COMMIT")


def test_large_content_in_memory_is_spooled_as_well(queue: Queue) -> None:
    content = b"x" * (MEMORY_LIMIT + 1)
    stored = queue.accept(message("m1", content), [envelope()])
    assert spooled(queue) == ["m1"]
    assert stored.content.read() == content


@pytest.mark.parametrize("size", [10, MEMORY_LIMIT + 1])
def test_a_raw_body_is_raw_again_when_it_is_loaded(queue: Queue, size: int) -> None:
    queue.accept(message("m1", b"\0" * size, body=BodyKind.BINARY), [envelope()])
    found = queue.entries.load("m1")
    assert found is not None
    assert found[0].content.form is BodyForm.RAW


def test_small_content_in_a_file_stays_a_file(queue: Queue) -> None:
    writer = SpoolWriter(queue.spool, threshold=3)
    writer.append(b"small")
    queue.accept(message("m1", writer.finish()), [envelope()])
    assert spooled(queue) == ["m1"]
    assert queue.entries.show("m1")[0].content.read() == b"small"


def test_a_body_whose_message_was_refused_is_as_it_was(queue: Queue) -> None:
    body = large(queue)
    before = body.read()

    def refused(queue: Queue) -> None:
        queue.accept(message("m1", body), [envelope()])
        queue.accept(message("m3", b"x" * (MEMORY_LIMIT + 1)), [envelope()])
        raise RuntimeError("no")

    (answer, fine) = queue.run([refused, lambda queue: queue.accept(message("m2"), [envelope()])])
    assert isinstance(answer, RuntimeError)
    assert not isinstance(fine, Exception)
    assert body.read() == before
    body.discard()
    assert spooled(queue) == []


def test_a_body_whose_file_is_gone_is_refused(queue: Queue) -> None:
    body = large(queue)
    body.discard()
    with pytest.raises(QueueUnavailable, match="No such file"):
        queue.accept(message("m1", body), [envelope()])
    assert queue.entries.count() == 0


# Group commit


def test_a_failing_operation_fails_alone(queue: Queue) -> None:
    def halfway(queue: Queue) -> str:
        queue.accept(message("m2"), [envelope()])
        raise LookupError("half done")

    answers = queue.run(
        [
            lambda queue: queue.accept(message("m1"), [envelope()]).id,
            halfway,
            lambda queue: queue.accept(message("m1"), [envelope()]).id,
            lambda queue: queue.accept(message("m3"), [envelope()]).id,
        ]
    )
    assert answers[0] == "m1"
    assert isinstance(answers[1], LookupError)
    assert isinstance(answers[2], QueueUnavailable)
    assert answers[3] == "m3"
    assert [listed.envelope.id for listed in queue.entries.list_envelopes()] == ["m1", "m3"]


def test_a_transaction_that_sqlite_has_undone_is_nobodys_even_where_an_operation_hides_it(queue: Queue) -> None:
    def undone(queue: Queue) -> None:  # as an I/O error in a SELECT does, of which the operation says nothing
        queue._connection.execute("ROLLBACK")

    answers = queue.run(
        [
            lambda queue: queue.accept(message("m1"), [envelope()]),
            undone,
            lambda queue: queue.accept(message("m2"), [envelope()]),
        ]
    )
    assert all(isinstance(answer, QueueUnavailable) for answer in answers)
    assert queue.entries.count() == 0
    queue.accept(message("m3"), [envelope()])


def test_a_batch_is_one_commit(queue: Queue) -> None:
    statements: list[str] = []
    queue._connection.set_trace_callback(statements.append)
    queue.run([lambda queue, n=n: queue.accept(message(f"m{n}"), [envelope()]) for n in range(5)])  # type: ignore[misc]
    assert statements.count("COMMIT") == 1


def test_a_full_disk_fails_all_and_changes_nothing(queue: Queue) -> None:
    queue.accept(message("m0"), [envelope()])
    body = large(queue)
    (pages,) = queue._connection.execute("PRAGMA page_count").fetchone()
    queue._connection.execute(f"PRAGMA max_page_count = {pages + 8}")
    answers = queue.run(
        [
            lambda queue: queue.accept(message("m1", body), [envelope()]),
            lambda queue: queue.accept(message("m2", b"x" * 100_000), [envelope()]),
        ]
    )
    assert isinstance(answers[1], QueueUnavailable)
    assert "full" in str(answers[1])
    survivors = [listed.envelope.id for listed in queue.entries.list_envelopes()]
    assert survivors == (["m0"] if isinstance(answers[0], Exception) else ["m0", "m1"])
    queue._connection.execute("PRAGMA max_page_count = 1000000")
    queue.accept(message("m3"), [envelope()])


def test_a_commit_that_fails_is_everybodys_answer_and_gives_files_back(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = large(queue)

    def broken(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "fsync_dir", broken)
        answers = queue.run(
            [
                lambda queue: queue.accept(message("m1", body), [envelope()]),
                lambda queue: queue.accept(message("m2"), [envelope()]),
            ]
        )
    assert all(isinstance(answer, QueueUnavailable) for answer in answers)
    assert queue.entries.count() == 0
    assert body.read()
    queue.accept(message("m1", body), [envelope()])


def test_several_operations_are_one_in_a_transaction(queue: Queue) -> None:
    def both() -> None:
        with queue.transaction():
            queue.accept(message("m1"), [envelope()])
            queue.remove("m9")

    with pytest.raises(NoSuchEntry):
        both()
    assert queue.entries.count() == 0


# What is due


def test_what_is_due_comes_in_order_of_due(queue: Queue) -> None:
    for number, (hop, due) in enumerate([("a", 30.0), ("b", 10.0), ("a", 20.0), ("c", 50.0)]):
        queue.accept(message(f"m{number}"), [envelope(next_hop=hop, next_try=due)])
    assert queue.due.destinations(40, 10) == [("b", 10.0), ("a", 20.0)]
    assert queue.due.destinations(60, 2, newest_first=True) == [("c", 50.0), ("a", 20.0)]
    assert queue.due.destinations(60, 1, exclude={"b"}) == [("a", 20.0)]
    assert queue.due.destinations(5, 10) == []
    assert queue.due.envelopes("a", 40, 10) == ["m2", "m0"]
    assert queue.due.envelopes("a", 40, 10, newest_first=True) == ["m0", "m2"]
    assert queue.due.envelopes("a", 40, 1, exclude={"m2"}) == ["m0"]
    assert queue.due.envelopes("a", 20, 10) == ["m2"]


def test_the_next_moment_is_after_now_and_counts_what_is_behind_a_busy_destination(queue: Queue) -> None:
    for number, (hop, due) in enumerate([("a", 10.0), ("a", 25.0), ("b", 40.0), ("c", 30.0)]):
        queue.accept(message(f"m{number}"), [envelope(next_hop=hop, next_try=due)])
    assert queue.due.next_moment(5) == 10
    assert queue.due.next_moment(10) == 30
    assert queue.due.next_moment(10, busy=["a"]) == 25
    assert queue.due.next_moment(10, busy=["a"], exclude=["a", "c"]) == 40
    assert queue.due.next_moment(40) is None


def test_a_deferred_destination_keeps_its_envelopes_waiting_without_an_attempt(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(next_hop="a")])
    queue.accept(message("m2"), [envelope(next_hop="b")])
    queue.accept(message("m3"), [envelope(next_hop="a")])
    queue.destinations.defer("a", NOW, NOW + 60)
    assert queue.due.destinations(NOW, 10) == [("b", NOW)]
    assert queue.due.envelopes("a", NOW, 10) == []
    assert queue.claim("m1", NOW) is None
    assert queue.due.next_moment(NOW) == NOW + 60
    assert loaded(queue, "m1").due == NOW + 60
    assert loaded(queue, "m1").attempts == 0
    assert queue.due.destinations(NOW + 60, 10) == [("b", NOW), ("a", NOW + 60)]
    assert queue.due.envelopes("a", NOW + 60, 10) == ["m1", "m3"]
    queue.operator.retry("m1", NOW + 1)
    assert queue.due.envelopes("a", NOW + 1, 10) == ["m1", "m3"]


def test_who_comes_after_the_failure_of_a_destination_has_its_first_try_at_once(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(next_hop="a")])
    queue.settle("m1", now=NOW, next_try=NOW + 50, deferred={0: deferred()})
    queue.destinations.defer("a", NOW, NOW + 60)
    queue.accept(message("m2"), [envelope(next_hop="a", next_try=NOW + 1)])
    queue.accept(message("m3"), [envelope(next_hop="a", next_try=NOW + 1, attempts=1)])
    assert queue.due.next_moment(NOW) == NOW + 1
    assert queue.due.destinations(NOW + 1, 10) == [("a", NOW + 1)]
    assert queue.due.envelopes("a", NOW + 1, 10) == ["m2"]
    found = queue.claim_next("a", NOW + 1)
    assert found is not None
    assert found[1].id == "m2"
    assert queue.claim_next("a", NOW + 1, exclude={"m2"}) is None
    assert queue.due.next_moment(NOW + 1, busy=["a"]) == NOW + 50
    queue.settle("m2", now=NOW + 2, next_try=NOW + 55, deferred={0: deferred()})
    queue.destinations.defer("a", NOW + 2, NOW + 62)
    assert queue.due.envelopes("a", NOW + 61, 10) == []
    assert queue.due.next_moment(NOW + 2) == NOW + 62
    assert queue.due.envelopes("a", NOW + 62, 10) == ["m3", "m1", "m2"]


def test_recipients_that_no_longer_go_the_same_way_get_an_envelope_of_their_own(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope("a", "b", "c", next_hop="x", attempts=1)])
    assert queue.split("m1", [1, 2], "y") == "m1.2"
    assert [to.recipient.number for to in loaded(queue, "m1").recipients] == [0]
    moved = loaded(queue, "m1.2")
    assert [to.recipient.number for to in moved.recipients] == [1, 2]
    assert (moved.next_hop, moved.domain, moved.attempts, moved.next_try) == ("y", loaded(queue, "m1").domain, 1, NOW)
    assert {hop for hop, _ in queue.due.destinations(NOW, 10)} == {"x", "y"}
    assert queue.split("gone", [1], "y") is None


def test_a_claim_is_for_what_is_queued_and_due(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(next_try=NOW + 1)])
    assert queue.claim("m1", NOW) is None
    assert queue.claim("m1", NOW + 1) is not None
    queue.operator.hold("m1")
    assert queue.claim("m1", NOW + 1) is None
    queue.remove("m1")
    assert queue.claim("m1", NOW + 1) is None


def test_another_next_hop_moves_it(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(next_hop="a")])
    queue.reroute("m1", "b")
    queue.reroute("m1", "b")
    queue.reroute("m9", "b")
    assert queue.due.destinations(NOW, 10) == [("b", NOW)]


def by(mode: ByMode, deadline: float = NOW + 10) -> DeliverBy:
    return DeliverBy(deadline, mode)


def test_a_warning_falls_due_once_whenever_the_next_try_is(queue: Queue) -> None:
    for number, warn_at in enumerate([NOW + 20, None, NOW + 10, NOW + 30]):
        queue.accept(message(f"m{number}"), [replace(envelope(next_try=NOW + 99), warn_at=warn_at)])
    assert queue.due.next_notice(NOW) == NOW + 10
    assert queue.due.next_notice(NOW + 10) == NOW + 20
    assert queue.due.notices(NOW + 9, 10) == []
    assert queue.due.notices(NOW + 25, 10) == [("m2", False), ("m0", False)]
    assert queue.due.notices(NOW + 25, 1, exclude={"m2"}) == [("m0", False)]
    queue.settle("m2", now=NOW + 25, attempted=False, warned=True)
    assert (loaded(queue, "m2").next_try, loaded(queue, "m2").attempts) == (NOW + 99, 0)
    queue.operator.hold("m0")
    assert queue.due.notices(NOW + 25, 10) == []
    assert queue.due.next_notice(NOW + 30) is None


def test_a_deadline_falls_due_once_held_or_not_and_beside_the_warning(queue: Queue) -> None:
    for mode in ByMode:
        stored = message(mode.name, deliver_by=by(mode))
        queue.accept(stored, [replace(envelope(next_try=NOW + 99), warn_at=NOW + 5)])
        queue.operator.hold(mode.name)
    assert queue.due.next_notice(NOW) == NOW + 10
    assert queue.due.notices(NOW + 9, 10) == []
    assert queue.due.notices(NOW + 10, 10) == [("NOTIFY", False), ("RETURN", False)]
    queue.operator.release("RETURN", NOW + 6)
    queue.settle("RETURN", now=NOW + 7, next_try=NOW + 99, attempted=False, warned=True)
    assert queue.due.notices(NOW + 10, 10) == [("NOTIFY", False), ("RETURN", False)]
    queue.settle("NOTIFY", now=NOW + 10, attempted=False, answered=True)
    queue.settle("RETURN", now=NOW + 10, attempted=False, answered=True)
    assert queue.due.notices(NOW + 99, 10) == []


@pytest.mark.parametrize(
    ("mode", "sender", "has_one"),
    [(mode, sender, mode is ByMode.RETURN or sender is not None) for mode in ByMode for sender in (ALICE, None)],
)
def test_a_deadline_is_kept_where_it_has_a_consequence(
    queue: Queue, mode: ByMode, sender: Mailbox | None, *, has_one: bool
) -> None:
    queue.accept(message("m1", sender=sender, deliver_by=by(mode)), [envelope(), envelope(domain="b.test")])
    assert loaded(queue, "m1.2").deadline == (NOW + 10 if has_one else None)
    queue.split("m1.1", [0], "elsewhere")
    (new,) = queue.operator.redirect("m1.2", [envelope()])
    assert loaded(queue, new).deadline == (NOW + 10 if has_one else None)


@pytest.mark.parametrize(
    ("attempts", "next_try", "spared", "first"),
    [
        (0, NOW + 5, False, True),
        (0, NOW + 11, False, False),
        (1, NOW + 5, False, True),
        (1, NOW + 5, True, False),  # its destination is left alone: nobody tries it now
        (0, NOW - 5, True, False),
        (0, NOW + 5, True, True),  # it came later than the failure, hence it is tried at once
    ],
)
def test_a_notice_says_whether_the_envelope_is_to_be_tried_as_well(
    queue: Queue, attempts: int, next_try: float, *, spared: bool, first: bool
) -> None:
    new = replace(envelope(next_try=next_try, attempts=attempts), warn_at=NOW + 10)
    queue.accept(message("m1"), [new])
    if spared:
        queue.destinations.defer("far.test", NOW, NOW + 30)
    assert queue.due.notices(NOW + 10, 10) == [("m1", first)]


# Settling


def test_what_is_done_leaves_and_the_rest_waits(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope("a", "b", "c")])
    assert queue.settle("m1", now=NOW + 5, next_try=NOW + 60, done=[0, 2], deferred={1: deferred()}, warned=True)
    left = loaded(queue, "m1")
    assert [(to.recipient.number, to.reply) for to in left.recipients] == [(1, "try again later")]
    assert (left.attempts, left.next_try, left.last_attempt, left.warned) == (1, NOW + 60, NOW + 5, True)
    assert queue.due.destinations(NOW + 59, 10) == []
    assert queue.settle("m1", now=NOW + 61, next_try=NOW + 90, attempted=False)
    left = loaded(queue, "m1")
    assert (left.attempts, left.last_attempt, left.warned) == (1, NOW + 5, True)
    assert queue.settle("m1", now=NOW + 99, next_try=0, done=[1])
    assert queue.entries.load("m1") is None
    assert queue.due.next_moment(0) is None
    with pytest.raises(NoSuchEntry):
        queue.entries.show("m1")


def test_a_dsn_is_stored_with_the_outcome_or_neither_is(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope()])
    dsn = (message("d1", sender=None), [envelope("alice", domain="dev.test")])
    with pytest.raises(ValueError, match="needs an envelope"):
        queue.settle("m1", now=NOW, next_try=NOW, done=[0], new=[dsn, (message("d2"), [])])
    assert loaded(queue, "m1").attempts == 0
    queue.settle("m1", now=NOW, next_try=NOW, done=[0], new=[dsn])
    assert [listed.envelope.id for listed in queue.entries.list_envelopes()] == ["d1"]


def test_settling_what_was_removed_meanwhile_does_nothing(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope()])
    queue.remove("m1")
    assert not queue.settle("m1", now=NOW, next_try=NOW, done=[0], new=[(message("d1"), [envelope()])])
    assert queue.entries.count() == 0


def test_what_the_operator_held_meanwhile_stays_held(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope()])
    queue.operator.hold("m1")
    queue.settle("m1", now=NOW, next_try=NOW + 60, deferred={0: deferred()}, hold="egress")
    left = loaded(queue, "m1")
    assert (left.state, left.hold_reason, left.attempts) == (EnvelopeState.HELD, "by the operator", 1)


def test_what_is_held_by_an_attempt_says_why(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope()])
    queue.settle("m1", now=NOW, next_try=NOW, hold="egress: mx.far.test [192.0.2.1]")
    assert (loaded(queue, "m1").state, loaded(queue, "m1").hold_reason) == (
        EnvelopeState.HELD,
        "egress: mx.far.test [192.0.2.1]",
    )
    assert queue.due.destinations(NOW + 1, 10) == []


# The operator's verbs


def test_retry_makes_queued_ones_due_and_leaves_held_ones_alone(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(domain=name, next_try=NOW + 60) for name in ("a.test", "b.test")])
    queue.accept(message("m2"), [envelope(domain="a.test", next_try=NOW + 60)])
    queue.operator.hold("m1.2")
    assert queue.operator.retry("m1", NOW) == ("m1.1",)
    assert queue.due.destinations(NOW, 10) == [("a.test", NOW)]
    assert queue.due.envelopes("a.test", NOW, 10) == ["m1.1"]
    assert loaded(queue, "m1.2").state is EnvelopeState.HELD
    with pytest.raises(NoSuchEntry, match="m9"):
        queue.operator.retry("m9", NOW)


def test_a_retry_does_not_postpone_what_is_due(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(next_try=NOW - 60)])
    assert queue.operator.retry("m1", NOW) == ("m1",)
    assert loaded(queue, "m1").next_try == NOW - 60


def test_an_attempt_under_way_does_not_postpone_what_the_operator_sends_another_way(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(next_try=NOW)])
    queue.operator.hold("m1")
    queue.operator.release("m1", NOW + 1, via="discard", next_hop="discard")
    queue.settle("m1", now=NOW + 2, next_try=NOW + 60, claimed=NOW, deferred={0: deferred()})
    assert loaded(queue, "m1").next_try == NOW + 1
    queue.settle("m1", now=NOW + 3, next_try=NOW + 90, claimed=NOW + 1, deferred={0: deferred()})
    assert loaded(queue, "m1").next_try == NOW + 90


def test_retry_of_a_domain_and_of_everything(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimta.store.queue.operator._RETRY_CHUNK", 2)
    for number in range(5):
        queue.accept(message(f"m{number}"), [envelope(domain=f"{number % 2}.test", next_try=NOW + 60)])
    queue.destinations.defer("1.test", NOW + 60, NOW + 90)
    queue.operator.hold("m4")
    assert queue.operator.retry_domain("1.test", NOW) == 2
    assert queue.due.destinations(NOW, 10) == [("1.test", NOW)]
    assert queue.operator.retry_all(NOW) == 4
    assert [hop for hop, _ in queue.due.destinations(NOW, 10)] == ["0.test", "1.test"]


def test_retry_of_a_domain_and_those_below_it(queue: Queue) -> None:
    for number, domain in enumerate(["far.test", "a.far.test", "b.a.far.test", "nofar.test", "test"]):
        queue.accept(message(f"m{number}"), [envelope(domain=domain, next_try=NOW + 60)])
    assert queue.operator.retry_domain("far.test", NOW, subdomains=True) == 3
    assert {hop for hop, _ in queue.due.destinations(NOW, 10)} == {"far.test", "a.far.test", "b.a.far.test"}


def test_hold_and_release(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(domain="a.test"), envelope(domain="b.test", state=EnvelopeState.HELD)])
    assert queue.operator.hold("m1") == ("m1.1",)
    assert queue.operator.hold("m1") == ()
    assert queue.due.destinations(NOW, 10) == []
    assert queue.entries.count(EnvelopeState.HELD) == 2
    assert queue.operator.release("m1.2", NOW + 3, via="smtp:127.0.0.1:26", next_hop="127.0.0.1:26") == ("m1.2",)
    left = loaded(queue, "m1.2")
    assert (left.state, left.via, left.released, left.hold_reason, left.next_try) == (
        EnvelopeState.QUEUED,
        "smtp:127.0.0.1:26",
        True,
        "",
        NOW + 3,
    )
    assert queue.due.destinations(NOW + 3, 10) == [("127.0.0.1:26", NOW + 3)]
    assert queue.operator.release("m1.2", NOW) == ()
    assert queue.operator.release("m1", NOW) == ("m1.1",)


def test_a_bounced_envelope_is_due_whatever_keeps_its_destination(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(next_hop="a", next_try=NOW + 60)])
    queue.operator.hold("m1")
    queue.destinations.defer("a", NOW, NOW + 90)
    assert queue.operator.bounce("m1", NOW) == ("m1",)
    assert queue.due.destinations(NOW, 10) == [(BOUNCE_HOP, NOW)]
    queue.settle("m1", now=NOW, next_try=NOW + 60, deferred={0: deferred()}, hold="egress")
    found = queue.claim("m1", NOW)
    assert found is not None
    assert found[1].bounce


def test_a_redirected_envelope_is_another_one(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(domain="a.test"), envelope(domain="b.test")])
    queue.operator.hold("m1")
    assert queue.operator.redirect("m1.1", [envelope("carol", domain="c.test")]) == ("m1.3",)
    assert not queue.settle("m1.1", now=NOW, next_try=NOW, done=[0])
    assert [one.id for one in queue.entries.show("m1")[1]] == ["m1.2", "m1.3"]
    assert loaded(queue, "m1.3").released
    assert loaded(queue, "m1.3").recipients[0].recipient == recipient("carol", "c.test")
    assert queue.due.destinations(NOW, 10) == [("c.test", NOW)]
    with pytest.raises(NoSuchEntry):
        queue.operator.redirect("m1.1", [envelope()])


def test_redirecting_the_only_envelope_keeps_the_message(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope()])
    assert queue.operator.redirect("m1", [envelope("carol"), envelope("dave")]) == ("m1.2", "m1.3")
    assert [one.id for one in queue.entries.show("m1")[1]] == ["m1.2", "m1.3"]


def test_a_redirected_envelope_has_no_id_that_was_there_before(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(domain="a.test"), envelope(domain="b.test")])
    assert queue.operator.redirect("m1.1", [envelope("carol")]) == ("m1.3",)
    queue.remove("m1.3")
    assert queue.operator.redirect("m1.2", [envelope("carol")]) == ("m1.4",)


def test_a_split_envelope_has_no_id_that_was_there_before(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope("alice", "bob", "carol")])
    assert queue.split("m1", [1], "y") == "m1.2"
    queue.remove("m1.2")
    assert queue.split("m1", [2], "z") == "m1.3"


def test_remove_takes_the_message_with_the_last_envelope(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(domain="a.test"), envelope(domain="b.test")])
    assert queue.remove("m1.1") == ("m1.1",)
    assert queue.remove("m1") == ("m1.2",)
    for table in ("messages", "contents", "envelopes", "recipients", "destinations"):
        assert queue._connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    with pytest.raises(NoSuchEntry):
        queue.remove("m1")


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, ["m1.1", "m1.2", "m2", "m3"]),
        ({"domain": "a.test"}, ["m1.1", "m2"]),
        ({"state": EnvelopeState.HELD}, ["m2"]),
        ({"sender": "<>"}, ["m2"]),
        ({"sender": "ALICE@dev.test"}, ["m1.1", "m1.2"]),
        ({"sender": "*@[127.0.0.1]"}, []),
        ({"sender": "x@[127.0.0.1]"}, ["m3"]),
        ({"recipient": "b*@b.test"}, ["m1.2"]),
        ({"recipient": "carol@a.test", "domain": "a.test"}, ["m2"]),
        ({"recipient": "carol@b.test", "domain": "a.test"}, []),
    ],
)
def test_list_filters(queue: Queue, filters: dict[str, str], ids: list[str]) -> None:
    queue.accept(message("m1", sender=Mailbox("Alice", "dev.test")), [envelope(domain=d) for d in ("a.test", "b.test")])
    queue.accept(message("m2", sender=None), [envelope("bob", "carol", domain="a.test", state=EnvelopeState.HELD)])
    queue.accept(message("m3", sender=Mailbox("x", "[127.0.0.1]")), [envelope("dan", domain="c.test")])
    listed = list(queue.entries.list_envelopes(**filters))  # type: ignore[arg-type]
    assert [one.envelope.id for one in listed] == ids


def test_a_list_has_what_the_operator_wants_to_know(queue: Queue) -> None:
    queue.accept(message("m1", b"a\nb\n"), [envelope()])
    queue.accept(message("m2", b"a\r\nb\r\n", body=BodyKind.BINARY), [envelope()])
    first, second = queue.entries.list_envelopes()
    assert (first.size, first.arrived, first.reverse_path) == (6, NOW, ALICE)
    assert second.size == 6
    assert first.envelope == loaded(queue, "m1")


def test_a_list_goes_on_while_the_queue_changes(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimta.store.queue.entries._WINDOW", 2)
    for number in range(6):
        queue.accept(message(f"m{number}"), [envelope()])
    seen = []
    for listed in queue.entries.list_envelopes():
        seen.append(listed.envelope.id)
        if listed.envelope.id == "m1":
            queue.remove("m0")
            queue.remove("m3")
    assert seen == ["m0", "m1", "m2", "m4", "m5"]


def test_counts_per_domain(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope(domain="b.test"), envelope(domain="a.test"), envelope(domain="b.test")])
    assert list(queue.entries.count_by_domain().items()) == [("b.test", 2), ("a.test", 1)]
    assert queue.entries.count() == 3


# Log and meta


def test_a_log_outlives_its_message(queue: Queue) -> None:
    queue.accept(message("m1"), [envelope()])
    queue.log.append("m1", ["one", "two\udcff"], NOW)
    queue.log.append("m2", ["other"], NOW)
    queue.remove("m1")
    queue.log.append("m1", ["three"], NOW + 1)
    assert queue.log.read("m1") == [(NOW, "one"), (NOW, "two\\udcff"), (NOW + 1, "three")]
    assert queue.log.read("m9") == []


def test_each_line_of_a_log_has_its_time(queue: Queue) -> None:
    queue.log.append_timed(
        "m1", [(NOW + 1, "C: EHLO x"), (NOW + 1.25, "S: 250 y"), (NOW + 61, "C: 7\tz"), (NOW, "old")]
    )
    queue.log.append("m1", ["connect"], NOW + 0.5)
    queue.log.append_timed("m1", [])
    assert queue.log.read("m1") == [
        (NOW, "old"),
        (NOW + 0.5, "connect"),
        (NOW + 1, "C: EHLO x"),
        (NOW + 1.25, "S: 250 y"),
        (NOW + 61, "C: 7\tz"),
    ]


def test_of_a_log_that_is_too_long_each_line_keeps_its_time(queue: Queue) -> None:
    lines = [(NOW + number, f"{number}\t" + "x" * 500) for number in range(100)]
    queue.log.append_timed("m1", lines)
    found = queue.log.read("m1")
    assert found[0] == lines[0]
    assert found[-1] == lines[-1]
    assert len(found) < 40
    (gap,) = [number for number, (_, line) in enumerate(found) if line.endswith(" more characters]")]
    assert [line for line in found[: gap - 1] if line not in lines] == []
    assert found[gap + 2 :] == lines[-len(found[gap + 2 :]) :]
    at, rest = found[gap + 1]
    assert lines[round(at - NOW)][1].endswith(rest)
    assert found == sorted(found, key=lambda line: line[0])


def test_a_log_of_an_earlier_release_is_read(queue: Queue) -> None:
    queue._connection.execute("INSERT INTO log (message, at, text) VALUES ('m1', ?, 'C: EHLO x\nS: 250 y')", (NOW,))
    assert queue.log.read("m1") == [(NOW, "C: EHLO x"), (NOW, "S: 250 y")]


def test_a_log_is_bounded_and_keeps_its_beginning_and_its_end(queue: Queue) -> None:
    queue.log.append("m1", ["beginning"], NOW)
    for number in range(300):
        queue.log.append("m1", [f"{number} " + "x" * 1000], NOW + number)
    lines = queue.log.read("m1")
    assert lines[0] == (NOW, "beginning")
    assert lines[-1][1].startswith("299 ")
    assert (
        0.9 * message_log_table.MESSAGE_LIMIT < sum(len(text) for _, text in lines) <= message_log_table.MESSAGE_LIMIT
    )
    queue.log.append("m2", ["y" * 1_000_000], NOW)
    assert sum(len(text) for _, text in queue.log.read("m2")) < message_log_table.APPEND_LIMIT + 50


def test_old_log_rows_are_pruned_little_by_little(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    with queue.transaction():
        for number in range(200):
            queue.log.append(f"m{number}", ["old"], NOW)
        for number in range(200):
            queue.log.append(f"n{number}", ["new"], NOW + message_log_table.MAX_AGE + 1)
    assert queue.log.read("m0") == queue.log.read("m199") == []
    assert queue.log.read("n0") != []
    monkeypatch.setattr(message_log_table, "MAX_ROWS", 50)
    with queue.transaction():
        for number in range(200):
            queue.log.append(f"p{number}", ["newer"], NOW + message_log_table.MAX_AGE + 2)
    (count,) = queue._connection.execute("SELECT count(*) FROM log").fetchone()
    assert count <= 50 + message_log_table.PRUNE_EVERY


def test_meta_values(tmp_path: Path) -> None:
    with Queue(tmp_path) as queue:
        assert queue.meta.get("clock") is None
        queue.meta.set("clock", "1")
        queue.meta.set("clock", "2.5")
    with Queue(tmp_path) as queue:
        assert queue.meta.get("clock") == "2.5"
    assert (tmp_path / FILE).exists()
