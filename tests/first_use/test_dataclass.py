"""Dataclasses whose methods are compiled at their first call are those of the standard library to whoever uses them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from typing import Any, ClassVar, Final

import pytest

from trimta.first_use import late_methods
from trimta.first_use.dataclass import dataclass, field, replace

KINDS: Final = [dataclasses.dataclass, late_methods.dataclass]
"""The standard library's decorator, and ours."""

made: int = 0


def count() -> int:
    global made
    made += 1
    return made


@dataclass(frozen=True, slots=True)
class Point:
    """A point."""

    x: int
    y: int = 0
    name: str = field(default="", compare=False)
    secret: str = field(default="s", repr=False)
    notes: list[str] = field(default_factory=list)
    ORIGIN: ClassVar = "origin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    value: int
    double: int = field(init=False, repr=False)
    number: int = field(init=False, default=7)
    serial: int = field(default_factory=count)

    def __post_init__(self) -> None:
        object.__setattr__(self, "double", 2 * self.value)


@dataclass(frozen=True, slots=True)
class Base:
    first: int
    second: int = 2


@dataclass(frozen=True, slots=True)
class Extended(Base):
    third: int = 3

    def sum(self) -> int:
        return self.first + self.second + self.third


@dataclass(slots=True)
class Changing:
    value: int


@dataclass(frozen=True, slots=True, order=True)
class Version:
    major: int
    minor: int


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    value: int


@dataclass(frozen=True, slots=True, repr=False)
class Written:
    value: int

    def __repr__(self) -> str:
        return "its own"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written) and self.value % 10 == other.value % 10

    def __hash__(self) -> int:
        return self.value % 10


def test_an_instance_has_the_values_and_the_defaults_of_its_fields() -> None:
    point = Point(1, y=2)
    assert (point.x, point.y, point.name, point.secret, point.notes, point.ORIGIN) == (1, 2, "", "s", [], "origin")
    assert Point(1).notes is not Point(1).notes
    assert repr(point) == "Point(x=1, y=2, name='', notes=[])"


def test_what_is_not_given_is_made() -> None:
    value = Derived(value=4)
    assert (value.double, value.number) == (8, 7)
    assert Derived(value=4).serial == value.serial + 1
    assert Derived(value=4, serial=99).serial == 99


@pytest.mark.parametrize(
    ("cls", "positional", "named"),
    [
        (Point, (), {}),
        (Point, (1, 2, "", "s", [], 6), {}),
        (Point, (1,), {"z": 3}),
        (Derived, (4,), {}),
        (Derived, (), {"value": 4, "double": 8}),
    ],
)
def test_arguments_are_checked(cls: Any, positional: tuple[object, ...], named: dict[str, object]) -> None:
    for _ in range(2):  # at the first call and later
        with pytest.raises(TypeError):
            cls(*positional, **named)


def test_a_frozen_instance_stays() -> None:
    point = Point(1)
    for name in ("x", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(point, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    changing = Changing(1)
    changing.value = 2
    assert changing == Changing(2)
    with pytest.raises(AttributeError):
        changing.other = 3  # type: ignore[attr-defined]


def test_instances_of_one_class_are_compared_by_value() -> None:
    assert Point(1, name="a") == Point(1, name="b")
    assert Point(1) != Point(2)
    assert Base(1) != Extended(1)
    assert Identity(1) != Identity(1)
    assert len({Version(1, 2), Version(1, 2), Version(1, 3)}) == 2
    assert hash(Base(1)) == hash((1, 2))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Changing(1))
    assert sorted([Version(2, 0), Version(1, 9)]) == [Version(1, 9), Version(2, 0)]
    assert Version(1, 0) <= Version(1, 0) < Version(1, 1) <= Version(1, 1) > Version(1, 0) >= Version(1, 0)
    with pytest.raises(TypeError):
        assert Version(1, 0) < 1  # type: ignore[operator]


def test_a_method_of_the_class_itself_stays() -> None:
    assert repr(Written(3)) == "its own"
    assert Written(3) == Written(13)
    assert {Written(3), Written(13)} == {Written(3)}


def test_a_class_has_the_fields_of_its_bases() -> None:
    value = Extended(1, third=5)
    assert value.sum() == 8
    assert repr(value) == "Extended(first=1, second=2, third=5)"
    assert [*Extended.__slots__] == ["third"]
    assert not hasattr(value, "__dict__")


def test_a_pattern_has_the_fields_in_their_order() -> None:
    match Extended(1):
        case Extended(first, second, third):
            assert (first, second, third) == (1, 2, 3)
    assert Derived.__match_args__ == ()


def test_a_copy_has_other_values_where_it_is_told() -> None:
    assert replace(Point(1, 2), y=3) == Point(1, 3)
    assert replace(Derived(value=1), value=5).double == 10
    for copied in (copy.copy(Point(1, 2)), copy.deepcopy(Point(1, 2)), pickle.loads(pickle.dumps(Point(1, 2)))):
        assert copied == Point(1, 2)
    with pytest.raises(TypeError):
        replace(Point(1), z=3)  # type: ignore[call-arg]


def test_the_functions_of_the_standard_library_know_the_classes() -> None:
    assert dataclasses.is_dataclass(Point)
    assert [each.name for each in dataclasses.fields(Extended)] == ["first", "second", "third"]
    assert dataclasses.asdict(Base(1)) == {"first": 1, "second": 2}
    assert dataclasses.replace(Derived(value=1), value=5).double == 10
    assert late_methods.field_names(Base) == ("first", "second")


@pytest.mark.parametrize("decorator", KINDS, ids=["standard", "ours"])
def test_what_can_be_no_dataclass_is_refused(decorator: Any) -> None:
    with pytest.raises(ValueError, match="default"):

        @decorator(slots=True)
        class WithList:
            values: list[int] = []  # noqa: RUF012

    with pytest.raises(TypeError):

        @decorator(slots=True)
        class OutOfOrder:
            first: int = 1
            second: int


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("decorator", KINDS, ids=["standard", "ours"])
def test_both_kinds_make_the_same_of_a_class(decorator: Any, frozen: bool) -> None:
    @decorator(slots=True, frozen=frozen, order=True)
    class Pair:
        first: int
        second: str = "b"

    Both: Any = Pair  # noqa: N806 - the type checker does not see what the decorator does
    assert (repr(Both(1)), Both.__match_args__) == (f"{Both.__qualname__}(first=1, second='b')", ("first", "second"))
    assert Both(1) < Both(2)
    assert (Both.__hash__ is None) is not frozen
    assert Both.__init__.__qualname__.endswith("Pair.__init__")


def test_modules_are_imported_without_the_standard_librarys_dataclasses() -> None:
    program = "import sys, trimta.smtp.server, trimta.config.model; print('dataclasses' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
