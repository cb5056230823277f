"""`aurora_router.frozen`: what it makes is what ``dataclass(frozen=True, slots=True)`` makes, for less."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.frozen import frozen

T = TypeVar("T")


def define(decorate: Any) -> Any:
    """The same class, made by one decorator or the other."""

    class Point:
        """A point."""

        x: int
        y: float = 0.5
        name: str = field(default="", compare=False)
        secret: str = field(default="", repr=False)
        tags: list[str] = field(default_factory=list, compare=False)

        @property
        def both(self) -> float:
            return self.x + self.y

    Point.__qualname__ = "Point"
    return decorate(Point)


Ours, Theirs = define(frozen), define(dataclass(frozen=True, slots=True))
ARGUMENTS = st.tuples(st.integers(0, 1), st.sampled_from([0.5, 1.5]), st.sampled_from("ab"), st.sampled_from("ab"))


@frozen
class Pair:
    """Two values."""

    left: int
    right: Any = None


@frozen
class Alike:
    """The same fields, another class."""

    left: int
    right: Any = None


@frozen(eq=False)
class Itself:
    """Equal to itself alone."""

    value: int


@frozen(kw_only=True)
class Named:
    """Its fields have to be named."""

    optional: int = 1
    required: str


@frozen
class Empty:
    """Has no field."""


@frozen
class Box(Generic[T]):
    """Of any type."""

    content: T


@given(ARGUMENTS, ARGUMENTS)
def test_comparing_hashing_and_printing_are_those_of_a_dataclass(one, other):
    ours, theirs = [Ours(*each) for each in (one, other)], [Theirs(*each) for each in (one, other)]
    assert (ours[0] == ours[1]) is (theirs[0] == theirs[1])
    assert (hash(ours[0]) == hash(ours[1])) is (hash(theirs[0]) == hash(theirs[1]))
    assert [repr(each) for each in ours] == [repr(each) for each in theirs]
    assert [dataclasses.astuple(each) for each in ours] == [dataclasses.astuple(each) for each in theirs]
    assert ours[0].both == theirs[0].both


def test_the_signature_is_that_of_a_dataclass():
    ours, theirs = inspect.signature(Ours), inspect.signature(Theirs)
    assert list(ours.parameters) == list(theirs.parameters)
    assert [each.annotation for each in ours.parameters.values()] == [
        each.annotation for each in theirs.parameters.values()
    ]
    assert [each.kind for each in ours.parameters.values()] == [each.kind for each in theirs.parameters.values()]
    with pytest.raises(TypeError, match=r"Point\.__init__\(\) missing 1 required positional argument: 'x'"):
        Ours()


def test_each_has_its_own_default_where_a_function_makes_it():
    assert Ours(1).tags == Ours(1).tags == []
    assert Ours(1).tags is not Ours(1).tags
    assert Ours(1, tags=["a"]).tags == ["a"]


def test_it_is_frozen_and_has_slots():
    pair = Pair(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'left'"):
        pair.left = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'left'"):
        del pair.left
    with pytest.raises(AttributeError):
        pair.other = 2
    assert not hasattr(pair, "__dict__")
    assert pair == Pair(1)


def test_classes_with_equal_fields_differ():
    assert Pair(1) != Alike(1)
    assert Pair(1) != (1, None)
    assert Pair(1).__eq__(Alike(1)) is NotImplemented


def test_one_that_is_equal_to_itself_alone():
    one, other = Itself(1), Itself(1)
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_fields_by_keyword_alone():
    assert Named(required="a") == Named(required="a", optional=1)
    with pytest.raises(TypeError, match="positional"):
        Named(1, "a")


def test_none_one_and_any_type_of_field():
    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())
    assert repr(Empty()).endswith("Empty()")
    assert Box[int](1) == Box(1)
    assert hash(Box((1,))) == hash(Box((1,)))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Box([]))


@pytest.mark.parametrize("made", [Pair(1, "a"), Named(required="b"), Box(None), Empty()])
def test_copies(made):
    for copied in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made)), dataclasses.replace(made)):
        assert copied == made
        assert type(copied) is type(made)


def test_replacing_and_matching():
    assert dataclasses.replace(Pair(1, "a"), left=2) == Pair(2, "a")
    match Pair(1, "a"):
        case Pair(left, right):
            assert (left, right) == (1, "a")
    assert dataclasses.asdict(Pair(1, Alike(2))) == {"left": 1, "right": {"left": 2, "right": None}}


def test_what_a_class_defines_itself_stays():
    @frozen
    class Own:
        value: int

        def __repr__(self) -> str:
            return "own"

        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            return True

    assert repr(Own(1)) == "own"
    assert hash(Own(1)) == 7
    assert Own(1) == Own(2)


def test_one_that_compares_in_its_own_way_has_the_hash_of_a_dataclass():
    @frozen
    class Own:  # noqa: PLW1641 - that is what is tried
        value: int

        def __eq__(self, other: object) -> bool:
            return True

    assert hash(Own(3)) == hash(Own(3))
    assert Own(3) == Own(4)


def test_frozen_dataclasses_are_derived_from_it_and_no_others():
    @dataclass(frozen=True)
    class Three(Pair):
        third: int = 3

    made = Three(1, 2)
    assert (made.left, made.right, made.third) == (1, 2, 3)
    assert dataclasses.replace(made, third=4) == Three(1, 2, 4)
    assert pickle.loads(pickle.dumps(Pair(1))) == Pair(1)
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):

        @dataclass
        class Open(Pair):
            third: int = 3


def test_what_is_given_can_be_checked():
    @frozen
    class Positive:
        """A number above 0."""

        number: int

        def __post_init__(self) -> None:
            if self.number <= 0:
                raise ValueError(self.number)

    assert Positive(1).number == 1
    with pytest.raises(ValueError, match="0"):
        Positive(0)


def test_the_order_of_the_fields_is_checked():
    with pytest.raises(SyntaxError):

        @frozen
        class Wrong:
            first: int = 1
            second: int
