"""Can a value of one declared type be one of another? Only what certainly can't is denied.

Unknown types fit everything: what has no annotation, Any, TypeVars, protocols, names that can't be resolved. Of a Union
one member is enough on either side. Where something between converts (a signature's inputs, which are written out for a
model; a function under pydantic), only what pydantic would refuse of every value is denied.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import dspy
import pydantic


@dataclasses.dataclass(frozen=True)
class Record:
    """The type of a Prediction whose fields are known. `open`: it may have others."""

    fields: Mapping[str, Any]
    open: bool = False

    def __str__(self) -> str:
        return f"Prediction({', '.join(self.fields)})"


@dataclasses.dataclass(frozen=True)
class Items:
    """The type of what a map goes over: any iterable, sync or async, but no text and no dict. `item`: of one."""

    item: Any = Any

    def __str__(self) -> str:
        return "items" if self.item is Any else f"items of {shown(self.item)}"


def fits(given: Any, wanted: Any, *, converts: bool = False) -> bool:
    """May a value of type `given` be of type `wanted`? `converts`: something between them converts it."""
    if given is wanted:
        return True
    try:
        return _fits(_bare(given), _bare(wanted), converts)
    except Exception:  # noqa: BLE001 - an annotation may be any object; what can't be compared is unknown
        return True


def narrower(one: Any, than: Any) -> bool:
    """Does a type say more than another, that it fits?"""
    if one is Any or than is Any:
        return one is not Any
    if isinstance(one, Items) or isinstance(than, Items):
        return isinstance(than, Items) and (not isinstance(one, Items) or narrower(one.item, than.item))
    mine, others = alternatives(one), alternatives(than)
    return len(mine) < len(others) and all(part in others for part in mine)


def union(found: Iterable[Any]) -> Any:
    """The type of a value that has one of several types."""
    distinct: list[Any] = []
    for one in found:
        if one is Any:
            return Any
        if one not in distinct:
            distinct.append(one)
    if not distinct or (any(isinstance(one, Record) for one in distinct) and len(distinct) > 1):
        return Any
    try:
        return typing.Union[tuple(distinct)] if len(distinct) > 1 else distinct[0]  # noqa: UP007 (made at run time)
    except TypeError:
        return Any


def members(type_: Any) -> list[Any] | None:
    """All values of a Literal, an Enum or a bool; None where they are not known one by one."""
    type_ = _bare(type_)
    if type_ is bool:
        return [True, False]
    if isinstance(type_, type) and issubclass(type_, enum.Enum) and not issubclass(type_, enum.Flag):
        return list(type_)
    if get_origin(type_) is Literal:
        return list(get_args(type_))
    if _is_union(type_):
        parts = [members(one) for one in get_args(type_)]
        known = [value for part in parts if part is not None for value in part]
        return None if any(part is None for part in parts) else known
    return [None] if type_ is type(None) else None


def not_required(told: Any) -> frozenset[str]:
    """The keys that may be missing. Where annotations are text, the TypedDict itself doesn't know."""
    try:
        said = typing.get_type_hints(told, include_extras=True)
    except Exception:  # noqa: BLE001 - a name in it can't be resolved
        said = {}
    if not getattr(told, "__total__", True):
        return frozenset(name for name in told.__annotations__ if get_origin(said.get(name)) is not typing.Required)
    marked = {name for name, type_ in said.items() if get_origin(type_) is typing.NotRequired}
    return frozenset(marked | set(told.__optional_keys__))


def shown(type_: Any) -> str:
    """`list[str]`, `str | None`, for people."""
    if isinstance(type_, type) and not get_args(type_):
        return "None" if type_ is type(None) else type_.__name__
    return str(type_).replace("typing.", "")


def _bare(type_: Any) -> Any:
    """Without what doesn't matter: Annotated, Required, Final, NewType, aliases; None is its class."""
    while True:
        if type_ is None:
            return type(None)
        origin = get_origin(type_)
        if origin in (typing.Annotated, typing.Required, typing.NotRequired, typing.Final, typing.ClassVar):
            type_ = get_args(type_)[0]
        elif hasattr(type_, "__supertype__"):
            type_ = type_.__supertype__
        elif type(type_).__name__ == "TypeAliasType":
            type_ = type_.__value__
        else:
            return type_


