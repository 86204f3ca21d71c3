"""The tables of the ESMTP parameters: one row reads and writes a parameter."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from trimta.mail.address import Mailbox
from trimta.mail.envelope import BodyKind, ByMode, Notify, OriginalRecipient, Ret
from trimta.smtp.commands import By, MailParameters, Rcpt
from trimta.smtp.errors import CommandRefusedError
from trimta.smtp.extensions import FutureRelease, MailProtocol, Offer
from trimta.smtp.parameters import (
    MAIL_PARAMETERS,
    RCPT_PARAMETERS,
    mail_words,
    rcpt_words,
    read_mail_parameters,
    read_rcpt_parameters,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

MOMENT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
OFFERS = [
    Offer(auth=("PLAIN",)),
    Offer(
        protocol=MailProtocol.SUBMISSION,
        auth=("PLAIN",),
        future_release=FutureRelease(1000, MOMENT + timedelta(days=1)),
    ),
]
ALICE = Mailbox("alice", "dev.test")

MAIL: list[tuple[str, str, object]] = [
    ("SIZE=0", "size", 0),
    ("SIZE=1000", "size", 1000),
    ("BODY=7BIT", "body", BodyKind.SEVEN_BIT),
    ("BODY=BINARYMIME", "body", BodyKind.BINARY),
    ("SMTPUTF8", "smtputf8", True),
    ("RET=HDRS", "ret", Ret.HEADERS),
    ("ENVID=a+20b+2B", "envid", "a b+"),
    ("AUTH=<>", "auth", "<>"),
    ("AUTH=e+3Dmc2@example.com", "auth", "e=mc2@example.com"),
    ("BY=120;RT", "by", By(120, ByMode.RETURN, trace=True)),
    ("BY=-1;N", "by", By(-1, ByMode.NOTIFY)),
    ("HOLDFOR=1000", "hold_for", 1000),
    ("HOLDUNTIL=2026-01-31T12:00:00Z", "hold_until", MOMENT),
]

RCPT: list[tuple[str, str, object]] = [
    ("NOTIFY=NEVER", "notify", frozenset({Notify.NEVER})),
    ("NOTIFY=SUCCESS,FAILURE,DELAY", "notify", frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})),
    ("ORCPT=rfc822;a+2Bb@c.test", "orcpt", OriginalRecipient("rfc822", "a+b@c.test")),
    (r"ORCPT=utf-8;j\x{FC}@c.test", "orcpt", OriginalRecipient("utf-8", "jü@c.test")),
]


def keywords(words: Iterable[str]) -> set[str]:
    return {word.partition("=")[0] for word in words}


def test_every_parameter_has_its_place_and_its_example() -> None:
    assert {parameter.field for parameter in MAIL_PARAMETERS.values()} == {each.name for each in fields(MailParameters)}
    assert {parameter.field for parameter in RCPT_PARAMETERS.values()} < {each.name for each in fields(Rcpt)}
    assert keywords(word for word, _, _ in MAIL) == {*MAIL_PARAMETERS}
    assert keywords(word for word, _, _ in RCPT) == {*RCPT_PARAMETERS}
    offered = {keyword for offer in OFFERS for keyword in offer.keywords}
    assert {each.extension for each in (*MAIL_PARAMETERS.values(), *RCPT_PARAMETERS.values())} <= offered


@pytest.mark.parametrize(("word", "field", "value"), MAIL)
def test_a_parameter_of_mail_is_read_and_written(word: str, field: str, value: object) -> None:
    offer = next(each for each in OFFERS if MAIL_PARAMETERS[word.partition("=")[0]].extension in each.keywords)
    values: dict[str, object] = {field: value}
    parameters = MailParameters(**values)  # type: ignore[arg-type]
    assert read_mail_parameters(f" {word}", offer, smtputf8=False) == parameters
    assert mail_words(parameters) == [word]


@pytest.mark.parametrize(("word", "field", "value"), RCPT)
def test_a_parameter_of_rcpt_is_read_and_written(word: str, field: str, value: object) -> None:
    values = read_rcpt_parameters(f" {word}", OFFERS[0])
    assert values == {field: value}
    assert rcpt_words(Rcpt(ALICE, **values), smtputf8=False) == [word]


def test_parameters_are_written_in_one_order() -> None:
    given = " BY=1;N SIZE=5 AUTH=<> ENVID=x BODY=8BITMIME RET=FULL SMTPUTF8"
    parameters = read_mail_parameters(given, OFFERS[0], smtputf8=False)
    assert mail_words(parameters) == [
        *("SIZE=5", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=x", "AUTH=<>", "BY=1;N"),
    ]


def test_without_parameters_there_are_no_words() -> None:
    assert read_mail_parameters("", OFFERS[0], smtputf8=False) == MailParameters()
    assert mail_words(MailParameters()) == []
    assert read_rcpt_parameters("  ", OFFERS[0]) == {}
    assert rcpt_words(Rcpt(ALICE), smtputf8=True) == []


def test_a_path_may_imply_smtputf8() -> None:
    assert read_mail_parameters("", OFFERS[0], smtputf8=True) == MailParameters(smtputf8=True)


@pytest.mark.parametrize("word", [word for word, _, _ in MAIL])
def test_mail_has_none_of_the_parameters_of_rcpt_and_the_other_way_round(word: str) -> None:
    with pytest.raises(CommandRefusedError, match="555"):
        read_rcpt_parameters(word, OFFERS[0])
    with pytest.raises(CommandRefusedError, match="555"):
        read_mail_parameters("NOTIFY=NEVER", OFFERS[0], smtputf8=False)
