"""Command lines in the octets of a client, however these are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimta.smtp.lines import BEGINNING, MAX_ENDLESS, MAX_LINE, LineBeginning, LineBuffer, Unfit

LENGTHS = st.sampled_from([0, 1, 2, 3, 500, MAX_LINE - 2, MAX_LINE - 1, MAX_LINE, 2 * MAX_LINE])


def expected(line: bytes) -> bytes | LineBeginning:
    return line if len(line) <= MAX_LINE else LineBeginning(line[:BEGINNING], Unfit.TOO_LONG)


def is_unfinished(line: bytes | LineBeginning) -> bool:
    return isinstance(line, LineBeginning) and line.unfit is None


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(LENGTHS, st.sampled_from([b"\n", b"\r\n"])), max_size=6), st.integers(1, 3 * MAX_LINE))
def test_lines_do_not_depend_on_how_the_octets_are_cut(shapes: list[tuple[int, bytes]], pieces: int) -> None:
    lines = [bytes([97 + number]) * length + end for number, (length, end) in enumerate(shapes)]
    octets = b"".join(lines) + b"rest"
    buffer, taken = LineBuffer(), []
    for start in range(0, len(octets), pieces):
        buffer.feed(octets[start : start + pieces])
        while (line := buffer.line()) is not None and not is_unfinished(line):
            taken.append(line)
    assert taken == [expected(line) for line in lines]
    assert (len(buffer), buffer.line()) == (4, LineBeginning(b"rest", None))
    assert (buffer.take(), len(buffer), buffer.line()) == (b"rest", 0, None)


@pytest.mark.parametrize("pieces", [1000, MAX_LINE, MAX_ENDLESS])
def test_a_line_without_end_is_dropped_and_its_beginning_known(pieces: int) -> None:
    buffer = LineBuffer()
    octets = b"BDAT".ljust(MAX_ENDLESS, b"x")
    for start in range(0, len(octets), pieces):
        buffer.feed(octets[start : start + pieces])
        is_last = start + pieces >= len(octets)
        assert buffer.line() == LineBeginning(octets[:BEGINNING], Unfit.ENDLESS if is_last else None)
        assert len(buffer) <= MAX_LINE
    assert buffer.line() is None


def test_octets_behind_a_line_are_taken_without_regard_to_lines() -> None:
    buffer = LineBuffer()
    buffer.feed(b"DATA\r\na\r\n")
    assert buffer.line() == b"DATA\r\n"
    assert (buffer.take(2), buffer.take(), buffer.take()) == (b"a\r", b"\n", b"")
    buffer.feed(b"more")
    buffer.give_back(b"QUIT\r\n")
    assert (buffer.line(), buffer.line(), buffer.take()) == (b"QUIT\r\n", LineBeginning(b"more", None), b"more")


def test_many_octets_are_passed_on_without_a_copy() -> None:
    buffer, octets = LineBuffer(), b"x" * 65_536
    buffer.feed(octets)
    assert buffer.take() is octets
