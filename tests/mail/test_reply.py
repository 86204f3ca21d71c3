"""Replies as values: written to the wire, to a log, to a report, and read from a peer's lines."""

from __future__ import annotations

import pytest

from trimta.mail.limits import MAX_REPLY_LINE
from trimta.mail.reply import Reply
from trimta.mail.status import EnhancedStatus


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        (["250"], Reply(250, ("",))),
        (["250 ok"], Reply(250, ("ok",))),
        (["550 5.1.1 no such user"], Reply(550, ("no such user",), EnhancedStatus(5, 1, 1))),
        (["550-5.1.1 a", "550 5.1.1 b"], Reply(550, ("a", "b"), EnhancedStatus(5, 1, 1))),
        (["550-5.1.1 a", "550 b"], Reply(550, ("a", "b"), EnhancedStatus(5, 1, 1))),
        (["550 2.1.1 the class disagrees"], Reply(550, ("2.1.1 the class disagrees",))),
        (["550 5.1.1fine"], Reply(550, ("5.1.1fine",))),
        (["421-a", "250 b"], Reply(250, ("b",))),
        (["550-a", "ask the owner", "550 b"], Reply(550, ("a", "b"))),
        (["650 a"], Reply(650, ("a",))),
        (["550-5.1.1 no 550 5.1.1 such user"], Reply(550, ("no 550 5.1.1 such user",), EnhancedStatus(5, 1, 1))),
    ],
)
def test_a_reply_is_read_from_its_lines_and_keeps_them(lines: list[str], reply: Reply) -> None:
    assert Reply.read(lines) == reply
    assert Reply.read(lines).diagnostic == " ".join(lines)
    assert Reply.read([reply.diagnostic]).diagnostic == reply.diagnostic


@pytest.mark.parametrize(
    "lines", [[], [""], ["hello"], ["25 ok"], ["2500 ok"], ["250x"], [" 250 ok"], ["\u00b2\u00b5\u00b0"]]
)
def test_lines_without_a_code_are_no_reply(lines: list[str]) -> None:
    with pytest.raises(ValueError, match="no reply"):
        Reply.read(lines)


def test_without_enhanced_codes_no_line_has_a_status() -> None:
    assert Reply.of(550, "5.1.1", "a", "b").render(enhanced=False) == b"550-a\r\n550 b\r\n"


def test_without_smtputf8_a_reply_is_ascii() -> None:
    assert Reply.of(550, "5.1.1", "jürgen").render(utf8=False) == b"550 5.1.1 j\\xfcrgen\r\n"


@pytest.mark.parametrize("text", ["a\r\n250 forged", "a\nb", "a\x00b", "a\x1b[2J", "\x85", "\udc80"])
def test_text_forges_no_line(text: str) -> None:
    octets = Reply(550, (text,)).render()
    assert octets.count(b"\n") == octets.count(b"\r") == 1
    assert all(octet >= 32 for octet in octets[:-2])


@pytest.mark.parametrize("text", ["x" * 2000, "ü" * 2000, "xü€𝄞" * 500])
def test_a_line_is_cut_between_characters(text: str) -> None:
    octets = Reply.of(550, "5.1.1", text).render()
    assert MAX_REPLY_LINE - 4 < len(octets) <= MAX_REPLY_LINE
    assert octets[:-2].decode().removeprefix("550 5.1.1 ") in text


@pytest.mark.parametrize("lines", [("ok",), ("",), (), ("a", "b"), ("jürgen",), ("a", "b\0"), ("x" * 600,)])
@pytest.mark.parametrize("status", ["", "2.0.0"])
def test_a_reply_is_rendered_again_as_it_is_to_be_then(lines: tuple[str, ...], status: str) -> None:
    ways = [{"enhanced": enhanced, "utf8": utf8} for enhanced in (True, False) for utf8 in (True, False)]
    for first in ways:
        for second in ways:
            once, again = (Reply(250, lines, EnhancedStatus.parse(status) if status else None) for _ in range(2))
            once.render(**first)
            assert once.render(**second) == again.render(**second)
            assert once == again


def test_a_reply_reads_well_in_a_log() -> None:
    assert str(Reply.of(550, "5.1.1", "no such", "user")) == "550 5.1.1 no such user"
    assert str(Reply.of(354, "", "go on")) == "354 go on"