def alternatives(type_: Any) -> tuple[Any, ...]:
    """The members of a Union, else the type alone."""
    type_ = _bare(type_)
    return get_args(type_) if _is_union(type_) else (type_,)


def _is_union(type_: Any) -> bool:
    return get_origin(type_) in (typing.Union, types.UnionType)


def _fits(given: Any, wanted: Any, converts: bool) -> bool:  # noqa: FBT001, PLR0911 (private; one line per kind)
    if _unknown(given) or _unknown(wanted):
        return True
    if _is_union(given):
        return any(fits(one, wanted, converts=converts) for one in get_args(given))
    if _is_union(wanted):
        return any(fits(given, one, converts=converts) for one in get_args(wanted))
    if isinstance(wanted, Items):
        return _items_fit(given, wanted, converts)
    if isinstance(given, Items):
        return _items_fit(wanted, given, converts)
    if isinstance(given, Record):
        return _record_fits(given, wanted, converts)
    if get_origin(given) is Literal:
        return any(_value_fits(value, wanted, converts) for value in get_args(given))
    if get_origin(wanted) is Literal:
        return any(_may_be(value, given, converts) for value in get_args(wanted))
    return _classes_fit(given, wanted, converts)


def _unknown(type_: Any) -> bool:
    if isinstance(type_, (Record, Items)) or _is_union(type_) or get_origin(type_) is Literal:
        return False
    cls = get_origin(type_) or type_
    return type_ is Any or not isinstance(cls, type) or getattr(cls, "_is_protocol", False)


def _value_fits(value: Any, wanted: Any, converts: bool) -> bool:  # noqa: FBT001 (private)
    if get_origin(wanted) is Literal:
        return any(value == one for one in get_args(wanted))
    return fits(type(value), wanted, converts=converts)


def _may_be(value: Any, given: Any, converts: bool) -> bool:  # noqa: FBT001 (private)
    cls = get_origin(given) or given
    if isinstance(value, cls) or converts:
        return True
    return issubclass(cls, enum.Enum) and any(value in (one.value, one.name) for one in cls)


_TEXT = (str, bytes, bytearray)
_NUMBERS = (numbers.Number,)
_FEW = (*_TEXT, *_NUMBERS, enum.Enum, type(None))
_MANY = (list, tuple, set, frozenset, collections.deque, collections.abc.Set, collections.abc.Sequence)


def _record_fits(given: Record, wanted: Any, converts: bool) -> bool:  # noqa: FBT001 (private)
    """A Prediction. A model is shown its one field, or all of them as text."""
    if converts:
        fields = list(given.fields.values())
        return given.open or len(fields) != 1 or fits(fields[0], wanted, converts=True)
    cls = get_origin(wanted) or wanted
    return cls is object or issubclass(cls, dspy.Example) or not issubclass(cls, (*_FEW, *_MANY))


def _items_fit(given: Any, wanted: Items, converts: bool) -> bool:  # noqa: FBT001 (private)
    if isinstance(given, Items):
        return fits(given.item, wanted.item, converts=converts)
    if isinstance(given, Record):
        return True
    cls = get_origin(given) or given
    if get_origin(given) is Literal or typing.is_typeddict(cls) or issubclass(cls, (*_FEW, Mapping)):
        return False
    return all(_has_fields(item) or fits(item, wanted.item, converts=converts) for item in _items(given))


def _has_fields(item: Any) -> bool:
    cls = get_origin(item) or item
    return isinstance(cls, type) and (typing.is_typeddict(cls) or issubclass(cls, (dict, dspy.Example)))


