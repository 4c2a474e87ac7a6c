"""One sees exactly the tools that one can call."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from pydantic import Field

import escalade
from escalade import Principal, Registry, Roles, tool
from escalade.registry.access.conditions import MISSING
from escalade.scopes import Access
from tests.registry.access.policies import made, numeric, principals, rules, written

VALUES: list[Any] = [-1, 0, 0.5, 1, 1.5, 2, 2.25, 2.5, 2.75, 3, 5, 10, 11, MISSING]
"""All that the comparisons of these policies can tell apart."""


@tool(name="crm.search", side_effects="read")
def search(amount: float, missing: float | None = None) -> str:
    return ""


@tool(name="crm.drop", side_effects="irreversible")
def drop() -> str:
    return ""


@tool(name="pay.charge", side_effects="write")
def charge(amount: Annotated[int, Field(ge=1, le=3)] = 2) -> str:
    return ""


REGISTRY = Registry([search, drop, charge], name="seen")


def listed(policy: Access, *who: Principal) -> set[str]:
    """What the innermost principal is shown, in nested scopes."""
    with escalade.scope(principal=who[0], access=policy):
        if len(who) == 1:
            return {one.spec.name for one in REGISTRY.tools_for()}
        with escalade.scope(principal=who[1]):
            return {one.spec.name for one in REGISTRY.tools_for()}


def callable_(policy: Roles, *who: Principal) -> set[str]:
    """Tools of which some call works, found by calling them with everything there is."""
    found = set()
    with escalade.scope(principal=who[0], access=policy) as outer:
        inner = outer if len(who) == 1 else outer.narrow(principal=who[1])
        for one in REGISTRY.specs():
            names = list(one.input_schema["properties"])
            for values in itertools.product(VALUES, repeat=len(names)):
                args = {name: value for name, value in zip(names, values, strict=True) if value is not MISSING}
                if _works(one.name, args, inner):
                    found.add(one.name)
                    break
    return found


def _works(name: str, args: dict[str, Any], scope: Any) -> bool:
    registered = REGISTRY.get_tool(name)._registered
    try:
        accepted = registered.definition.inputs.accept((), args)
    except escalade.InvalidArguments:
        return False
    seen = registered.resource
    before = scope.permits(seen.permission, seen.effect)
    if not before.allowed or not before.closer:
        return bool(before.allowed)
    properties = one["properties"] if (one := registered.spec.input_schema) else {}
    defaults = {key: value["default"] for key, value in properties.items() if "default" in value}
    return bool(scope.permits(seen.permission, seen.effect, {**defaults, **accepted}).allowed)


@settings(max_examples=60)
@given(written(numeric), principals)
def test_list_is_call(roles: dict[str, Any], who: Principal) -> None:
    """For policies and principals at random: listed are exactly the tools of which some call is allowed."""
    policy = made({"filler": ["x:call"], **roles})
    assert listed(policy, who) == callable_(policy, who)


@settings(max_examples=40)
@given(written(numeric), principals, principals)
def test_list_is_call_on_behalf(roles: dict[str, Any], one: Principal, two: Principal) -> None:
    """The same where two principals must agree on the arguments."""
    policy = made({"filler": ["x:call"], **roles})
    assert listed(policy, one, two) == callable_(policy, one, two)


def sees(when: dict[str, Any], tool_: Any = charge, deny: dict[str, Any] | None = None) -> bool:
    rest = [] if deny is None else [{"deny": "*", "when": deny}]
    policy = Roles({"a": [{"permit": "*:call", "when": when}, *rest]})
    with escalade.scope(principal=Principal(roles=frozenset({"a"})), access=policy):
        return bool(Registry([tool_], name="one").tools_for())


@pytest.mark.parametrize(
    ("when", "deny", "expected"),
    [
        ({"amount": {"<=": 1}}, None, True),
        ({"amount": {"<": 1}}, None, False),
        ({"amount": {">": 2, "<": 3}}, None, False),
        ({"amount": {">=": 3}}, {"amount": {">": 2}}, False),
        ({"amount": {">=": 2}}, {"amount": {">": 2}}, True),
        ({"amount": {"==": "2"}}, None, False),
        ({"amount": {"exists": False}}, None, False),
        ({"other": {"exists": True}}, None, False),
        ({"other": {"exists": False}}, None, True),
        ({"amount": {"exists": True}}, {"other": {"==": 1}}, False),
    ],
)
def test_the_tool_s_own_schema_counts(when: dict[str, Any], deny: Any, expected: bool) -> None:
    """A tool takes whole numbers from 1 to 3, 2 by default: what its schema rules out can't be what is allowed."""
    assert sees(when, deny=deny) is expected


@tool
def texts(kind: Literal["a", "b"], name: str, to: dict[str, str] | None = None) -> str:
    return ""


@pytest.mark.parametrize(
    ("when", "deny", "expected"),
    [
        ({"kind": {"in": ["b", "c"]}}, None, True),
        ({"kind": {"==": "c"}}, None, False),
        ({"kind": {"!=": "a"}}, {"kind": {"==": "b"}}, False),
        ({"name": {"matches": "x.*"}}, None, True),
        ({"name": {"matches": "x.*"}}, {"name": {"matches": "x.*"}}, False),
        ({"name": {"!=": "x"}}, None, True),
        ({"name": {">": "b"}}, {"name": {">": "b"}}, False),
        ({"name": {"<": 5}}, None, False),
        ({"to": {"exists": True}}, None, True),
        ({"to.country": {"==": "DE"}}, None, True),
        ({"to": {"==": None}}, None, True),
    ],
)
def test_texts_and_objects(when: dict[str, Any], deny: Any, expected: bool) -> None:
    """Texts of which nothing is known may pass any test that doesn't contradict another one."""
    assert sees(when, texts, deny) is expected


def test_too_many_to_try_are_seen() -> None:
    """Where there are too many combinations, the tool is seen; its calls are decided on their own."""
    names = [f"n{n}" for n in range(8)]

    def many(n0: int, n1: int, n2: int, n3: int, n4: int, n5: int, n6: int, n7: int) -> str:
        return ""

    when = {name: {">": 1, "<": 2} for name in names}
    assert sees(when, tool(many))


def test_the_strategies_make_rules() -> None:
    """(What the properties above are about exists: some of the policies allow something under a condition.)"""
    found: list[Any] = []

    @settings(max_examples=50, database=None)
    @given(rules(numeric))
    def look(rule: Any) -> None:
        found.append(rule)

    look()
    assert any(isinstance(rule, dict) and "when" in rule and "permit" in rule for rule in found)
