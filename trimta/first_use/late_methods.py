"""Dataclasses with slots whose methods are compiled at their first call.

They are what `dataclasses.dataclass` makes, for `dataclasses.replace`, `fields` and `asdict` and for `pickle`, too,
with four differences.  `slots` is always on.  Annotations must be text, as `from __future__ import annotations` has
them, and `InitVar` and `KW_ONLY` are not understood.  A class without a docstring is given none.  A frozen instance is
filled by its slots' descriptors, in two thirds of the time that `object.__setattr__` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from dataclasses import Field

_MISSING: Final = object()
"""Stands for a default that there is not."""

_FIELDS: Final = "__trimta_fields__"
"""The attribute of a class that holds its declared fields, a tuple, those of base classes first."""


class DeclaredField:
    """A field of a dataclass."""

    __slots__ = ("compare", "default", "default_factory", "init", "kw_only", "name", "repr")

    def __init__(self, default: object, default_factory: Any, *, init: bool, repr: bool, compare: bool) -> None:  # noqa: A002
        self.name = ""
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.repr = repr
        self.compare = compare
        self.kw_only = False

    @property
    def is_required(self) -> bool:
        """Whether an instance can't be made without a value for this field."""
        return self.init and self.default is _MISSING and self.default_factory is _MISSING


def field(
    *,
    default: object = _MISSING,
    default_factory: object = _MISSING,
    init: bool = True,
    repr: bool = True,  # noqa: A002 - the name that `dataclasses` gives it
    compare: bool = True,
) -> DeclaredField:
    """A field with more than a default: the arguments are those of `dataclasses.field`."""
    return DeclaredField(default, default_factory, init=init, repr=repr, compare=compare)


def dataclass(
    *,
    slots: bool,
    frozen: bool = False,
    eq: bool = True,
    order: bool = False,
    repr: bool = True,  # noqa: A002 - the name that `dataclasses` gives it
    kw_only: bool = False,
) -> Callable[[type], type]:
    """A decorator that makes a class a dataclass: the arguments are those of `dataclasses.dataclass`.

    TypeError for a field without a default behind one with a default, ValueError for a default that can change.
    """
    assert slots, "classes of this module have slots"

    def decorate(cls: type) -> type:
        inherited = _inherited(cls)
        own = [*_own(cls, kw_only=kw_only)]
        names = {declared.name for declared in own}
        declared = (*(each for each in inherited if each.name not in names), *own)
        _check_order(cls, declared)
        methods = ["__init__"]
        methods += ["__repr__"] if repr else []
        methods += ["__eq__"] if eq else []
        methods += ["__lt__", "__le__", "__gt__", "__ge__"] if order else []
        namespace = {
            name: value for name, value in vars(cls).items() if name not in (*names, "__dict__", "__weakref__")
        }
        if eq:
            _add_hash(namespace, methods, frozen=frozen)
        inherited_names = {each.name for each in inherited}
        namespace["__slots__"] = tuple(each.name for each in own if each.name not in inherited_names)
        namespace[_FIELDS] = declared
        namespace["__dataclass_fields__"] = _StandardFields()
        namespace.setdefault("__match_args__", tuple(each.name for each in declared if each.init and not each.kw_only))
        if frozen:
            namespace["__setattr__"] = _refuse_change
            namespace["__delattr__"] = _refuse_removal
            namespace.setdefault("__getstate__", _state)
            namespace.setdefault("__setstate__", _set_state)
        methods = [name for name in methods if name not in namespace]
        made = type(cls)(cls.__name__, cls.__bases__, namespace)
        made.__qualname__ = cls.__qualname__
        for name in methods:
            setattr(made, name, _late(made, name, frozen=frozen))
        return made

    return decorate


def replace(instance: Any, /, **changes: object) -> Any:
    """A copy of an instance with other values for some fields, as `dataclasses.replace` makes it."""
    values = {
        declared.name: getattr(instance, declared.name)
        for declared in getattr(type(instance), _FIELDS)
        if declared.init and declared.name not in changes
    }
    return type(instance)(**values, **changes)


def field_names(cls: type) -> tuple[str, ...]:
    """The names of the fields of a dataclass."""
    return tuple(declared.name for declared in getattr(cls, _FIELDS))


def _inherited(cls: type) -> list[DeclaredField]:
    declared: dict[str, DeclaredField] = {}
    for base in reversed(cls.__mro__[1:]):
        for each in vars(base).get(_FIELDS, ()):
            declared[each.name] = each
    return [*declared.values()]


def _own(cls: type, *, kw_only: bool) -> Iterator[DeclaredField]:
    """The fields that a class declares itself."""
    for name, annotation in cls.__annotations__.items():
        if annotation.startswith("ClassVar"):
            continue
        default = vars(cls).get(name, _MISSING)
        declared = default if isinstance(default, DeclaredField) else field(default=default)
        if declared.default.__hash__ is None:
            raise ValueError(f"the default of {cls.__name__}.{name} can change: use default_factory")
        declared.name = name
        declared.kw_only = kw_only
        yield declared


def _check_order(cls: type, declared: tuple[DeclaredField, ...]) -> None:
    optional = ""
    for each in declared:
        if each.kw_only or not each.init:
            continue
        if not each.is_required:
            optional = each.name
        elif optional:
            raise TypeError(f"{cls.__name__}.{each.name} has no default, and {optional} before it has one")