def _classes_fit(given: Any, wanted: Any, converts: bool) -> bool:  # noqa: FBT001, PLR0911 (as above)
    have, want = get_origin(given) or given, get_origin(wanted) or wanted
    if have is type(None) or want is type(None):
        return issubclass(have, want)
    if typing.is_typeddict(have) or typing.is_typeddict(want):
        return _dicts_fit(have, want) and _keys_fit(given, wanted, converts)
    if issubclass(have, want) or issubclass(want, have):
        return _parts_fit(given, wanted, converts)
    if issubclass(have, numbers.Number) and issubclass(want, numbers.Number):
        return True
    if converts:
        return _converted(given, wanted, have, want)
    if want.__module__ == "collections.abc" and have.__module__ != "builtins":
        return True  # a class of its own may do as a sequence without saying so
    return _have_common_class(have, want)


def _dicts_fit(have: Any, want: Any) -> bool:
    have = dict if typing.is_typeddict(have) else have
    want = dict if typing.is_typeddict(want) else want
    return issubclass(have, want) or issubclass(want, have)


def _keys_fit(given: Any, wanted: Any, converts: bool) -> bool:  # noqa: FBT001 (private)
    """What a TypedDict has for certain, as values of a dict."""
    inner = get_args(wanted)
    if not typing.is_typeddict(given) or len(inner) != 2:
        return True
    known, may_miss = typing.get_type_hints(given), not_required(given)
    return all(fits(type_, inner[1], converts=converts) for name, type_ in known.items() if name not in may_miss)


def _converted(given: Any, wanted: Any, have: Any, want: Any) -> bool:
    """Would pydantic take some value of class `have`?"""
    if issubclass(want, _TEXT):
        return True  # a model is shown anything as text
    if issubclass(want, (*_MANY, dict)):
        wrong = (*_FEW, *_MANY) if issubclass(want, dict) else (*_FEW, Mapping)
        return not issubclass(have, wrong) and _parts_fit(given, wanted, True)
    if issubclass(want, _NUMBERS):
        return not issubclass(have, (*_MANY, Mapping, pydantic.BaseModel)) or issubclass(have, _TEXT)
    return True


def _have_common_class(have: type, want: type) -> bool:
    """Is there a class that is both? One that is not defined yet is not thought of."""
    if "builtins" in (have.__module__, want.__module__):
        return False
    open_, seen = [have], set()
    while open_:
        one = open_.pop()
        if one in seen:
            continue
        seen.add(one)
        if issubclass(one, want):
            return True
        open_ += type.__subclasses__(one)
    return False


def _parts_fit(given: Any, wanted: Any, converts: bool) -> bool:  # noqa: FBT001 (private)
    """The types of what is inside: of `list[str]` str."""
    want, parts = get_origin(wanted) or wanted, get_args(wanted)
    if not parts:
        return True
    if want is tuple and (len(parts) != 2 or parts[1] is not ...):
        return _tuple_fits(given, parts, converts)
    if issubclass(want, Mapping) and len(parts) == 2:
        inner = get_args(given)
        return len(inner) != 2 or all(fits(a, b, converts=converts) for a, b in zip(inner, parts, strict=True))
    if issubclass(want, collections.abc.Iterable):
        return all(fits(item, parts[0], converts=converts) for item in _items(given))
    return True


def _tuple_fits(given: Any, parts: tuple[Any, ...], converts: bool) -> bool:  # noqa: FBT001 (private)
    inner = get_args(given)
    if (get_origin(given) or given) is tuple and inner and inner[-1] is not ...:
        same = len(inner) == len(parts)
        return same and all(fits(a, b, converts=converts) for a, b in zip(inner, parts, strict=True))
    return all(fits(item, one, converts=converts) for item in _items(given) for one in parts)


def _items(given: Any) -> tuple[Any, ...]:
    """The types of the items of what is iterated: of a tuple several."""
    have, inner = get_origin(given) or given, get_args(given)
    if issubclass(have, str):
        return (str,)
    if have.__module__ not in ("builtins", "collections", "collections.abc"):
        return (Any,)
    if have is tuple and inner:
        return inner[:1] if inner[-1] is ... else inner
    return (inner or (int if issubclass(have, (bytes, bytearray)) else Any,))[:1]
