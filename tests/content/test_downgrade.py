"""The re-encoding of content for a host that lacks what it needs."""

from __future__ import annotations

import binascii
import contextlib
import email
import email.message
import email.policy
import random
import zlib
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.effort import bounded_effort
from trimta.content.downgrade import CannotDowngrade, downgrade
from trimta.content.mime.structure import MAX_DEPTH, MAX_PARTS
from trimta.content.needs import needs_of
from trimta.mail.body import BodyForm

UMLAUTS: Final = "Grüße aus Köln, naïve café\n".encode()
LATIN: Final = b"Gr\xfc\xdfe aus K\xf6ln\n"
NOISE: Final = bytes(random.Random(1).choices([b for b in range(256) if b not in (0, 10, 13)], k=400)) + b"\n"
TOP: Final = b"From: a@dev.test\nSubject: s\nMIME-Version: 1.0\n"


def text(body: bytes = UMLAUTS, *, charset: bytes = b"utf-8", cte: bytes = b"8bit", subtype: bytes = b"plain") -> bytes:
    return (
        b"Content-Type: text/"
        + subtype
        + b"; charset="
        + charset
        + b"\nContent-Transfer-Encoding: "
        + cte
        + b"\n\n"
        + body
    )


def multi(
    *parts: bytes, kind: bytes = b"mixed", boundary: bytes = b"bound", cte: bytes = b"", rest: bytes = b""
) -> bytes:
    head = b"Content-Type: multipart/" + kind + b'; boundary="' + boundary + b'"\n' + cte + b"\n"
    body = b"".join(b"--" + boundary + b"\n" + part + b"\n" for part in parts)
    return head + body + b"--" + boundary + b"--" + rest


def message(inner: bytes, *, cte: bytes = b"") -> bytes:
    return b"Content-Type: message/rfc822\n" + cte + b"\n" + inner


EIGHT: Final = b"Content-Transfer-Encoding: 8bit\n"
BINARY: Final = b"Content-Transfer-Encoding: binary\n"
SEVEN_TEXT: Final = text(b"plain words\n", cte=b"7bit")

