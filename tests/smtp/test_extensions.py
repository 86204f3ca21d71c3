"""What EHLO offers, and what a peer's EHLO is understood to offer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.reply import Reply
from trimta.smtp.extensions import FutureRelease, MailProtocol, Offer, Offered, format_datetime, parse_datetime

YEAR = FutureRelease(31_536_000, datetime(2027, 1, 1, tzinfo=UTC))
EVERYTHING = {
    "size_limit": 1000,
    "max_recipients": 7,
    "future_release": YEAR,
    "starttls": True,
    "auth": ("PLAIN", "LOGIN"),
}
BASE = "PIPELINING SIZE 8BITMIME CHUNKING BINARYMIME ENHANCEDSTATUSCODES DSN SMTPUTF8"


def keywords(offer: Offer) -> list[str]:
    return [line.split()[0] for line in offer.lines()]


@pytest.mark.parametrize(
    ("protocol", "offered"),
    [
        (MailProtocol.SMTP, f"{BASE} VRFY EXPN ETRN DELIVERBY LIMITS STARTTLS AUTH HELP"),
        (MailProtocol.SUBMISSION, f"{BASE} VRFY EXPN DELIVERBY FUTURERELEASE LIMITS STARTTLS AUTH HELP"),
        (MailProtocol.LMTP, f"{BASE} STARTTLS AUTH"),
    ],
)
def test_each_protocol_has_its_extensions(protocol: MailProtocol, offered: str) -> None:
    offer = Offer(protocol=protocol, **EVERYTHING)  # type: ignore[arg-type]
    assert keywords(offer) == offered.split()
    assert offer.keywords == set(offered.split())


def test_extensions_have_their_values() -> None:
    lines = Offer(protocol=MailProtocol.SUBMISSION, **EVERYTHING).lines()  # type: ignore[arg-type]
    assert {"SIZE 1000", "LIMITS RCPTMAX=7", "AUTH PLAIN LOGIN"} < set(lines)
    assert "FUTURERELEASE 31536000 2027-01-01T00:00:00Z" in lines


def test_what_is_not_configured_is_not_offered() -> None:
    assert not {"STARTTLS", "AUTH", "LIMITS", "FUTURERELEASE"} & Offer(protocol=MailProtocol.SUBMISSION).keywords
    assert "SIZE 0" in Offer().lines()


@pytest.mark.parametrize(
    "keyword", [*BASE.split(), "VRFY", "EXPN", "ETRN", "DELIVERBY", "LIMITS", "STARTTLS", "AUTH", "HELP"]
)
def test_a_hidden_extension_is_not_offered(keyword: str) -> None:
    offer = Offer(hide=frozenset({keyword.lower()}), **EVERYTHING)  # type: ignore[arg-type]
    assert not offer.offers(keyword)
    assert keyword not in keywords(offer)


def test_binarymime_is_of_no_use_without_chunking() -> None:
    assert not Offer(hide=frozenset({"CHUNKING"})).offers("BINARYMIME")


def test_a_client_understands_what_a_server_offers() -> None:
    offer = Offer(protocol=MailProtocol.SUBMISSION, **EVERYTHING)  # type: ignore[arg-type]
    offered = Offered.parse(Reply(250, ("mx.dev.test", *offer.lines())))
    assert offered.host == "mx.dev.test"
    assert set(offered.keywords) == offer.keywords
    assert offered.size == 1000
    assert offered.limits == {"RCPTMAX": 7}
    assert offered.auth == {"PLAIN", "LOGIN"}
    assert offered.deliver_by == 0
    assert offered.pipelining
    assert offered.eight_bit_mime
    assert offered.chunking
    assert offered.binarymime
    assert offered.dsn
    assert offered.smtputf8
    assert offered.starttls
    assert offered.offers("ENHANCEDSTATUSCODES")


def test_before_ehlo_nothing_is_offered() -> None:
    offered = Offered()
    assert offered.size is None
    assert offered.deliver_by is None
    assert offered.limits == {}
    assert offered.auth == frozenset()
    assert not any((offered.pipelining, offered.chunking, offered.binarymime, offered.starttls))


@pytest.mark.parametrize(
    ("lines", "auth", "size"),
    [
        (("h hello", "auth login plain", "size"), {"LOGIN", "PLAIN"}, 0),
        (("h", "AUTH=LOGIN", "AUTH PLAIN", "SIZE 0"), {"LOGIN", "PLAIN"}, 0),
        (("h", "AUTH", "SIZE 12x"), set(), 0),
        (("h", "SIZE 10", "SIZE 20", "", "-x", "X-FOO bar"), set(), 10),
        (("",), set(), None),
        ((), set(), None),
    ],
)
def test_odd_ehlo_lines_are_put_up_with(lines: tuple[str, ...], auth: set[str], size: int | None) -> None:
    offered = Offered.parse(Reply(250, lines))
    assert offered.auth == auth
    assert offered.size == size


@pytest.mark.parametrize(
    ("line", "limits"),
    [
        ("LIMITS RCPTMAX=1 MAILMAX=999999", {"RCPTMAX": 1, "MAILMAX": 999999}),
        ("LIMITS rcptmax=20 X-NEW=7 RCPTDOMAINMAX=1", {"RCPTMAX": 20, "X-NEW": 7, "RCPTDOMAINMAX": 1}),
        ("LIMITS MAILMAX=0 RCPTMAX=3", {"RCPTMAX": 3}),
        ("LIMITS MAILMAX=07 RCPTMAX=1000000", {}),
        ("LIMITS MAILMAX=-1 RCPTMAX= RCPTDOMAINMAX", {}),
        ("LIMITS", {}),
    ],
)
def test_a_limit_with_a_wrong_value_counts_as_not_given(line: str, limits: dict[str, int]) -> None:
    assert Offered.parse(Reply(250, ("h", line))).limits == limits


@pytest.mark.parametrize(
    ("line", "least"), [("DELIVERBY", 0), ("DELIVERBY 240", 240), ("DELIVERBY 240,X", 240), ("DELIVERBY ,X 7", 0)]
)
def test_deliverby_may_name_more_than_its_least_time(line: str, least: int) -> None:
    assert Offered.parse(Reply(250, ("h", line))).deliver_by == least


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=20) | st.sampled_from(["SIZE ٣", "LIMITS A=²", "DELIVERBY ٣"]), max_size=6))
def test_any_ehlo_reply_is_read(lines: list[str]) -> None:
    offered = Offered.parse(Reply(250, ("h", *lines)))
    assert offered.size is None or offered.size >= 0
    assert offered.deliver_by is None or offered.deliver_by >= 0
    assert all(value >= 0 for value in offered.limits.values())


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31T12:00:00.5-00:30", "2026-01-31T12:30:00.500000Z"),
        ("2026-01-31T12:00:00.1234567891Z", "2026-01-31T12:00:00.123456Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
    ],
)
def test_date_times_are_those_of_rfc_3339(text: str, canonical: str) -> None:
    assert format_datetime(parse_datetime(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-02-31T12:00:00Z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T25:00:00Z",
        ),
        *("2026-01-31T12:00:00+99:00", "0001-01-01T00:00:00+23:00", "2026-01-31T12:00Z", "٢٠٢٦-01-31T12:00:00Z"),
    ],
)
def test_other_dates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_datetime(text)
