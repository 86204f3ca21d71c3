"""Shorter forms of a DSN: 7 bits, few octets, every recipient told of, and each form still a report."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.content.dsn.support import (
    MESSAGE,
    UTF8_MESSAGE,
    deferred,
    failed,
    groups,
    make,
    parse,
    recipient,
    replied,
)
from trimta.content.dsn.compose import ComposedDsn
from trimta.content.dsn.report_form import ReportForm
from trimta.content.dsn.shorter import shorter
from trimta.content.dsn.values import DsnKind
from trimta.mail.address import parse_mailbox
from trimta.mail.envelope import OriginalRecipient
from trimta.mail.outcome import LocalCause

BRIEF_LIMIT: Final = 16 * 1024
BARE_LIMIT: Final = 4 * 1024


def forms(content: bytes) -> dict[ReportForm, list[bytes]]:
    """All shorter forms of a DSN."""
    shorter_forms: dict[ReportForm, list[bytes]] = {}
    waiting, form = [content], ReportForm.FULL
    while (step := shorter(waiting[0], form)) is not None:
        form = step[0]
        waiting = [short for dsn in waiting for short in (shorter(dsn, ReportForm(_before(form))) or (form, []))[1]]
        shorter_forms[form] = waiting
    return shorter_forms


def _before(form: ReportForm) -> ReportForm:
    return {ReportForm.BRIEF: ReportForm.FULL, ReportForm.BARE: ReportForm.BRIEF}[form]


def told(content: bytes) -> list[dict[str, str]]:
    return groups(_dsn(content))


def _dsn(content: bytes) -> ComposedDsn:
    return ComposedDsn(content=content, eight_bit=not content.isascii(), smtputf8=False)


HUGE: Final = b"X-Junk: " + b"junk " * 2000 + b"\n"

CASES: Final[dict[str, ComposedDsn]] = {
    "plain": make(),
    "8-bit header": make(content=UTF8_MESSAGE),
    "8-bit header, SMTPUTF8": make(content=UTF8_MESSAGE, smtputf8=True),
    "Latin-1 header": make(content=b"Subject: \xe9\n\nx\n"),
    "8-bit body": make(content=MESSAGE + "ä\n".encode()),
    "long": make(content=MESSAGE + b"x\n" * 20_000),
    "long header": make(content=HUGE + MESSAGE),
    "delayed": make(kind=DsnKind.DELAYED, content=UTF8_MESSAGE),
    "relayed": make(kind=DsnKind.RELAYED),
    "UTF-8 recipient": make(failed(recipient("jörg+a@x.test")), smtputf8=True),
    "UTF-8 diagnostic": make(failed(cause=replied("550 jörg")), smtputf8=True),
    "endless diagnostic": make(failed(cause=replied("550 " + "word " * 2000))),
    "alias": make(failed(recipient(original=parse_mailbox("team@dev.test"))), envid="E 1"),
    "boundary in it": make(content=MESSAGE + b"--=_trimta_0\n"),
    "no header": make(content=b"", whole=True),
}


@pytest.mark.parametrize("case", CASES)
def test_each_form_is_a_report_in_7_bits_of_few_octets(case: str) -> None:
    whole = CASES[case]
    shorter_forms = forms(whole.content)
    assert [*shorter_forms] == [ReportForm.BRIEF, ReportForm.BARE]
    (brief,), (bare,) = shorter_forms.values()
    for short, limit in ((brief, BRIEF_LIMIT), (bare, BARE_LIMIT)):
        assert short.isascii()
        assert len(short) + short.count(b"\n") < limit
        report = parse_short(short)
        assert report["Subject"] == parse(whole)[0]["Subject"]
        assert report["Message-ID"] == "<dsn-1@mail.dev.test>"
        assert report["To"] == "alice@dev.test"
        assert report["Auto-Submitted"] == "auto-replied"
        for before, after in zip(groups(whole), told(short), strict=True):
            assert [*after] == [*before]
            assert after.get("Status") == before.get("Status")
            assert after.get("Action") == before.get("Action")
    assert shorter(bare, ReportForm.BARE) is None


def parse_short(content: bytes) -> Any:
    """The DSN, without any defect; three parts, or the first two."""
    if content.count(b"\nContent-Description:") == 3:
        return parse(_dsn(content))[0]
    whole = make().content
    third = whole[whole.index(b"Content-Type: message/rfc822") :]
    boundary = content.split(b'boundary="')[1].split(b'"')[0]
    end = b"--" + boundary + b"--\n"
    assert content.endswith(end)
    added = third.split(b"\n--")[0] + b"\n"
    return parse(_dsn(content.removesuffix(end) + b"--" + boundary + b"\n" + added + end))[0]


@pytest.mark.parametrize(
    ("case", "kind", "header"),
    [
        ("plain", "text/rfc822-headers", None),
        ("8-bit header", "text/rfc822-headers", "Subject: Grüße"),
        ("8-bit header, SMTPUTF8", "message/global-headers", "Subject: Grüße"),
        ("long header", "text/rfc822-headers", "Subject: hi"),
    ],
)
def test_the_brief_form_returns_the_header_and_nothing_of_the_body(case: str, kind: str, header: str | None) -> None:
    (brief,) = forms(CASES[case].content)[ReportForm.BRIEF]
    third = parse(_dsn(brief))[3]
    assert third.get_content_type() == kind
    octets = third.get_payload(decode=True)
    if octets is None:  # Python takes message/global-headers for a message, which it does not decode
        assert b"secret body" not in third.as_bytes()
        return
    assert isinstance(octets, bytes)
    assert b"secret body" not in octets
    assert (header or "Subject: hi").encode() in octets
    assert b"Message-ID: <one@dev.test>" in octets


@pytest.mark.parametrize(
    ("address", "orcpt", "original", "final"),
    [
        ("jörg+a@x.test", "jörg+a@x.test", r"utf-8; j\x{F6}rg\x{2B}a@x.test", r"utf-8; j\x{F6}rg\x{2B}a@x.test"),
        ("bob@x.test", "a+b@x.test", r"utf-8; a\x{2B}b@x.test", "rfc822; bob@x.test"),
    ],
)
@pytest.mark.parametrize("smtputf8", [False, True])
def test_addresses_are_in_the_form_of_delivery_status(
    address: str, orcpt: str, original: str, final: str, *, smtputf8: bool
) -> None:
    to = recipient(address, orcpt=OriginalRecipient("utf-8", orcpt))
    for shorts in forms(make(failed(to), smtputf8=smtputf8).content).values():
        (short,) = shorts
        assert told(short)[1]["Original-Recipient"] == original
        assert told(short)[1]["Final-Recipient"] == final


@pytest.mark.parametrize("count", [1, 2, 30, 1000])
def test_every_recipient_is_told_of_in_as_many_reports_as_it_takes(count: int) -> None:
    names = [f"user{number}@x.test" for number in range(count)]
    whole = make(*(failed(recipient(name), replied(f"550 5.1.1 no {name} " * 9)) for name in names))
    ids: set[str] = set()
    for form, shorts in forms(whole.content).items():
        recipients = [group["Final-Recipient"] for short in shorts for group in told(short)[1:]]
        assert recipients == [f"rfc822; {name}" for name in names]
        assert max(map(len, shorts)) < (BRIEF_LIMIT if form is ReportForm.BRIEF else BARE_LIMIT)
        ids = {str(parse_short(short)["Message-ID"]) for short in shorts}
        assert len(ids) == len(shorts)


def test_the_words_of_a_short_form_say_who_why_and_what_to_do() -> None:
    for (short,) in forms(make(failed(), deferred(recipient("carol@x.test"))).content).values():
        text = " ".join(short.partition(b"us-ascii")[2].decode().split())
        assert "could not be delivered to the 2 recipients below" in text
        assert "<bob@x.test> mx.x.test said: 550 5.1.1 no such user What to do: There is no such mailbox" in text
        assert "<carol@x.test> What happened: connection refused" in text
        assert "the id Q1" in text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Subject: hi\n\nhi\n",
        make().content[:200],
        make().content[:-60],
        b"Content-Type: multipart/report;\n boundary=\"b\"\n\n--b\n\n--b\n\n--b\n\n--b--\n",
    ],
)  # fmt: skip
def test_what_is_no_report_of_ours_has_no_shorter_form(content: bytes) -> None:
    assert shorter(content, ReportForm.FULL) is None


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=300), content=st.binary(max_size=300), smtputf8=st.booleans())
def test_any_text_and_any_octets_have_shorter_forms(text: str, content: bytes, *, smtputf8: bool) -> None:
    to = recipient(orcpt=OriginalRecipient(text, text))
    whole = make(failed(to, LocalCause(text, text)), envid=text, received_from=text, smtputf8=smtputf8, content=content)
    for (short,) in forms(whole.content).values():
        assert short.isascii()
        parse_short(short)
        assert len(told(short)) == 2