CORPUS: Final[dict[str, bytes]] = {
    "one text part": TOP + text(),
    "latin-1": TOP + text(LATIN, charset=b"iso-8859-1"),
    "html": TOP + text(b"<p>\xc3\xa9</p>\n", subtype=b"html"),
    "no final line end": TOP + text("é".encode()),
    "empty lines around": TOP + text(b"\n\n\xc3\xa9\n\n\n"),
    "trailing white space": TOP + text(b"\xc3\xa9 \t\nb  \n \n\t\n"),
    "white space and no line end": TOP + text(b"\xc3\xa9 "),
    "dots": TOP + text(b".\n..\n.\xc3\xa9\n.\n"),
    "equals signs": TOP + text(b"a=b=\xc3\xa9\n==\n=3D=\n"),
    "a From line": TOP + text(b"From me\nFrom \xc3\xa9\n>From you\n"),
    "dense: base64 is shorter": TOP + text(("Щ" * 300 + "\n").encode()),
    "many lines of Japanese": TOP + text("日本語のメール本文です。\n".encode() * 40),
    "CTE 8BIT in upper case": TOP + text(cte=b"8BIT"),
    "no CTE field": TOP + b"Content-Type: text/plain; charset=utf-8\n\n" + UMLAUTS,
    "CTE 7bit that lies": TOP + text(cte=b"7bit"),
    "CTE binary": TOP + text(cte=b"binary"),
    "folded content type": TOP + b"Content-Type: text/plain;\n\tcharset=utf-8\n" + EIGHT + b"\n" + UMLAUTS,
    "fields in lower case": b"mime-version: 1.0\ncontent-type: text/plain; charset=utf-8\n"
    b"content-transfer-encoding: 8bit\n\n" + UMLAUTS,
    "CTE before the rest": EIGHT + TOP + b"Content-Type: text/plain; charset=utf-8\n\n" + UMLAUTS,
    "unknown leaf type": TOP + b"Content-Type: application/x-thing\n" + EIGHT + b"\n" + NOISE * 3,
    "content type that cannot be read": TOP + b"Content-Type: ???\n" + EIGHT + b"\n" + UMLAUTS,
    "two texts": TOP + multi(text(), text(LATIN, charset=b"iso-8859-1"), cte=EIGHT),
    "one of two": TOP + multi(SEVEN_TEXT, text()),
    "alternative": TOP + multi(text(), text(b"<b>\xc3\xa9</b>", subtype=b"html"), kind=b"alternative", cte=EIGHT),
    "encoded beside raw": TOP
    + multi(text(b"=C3=A9\n", cte=b"quoted-printable"), text(b"w6k=\n", cte=b"base64"), text(), cte=EIGHT),
    "preamble and epilogue": TOP
    + b"Content-Type: multipart/mixed; boundary=b\n\nThis is MIME.\n\n--b\n"
    + text()
    + b"\n--b--\nthe end\n--b\nnot a part\n",
    "part without header": TOP + multi(b"\n" + UMLAUTS, SEVEN_TEXT, rest=b"\n"),
    "empty parts": TOP + multi(b"", b"\n", text(), rest=b"\n"),
    "adjacent delimiters": TOP + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n" + text() + b"\n--b--\n",
    "white space after delimiters": TOP
    + b"Content-Type: multipart/mixed; boundary=b\n\n--b \t\n"
    + text()
    + b"\n--b-- \n",
    "near delimiters in the text": TOP
    + multi(text(b"--boun\n --bound\n--boundary\n--bound--x\n\xc3\xa9\n"), rest=b"\n"),
    "nested multiparts": TOP
    + multi(multi(text(), SEVEN_TEXT, kind=b"alternative", boundary=b"inner", cte=EIGHT), text(), cte=BINARY),
    "inner boundary begins like the outer": TOP + multi(multi(text(), boundary=b"bound2"), text(), cte=EIGHT),
    "deeply nested": TOP
    + multi(multi(multi(multi(text(), boundary=b"d4"), boundary=b"d3", cte=EIGHT), boundary=b"d2"), cte=EIGHT),
    "forwarded message": TOP + multi(SEVEN_TEXT, message(TOP + text(), cte=EIGHT), cte=EIGHT),
    "forwarded without MIME": TOP + multi(message(b"Subject: old\n\n" + UMLAUTS, cte=EIGHT)),
    "message in message in message": TOP + message(TOP + message(TOP + text(), cte=EIGHT), cte=BINARY),
    "forwarded multipart": TOP + multi(message(TOP + multi(text(), boundary=b"in"), cte=EIGHT), rest=b"\n"),
    "digest": TOP + multi(b"\n" + TOP + text(), b"\n" + TOP + SEVEN_TEXT, kind=b"digest", cte=EIGHT),
    "signed beside raw": TOP
    + multi(
        multi(SEVEN_TEXT, b"Content-Type: application/pgp-signature\n\nsig\n", kind=b"signed", boundary=b"sig"), text()
    ),
    "a DSN with 8-bit content": TOP
    + multi(
        SEVEN_TEXT,
        b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\nAction: failed\n",
        message(TOP + text(), cte=EIGHT),
        kind=b"report; report-type=delivery-status",
    ),
    "no MIME at all": b"Subject: old\n\n" + UMLAUTS,
    "no MIME, not UTF-8": b"Subject: old\n\n" + LATIN,
    "no MIME-Version but a type": b"Subject: old\nContent-Type: text/plain; charset=utf-8\n\n" + UMLAUTS,
    "multipart without MIME-Version": b"Subject: old\n" + multi(text(), SEVEN_TEXT),
    "empty header": b"\n" + UMLAUTS,
    "long line": TOP + text(b"x" * 3000 + b"\n", cte=b"7bit"),
    "long line, no MIME": b"Subject: s\n\n" + b"word " * 300 + b"\n",
    "long line in one part": TOP + multi(text(b"y" * 1200, cte=b"7bit"), SEVEN_TEXT),
    "NUL": TOP + text(b"a\0b\xc3\xa9\n"),
    "nearly a boundary in base64": TOP + multi(text(NOISE * 5), rest=b"\n"),
    "quoted boundary": TOP
    + b'Content-Type: multipart/mixed; charset="a;b"; boundary="a b(=c)"\n\n--a b(=c)\n'
    + text()
    + b"\n--a b(=c)--\n",
}


