"""That nothing asked in the course of work looks at the whole queue: query plans tell it, whatever else the machine
does meanwhile.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.store.support import NOW, deferred, envelope, message
from trimta.store.queue.queue import Queue
from trimta.store.queue.values import EnvelopeState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENVELOPES = 20_000
HOPS = 4_000


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    """20 000 envelopes for 4 000 destinations, deferred, as a copy of one row would be: the rows are made in SQL."""
    with Queue(tmp_path_factory.mktemp("var")) as queue:
        queue.accept(message("seed"), [envelope(domain="d0.test", next_try=NOW)])
        queue.settle("seed", now=NOW, next_try=NOW, deferred={0: deferred()})
        with queue.transaction():
            numbers = f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {ENVELOPES})"
            for table, columns in (
                ("messages", "i, 'm' || i, arrived + i, sender, fields, trace, size, lines, spooled"),
                ("contents", "i, data"),
                (
                    "envelopes",
                    f"i, 'm' || i, i, 1, 'd' || (i % {HOPS}) || '.test', 'd' || (i % {HOPS}) || '.test', state,"
                    " hold_reason, via, released, bounce, attempts, next_try + i, last_attempt, warn_at, warned,"
                    " deadline",
                ),
                ("recipients", "i, number, address, fields, last"),
            ):
                queue._connection.execute(f"INSERT INTO {table} {numbers} SELECT {columns} FROM {table}, n")
            queue._connection.execute(
                "INSERT OR REPLACE INTO destinations SELECT next_hop, min(next_try), 0, 0 FROM envelopes"
                " GROUP BY next_hop"
            )
        assert queue.repair.recover(NOW).set_aside == ()
        yield queue


def plans(queue: Queue, action: Callable[[], object]) -> list[str]:
    """The steps of the plans of all statements that an action executes."""
    statements: list[str] = []
    queue._connection.set_trace_callback(statements.append)
    action()
    queue._connection.set_trace_callback(None)
    found = []
    for statement in statements:
        if re.match(r"SELECT|INSERT|UPDATE|DELETE", statement.lstrip()):
            found += [row[3] for row in queue._connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert statements
    return found


def newcomers(queue: Queue) -> list[str]:
    """What came to a destination after it failed."""
    queue.destinations.defer("d7.test", NOW + 10, NOW + 1e7)
    return queue.due.envelopes("d7.test", NOW + 1e6, 5)


WORK: dict[str, Callable[[Queue], object]] = {
    "due destinations": lambda queue: queue.due.destinations(NOW + 1e6, 100, exclude={"d7.test"}),
    "newest due destinations": lambda queue: queue.due.destinations(NOW + 1e6, 100, newest_first=True),
    "due envelopes": lambda queue: queue.due.envelopes("d7.test", NOW + 1e6, 5),
    "newest due envelopes": lambda queue: queue.due.envelopes("d7.test", NOW + 1e6, 5, newest_first=True),
    "next due": lambda queue: queue.due.next_moment(NOW, exclude={"d1.test"}, busy={"d7.test"}),
    "due notices": lambda queue: queue.due.notices(NOW + 1e6, 10),
    "next notice": lambda queue: queue.due.next_notice(NOW),
    "claim": lambda queue: queue.claim("m77", NOW + 1e6),
    "accept": lambda queue: queue.accept(message("new"), [envelope(domain="d7.test")]),
    "settle": lambda queue: queue.settle("m78", now=NOW, next_try=NOW + 60, deferred={0: deferred()}),
    "done": lambda queue: queue.settle("m79", now=NOW, next_try=NOW, done=[0]),
    "defer a destination": lambda queue: queue.destinations.defer("d7.test", NOW, NOW + 60),
    "claim the next": lambda queue: queue.claim_next("d7.test", NOW + 1e6),
    "due newcomers": lambda queue: newcomers(queue),
    "split": lambda queue: queue.split("m89", [1], "d8.test"),
    "reroute": lambda queue: queue.reroute("m80", "d8.test"),
    "show": lambda queue: queue.entries.show("m81"),
    "retry": lambda queue: queue.operator.retry("m82", NOW),
    "retry a domain": lambda queue: queue.operator.retry_domain("d9.test", NOW),
    "hold": lambda queue: queue.operator.hold("m83"),
    "release": lambda queue: queue.operator.release("m83", NOW),
    "bounce": lambda queue: queue.operator.bounce("m84", NOW),
    "redirect": lambda queue: queue.operator.redirect("m85", [envelope(domain="d10.test")]),
    "remove": lambda queue: queue.remove("m86"),
    "list a domain": lambda queue: list(queue.entries.list_envelopes(domain="d11.test")),
    "read a log": lambda queue: queue.log.read("m87"),
    "append to a log": lambda queue: queue.log.append("m87", ["x"], NOW),
}


@pytest.mark.parametrize("name", WORK)
def test_work_looks_things_up(queue: Queue, name: str) -> None:
    for step in plans(queue, lambda: WORK[name](queue)):
        assert not re.match(r"SCAN (?!CONSTANT ROW)", step), step


FIRST: dict[str, Callable[[Queue], object]] = {
    "all": lambda queue: next(queue.entries.list_envelopes()),
    "a sender": lambda queue: next(queue.entries.list_envelopes(sender="alice@*")),
    "a recipient": lambda queue: next(queue.entries.list_envelopes(recipient="bob@*")),
    "queued": lambda queue: next(queue.entries.list_envelopes(state=EnvelopeState.QUEUED)),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_of_a_list_comes_without_sorting(queue: Queue, name: str) -> None:
    steps = plans(queue, lambda: FIRST[name](queue))
    assert steps[0].startswith("SEARCH e USING INTEGER PRIMARY KEY"), steps
    assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in steps), steps


def test_the_due_of_every_destination_is_right(queue: Queue) -> None:
    wrong = queue._connection.execute(
        "SELECT count(*) FROM destinations d WHERE due != max(not_before, (SELECT min(next_try) FROM envelopes e"
        " WHERE e.next_hop = d.next_hop AND state = 'queued'))"
    ).fetchone()
    assert wrong == (0,)
