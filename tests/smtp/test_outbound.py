"""Transactions, seen from the sending side: what is said in which order, and what becomes of each recipient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import (
    BodyKind,
    ByMode,
    DeliverBy,
    Envelope,
    Notify,
    OriginalRecipient,
    Recipient,
    Ret,
    Terms,
)
from trimta.mail.outcome import Deferred, Delivered, Failed, Handover, PeerReply
from trimta.mail.reply import Reply
from trimta.smtp.errors import LocalProtocolError, ProtocolError
from trimta.smtp.extensions import Offered
from trimta.smtp.outbound import CHUNK, WINDOW, OutboundTransaction
from trimta.smtp.outbound_commands import ContentFacts
from trimta.smtp.outbound_steps import ReadReply, SendChunk, SendCommand, SendData
from trimta.smtp.rendering import render_command
from trimta.smtp.reply_reader import ReplyReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimta.mail.outcome import Outcome

FACTS = ContentFacts(size=100)


def recipients(*addresses: str, **options: Any) -> tuple[Recipient, ...]:
    found = [parse_mailbox(address) for address in addresses]
    return tuple(Recipient(address=address, original=address, **options) for address in found)


def envelope(*addresses: str, sender: str | None = "me@here.test", **options: Any) -> Envelope:
    to = recipients(*(addresses or ("a@x.test",)))
    return Envelope(terms=Terms(reverse_path=parse_mailbox(sender) if sender else None, **options), recipients=to)


def offering(*lines: str) -> Offered:
    return Offered.parse(Reply(250, ("mx.x.test", *lines)))


def reply(text: str) -> Reply:
    reader = ReplyReader()
    reader.feed(text.encode() + b"\r\n")
    found = reader.next()
    assert found is not None
    return found


@dataclass
class Played:
    """What a transaction did: `> command`, `> (content)`, `< stage` in order."""

    log: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def play(transaction: OutboundTransaction, replies: Sequence[str]) -> Played:
    """Run a transaction against these replies; when they run out, the connection is lost."""
    played = Played()
    waiting = list(replies)
    while (step := transaction.next_step()) is not None:
        match step:
            case SendCommand(command, smtputf8):
                text = render_command(command, smtputf8=smtputf8).decode().rstrip()
                played.commands.append(text)
                played.log.append(f"> {text.split(' ')[0]}")
            case SendData(count, empty):
                transaction.sending_end()
                played.log.append(f"> {'.' if empty else 'content.'} {count}")
            case SendChunk(size, last, count):
                if last:
                    transaction.sending_end()
                played.log.append(f"> ({size}{' LAST' if last else ''}) {count}")
            case ReadReply(stage):
                played.log.append(f"< {stage}")
                if not waiting:
                    transaction.lost("connection lost")
                    break
                transaction.reply(reply(waiting.pop(0)))
    assert not waiting, "replies that were not asked for"
    return played


def verdicts(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {str(outcome.recipient.address): f"{type(outcome).__name__} {outcome.status}" for outcome in outcomes}


PIPELINING = offering("PIPELINING")
BARE = offering()


# The order of things.


@pytest.mark.parametrize(
    ("offered", "log"),
    [
        (
            BARE,
            ["> MAIL", "< mail", "> RCPT", "< rcpt", "> RCPT", "< rcpt", "> DATA", "< data", "> content. 1", "< body"],
        ),
        (
            PIPELINING,
            ["> MAIL", "> RCPT", "> RCPT", "> DATA", "< mail", "< rcpt", "< rcpt", "< data", "> content. 1", "< body"],
        ),
        (
            offering("PIPELINING", "CHUNKING"),
            ["> MAIL", "> RCPT", "> RCPT", "< mail", "< rcpt", "< rcpt", "> BDAT", "> (100 LAST) 0", "< body"],
        ),
        (
            offering("CHUNKING"),
            ["> MAIL", "< mail", "> RCPT", "< rcpt", "> RCPT", "< rcpt", "> BDAT", "> (100 LAST) 0", "< body"],
        ),
    ],
)
def test_commands_go_in_groups_as_pipelining_allows(offered: Offered, log: list[str]) -> None:
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test"), FACTS, offered)
    go_ahead = [] if offered.chunking else ["354 go"]
    played = play(transaction, ["250 ok", "250 ok", "250 ok", *go_ahead, "250 2.0.0 done"])
    assert played.log == log
    assert verdicts(transaction.outcomes) == {"a@x.test": "Delivered 2.0.0", "b@x.test": "Delivered 2.0.0"}
    assert not transaction.must_reset


def test_large_content_goes_in_chunks_each_with_its_reply() -> None:
    transaction = OutboundTransaction(envelope(), ContentFacts(size=2 * CHUNK + 5), offering("PIPELINING", "CHUNKING"))
    played = play(transaction, ["250 ok"] * 5)
    assert played.log[4:] == [
        *("> BDAT", f"> ({CHUNK}) 0", "< chunk"),
        *("> BDAT", f"> ({CHUNK}) 0", "< chunk"),
        *("> BDAT", "> (5 LAST) 0", "< body"),
    ]


def test_a_refused_chunk_is_the_last() -> None:
    transaction = OutboundTransaction(envelope(), ContentFacts(size=2 * CHUNK), offering("PIPELINING", "CHUNKING"))
    play(transaction, ["250 ok", "250 ok", "552 5.3.4 too much"])
    assert verdicts(transaction.outcomes) == {"a@x.test": "Failed 5.3.4"}
    assert transaction.must_reset


def test_no_more_than_a_window_is_unanswered() -> None:
    many = [f"u{number}@x.test" for number in range(250)]
    transaction = OutboundTransaction(envelope(*many), FACTS, PIPELINING, max_recipients=1000)
    played = play(transaction, ["250 ok"] * 251 + ["354 go", "250 done"])
    unanswered = most = 0
    for line in played.log:
        unanswered += 1 if line.startswith("> ") else -1
        most = max(most, unanswered)
    assert most <= WINDOW + 1
    assert len(transaction.outcomes) == 250


# Replies and outcomes.


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("450 4.2.0 later", "Deferred 4.2.0"),
        ("450 later", "Deferred 4.2.0"),
        ("451 later", "Deferred 4.3.0"),
        ("452 later", "Deferred 4.5.3"),
        ("452 4.2.2 full", "Deferred 4.2.2"),
        ("550 5.1.1 nobody", "Failed 5.1.1"),
        ("550 nobody", "Failed 5.0.0"),
        ("550 4.1.1 a class that lies", "Failed 5.0.0"),
        ("550 2.0.0 a class that lies", "Failed 5.0.0"),
        ("450 5.1.1 a class that lies", "Deferred 4.2.0"),
        ("551 elsewhere", "Failed 5.1.6"),
        ("552 full", "Failed 5.2.2"),
        ("553 no", "Failed 5.1.3"),
        ("554 no", "Failed 5.0.0"),
        ("555 what", "Failed 5.5.4"),
        ("599 what", "Failed 5.0.0"),
        ("556 null MX", "Failed 5.1.10"),
    ],
)
def test_a_refused_recipient_has_its_own_outcome(answer: str, outcome: str) -> None:
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test"), FACTS, PIPELINING, host="mx.x.test")
    play(transaction, ["250 ok", answer, "250 ok", "354 go", "250 2.6.0 done"])
    assert verdicts(transaction.outcomes) == {"a@x.test": outcome, "b@x.test": "Delivered 2.6.0"}
    refused = next(found for found in transaction.outcomes if not isinstance(found, Delivered))
    assert refused.cause == PeerReply(Reply.read([answer]), "mx.x.test")
    assert refused.cause.diagnostic == answer


@pytest.mark.parametrize(
    ("replies", "outcome", "must_reset"),
    [
        (["550 5.7.1 no", "503 no", "503 no", "503 no"], "Failed 5.7.1", False),
        (["452 4.3.1 full", "503 no", "503 no", "503 no"], "Deferred 4.3.1", False),
        (["553 bad", "250 ok", "250 ok", "554 no"], "Failed 5.1.7", False),
        (["550 5.7.1 no", "503 no", "503 no", "354 go", "554 no"], "Failed 5.7.1", False),
        (["250 ok", "550 5.1.1 no", "550 5.1.1 no", "554 no"], "Failed 5.1.1", True),
        (["250 ok", "550 5.1.1 no", "550 5.1.1 no", "354 go", "554 no"], "Failed 5.1.1", False),
        (["250 ok", "550 5.1.1 no", "550 5.1.1 no", "354 go", "250 took nothing"], "Failed 5.1.1", False),
        (["250 ok", "250 ok", "250 ok", "451 4.3.0 no"], "Deferred 4.3.0", True),
        (["250 ok", "250 ok", "250 ok", "554 no"], "Failed 5.0.0", True),
        (["250 ok", "250 ok", "250 ok", "354 go", "550 5.7.1 spam"], "Failed 5.7.1", False),
        (["250 ok", "250 ok", "250 ok", "354 go", "452 later"], "Deferred 4.3.1", False),
        (["250 ok", "251 ok", "252 ok", "354 go", "250 ok"], "Delivered 2.0.0", False),
    ],
)
def test_one_reply_can_decide_for_all(replies: list[str], outcome: str, must_reset: bool) -> None:
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test"), FACTS, PIPELINING)
    play(transaction, replies)
    assert verdicts(transaction.outcomes) == {"a@x.test": outcome, "b@x.test": outcome}
    assert transaction.undecided == []
    assert transaction.must_reset == must_reset


def test_a_lone_dot_answers_a_354_that_came_though_nobody_is_left() -> None:
    transaction = OutboundTransaction(envelope(), FACTS, PIPELINING)
    played = play(transaction, ["250 ok", "550 no", "354 go", "554 no"])
    assert played.log[-2:] == ["> . 1", "< body"]


def test_without_pipelining_data_is_not_said_when_nobody_is_left() -> None:
    transaction = OutboundTransaction(envelope(), FACTS, BARE)
    assert play(transaction, ["250 ok", "550 no"]).log == ["> MAIL", "< mail", "> RCPT", "< rcpt"]


@pytest.mark.parametrize("number", range(5))
def test_421_leaves_everybody_undecided_who_has_no_answer(number: int) -> None:
    replies = ["250 ok", "550 5.1.1 no", "250 ok", "354 go"][:number]
    replies.append("421 4.3.2 bye")
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test"), FACTS, PIPELINING)
    play(transaction, replies)
    transaction.lost("connection lost")
    assert transaction.ended is not None
    expected = {"a@x.test": "Failed 5.1.1"} if number >= 2 else {}
    assert verdicts(transaction.outcomes) == expected
    assert [str(recipient.address) for recipient in transaction.undecided] == ["a@x.test", "b@x.test"][len(expected) :]


@pytest.mark.parametrize(
    ("heard", "outcomes", "undecided"),
    [
        (0, {}, ["a@x.test", "b@x.test"]),
        (1, {}, ["a@x.test", "b@x.test"]),
        (2, {"a@x.test": "Deferred 4.2.1"}, ["b@x.test"]),
        (3, {"a@x.test": "Deferred 4.2.1"}, ["b@x.test"]),
        (4, {"a@x.test": "Deferred 4.2.1", "b@x.test": "Deferred 4.4.2"}, []),
    ],
)
@pytest.mark.parametrize("offered", [PIPELINING, BARE])
def test_a_lost_connection_is_doubtful_only_after_the_end_of_the_message(
    heard: int, outcomes: dict[str, str], undecided: list[str], offered: Offered
) -> None:
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test"), FACTS, offered)
    play(transaction, ["250 ok", "450 4.2.1 later", "250 ok", "354 go"][:heard])
    assert verdicts(transaction.outcomes) == outcomes
    assert [str(recipient.address) for recipient in transaction.undecided] == undecided


@pytest.mark.parametrize(
    ("replies", "possibly_taken", "is_reply"),
    [
        (["450 4.2.1 later"], False, True),
        (["650 what"], False, False),
        (["250 ok", "450 4.2.1 later"], False, True),
        (["250 ok", "650 what"], False, False),
        (["250 ok", "250 ok", "451 later"], False, True),
        (["250 ok", "250 ok", "650 what"], False, False),
        (["250 ok", "250 ok", "354 go", "451 later"], False, True),
        (["250 ok", "250 ok", "354 go", "650 what"], True, False),
        (["250 ok", "250 ok", "354 go"], True, False),  # and then the connection is lost
    ],
)
def test_another_host_may_not_have_what_this_one_may_have_taken(
    replies: list[str], possibly_taken: bool, is_reply: bool
) -> None:
    transaction = OutboundTransaction(envelope("a@x.test"), FACTS, BARE)
    play(transaction, replies)
    (outcome,) = transaction.outcomes
    assert isinstance(outcome, Deferred)
    assert outcome.possibly_taken is possibly_taken
    assert isinstance(outcome.cause, PeerReply) is is_reply


@pytest.mark.parametrize(
    "replies",
    [
        ["354 what"],
        ["250 ok", "354 what"],
        ["250 ok", "250 ok", "250 what"],
        ["250 ok", "250 ok", "354 ok", "354 what"],
    ],
)
def test_a_reply_that_fits_no_question_is_a_protocol_error(replies: list[str]) -> None:
    transaction = OutboundTransaction(envelope(), FACTS, PIPELINING)
    with pytest.raises(ProtocolError):
        play(transaction, replies)
    transaction.lost("broken")


# Too many recipients.


@pytest.mark.parametrize("answer", ["452 too many", "452 4.5.3 too many", "552 too many", "552 5.5.3 too many"])
def test_recipients_that_are_too_many_go_into_another_transaction(answer: str) -> None:
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test", "c@x.test"), FACTS, PIPELINING)
    play(transaction, ["250 ok", "250 ok", answer, answer, "354 go", "250 done"])
    assert verdicts(transaction.outcomes) == {"a@x.test": "Delivered 2.0.0"}
    assert [str(recipient.address) for recipient in transaction.further] == ["b@x.test", "c@x.test"]


@pytest.mark.parametrize("answer", ["452 4.2.2 full", "552 5.2.2 full", "450 4.5.3 wait", "452 4.3.1 disk"])
def test_a_full_mailbox_is_not_too_many_recipients(answer: str) -> None:
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test"), FACTS, PIPELINING)
    play(transaction, ["250 ok", "250 ok", answer, "354 go", "250 done"])
    assert transaction.further == []
    assert len(transaction.outcomes) == 2


def test_the_first_recipient_is_never_one_too_many() -> None:
    transaction = OutboundTransaction(envelope(), FACTS, PIPELINING)
    play(transaction, ["250 ok", "452 4.5.3 too many", "554 no"])
    assert verdicts(transaction.outcomes) == {"a@x.test": "Deferred 4.5.3"}


@pytest.mark.parametrize(("offered", "taken"), [(PIPELINING, 2), (offering("PIPELINING", "LIMITS RCPTMAX=1"), 1)])
def test_a_transaction_has_no_more_recipients_than_allowed(offered: Offered, taken: int) -> None:
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test", "c@x.test"), FACTS, offered, max_recipients=2)
    play(transaction, ["250 ok"] * (taken + 1) + ["354 go", "250 done"])
    assert len(transaction.outcomes) == taken
    assert len(transaction.further) == 3 - taken


# Parameters.

EVERYTHING = offering("PIPELINING", "SIZE", "8BITMIME", "CHUNKING", "BINARYMIME", "DSN", "SMTPUTF8", "DELIVERBY 10")
UNICODE = "jürgen@x.test"


def asked(mail: Envelope, facts: ContentFacts, offered: Offered, **options: Any) -> list[str]:
    """MAIL and RCPTs as they are said."""
    transaction = OutboundTransaction(mail, facts, offered, **options)
    played = play(transaction, [])
    return [command for command in played.commands if command.startswith(("MAIL", "RCPT"))]


@pytest.mark.parametrize(
    ("facts", "offered", "mail"),
    [
        (FACTS, PIPELINING, "MAIL FROM:<me@here.test>"),
        (FACTS, offering("PIPELINING", "SIZE"), "MAIL FROM:<me@here.test> SIZE=100"),
        (FACTS, offering("PIPELINING", "SIZE 100"), "MAIL FROM:<me@here.test> SIZE=100"),
        (FACTS, offering("PIPELINING", "8BITMIME"), "MAIL FROM:<me@here.test>"),
        (ContentFacts(size=1, eight_bit=True), offering("8BITMIME"), "MAIL FROM:<me@here.test> BODY=8BITMIME"),
        (ContentFacts(size=1, eight_bit=True), PIPELINING, "MAIL FROM:<me@here.test>"),
        (ContentFacts(size=1, binary=True), EVERYTHING, "MAIL FROM:<me@here.test> SIZE=1 BODY=BINARYMIME"),
    ],
)
def test_mail_says_what_is_offered_and_needed(facts: ContentFacts, offered: Offered, mail: str) -> None:
    assert asked(envelope(), facts, offered)[0] == mail


def test_the_null_path_stays_null() -> None:
    assert asked(envelope(sender=None), FACTS, PIPELINING)[0] == "MAIL FROM:<>"


def test_binary_content_to_who_cannot_take_it_is_a_bug() -> None:
    with pytest.raises(LocalProtocolError):
        OutboundTransaction(envelope(), ContentFacts(size=1, binary=True), offering("BINARYMIME"))


DSN = Envelope(
    terms=Terms(reverse_path=parse_mailbox("me@here.test"), envid="id=1", ret=Ret.HEADERS, body=BodyKind.EIGHT_BIT),
    recipients=recipients(
        "a@x.test", notify=frozenset({Notify.SUCCESS, Notify.DELAY}), orcpt=OriginalRecipient("rfc822", "a+b@y.test")
    ),
)


def test_dsn_parameters_are_passed_on_where_dsn_is_offered() -> None:
    assert asked(DSN, FACTS, offering("PIPELINING", "DSN")) == [
        "MAIL FROM:<me@here.test> RET=HDRS ENVID=id+3D1",
        "RCPT TO:<a@x.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@y.test",
    ]
    assert asked(DSN, FACTS, PIPELINING) == ["MAIL FROM:<me@here.test>", "RCPT TO:<a@x.test>"]


@pytest.mark.parametrize(
    ("offered", "lmtp", "handover"),
    [
        (offering("DSN"), False, Handover.PASSED_ON),
        (BARE, False, Handover.RELAYED),
        (offering("DSN"), True, Handover.PASSED_ON),
        (BARE, True, Handover.FINAL),
    ],
)
def test_who_answers_for_the_message_from_here(offered: Offered, lmtp: bool, handover: Handover) -> None:
    transaction = OutboundTransaction(DSN, FACTS, offered, lmtp=lmtp, host="mx.x.test")
    play(transaction, ["250 ok", "250 ok", "354 go", "250 2.1.5 done"])
    (outcome,) = transaction.outcomes
    assert isinstance(outcome, Delivered)
    assert outcome.handover is handover
    assert outcome.cause == PeerReply(Reply.read(["250 2.1.5 done"]), "mx.x.test")
    assert outcome.cause.diagnostic == "250 2.1.5 done"


@pytest.mark.parametrize(("size", "limit", "fails"), [(100, 99, True), (100, 100, False), (100, 0, False)])
def test_what_is_too_big_by_the_peers_own_word_is_not_sent(size: int, limit: int, fails: bool) -> None:
    transaction = OutboundTransaction(envelope(), ContentFacts(size=size), offering(f"SIZE {limit}"), host="mx.x.test")
    played = play(transaction, [])
    assert (played.commands == []) is fails
    if fails:
        assert verdicts(transaction.outcomes) == {"a@x.test": "Failed 5.3.4"}


UTF8 = offering("PIPELINING", "SMTPUTF8", "8BITMIME")


@pytest.mark.parametrize(
    ("mail", "facts", "says"),
    [
        (envelope(), FACTS, False),
        (envelope(smtputf8=True), FACTS, False),
        (envelope(smtputf8=True), ContentFacts(size=1, utf8_header=True), True),
        (envelope(), ContentFacts(size=1, utf8_header=True), False),
        (envelope(UNICODE), FACTS, True),
        (envelope(sender=UNICODE), FACTS, True),
        (envelope("a@bücher.test"), FACTS, False),
    ],
)
def test_smtputf8_is_said_where_something_needs_it(mail: Envelope, facts: ContentFacts, says: bool) -> None:
    assert ("SMTPUTF8" in asked(mail, facts, UTF8)[0]) is says
    transaction = OutboundTransaction(mail, facts, PIPELINING)
    play(transaction, [])
    assert [type(outcome) for outcome in transaction.outcomes] == ([Failed] if says else [])
    if says:
        assert str(transaction.outcomes[0].status) == "5.6.7"


def test_only_the_recipient_that_needs_smtputf8_fails_without_it() -> None:
    transaction = OutboundTransaction(envelope("a@x.test", UNICODE), FACTS, PIPELINING)
    play(transaction, ["250 ok", "250 ok", "354 go", "250 done"])
    assert verdicts(transaction.outcomes) == {UNICODE: "Failed 5.6.7", "a@x.test": "Delivered 2.0.0"}


def test_a_domain_in_u_labels_goes_as_a_labels_without_smtputf8() -> None:
    assert asked(envelope("a@bücher.test"), FACTS, PIPELINING)[1] == "RCPT TO:<a@xn--bcher-kva.test>"
    assert asked(envelope(UNICODE, "b@bücher.test"), FACTS, UTF8)[2] == "RCPT TO:<b@bücher.test>"


RETURN_BY = envelope(deliver_by=DeliverBy(1000.0, ByMode.RETURN))
NOTIFY_BY = envelope(deliver_by=DeliverBy(1000.0, ByMode.NOTIFY, trace=True))


@pytest.mark.parametrize(
    ("mail", "seconds", "offered", "parameter"),
    [
        (RETURN_BY, 60.9, offering("DELIVERBY"), " BY=60;R"),
        (RETURN_BY, 1, offering("DELIVERBY"), " BY=1;R"),
        (RETURN_BY, 240, offering("DELIVERBY 240,X-LATER 5"), " BY=240;R"),
        (RETURN_BY, 5, offering("DELIVERBY ,X-LATER"), " BY=5;R"),
        (NOTIFY_BY, 60, offering("DELIVERBY"), " BY=60;NT"),
        (NOTIFY_BY, -5, offering("DELIVERBY 30"), " BY=-5;NT"),
        (NOTIFY_BY, 0.4, offering("DELIVERBY 30"), " BY=0;NT"),
        (NOTIFY_BY, -0.4, offering("DELIVERBY 30"), " BY=-1;NT"),
        (NOTIFY_BY, 60, PIPELINING, ""),
    ],
)
def test_by_is_passed_on_with_the_seconds_that_are_left(
    mail: Envelope, seconds: float, offered: Offered, parameter: str
) -> None:
    assert asked(mail, FACTS, offered, seconds_left=seconds)[0] == f"MAIL FROM:<me@here.test>{parameter}"


@pytest.mark.parametrize(
    ("offered", "seconds", "status"),
    [
        (PIPELINING, 60, "5.3.3"),
        (offering("DELIVERBY 61"), 60, "5.4.7"),
        (offering("DELIVERBY 61,X"), 60.9, "5.4.7"),
        (offering("DELIVERBY"), 0.9, "5.4.7"),  # BY=0;R is a syntax error
        (offering("DELIVERBY"), 0, "5.4.7"),
        (offering("DELIVERBY"), -3, "5.4.7"),
        (PIPELINING, 0.9, "5.4.7"),
    ],
)
def test_by_with_return_is_not_given_to_who_does_not_keep_it(offered: Offered, seconds: float, status: str) -> None:
    transaction = OutboundTransaction(RETURN_BY, FACTS, offered, seconds_left=seconds)
    assert play(transaction, []).commands == []
    assert verdicts(transaction.outcomes) == {"a@x.test": f"Failed {status}"}
    assert transaction.outcomes[0].cause.diagnostic.isascii()


@pytest.mark.parametrize(("seconds", "late"), [(60, False), (0.5, False), (-0.5, True)])
def test_lmtp_delivers_by_the_time_itself_and_not_after_it(seconds: float, late: bool) -> None:
    transaction = OutboundTransaction(RETURN_BY, FACTS, PIPELINING, lmtp=True, seconds_left=seconds)
    play(transaction, [] if late else ["250 ok", "250 ok", "354 go", "250 2.1.5 done"])
    assert verdicts(transaction.outcomes) == {"a@x.test": "Failed 5.4.7" if late else "Delivered 2.1.5"}


FAILURE_DELAY = frozenset({Notify.FAILURE, Notify.DELAY})


@pytest.mark.parametrize(
    ("asked_for", "said"),
    [
        (None, " NOTIFY=FAILURE,DELAY"),
        (frozenset({Notify.FAILURE}), " NOTIFY=FAILURE,DELAY"),
        (frozenset({Notify.SUCCESS}), " NOTIFY=SUCCESS,DELAY"),
        (FAILURE_DELAY, " NOTIFY=FAILURE,DELAY"),
        (frozenset({Notify.NEVER}), " NOTIFY=NEVER"),
    ],
)
@pytest.mark.parametrize(
    ("offered", "seconds", "mode", "lmtp", "dropped"),
    [
        (offering("DSN"), 60, ByMode.NOTIFY, False, True),
        (offering("DSN"), 0.5, ByMode.NOTIFY, False, True),
        (offering("DSN"), -1, ByMode.NOTIFY, False, False),  # the delayed DSN is out, or the hop before owed it
        (offering("DSN", "DELIVERBY"), 60, ByMode.NOTIFY, False, False),
        (offering("DSN", "DELIVERBY"), 60, ByMode.RETURN, False, False),
        (offering("DSN"), 60, ByMode.NOTIFY, True, False),  # the delivery itself
        (PIPELINING, 60, ByMode.NOTIFY, False, True),
    ],
)
def test_a_host_without_deliverby_is_asked_for_what_its_deadline_would_have_told(
    asked_for: frozenset[Notify] | None,
    said: str,
    offered: Offered,
    seconds: float,
    mode: ByMode,
    lmtp: bool,
    dropped: bool,
) -> None:
    mail = Envelope(
        terms=Terms(reverse_path=parse_mailbox("me@here.test"), deliver_by=DeliverBy(1000.0, mode)),
        recipients=recipients("a@x.test", notify=asked_for),
    )
    transaction = OutboundTransaction(mail, FACTS, offered, lmtp=lmtp, seconds_left=seconds)
    commands = play(transaction, ["250 ok", "250 ok", "354 go", "250 done"]).commands
    unchanged = "" if asked_for is None else " NOTIFY=" + ",".join(case for case in Notify if case in asked_for)
    expected = "" if not offered.dsn else said if dropped else unchanged
    assert commands[1] == f"RCPT TO:<a@x.test>{expected}"
    (outcome,) = transaction.outcomes
    assert isinstance(outcome, Delivered)
    assert outcome.deadline_dropped == dropped


@pytest.mark.parametrize(
    ("offered", "authenticated", "parameter"),
    [
        (offering("AUTH PLAIN"), True, " AUTH=<>"),
        (offering("AUTH PLAIN"), False, ""),
        (offering("SIZE"), True, " SIZE=100"),
    ],
)
def test_a_host_that_we_logged_in_to_is_told_that_we_vouch_for_nobody(
    offered: Offered, authenticated: bool, parameter: str
) -> None:
    assert asked(envelope(), FACTS, offered, authenticated=authenticated)[0] == f"MAIL FROM:<me@here.test>{parameter}"


GERMAN = "jürgen@x.test"
PIPELINING_DSN = offering("PIPELINING", "DSN")
PIPELINING_DSN_UTF8 = offering("PIPELINING", "DSN", "SMTPUTF8")


@pytest.mark.parametrize(
    ("orcpt", "plain", "utf8"),
    [
        (OriginalRecipient("rfc822", "a@b", "a+40b"), "rfc822;a+40b", "rfc822;a+40b"),
        (OriginalRecipient("rfc822", "a@b"), "rfc822;a@b", "rfc822;a@b"),
        (OriginalRecipient("RFC822", "a+b@c", "a+2Bb@c"), "RFC822;a+2Bb@c", "RFC822;a+2Bb@c"),
        (OriginalRecipient("utf-8", GERMAN, "j\\x{fc}rgen@x.test"), "utf-8;j\\x{fc}rgen@x.test", f"utf-8;{GERMAN}"),
        (OriginalRecipient("utf-8", GERMAN, GERMAN), "utf-8;j\\x{FC}rgen@x.test", f"utf-8;{GERMAN}"),
        (OriginalRecipient("utf-8", "jü+r@x"), "utf-8;j\\x{FC}\\x{2B}r@x", "utf-8;jü\\x{2B}r@x"),
    ],
)
def test_orcpt_goes_on_as_it_came(orcpt: OriginalRecipient, plain: str, utf8: str) -> None:
    for address, offered, value in (("a@x.test", PIPELINING_DSN, plain), (UNICODE, PIPELINING_DSN_UTF8, utf8)):
        mail = Envelope(
            terms=Terms(reverse_path=parse_mailbox("me@here.test"), smtputf8=True),
            recipients=recipients(address, orcpt=orcpt),
        )
        assert asked(mail, FACTS, offered)[1] == f"RCPT TO:<{address}> ORCPT={value}"


# LMTP.


@pytest.mark.parametrize("extension", ["DSN", "CHUNKING"])
def test_lmtp_has_a_final_reply_for_each_accepted_recipient(extension: str) -> None:
    offered = offering("PIPELINING", extension)
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test", "c@x.test"), FACTS, offered, lmtp=True)
    go_ahead = [] if offered.chunking else ["354 go"]
    replies = ["250 ok", "250 ok", "550 5.1.1 no", "250 ok", *go_ahead, "452 4.2.2 full", "250 2.1.5 done"]
    played = play(transaction, replies)
    assert played.log[-3] == ("> (100 LAST) 1" if offered.chunking else "> content. 2")
    assert verdicts(transaction.outcomes) == {
        "a@x.test": "Deferred 4.2.2",
        "b@x.test": "Failed 5.1.1",
        "c@x.test": "Delivered 2.1.5",
    }


def test_lmtp_that_breaks_off_between_final_replies_keeps_those_that_came() -> None:
    transaction = OutboundTransaction(envelope("a@x.test", "b@x.test"), FACTS, PIPELINING, lmtp=True)
    play(transaction, ["250 ok", "250 ok", "250 ok", "354 go", "250 2.1.5 done"])
    assert verdicts(transaction.outcomes) == {"a@x.test": "Delivered 2.1.5", "b@x.test": "Deferred 4.4.2"}
    assert isinstance(transaction.outcomes[1], Deferred)


def test_lmtp_with_a_354_for_nobody_cannot_go_on() -> None:
    transaction = OutboundTransaction(envelope(), FACTS, PIPELINING, lmtp=True)
    play(transaction, ["250 ok", "550 no", "354 go"])
    assert transaction.must_close