def without_labels(content: bytes) -> bytes:
    return content.replace(b"7bit", b"*").replace(b"8bit", b"*").replace(b"binary", b"*")


def wire(content: bytes) -> bytes:
    return content.replace(b"\n", b"\r\n")


def parse(octets: bytes) -> email.message.Message:
    return email.message_from_bytes(octets, policy=email.policy.compat32)


def leaves(octets: bytes) -> list[tuple[str, bytes]]:
    """Types and decoded contents, part by part."""
    found: list[tuple[str, bytes]] = []
    for part in parse(octets).walk():
        payload = part.get_payload(decode=True)
        found.append((part.get_content_type(), payload if isinstance(payload, bytes) else b""))
    return found


def other_fields(octets: bytes) -> list[list[tuple[str, str]]]:
    """All fields but those that the rewriting may touch."""
    touched = {"content-transfer-encoding", "mime-version", "content-type"}
    return [[(n, str(v)) for n, v in part.items() if n.lower() not in touched] for part in parse(octets).walk()]


@pytest.mark.parametrize("name", CORPUS)
def test_decoded_content_is_the_same_part_by_part(name: str) -> None:
    before = CORPUS[name]
    after = downgrade(before)
    assert after.isascii()
    assert leaves(wire(after)) == leaves(wire(before))
    assert other_fields(wire(after)) == other_fields(wire(before))
    assert not needs_of(after).long_line
    assert b": 8bit" not in after.lower()
    for part in parse(wire(after)).walk():
        if part.is_multipart():
            assert part.get("Content-Transfer-Encoding", "7bit") == "7bit"


@pytest.mark.parametrize("name", CORPUS)
def test_a_second_downgrade_changes_nothing(name: str) -> None:
    once = downgrade(CORPUS[name])
    assert downgrade(once) == once


@pytest.mark.parametrize("name", CORPUS)
def test_the_lines_of_the_skeleton_are_kept_octet_for_octet(name: str) -> None:
    before, after = CORPUS[name], downgrade(CORPUS[name])
    skeleton = [line for line in before.split(b"\n") if line.startswith(b"--bound") and line.isascii()]
    if b"near" not in name.encode():
        assert [line for line in after.split(b"\n") if line.startswith(b"--bound")] == skeleton


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, content in CORPUS.items()
        if needs_of(content).fits(eight_bit_ok=True) and b"binary" not in content
    ],
)
def test_a_host_with_8bitmime_gets_8_bit_content_as_it_is(name: str) -> None:
    assert downgrade(CORPUS[name], eight_bit_ok=True) == CORPUS[name]


@pytest.mark.parametrize("name", [name for name, content in CORPUS.items() if b"\0" not in content])
def test_a_raw_message_gives_the_same_as_its_text_form(name: str) -> None:
    assert downgrade(wire(CORPUS[name]), BodyForm.RAW) == downgrade(CORPUS[name])


# -- exact results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            TOP + text(b"\xc3\xa9t\xc3\xa9 and many plain words\n"),
            TOP + text(b"=C3=A9t=C3=A9 and many plain words\n", cte=b"quoted-printable"),
        ),
        (TOP + text(b"\xc3\xa9\xc3\xa9\xc3\xa9\n"), TOP + text(b"w6nDqcOpDQo=\n", cte=b"base64")),
        (
            b"Subject: s\n\nplain words and \xc3\xa9\n",
            b"Subject: s\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
            b"Content-Transfer-Encoding: quoted-printable\n\nplain words and =C3=A9\n",
        ),
        (
            b"Subject: s\n\nplain words and \xe9\n",
            b"Subject: s\nMIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\n"
            b"Content-Transfer-Encoding: quoted-printable\n\nplain words and =E9\n",
        ),
        (
            b"\nplain words and \xe9\n",
            b"MIME-Version: 1.0\nContent-Type: text/plain; charset=unknown-8bit\n"
            b"Content-Transfer-Encoding: quoted-printable\n\nplain words and =E9\n",
        ),
        (TOP + text(b"only ascii\n"), TOP + text(b"only ascii\n", cte=b"7bit")),
        (b"Subject: s\n\nonly ascii\n", b"Subject: s\n\nonly ascii\n"),
        (b"", b""),
        (b"no header at all, ascii\n", b"no header at all, ascii\n"),
        (
            TOP
            + b"Content-Type: message/global\n"
            + EIGHT
            + b"\nSubject: "
            + "Prüfung, with enough plain words\n".encode()
            + b"\nhi\n",
            TOP
            + b"Content-Type: message/global\nContent-Transfer-Encoding: quoted-printable\n\n"
            + b"Subject: Pr=C3=BCfung, with enough plain words\n\nhi\n",
        ),
    ],
)
def test_the_result_is_exactly(before: bytes, after: bytes) -> None:
    assert downgrade(before) == after


