"""`frozen`: a frozen dataclass with slots, which costs little to define (the name is that of attrs).

Theory. ``dataclass(frozen=True, slots=True)`` writes and compiles six methods of each class, which takes half a
millisecond on Python 3.11, and a process defines some seventy such classes before it has its first connection. Five of
the six do the same in every class. Here they are written once, and get the values of the fields from one
`operator.attrgetter` per class. ``__init__`` alone is compiled. To compare or to hash two values takes 0.2 µs more; a
connect to a cluster that is known does neither.

Invariant: what comes out is a frozen dataclass, but that it supports neither ``InitVar`` nor ``field(init=False)``.
`dataclasses.fields`, ``replace`` and ``asdict``, ``match``, `copy` and `pickle` take it, frozen dataclasses may be
derived from it, and type checkers see one.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import dataclass_transform

    ClassT = TypeVar("ClassT", bound=type)
else:

    def dataclass_transform(**_: Any) -> Callable[[Any], Any]:
        """Return a decorator that changes nothing: `typing` has this from Python 3.11, for type checkers alone."""
        return lambda decorated: decorated


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(class_: ClassT, /) -> ClassT: ...
@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(*, eq: bool = True, kw_only: bool = False) -> Callable[[ClassT], ClassT]: ...
def frozen(class_: Any = None, /, *, eq: bool = True, kw_only: bool = False) -> Any:
    """Make a class what ``dataclass(frozen=True, slots=True)`` makes it; a decorator, with arguments or without.

    Every field is an argument of ``__init__``: ``field(init=False)`` has no effect.

    Args:
        class_: the class. A method that it defines itself (``__eq__``, ``__repr__`` …) stays.
        eq: whether two are equal when they are of one class and their fields are equal; else each is equal to itself
            alone.
        kw_only: whether the fields are given by keyword alone.

    Raises:
        SyntaxError: a field without a default follows one with a default.
    """
    return _make(class_, eq=eq, kw_only=kw_only) if class_ else lambda given: _make(given, eq=eq, kw_only=kw_only)


def _make(class_: Any, *, eq: bool, kw_only: bool) -> Any:
    own = {name for name, value in class_.__dict__.items() if name != "__hash__" or value is not None}
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(class_)
    made.__dataclass_params__.frozen = True
    made.__init__ = _make_init(made)
    shared = _SHARED
    if eq:
        made.compared_fields = _make_getter([each.name for each in fields(made) if each.compare])
        shared = {**_SHARED, **_SHARED_IF_EQUAL}
    for name, method in shared.items():
        if name not in own:
            setattr(made, name, method)
    return made


def _make_init(class_: Any) -> Any:
    """Compile ``__init__``, which takes the fields and sets them."""
    scope: dict[str, Any] = {"set_field": object.__setattr__, "MISSING": MISSING}
    in_order, by_keyword, lines = ["self"], list[str](), list[str]()
    for each in fields(class_):
        name = parameter = given = each.name
        if each.default is not MISSING:
            scope[f"default_{name}"] = each.default
            parameter = f"{name}=default_{name}"
        elif each.default_factory is not MISSING:
            scope[f"make_{name}"] = each.default_factory
            parameter, given = f"{name}=MISSING", f"make_{name}() if {name} is MISSING else {name}"
        (by_keyword if each.kw_only else in_order).append(parameter)
        lines.append(f" set_field(self, {name!r}, {given})")
    lines.append(" self.__post_init__()" if hasattr(class_, "__post_init__") else " return None")
    parameters = [*in_order, "*", *by_keyword] if by_keyword else in_order
    exec("\n".join([f"def __init__({', '.join(parameters)}):", *lines]), scope)  # noqa: S102 - ours
    init = scope["__init__"]
    init.__qualname__ = f"{class_.__qualname__}.__init__"
    init.__annotations__ = {**{each.name: each.type for each in fields(class_)}, "return": None}
    return init


def _make_getter(names: list[str]) -> Callable[[Any], Any]:
    """Return a function that returns the attributes of these names: a tuple, or the value where the name is one."""
    return attrgetter(*names) if names else lambda _: ()


def _repr(self: Any) -> str:
    shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: Any) -> Any:
    class_ = self.__class__
    return (
        class_.compared_fields(self) == class_.compared_fields(other) if other.__class__ is class_ else NotImplemented
    )


def _hash(self: Any) -> int:
    return hash(self.__class__.compared_fields(self))


def _setattr(_: Any, name: str, __: Any) -> NoReturn:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(_: Any, name: str) -> NoReturn:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for each, given in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, given)


_SHARED = {
    "__repr__": _repr,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}
_SHARED_IF_EQUAL = {"__eq__": _eq, "__hash__": _hash}