def _add_hash(namespace: dict[str, Any], methods: list[str], *, frozen: bool) -> None:
    """Decide what `__hash__` is where instances are compared by value.  One of the class itself stays; Python has put
    None into a class with an `__eq__` of its own.
    """
    if namespace.get("__hash__") is None:
        if frozen:
            namespace.pop("__hash__", None)
            methods.append("__hash__")
        else:
            namespace["__hash__"] = None


def _late(cls: type, name: str, *, frozen: bool) -> Callable[..., Any]:
    """A method that at its first call is compiled and put in its own place."""

    def first_call(self: object, /, *args: object, **kwargs: object) -> Any:
        method = _compiled(cls, name, frozen=frozen)
        setattr(cls, name, method)
        return method(self, *args, **kwargs)

    return first_call


def _compiled(cls: type, name: str, *, frozen: bool) -> Callable[..., Any]:
    declared: tuple[DeclaredField, ...] = getattr(cls, _FIELDS)
    if name == "__init__":
        source, namespace = _initializer(cls, declared, frozen=frozen)
    else:
        source, namespace = _SOURCES[name](declared), {}
    code = compile(source, f"<{name} of {cls.__module__}.{cls.__qualname__}>", "exec")
    exec(code, namespace)  # noqa: S102 - the source is made of the names of fields only
    method: Callable[..., Any] = namespace[name]
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    method.__module__ = cls.__module__
    return method


def _initializer(cls: type, declared: tuple[DeclaredField, ...], *, frozen: bool) -> tuple[str, dict[str, Any]]:
    """The source of `__init__`, and the names that are used in it."""
    names: dict[str, Any] = {"_missing": _MISSING}
    positional: list[str] = []
    named: list[str] = []
    lines: list[str] = []
    for each in declared:
        name = each.name
        value = name
        if each.default_factory is not _MISSING:
            names[f"_make_{name}"] = each.default_factory
            value = f"_make_{name}()"
            if each.init:
                value = f"{value} if {name} is _missing else {name}"
        elif each.default is not _MISSING:
            names[f"_default_{name}"] = each.default
            if not each.init:
                value = f"_default_{name}"
        elif not each.init:
            continue
        if each.init:
            default = "" if each.is_required else f"=_default_{name}" if each.default is not _MISSING else "=_missing"
            (named if each.kw_only else positional).append(name + default)
        if frozen:
            names[f"_set_{name}"] = getattr(cls, name).__set__
            lines.append(f" _set_{name}(self, {value})")
        else:
            lines.append(f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()")
    parameters = ", ".join(["self", *positional, *(["*", *named] if named else [])])
    return f"def __init__({parameters}):\n" + "\n".join(lines or [" pass"]), names


def _values(declared: tuple[DeclaredField, ...], owner: str) -> str:
    """The source of a tuple of the values that count in comparisons."""
    return f"({''.join(f'{owner}.{each.name}, ' for each in declared if each.compare)})"


def _comparison(name: str, operator: str) -> Callable[[tuple[DeclaredField, ...]], str]:
    def source(declared: tuple[DeclaredField, ...]) -> str:
        return (
            f"def {name}(self, other):\n"
            " if other.__class__ is self.__class__:\n"
            f"  return {_values(declared, 'self')} {operator} {_values(declared, 'other')}\n"
            " return NotImplemented"
        )

    return source


def _representation(declared: tuple[DeclaredField, ...]) -> str:
    shown = ", ".join(f"{each.name}={{self.{each.name}!r}}" for each in declared if each.repr)
    return f"def __repr__(self):\n return f'{{self.__class__.__qualname__}}({shown})'"


def _hash(declared: tuple[DeclaredField, ...]) -> str:
    return f"def __hash__(self):\n return hash({_values(declared, 'self')})"


_SOURCES: Final[dict[str, Callable[[tuple[DeclaredField, ...]], str]]] = {
    "__repr__": _representation,
    "__hash__": _hash,
    "__eq__": _comparison("__eq__", "=="),
    "__lt__": _comparison("__lt__", "<"),
    "__le__": _comparison("__le__", "<="),
    "__gt__": _comparison("__gt__", ">"),
    "__ge__": _comparison("__ge__", ">="),
}


def _refuse_change(self: object, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError  # imported by nothing else, as a rule

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_removal(self: object, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: object) -> list[object]:
    return [getattr(self, declared.name) for declared in getattr(self, _FIELDS)]


def _set_state(self: object, state: list[object]) -> None:
    for declared, value in zip(getattr(self, _FIELDS), state, strict=True):
        object.__setattr__(self, declared.name, value)


class _StandardFields:
    """The attribute by which `dataclasses` knows its classes, and finds their fields; made when it is asked for."""

    def __get__(self, instance: object, owner: type) -> dict[str, Field[Any]]:
        import dataclasses

        declared: tuple[DeclaredField, ...] = getattr(owner, _FIELDS)
        standard = dataclasses.make_dataclass(
            owner.__name__,
            [
                (each.name, object, dataclasses.field(init=each.init, repr=each.repr, compare=each.compare))
                for each in declared
            ],
        )
        fields = {each.name: each for each in dataclasses.fields(standard)}
        setattr(owner, "__dataclass_fields__", fields)  # noqa: B010 - mypy does not know the attribute
        return fields
