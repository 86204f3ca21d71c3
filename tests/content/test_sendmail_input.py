"""What is piped into sendmail: its end and its line ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.content.sendmail_input import BareCrError, PipedText


def read(octets: bytes, *, dot_ends: bool, step: int = 0) -> tuple[bytes, bool]:
    """The content, taken in pieces of `step` octets, and whether it ended itself."""
    text = PipedText(dot_ends=dot_ends)
    pieces = [octets[place : place + step] for place in range(0, len(octets), step)] if step else [octets]
    content = b"".join(map(text.feed, pieces)) + text.finish()
    return content, text.ended


@pytest.mark.parametrize("step", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("octets", "content", "ended"),
    [
        (b"", b"", False),
        (b"a\nb\n", b"a\nb\n", False),
        (b"a\nb", b"a\nb", False),
        (b"a\r\nb\r\n", b"a\nb\n", False),
        (b"a\r\nb\nc\r\n", b"a\nb\nc\n", False),
        (b"a\0b\n", b"a\0b\n", False),
        (b"a\n.\nb\n", b"a\n", True),
        (b"a\r\n.\r\nb\r\n", b"a\n", True),
        (b".\nb\n", b"", True),
        (b"a\n.", b"a\n", False),
        (b".", b"", False),
        (b"a\n..\nb\n", b"a\n..\nb\n", False),
        (b"a\n.b\n", b"a\n.b\n", False),
        (b"a\n. \n", b"a\n. \n", False),
        (b"a.\nb.\n", b"a.\nb.\n", False),
        (b"a\n.\nb\rc\n", b"a\n", True),
    ],
)
def test_a_lone_dot_ends_and_crlf_is_a_line_end(octets: bytes, content: bytes, ended: bool, step: int) -> None:
    assert read(octets, dot_ends=True, step=step) == (content, ended)


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("octets", [b"a\n.\nb\n", b"a\r\n.\r\nb\r\n", b".\n", b"a\n."])
def test_with_i_a_lone_dot_is_a_line(octets: bytes, step: int) -> None:
    assert read(octets, dot_ends=False, step=step) == (octets.replace(b"\r\n", b"\n"), False)


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize(
    ("octets", "line"), [(b"a\rb\n", 1), (b"a\nb\r\r\n", 2), (b"a\n\nb\r", 3), (b"\r", 1), (b"a\n.\rb\n", 2)]
)
def test_a_cr_that_ends_no_line_is_refused(octets: bytes, line: int, step: int) -> None:
    with pytest.raises(BareCrError) as caught:
        read(octets, dot_ends=True, step=step)
    assert caught.value.line == line


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([b"a", b".", b"\n", b"\r\n", b"\0"]), max_size=30), st.integers(1, 7), st.booleans())
def test_it_does_not_matter_where_the_octets_are_split(parts: list[bytes], step: int, dot_ends: bool) -> None:
    octets = b"".join(parts)
    assert read(octets, dot_ends=dot_ends, step=step) == read(octets, dot_ends=dot_ends)