def test_a_label_at_the_end_of_a_header_without_body_gets_no_line_end() -> None:
    assert downgrade(TOP + b"Content-Transfer-Encoding: 8bit") == TOP + b"Content-Transfer-Encoding: 7bit"


def test_fields_added_to_a_header_without_end_are_lines_of_their_own() -> None:
    assert downgrade(b"Content-Transfer-Encoding: 8bit") == (
        b"Content-Transfer-Encoding: 7bit\nMIME-Version: 1.0\nContent-Type: text/plain; charset=us-ascii\n"
    )


def test_a_stray_cr_in_a_text_message_is_kept_by_base64() -> None:
    after = parse(downgrade(TOP + text(b"a\rb\n", cte=b"7bit")))
    assert after["Content-Transfer-Encoding"] == "base64"
    assert after.get_payload(decode=True) == b"a\rb\r\n"


# -- refusals ------------------------------------------------------------------------------------------------------

SIGNED: Final = multi(text(), b"Content-Type: application/pgp-signature\n\nsig\n", kind=b"signed", boundary=b"sig")
RFC822_IN_SIGNED: Final = multi(message(TOP + text(), cte=EIGHT), SEVEN_TEXT, kind=b"signed", boundary=b"sig")

REFUSED: Final[dict[str, tuple[bytes, str]]] = {
    "signed": (TOP + SIGNED, "multipart/signed"),
    "signed, capitals": (TOP + SIGNED.replace(b"multipart/signed", b"Multipart/SIGNED"), "multipart/signed"),
    "signed inside": (TOP + multi(SEVEN_TEXT, SIGNED), "multipart/signed"),
    "signed inside a message": (TOP + multi(message(TOP + SIGNED)), "multipart/signed"),
    "message inside signed": (TOP + RFC822_IN_SIGNED, "multipart/signed"),
    "encrypted": (TOP + multi(text(), kind=b"encrypted"), "multipart/encrypted"),
    "S/MIME": (
        TOP + b"Content-Type: application/pkcs7-mime; name=x\n" + BINARY + b"\n" + NOISE,
        "application/pkcs7-mime",
    ),
    "8-bit subject": (b"Subject: \xc3\xa9\n\nhi\n", "the header"),
    "8-bit field of a part": (TOP + multi(b"Content-Description: \xc3\xa9\n" + text()), "the header"),
    "8-bit file name": (TOP + b'Content-Type: text/plain; name="\xe9"\n\nhi\n', "the header"),
    "8-bit header of a forwarded message": (TOP + message(b"Subject: \xe9\n\nhi\n", cte=EIGHT), "the header"),
    "labelled quoted-printable": (TOP + text(cte=b"quoted-printable"), "quoted-printable"),
    "labelled base64": (TOP + text(cte=b"base64"), "base64"),
    "labelled with an unknown word": (TOP + text(cte=b"x-own"), "x-own"),
    "multipart said to be encoded": (
        TOP + multi(text(), cte=b"Content-Transfer-Encoding: base64\n"),
        "said to be encoded",
    ),
    "message said to be encoded": (
        TOP + message(TOP + text(), cte=b"Content-Transfer-Encoding: base64\n"),
        "encoded as",
    ),
    "delivery-status": (TOP + b"Content-Type: message/delivery-status\n\nA: \xe9\n", "message/delivery-status"),
    "partial": (TOP + b"Content-Type: message/partial; id=a\n\nA: b\n\n\xe9\n", "message/partial"),
    "no delimiter": (TOP + b"Content-Type: multipart/mixed; boundary=b\n\n" + UMLAUTS, "without its boundary"),
    "no boundary": (TOP + b"Content-Type: multipart/mixed\n\n--b\n" + text() + b"\n--b--\n", "good boundary"),
    "empty boundary": (TOP + multi(text(), boundary=b""), "good boundary"),
    "two boundaries": (
        TOP + b"Content-Type: multipart/mixed; boundary=b; boundary=c\n\n--b\n" + text() + b"\n--b--\n",
        "good boundary",
    ),
    "type without a slash": (TOP + b"Content-Type: multipart; boundary=b\n\n" + UMLAUTS, "cannot be read"),
    "same boundary inside": (
        TOP + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + multi(text(), boundary=b"b") + b"\n--b--\n",
        "around it",
    ),
    "no blank line": (b"Subject: s\n\xe9t\xe9 without a blank line\n", "no field"),
    "no header": (b"\xe9t\xe9\n", "no field"),
    "part without blank line": (TOP + multi(b"just \xe9 words"), "no field"),
    "continuation first": (b" folded\nSubject: s\n\n\xe9\n", "continuation"),
    "space before the colon": (TOP + b"Content-Type : text/plain\n\n\xe9\n", "no field"),
    "two types": (TOP + b"Content-Type: text/html\nContent-Type: text/plain\n\n\xe9\n", "more than one"),
    "two encodings": (TOP + EIGHT + b"Content-Transfer-Encoding: base64\n\n\xe9\n", "more than one"),
}


