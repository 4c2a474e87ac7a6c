"""Roles: deny by default, patterns, and roles that don't exist."""

from __future__ import annotations

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from escalade.errors import BadInput, UnknownName
from escalade.registry.access import Roles, everything_allowed
from escalade.scopes import Principal

words = st.from_regex(r"[a-c]{1,3}", fullmatch=True)
permissions = st.builds(lambda a, b, c: f"{a}.{b}:{c}", words, words, words)
patterns = (
    st.lists(words | st.sampled_from(["*", ".", ":"]), min_size=1, max_size=5)
    .map("".join)
    .filter(lambda pattern: ":" in pattern or pattern.endswith("*"))
)


def allowed(policy: Roles, roles: set[str], permission: str) -> bool:
    return policy.decide(Principal(roles=frozenset(roles)), permission).allowed


def test_nothing_is_allowed_by_default() -> None:
    """Without a role, or with one that grants something else, the answer is no, and says why."""
    policy = Roles({"analyst": ["crm.*:call"]})
    assert not allowed(policy, set(), "crm.search:call")
    assert not allowed(policy, {"analyst"}, "mail.send:call")
    assert not allowed(policy, {"stranger"}, "crm.search:call")
    assert not allowed(Roles({}), {"owner"}, "x:call")
    decided = policy.decide(Principal(), "crm.search:call")
    assert decided.rule == "nothing grants 'crm.search:call' to no role"


def test_a_star_stands_for_anything() -> None:
    """`*` stands for any run of characters, and everything else for itself: a dot is a dot."""
    policy = Roles({"a": ["crm.*:call", "mail.send:*"], "b": ["*"]})
    assert allowed(policy, {"a"}, "crm.search:call")
    assert allowed(policy, {"a"}, "mail.send:anything")
    assert not allowed(policy, {"a"}, "crmXsearch:call")
    assert not allowed(policy, {"a"}, "crm.search:callx")
    assert allowed(policy, {"b"}, "whatever")


def test_it_names_the_rule_that_decided() -> None:
    """The decision says which role granted it, and by which pattern."""
    policy = Roles({"a": ["x:*"], "b": ["*:call"]})
    assert policy.decide(Principal(roles=frozenset({"a", "b"})), "x:call").rule == "role 'a' grants 'x:*'"


@given(st.lists(patterns, max_size=3), permissions)
def test_it_decides_as_a_regular_expression_would(granted: list[str], permission: str) -> None:
    """Allowed exactly when some pattern, with `*` read as `.*`, matches the whole permission; asked twice, the same."""
    policy = Roles({"r": granted})
    expected = any(re.fullmatch(".*".join(map(re.escape, p.split("*"))), permission) for p in granted)
    assert allowed(policy, {"r"}, permission) == expected == allowed(policy, {"r"}, permission)


@given(st.lists(patterns, max_size=3), st.lists(patterns, max_size=3), permissions)
def test_more_roles_never_allow_less(one: list[str], two: list[str], permission: str) -> None:
    """Roles only grant: with two of them one may do what one may do with either."""
    policy = Roles({"one": one, "two": two})
    both = allowed(policy, {"one", "two"}, permission)
    assert both == (allowed(policy, {"one"}, permission) or allowed(policy, {"two"}, permission))


def test_a_role_that_does_not_exist() -> None:
    """An unknown role is an error, with what was perhaps meant."""
    with pytest.raises(UnknownName, match="unknown role 'analist'; did you mean 'analyst'"):
        Roles({"analyst": []}).check_roles(frozenset({"analist"}))


@pytest.mark.parametrize(
    ("grants", "message"),
    [
        ({"a": "crm:*"}, "expected a list"),
        ({"a": ["no spaces"]}, "not a permission"),
        ({"a": [3]}, "not a permission"),
        (
            {"a": ["pay.*:call", {"deny": "pay.out"}]},
            "'pay.out' has no action and would match nothing; write 'pay.out:call'",
        ),
        ({"a": ["crm"]}, "'crm' has no action"),
    ],
)
def test_bad_grants(grants, message: str) -> None:
    """What is no list of permissions is refused, naming the role."""
    with pytest.raises(BadInput, match=f"role 'a'.*{message}"):
        Roles(grants)


def test_the_policy_of_a_script() -> None:
    """In a script without a policy its owner may do everything, and nobody else anything."""
    policy = everything_allowed()
    assert policy.roles == ["owner"]
    assert allowed(policy, {"owner"}, "x:call")
    assert not allowed(policy, {"guest"}, "x:call")
