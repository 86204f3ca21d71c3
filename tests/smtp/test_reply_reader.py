"""Replies as a server sends them: read whole and in pieces, and what becomes of bad ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.mail.reply import Reply
from trimta.mail.status import EnhancedStatus
from trimta.smtp.errors import ReplyError
from trimta.smtp.reply_reader import MAX_REPLY, ReplyReader

OK = Reply.of(250, "2.0.0", "ok")


def read(octets: bytes, pieces: int = 0) -> list[Reply]:
    """All replies in some octets, fed whole or in pieces of so many octets."""
    reader = ReplyReader()
    replies = []
    step = pieces or max(1, len(octets))
    for start in range(0, len(octets), step):
        reader.feed(octets[start : start + step])
        while (reply := reader.next()) is not None:
            replies.append(reply)
    return replies


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        (OK, b"250 2.0.0 ok\r\n"),
        (Reply.of(354, "", "go on"), b"354 go on\r\n"),
        (Reply.of(250, "", "host", "SIZE 1", "HELP"), b"250-host\r\n250-SIZE 1\r\n250 HELP\r\n"),
        (Reply.of(550, "5.1.1", "no", "really"), b"550-5.1.1 no\r\n550 5.1.1 really\r\n"),
        (Reply(250, ("",)), b"250 \r\n"),
        (Reply(250, ("jürgen",)), "250 jürgen\r\n".encode()),
    ],
)
def test_a_reply_is_rendered_and_read_back(reply: Reply, octets: bytes) -> None:
    assert reply.render() == octets
    assert read(octets) == [reply]
    assert read(octets, 1) == [reply]
    assert read(octets + OK.render(), 7) == [reply, OK]


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"250\r\n", Reply(250, ("",))),
        (b"250 2.1.0\r\n", Reply(250, ("",), EnhancedStatus(2, 1, 0))),
        (b"250 ok\n", Reply(250, ("ok",))),
        (b"250-a\n250\r\n", Reply(250, ("a", ""))),
        (b"250 " + b"x" * 5000 + b"\r\n", Reply(250, ("x" * 5000,))),
        (b"550 2.1.0 fine\r\n", Reply(550, ("2.1.0 fine",))),  # the class disagrees
        (b"550 5.1.1fine\r\n", Reply(550, ("5.1.1fine",))),
        (b"250-2.1.0 a\r\n250 b\r\n", Reply(250, ("a", "b"), EnhancedStatus(2, 1, 0))),
        (b"250 caf\xe9\r\n", Reply(250, ("caf�",))),
        (b"250 a\tb\x00c\rd\r\n", Reply(250, ("a?b?c?d",))),
    ],
)
def test_what_servers_say_in_their_own_way_is_understood(octets: bytes, reply: Reply) -> None:
    assert read(octets) == read(octets, 1) == [reply]


@pytest.mark.parametrize(
    "octets",
    [
        b"hello\r\n" * (MAX_REPLY // 6),
        b"\r\n" * MAX_REPLY,
        b"250-a\r\n" + b"b\r\n" * MAX_REPLY,
        b"250 " + b"x" * MAX_REPLY + b"\r\n",
        b"250 " + b"x" * MAX_REPLY,
        b"250-x\r\n" * (MAX_REPLY // 6),
    ],
    ids=lambda octets: f"{octets[:20]!r}-{len(octets)}",
)
def test_what_is_no_reply_is_an_error(octets: bytes) -> None:
    with pytest.raises(ReplyError):
        read(octets)
    with pytest.raises(ReplyError):
        read(octets, 997)


NO_CODE = [
    b"hello\r\n",
    b"\r\n",
    b"\n",
    b"25 ok\r\n",
    b"2500 ok\r\n",
    b"250x\r\n",
    b" 250 ok\r\n",
    b"\xb2\xb5\xb0 ok\r\n",
]
NO_CODE += [b"-\r\n", b"2 50 ok\r\n", b"25O ok\r\n", b"\xef\xbb\xbf220 hi\r\n", b"\x00\r\n"]


@pytest.mark.parametrize("line", NO_CODE)
@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_a_line_without_a_code_is_passed_over(line: bytes, pieces: int) -> None:
    first, second = Reply.of(250, "2.0.0", "a", "b"), Reply.of(550, "5.1.1", "no")
    octets = line + b"250-2.0.0 a\r\n" + line * 2 + b"250 2.0.0 b\r\n" + line + b"550 5.1.1 no\r\n" + line
    assert read(octets, pieces) == [first, second]
    assert read(octets.replace(b"\r\n", b"\n"), pieces) == [first, second]


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"250-a\r\n550 b\r\n", Reply(550, ("b",))),
        (b"550-a\r\n250 b\r\n", Reply(250, ("b",))),
        (b"550-5.1.1 a\r\n554-5.7.1 b\r\n554 5.7.1 c\r\n", Reply.of(554, "5.7.1", "b", "c")),
        (b"250-a\r\n251-b\r\n250 c\r\n", Reply(250, ("a", "c"))),
        (b"421-a\r\n250 b\r\n", Reply(250, ("b",))),
        (b"150 a\r\n", Reply(150, ("a",))),
        (b"650 a\r\n", Reply(650, ("a",))),
    ],
)
def test_of_two_codes_in_one_reply_the_last_counts(octets: bytes, reply: Reply) -> None:
    assert read(octets) == read(octets, 1) == [reply]


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"250 2.0.0 queued", 250),
        (b"250", 250),
        (b"250 ok\r", 250),
        (b"250-2.0.0 queued\r\n", 250),
        (b"250-2.0.0 queued\r\nand more", 250),
        (b"250-queued\r\n250", 250),
        (b"550-no\r\n", 550),
        (b"550-no\r\n554-really", 554),
        (b"", None),
        (b"25", None),
        (b"queued\r\n", None),
        (b"250-queued\r\n550 no", None),
    ],
)
def test_of_a_reply_that_was_cut_off_what_is_certain_counts(octets: bytes, code: int | None) -> None:
    reader = ReplyReader()
    reader.feed(octets)
    assert reader.next() is None
    reply = reader.cut_off()
    assert (reply and reply.code) == code


@pytest.mark.parametrize(
    ("octets", "diagnostic"),
    [
        (b"550 5.1.1 no\r\n", "550 5.1.1 no"),
        (b"550-a\r\n550 b\r\n", "550-a 550 b"),
        (b"550-5.1.1 a\r\n550 5.1.1 b\r\n", "550-5.1.1 a 550 5.1.1 b"),
        (b"550-5.1.1 a\r\n550 b\r\n", "550-5.1.1 a 550 b"),
        (b"550-5.1.1 a\r\nask the owner\r\n\r\n554 b\r\n", "550-5.1.1 a ask the owner 554 b"),
        (b"hello\r\n550\r\n", "550"),
        (b"550 \x1b[31mred\r\n", "550 ?[31mred"),
    ],
)
def test_a_diagnostic_is_the_reply_with_all_its_codes(octets: bytes, diagnostic: str) -> None:
    (reply,) = read(octets)
    assert reply.diagnostic == diagnostic


TEXT = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=60)
REPLIES = st.builds(
    lambda code, lines, subject: Reply(code, tuple(lines), subject and EnhancedStatus(code // 100, subject, 1)),
    st.sampled_from([211, 220, 250, 421, 450, 550, 599]),
    st.lists(TEXT, min_size=1, max_size=4),
    st.integers(1, 7),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(REPLIES, max_size=4), st.integers(1, 50))
def test_replies_survive_the_wire_in_any_pieces(replies: list[Reply], pieces: int) -> None:
    assert read(b"".join(reply.render() for reply in replies), pieces) == replies


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"250-", b"250 2.0.0 ", b"\r\n", b"550"]), max_size=12))
def test_any_octets_are_replies_or_an_error(pieces: list[bytes]) -> None:
    reader = ReplyReader()
    try:
        for piece in pieces:
            reader.feed(piece)
            while reader.next() is not None:
                pass
    except ReplyError:
        return
    assert reader.pending <= sum(map(len, pieces))
