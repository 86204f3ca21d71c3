"""Enhanced status codes: written, read, and named."""

from __future__ import annotations

import pytest

from trimta.mail import status as names
from trimta.mail.status import Condition, EnhancedStatus, Subject


@pytest.mark.parametrize("text", ["2.0.0", "4.4.7", "5.1.10", "5.999.999"])
def test_a_status_is_read_and_written(text: str) -> None:
    assert str(EnhancedStatus.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "5", "5.1", "5.1.1.", " 5.1.1", "5.1.1\n", "3.0.0", "1.1.1", "5.01.1", "5.1.1000", "5.-1.1", "٥.1.1"]
)
def test_what_is_no_status_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not an enhanced status code"):
        EnhancedStatus.parse(text)


@pytest.mark.parametrize("numbers", [(3, 0, 0), (0, 0, 0), (5, 1000, 0), (5, 0, 1000), (4, -1, 0)])
def test_no_other_status_can_be_built(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="not an enhanced status code"):
        EnhancedStatus(*numbers)


def test_a_condition_is_a_status_in_each_class() -> None:
    condition = Condition(1, 1)
    assert [str(condition.success), str(condition.transient), str(condition.permanent)] == ["2.1.1", "4.1.1", "5.1.1"]
    assert condition.permanent.condition == condition
    with pytest.raises(ValueError, match="not an enhanced status code"):
        condition.in_class(3)


CONDITIONS = {name: value for name, value in vars(names).items() if isinstance(value, Condition)}


def test_each_condition_has_one_name() -> None:
    assert len(set(CONDITIONS.values())) == len(CONDITIONS) > 30


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_named_condition_has_a_subject_of_rfc_3463(name: str) -> None:
    assert CONDITIONS[name].subject in set(Subject)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DELIVERED", "2.0.0"),
        ("EXPANDED", "2.1.5"),
        ("GIVEN_UP", "4.4.7"),
    ],
)
def test_a_status_that_ends_a_delivery_has_a_name(name: str, text: str) -> None:
    assert str(vars(names)[name]) == text
