"""Transcripts: all of a short dialogue, both ends of a long one, and nothing that a terminal would obey."""

from __future__ import annotations

from itertools import count

import pytest

from trimta.runtime.transcript import WIDTH, Transcript


def transcript(first: int = 150, last: int = 150) -> Transcript:
    moments = count(1)
    return Transcript(lambda: float(next(moments)), first=first, last=last)


def test_each_line_has_its_moment_and_says_who_sent_it() -> None:
    dialogue = transcript()
    dialogue.server("220 mx.dev.test")
    dialogue.client("NOOP")
    dialogue.note("connection lost")
    assert dialogue.lines == [(1.0, "S: 220 mx.dev.test"), (2.0, "C: NOOP"), (3.0, "connection lost")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * WIDTH, "x" * WIDTH),
        ("x" * WIDTH + "y", "x" * WIDTH + "…"),
        ("bell\a tab\t red\x1b[31m é", "bell? tab? red?[31m é"),
    ],
)
def test_a_line_is_cut_and_is_printable(text: str, shown: str) -> None:
    dialogue = transcript()
    dialogue.note(text)
    assert dialogue.lines == [(1.0, shown)]


@pytest.mark.parametrize(
    ("noted", "kept"),
    [
        (2, ["1", "2"]),
        (5, ["1", "2", "3", "4", "5"]),
        (6, ["1", "2", "… (1 lines left out)", "4", "5", "6"]),
        (9, ["1", "2", "… (4 lines left out)", "7", "8", "9"]),
    ],
)
def test_of_a_long_dialogue_both_ends_are_kept(noted: int, kept: list[str]) -> None:
    dialogue = transcript(first=2, last=3)
    for number in range(noted):
        dialogue.note(str(number + 1))
    assert [line for _, line in dialogue.lines] == kept
    assert [line for _, line in dialogue.take()] == kept
    assert dialogue.lines == []
    dialogue.note("next")
    assert [line for _, line in dialogue.lines] == ["next"]
