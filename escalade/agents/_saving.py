"""Policies, sources of confidence and calibrators as JSON: `dump` writes the fields of a dataclass, a load reads them.

A dump is `{"kind": kind, field: value, …}`; nested ones are nested dumps, tuples are lists, money is a string of
dollars. The registry knows our own kinds; `register` (for policies `register_policy`) adds yours, so that programs
saved with them load.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self, TypeVar

from escalade.agents.climb import Policy
from escalade.errors import BadInput, UnknownName
from escalade.money import Money

_KINDS: dict[str, type[Saved]] = {}

_ELSEWHERE = {
    "answer-in-view": "agents.learned.answers",
    "bandit": "agents.learned.bandit",
    "braked": "agents.braked",
    "canary": "evals.online.canary",
    "cascade-routing": "agents.learned.cascade",
    "epsilon": "evals.online.epsilon",
    "gain": "agents.learned.gain",
    "guaranteed": "agents.learned.guarantee",
    "nearest": "agents.learned.nearest",
    "tier-table": "agents.routing.policy",
}
"""Module of `escalade` by the kind that it registers: imported when something saved asks for it."""

P = TypeVar("P", bound="type[Saved]")


class Saved:
    """Base of what can be saved. Subclasses are frozen dataclasses with a `kind` that no other class has.

    `noun`: what messages call it.
    """

    __slots__ = ()
    kind: ClassVar[str]
    noun: ClassVar[str] = "policy"

    def dump(self) -> dict[str, Any]:
        """As a JSON-able dict; `load_saved` gives an equal one back."""
        return {"kind": self.kind} | {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        """From its fields. Raises BadInput when they don't fit."""
        try:
            return cls(**{name: _rich(value) for name, value in values.items()})
        except TypeError as error:
            raise BadInput(f"{cls.noun} {cls.kind!r} can't be loaded from {dict(values)!r}: {error}") from None


def register(cls: P) -> P:
    """Class decorator: lets `load_saved` load this kind. Raises BadInput when another class has the kind already."""
    other = _KINDS.setdefault(cls.kind, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise BadInput(f"{cls.noun} kind {cls.kind!r} is taken by {other.__module__}.{other.__qualname__}")
    _KINDS[cls.kind] = cls
    return cls


register_policy = register
"""`register`, by the name that policies know it by."""


def dump_policy(policy: Policy) -> dict[str, Any]:
    """The policy as a JSON-able dict. Raises BadInput for one that can't be saved."""
    if isinstance(policy, Saved):
        return policy.dump()
    raise BadInput(
        f"policy {policy.name!r} can't be saved: derive {type(policy).__qualname__} from `policies.Saved`, "
        f"give it a `kind`, and decorate it with `policies.register_policy`"
    )


def load_policy(saved: Mapping[str, Any]) -> Policy:
    """The policy that `dump` wrote. Raises UnknownName for an unknown kind, BadInput for fields that don't fit."""
    policy = load_saved(saved, "policy")
    if not isinstance(policy, Policy):
        raise BadInput(
            f"{type(policy).__qualname__} is registered as policy {policy.kind!r}, but has no `name` and `decide`"
        )
    return policy


def load_saved(saved: Mapping[str, Any], noun: str) -> Saved:
    """What `dump` wrote. `noun`: what it has to be. Raises UnknownName for an unknown kind, BadInput."""
    if not isinstance(saved, Mapping):
        raise BadInput(f"expected a saved {noun}, a dict like that of dump(), got {saved!r}")
    kind = saved.get("kind")
    if not isinstance(kind, str):
        raise BadInput(f'not a saved {noun}, it has no kind under "{noun}": {dict(saved)!r}')
    if kind not in _KINDS and kind in _ELSEWHERE:
        importlib.import_module(f"escalade.{_ELSEWHERE[kind]}")
    if kind not in _KINDS or _KINDS[kind].noun != noun:
        raise UnknownName(noun, kind, [k for k, cls in _KINDS.items() if cls.noun == noun])
    return _KINDS[kind].load({name: value for name, value in saved.items() if name != "kind"})


def _plain(value: Any) -> Any:
    if isinstance(value, Saved):
        return value.dump()
    if isinstance(value, Money):
        return format(value.dollars, "f")
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise BadInput(f"{type(value).__qualname__} can't be saved; only what has a `dump` can be nested")


def _rich(value: Any) -> Any:
    if isinstance(value, Mapping):
        kind = _KINDS.get(str(value.get("kind")))
        return load_saved(value, "policy" if kind is None else kind.noun)
    return tuple(_rich(v) for v in value) if isinstance(value, list) else value