PART: Final = b"\n\n--b\n" + text() + b"\n--b--\n"
MENDED: Final[dict[str, bytes]] = {
    "8-bit preamble": (TOP + b"Content-Type: multipart/mixed; boundary=b\n\n\xe9\n--b\n\nx\n--b--\n"),
    "8-bit epilogue": (TOP + multi(SEVEN_TEXT, rest=b"\n\xe9\n")),
    "no end": (TOP + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + text()),
    "boundary ends in a space": (TOP + multi(text(), boundary=b"b ")),
    "boundary in pieces": (TOP + b"Content-Type: multipart/mixed; boundary*0=b\n\n--b\n" + text() + b"\n--b--\n"),
    "encoding with a comment": (TOP + text(cte=b"8bit (really)")),
    "type with a comment": (TOP + b"Content-Type: multipart/mixed (hi); boundary=b\n\n--b\n" + text() + b"\n--b--\n"),
    "comment before the type": (
        TOP + b"Content-Type: (hi) multipart/mixed; boundary=b\n\n--b\n" + text() + b"\n--b--\n"
    ),
    "quoted pair in the boundary": (
        TOP + b'Content-Type: multipart/mixed; boundary="a\\ b"\n\n--a b\n' + text() + b"\n--a b--\n"
    ),
    "inner end is missing": (TOP + multi(b"Content-Type: multipart/mixed; boundary=i\n\n--i\n" + text())),
    "comment behind the type": TOP + text().replace(b"plain;", b"plain (a comment);"),
    "comment and no parameter": TOP + b"Content-Type: text/plain (a comment)\n" + EIGHT + b"\n" + UMLAUTS,
    "comment in the type": TOP
    + b"Content-Type: multipart (a) / (b) mixed (c (d)) ; (e) boundary (f) = (g) b (h)"
    + PART,
    "comment that never ends": TOP + b"Content-Type: text/plain (a comment\n" + EIGHT + b"\n" + UMLAUTS,
    "parenthesis in the boundary": TOP
    + b'Content-Type: multipart/mixed; boundary="(b"'
    + PART.replace(b"--b", b"--(b"),
    "folded": TOP + b"Content-Type:\n multipart/mixed;\n\tcharset=x;\n boundary\n =\n b" + PART,
    "boundary in RFC 2231's way": TOP + b"Content-Type: multipart/mixed; boundary*=us-ascii'en'%62" + PART,
    "boundary in many pieces": TOP
    + b"Content-Type: multipart/mixed; boundary*1=c; boundary*0*=''%62"
    + PART.replace(b"--b", b"--bc"),
    "the same boundary twice": TOP + b"Content-Type: multipart/mixed; boundary=b; boundary=b" + PART,
    "rubbish behind the boundary": TOP + b"Content-Type: multipart/mixed; boundary=b; foo bar=(;" + PART,
    "boundary without quotes": TOP
    + b"Content-Type: multipart/mixed; boundary=a/=b?"
    + PART.replace(b"--b", b"--a/=b?"),
    "encoding in capitals": TOP + text(cte=b"8BIT"),
    "encoding with a semicolon": TOP + text(cte=b"8bit;"),
    "encoding in quotes": TOP + text(cte=b'"8bit"'),
    "encoding with a hyphen": TOP + text(cte=b"8-bit"),
    "no encoding at all": TOP + b"Content-Type: text/plain\n\n" + UMLAUTS,
    "encoding that says 7bit": TOP + text(cte=b"7bit"),
    "both ends missing": TOP
    + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"
    + b"Content-Type: multipart/alternative; boundary=i\n\n--i\n"
    + text(),
    "8-bit before and behind": TOP
    + b"Content-Type: multipart/mixed; boundary=b\n\nv\xc3\xb6r\n--b\n"
    + text()
    + b"\n--b--\nn\xc3\xa4ch\n",
    "signed beside the end that is missing": TOP
    + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"
    + multi(SEVEN_TEXT, SEVEN_TEXT, kind=b"signed", boundary=b"s")
    + b"\n--b\n"
    + text(),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_readers_understand_is_rewritten_however_it_is_written(name: str) -> None:
    content = MENDED[name]
    after = downgrade(content)
    assert after.isascii()
    assert downgrade(after) == after
    if UMLAUTS in content:
        assert b"\n" + binascii.b2a_base64(UMLAUTS.replace(b"\n", b"\r\n"), newline=False) in after
    ascii_only = bytes(octet & 0x7F for octet in content).replace(b"8BIT", b"8bit").replace(b"8-bit", b"8bit")
    ascii_only = without_labels(ascii_only)
    assert without_labels(downgrade(ascii_only)) == ascii_only


@pytest.mark.parametrize("name", MENDED)
def test_what_is_odd_is_kept_for_a_host_with_8bitmime(name: str) -> None:
    assert without_labels(downgrade(MENDED[name], eight_bit_ok=True)) == without_labels(MENDED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_not_be_rewritten_is_refused_with_a_reason(name: str) -> None:
    content, reason = REFUSED[name]
    with pytest.raises(CannotDowngrade, match=reason):
        downgrade(content)


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_not_be_rewritten_goes_as_it_is_to_a_host_with_8bitmime(name: str) -> None:
    content, _ = REFUSED[name]
    assert without_labels(downgrade(content, eight_bit_ok=True)) == without_labels(content)


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_or_signed_ascii_is_kept_octet_for_octet(name: str) -> None:
    content = bytes(octet & 0x7F for octet in REFUSED[name][0])
    content = content.replace(b"8bit", b"7bit").replace(b"binary", b"7bit")
    if b"\0" not in content and content.count(b"\r") == 0:
        assert downgrade(content) == content


def test_signed_parts_keep_their_octets_and_their_labels() -> None:
    signed = multi(
        text(b"ascii\n"), b"Content-Type: application/pgp-signature\n\nsig\n", kind=b"signed", boundary=b"sig"
    )
    after = downgrade(TOP + multi(signed, text()))
    assert signed in after
    assert after.isascii()


def test_long_lines_that_may_not_be_touched_stay() -> None:
    long = b"z" * 2000
    for content in (
        TOP + b"X-Long: " + long + b"\n\nhi\n",
        TOP + multi(text(long, cte=b"7bit"), SEVEN_TEXT, kind=b"signed"),
        TOP + text(long, cte=b"base64"),
        TOP + b"Content-Type: multipart/mixed; boundary=b\n\n" + long + b"\n--b\n\nhi\n--b--\n",
    ):
        assert downgrade(content) == content
        assert downgrade(content, eight_bit_ok=True) == content


def test_nesting_and_number_of_parts_are_bounded() -> None:
    inner = text()
    for depth in range(MAX_DEPTH + 1):
        inner = multi(inner, boundary=b"b%dx" % depth)
    with pytest.raises(CannotDowngrade, match="too many parts"):
        downgrade(TOP + inner)
    with pytest.raises(CannotDowngrade, match="too many parts"):
        downgrade(TOP + multi(*([b"\nx"] * MAX_PARTS), text()))


# -- raw messages (BODY=BINARYMIME) ----------------------------------------------------------------------------------

RAW_TOP: Final = wire(TOP)


@pytest.mark.parametrize("eight_bit_ok", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"a\rb",
        b"a\nb",
        b"\r",
        b"\n",
        b"\n\r",
        b"\r\r\n",
        bytes(range(256)) * 3,
        b"a\r\n\0\r\n",
        b"x" * 2000 + b"\0",
    ],
)
@pytest.mark.parametrize("kind", [b"text/plain; charset=utf-8", b"application/octet-stream", b"image/png"])
def test_a_binary_part_is_base64_of_its_exact_octets(data: bytes, kind: bytes, *, eight_bit_ok: bool) -> None:
    part = b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: binary\r\n\r\n" + data
    raw = RAW_TOP + wire(multi(b"@", text(), cte=BINARY)).replace(b"@", part)
    after = downgrade(raw, BodyForm.RAW, eight_bit_ok=eight_bit_ok)
    assert b"\r" not in after
    assert not needs_of(after).binary
    assert not needs_of(after).long_line
    _, first, second = parse(after).walk()
    assert first.get_payload(decode=True) == data
    assert first["Content-Transfer-Encoding"] == "base64"
    assert second.get_payload(decode=True) == UMLAUTS if eight_bit_ok else wire(UMLAUTS)
    assert (second["Content-Transfer-Encoding"] == "8bit") is eight_bit_ok
    assert (UMLAUTS in after) is eight_bit_ok
    assert b"binary" not in after


def test_a_whole_binary_message_is_one_base64_body() -> None:
    raw = RAW_TOP + b"Content-Type: application/gzip\r\nContent-Transfer-Encoding: binary\r\n\r\n\x1f\x8b\0\n\xff"
    after = downgrade(raw, BodyForm.RAW, eight_bit_ok=True)
    assert after == TOP + b"Content-Type: application/gzip\nContent-Transfer-Encoding: base64\n\nH4sACv8="


def test_a_clean_raw_message_becomes_text_with_an_honest_label() -> None:
    raw = RAW_TOP + wire(text(cte=b"binary"))
    assert downgrade(raw, BodyForm.RAW, eight_bit_ok=True) == TOP + text(cte=b"8bit")
    raw = RAW_TOP + wire(text(b"hi\n", cte=b"binary"))
    assert downgrade(raw, BodyForm.RAW, eight_bit_ok=True) == TOP + text(b"hi\n", cte=b"7bit")


@pytest.mark.parametrize(
    "raw",
    [
        b"Subject: a\nX: b\r\n\r\nhi",
        b"Subject: a\rb\r\n\r\nhi",
        b"Subject: a\0b\r\n\r\nhi",
        RAW_TOP + wire(multi(SEVEN_TEXT, rest=b"\n")) + b"\0",
        RAW_TOP + wire(multi(SEVEN_TEXT, kind=b"signed", rest=b"\n")).replace(b"plain words", b"plain\nwords"),
        TOP + text(b"hi\n"),
    ],
)
def test_raw_octets_outside_of_leaf_parts_are_refused(raw: bytes) -> None:
    with pytest.raises(CannotDowngrade, match=r"NUL, a bare CR or a bare LF|no field|8-bit"):
        downgrade(raw, BodyForm.RAW, eight_bit_ok=True)


# -- properties ------------------------------------------------------------------------------------------------------

bodies = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=40).map(str.encode),
        st.binary(max_size=40).map(lambda octets: octets.replace(b"\r", b"").replace(b"\0", b"")),
        st.just(b"\n"),
        st.sampled_from([b" ", b"\t\n", b".", b"=", b"From ", b"x" * 1100]),
    ),
    max_size=8,
).map(b"".join)

