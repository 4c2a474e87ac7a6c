"""Policies, principals and arguments at random, small enough to collide often."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st

from escalade.errors import BadInput
from escalade.registry.access import Roles
from escalade.scopes import Principal

TOOLS = ["crm.search", "crm.drop", "pay.charge"]
EFFECTS = {"crm.search": "read", "crm.drop": "irreversible", "pay.charge": "write"}
ROLES = ["a", "b", "c"]
TENANTS = ["acme", "globex", "other"]

names = st.sampled_from(["amount", "currency", "missing"])
numbers = st.sampled_from([0, 1, 2, 2.5, 3, 10])
words = st.sampled_from(["EUR", "USD", "E", ""])
constants = numbers | words | st.booleans() | st.none()
comparisons = st.one_of(
    st.builds(lambda op, value: {op: value}, st.sampled_from(["<", "<=", ">", ">="]), numbers | words),
    st.builds(lambda op, value: {op: value}, st.sampled_from(["==", "!="]), constants),
    st.builds(lambda values: {"in": values}, st.lists(constants, min_size=1, max_size=3)),
    st.builds(lambda value: {"exists": value}, st.booleans()),
    st.builds(lambda value: {"matches": value}, st.sampled_from(["E.*", "[A-Z]+", "USD"])),
)
conditions = st.dictionaries(names, comparisons, min_size=1, max_size=2)
numeric = st.dictionaries(
    st.sampled_from(["amount", "missing"]),
    st.builds(lambda op, value: {op: value}, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers)
    | st.builds(lambda value: {"exists": value}, st.booleans()),
    min_size=1,
    max_size=2,
)
patterns = st.sampled_from(
    [
        "crm.*:read",
        "crm.*:call",
        "*:irreversible",
        "crm.drop:call",
        "pay.*:write",
        "pay.charge:call",
        "*",
        "*:call",
        "z:call",
    ]
)


def rules(when: st.SearchStrategy[Any] = conditions) -> st.SearchStrategy[Any]:
    """A rule in the short or the long form."""
    more = st.fixed_dictionaries(
        {}, optional={"when": when, "tenants": st.lists(st.sampled_from(TENANTS[:2]), max_size=2)}
    )
    permits = st.builds(
        lambda pattern, rest, needs: {"permit": pattern, **rest, **({"needs": "approval"} if needs else {})},
        patterns,
        more,
        st.booleans(),
    )
    return patterns | permits | st.builds(lambda pattern, rest: {"deny": pattern, **rest}, patterns, more)


def written(when: st.SearchStrategy[Any] = conditions) -> st.SearchStrategy[dict[str, Any]]:
    """A policy as written; roles inherit upwards only, so that there is no cycle."""

    def role(parents: list[str]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries(
            {"grants": st.lists(rules(when), max_size=4)},
            optional={
                "inherits": st.lists(st.sampled_from(parents), max_size=2) if parents else st.just([]),
                "tenants": st.lists(st.sampled_from(TENANTS[:2]), min_size=1, max_size=2),
            },
        )

    return st.fixed_dictionaries({name: role(ROLES[:n]) for n, name in enumerate(ROLES)})


principals = st.builds(
    lambda tenant, roles: Principal("ana", tenant, frozenset(roles)),
    st.sampled_from(TENANTS),
    st.sets(st.sampled_from(ROLES)),
)
json_values = st.recursive(
    constants | st.floats() | st.text(max_size=3) | st.integers(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3),
    max_leaves=5,
)
arguments = st.dictionaries(names, json_values, max_size=3)


def made(roles: dict[str, Any]) -> Roles:
    """The policy; what the strategies write is always one."""
    try:
        return Roles(roles)
    except BadInput as error:
        raise AssertionError(f"{roles}: {error}") from error
