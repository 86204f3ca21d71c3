"""Ids: none twice, whatever a program does to its clock and to `random`."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.frozen import PAST, each_library
from trimta.runtime.ids import new_id

if TYPE_CHECKING:
    import pytest

    from tests.support.frozen import Freeze

DEADLINE = 30.0


@each_library
def test_none_is_given_out_twice_under_frozen_time_and_a_reseeded_random(freeze: Freeze) -> None:
    ids = []
    with freeze(PAST):
        for _ in range(2000):
            random.seed(0)
            ids.append(new_id())
    assert len({*ids}) == len(ids)


def test_they_sort_by_time_also_where_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([2 * 10**18, 10**18, 10**18, 2 * 10**18, 3 * 10**18])
    monkeypatch.setattr("trimta.real_time.wall_ns", lambda: next(moments))
    monkeypatch.setattr("trimta.runtime.ids._microseconds._last", 0)
    ids = [new_id() for _ in range(5)]
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {16}


def test_an_id_is_its_moment_and_random_bits_in_base_30(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = "0123456789bcdfghjkmnpqrstvwxyz"
    for microseconds in (1, 29, 30**5 - 1, 30**5, 30**6 + 7, 1_790_000_000_123_456):
        monkeypatch.setattr("trimta.real_time.wall_ns", lambda moment=microseconds: moment * 1000)
        monkeypatch.setattr("trimta.runtime.ids._microseconds._last", 0)
        moment, bits = divmod(sum(digits.index(c) * 30**place for place, c in enumerate(reversed(new_id()))), 30**5)
        assert moment == microseconds
        assert bits < 2**20


def test_processes_that_start_at_the_same_moment_give_out_different_ones() -> None:
    program = (
        "import random; from trimta import real_time; random.seed(0); real_time.wall_ns = lambda: 10**18\n"
        "from trimta.runtime.ids import new_id; print(new_id())"
    )
    found = {
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=DEADLINE).stdout
        for _ in range(3)
    }
    assert len(found) == 3