ctes = st.sampled_from([b"7bit", b"8bit", b"binary", b"8Bit"])
leaf_parts = st.builds(
    lambda body, cte, kind: b"Content-Type: " + kind + b"\nContent-Transfer-Encoding: " + cte + b"\n\n" + body,
    bodies.map(lambda body: body.replace(b"\n--", b"\n==").removeprefix(b"--")),
    ctes,
    st.sampled_from([b"text/plain; charset=utf-8", b"text/html", b"application/x", b"image/png"]),
)


def _compose(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    fields = st.sampled_from([b"", EIGHT, BINARY])
    # A boundary that is in no part: no two levels have the same, and no digit of one begins another.
    multiparts = st.builds(
        lambda parts, cte: multi(*parts, boundary=b"b%08xz" % zlib.crc32(b"".join(parts)), cte=cte),
        st.lists(inner, min_size=1, max_size=3),
        fields,
    )
    return multiparts | st.builds(lambda one, cte: message(TOP + one, cte=cte), inner, fields)


trees = st.recursive(leaf_parts, _compose, max_leaves=6)


@settings(deadline=None, max_examples=100)
@given(tree=trees, eight_bit_ok=st.booleans())
def test_any_tree_of_parts_decodes_to_the_same(tree: bytes, *, eight_bit_ok: bool) -> None:
    before = TOP + tree
    after = downgrade(before, eight_bit_ok=eight_bit_ok)
    assert after.isascii() or eight_bit_ok
    assert leaves(wire(after)) == leaves(wire(before))
    assert downgrade(after, eight_bit_ok=eight_bit_ok) == after
    assert downgrade(wire(before), BodyForm.RAW, eight_bit_ok=eight_bit_ok) == after


soup = st.lists(
    st.one_of(
        st.sampled_from(
            [  # what structure is made of
                b"--b",
                b"--b--",
                b"--c",
                b"\n",
                b"\n\n",
                b"\r\n",
                b"\r",
                b"\0",
                b"\xe9",
                TOP,
                EIGHT,
                BINARY,
                b"Content-Type: multipart/mixed; boundary=b\n",
                b'Content-Type: multipart/x; boundary="c"\n',
                b"Content-Type: message/rfc822\n",
                b"Content-Type: text/plain\n",
                b"Content-Type: multipart/signed\n",
                b"Content-Type: ",
                b"; boundary=",
                b'"',
                b"\\",
                b"(",
                b" ",
                text(),
                b"x" * 1000,
            ]
        ),
        st.binary(max_size=20),
    ),
    max_size=25,
).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(content=soup, form=st.sampled_from(BodyForm), eight_bit_ok=st.booleans())
def test_any_octets_give_a_fitting_content_or_a_refusal(content: bytes, form: BodyForm, *, eight_bit_ok: bool) -> None:
    try:
        after = downgrade(content, form, eight_bit_ok=eight_bit_ok)
    except CannotDowngrade as why:
        assert str(why).isprintable()  # noqa: PT017
        return
    assert eight_bit_ok or after.isascii()
    if form is BodyForm.RAW:
        assert b"\r" not in after
        assert b"\0" not in after


@pytest.mark.parametrize(
    "content",
    [
        TOP + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--bx\n" * 200_000 + b"\xe9",
        TOP + b"Content-Type: multipart/mixed" + b"; a=b" * 100_000 + b"\n\n\xe9",
        TOP + b"Content-Type: multipart/mixed; x=" + b'"\\' * 200_000 + b"\n\n\xe9",
        TOP + b"Content-Type: multipart/mixed " + b"(" * 500_000 + b"\n\n\xe9",
        b"A: b\n" + b" c\n" * 200_000 + b"\n\xe9",
        b"A" * 1_000_000 + b"\xe9",
        TOP + b"Content-Type: " + b" " * 1_000_000 + b"\n\n\xe9",
        TOP + text(b"\n" * 1_000_000 + b"\xe9"),
        TOP + text(b"\xe9" * 1_000_000),
    ],
    ids=["near delimiters", "parameters", "quotes", "comments", "folds", "one line", "spaces", "line ends", "octets"],
)
def test_hostile_content_takes_no_long_time(content: bytes) -> None:
    with bounded_effort():
        with contextlib.suppress(CannotDowngrade):
            downgrade(content)
        needs_of(content)


@pytest.mark.parametrize("window", [1, 7, 64])
@pytest.mark.parametrize("name", [*CORPUS, *MENDED])
def test_the_result_is_the_same_however_little_is_read_at_once(
    name: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CORPUS[name] if name in CORPUS else MENDED[name]
    whole = downgrade(content)
    monkeypatch.setattr("trimta.content.windowed_octets.WINDOW", window)
    assert downgrade(content) == whole
