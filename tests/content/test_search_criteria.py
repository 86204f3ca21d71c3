"""Which message is meant."""

from __future__ import annotations

import pytest

from trimta.content.search_criteria import NULL_PATH, AddressPattern, SearchCriteria
from trimta.mail.address import AddressError

HEADER = (
    "Return-Path: <Bounce@lists.test>\n"
    "X-Original-To: Team@dev.test\n"
    "Delivered-To: alice@dev.test\n"
    "Delivered-To: bob@bücher.test\n"
    'From: "Doe, Bob" <bob@DEV.test>\n'
    "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n =?utf-8?q?_an_alle?=\n"
    "To: hidden@x.test\n"
    "Bad: <\n"
    "\n"
    "Delivered-To: body@x.test\n"
).encode()


@pytest.mark.parametrize(
    ("to", "found"),
    [
        ("alice@dev.test", True),
        ("ALICE@Dev.Test", True),
        ("<alice@dev.test>", True),
        ("alice", True),
        ("team@dev.test", True),
        ("bob@xn--bcher-kva.test", True),
        ("alice@x.test", False),
        ("alice+x@dev.test", False),
        ("hidden@x.test", False),
        ("body@x.test", False),
    ],
)
def test_to_is_who_it_was_delivered_to(to: str, found: bool) -> None:
    assert SearchCriteria(to=AddressPattern.parse(to)).matches(HEADER) == found


@pytest.mark.parametrize(
    ("sender", "found"),
    [("bounce@lists.test", True), ("bob@dev.test", True), ("bob", True), ("alice@dev.test", False)],
)
def test_from_is_the_envelope_or_the_header(sender: str, found: bool) -> None:
    assert SearchCriteria(sender=AddressPattern.parse(sender)).matches(HEADER) == found


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"Return-Path: <>\nFrom: a@x.test\n", True),
        (b"Return-Path: <a@x.test>\nFrom: <>\n", False),
        (b"From: a@x.test\n", False),
    ],
)
def test_the_null_path_is_that_of_the_envelope(header: bytes, found: bool) -> None:
    assert SearchCriteria(sender=NULL_PATH).matches(header) == found


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("Grüße an alle", True),
        ("grüße*", True),
        ("GRÜSSE*", False),
        ("*an*", True),
        ("Gr??e an [ab]lle", True),
        ("Grüße", False),
        ("", False),
        ("*", True),
    ],
)
def test_the_subject_is_decoded_and_matched_whole(glob: str, found: bool) -> None:
    assert SearchCriteria(subject=glob).matches(HEADER) == found


def test_all_criteria_must_be_met() -> None:
    alice, bob = AddressPattern.parse("alice"), AddressPattern.parse("bob")
    assert SearchCriteria().matches(b"")
    assert SearchCriteria(to=alice, sender=bob, subject="*alle").matches(HEADER)
    assert not SearchCriteria(to=alice, sender=alice, subject="*alle").matches(HEADER)
    assert not SearchCriteria(to=alice, sender=bob, subject="keine").matches(HEADER)


@pytest.mark.parametrize("text", ["a b@x.test", "a@", "", "a@b@c"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(AddressError):
        AddressPattern.parse(text)
