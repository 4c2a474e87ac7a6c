"""Roles: inheritance, denials, tenants, conditions, needs; and what holds for policies at random."""

from __future__ import annotations

import re
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from escalade.errors import BadInput, UnknownName
from escalade.registry.access import Roles
from escalade.registry.access.index import Index
from escalade.scopes import Decided, Principal
from tests.registry.access.policies import EFFECTS, TOOLS, arguments, made, principals, rules, written

RANK = {"denied": 0, "approval": 1, "allowed": 2}
tools = st.sampled_from(TOOLS)


def decided(policy: Roles, who: Principal, tool: str, args: dict[str, Any]) -> Decided:
    return policy.decide_call(who, f"{tool}:call", EFFECTS[tool], args)


def rank(policy: Roles, who: Principal, tool: str, args: dict[str, Any]) -> int:
    found = decided(policy, who, tool, args)
    return 0 if not found.allowed else 1 if found.approval else 2


def may(
    policy: Roles, *roles: str, permission: str = "crm.search:call", effect: str = "read", tenant: str = "acme"
) -> bool:
    return policy.decide(Principal("ana", tenant, frozenset(roles)), permission, effect).allowed


def test_inheritance() -> None:
    """A role has what those have that it inherits, all the way up, and the rule names whose it is."""
    policy = Roles(
        {"a": ["crm.*:read"], "b": {"inherits": ["a"]}, "c": {"inherits": "b", "grants": ["mail.send:call"]}}
    )
    found = policy.decide(Principal(roles={"c"}), "crm.search:call", "read")
    assert found == Decided(True, "role 'a' grants 'crm.*:read' (inherited by c)")
    assert not may(policy, "a", permission="mail.send:call")


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"a": {"inherits": ["a"]}}, "role 'a' inherits itself: a -> a"),
        (
            {"a": {"inherits": ["b"]}, "b": {"inherits": ["c"]}, "c": {"inherits": ["b"]}},
            "'b' inherits itself: b -> c -> b",
        ),
        ({"a": {"inherits": ["d"]}, "b": []}, "unknown role that 'a' inherits: 'd' (known: a, b)"),
        ({"a": {"inherit": ["b"]}}, "unknown key 'inherit'; did you mean 'inherits'?"),
        ({"a": {"inherits": 5}}, "inherits: expected a list of names, got 5"),
        ({"a": [{"permit": "x:call", "deny": "x:call"}]}, "either 'permit' or 'deny'"),
        ({"a": [{"when": {"x": {"==": 1}}}]}, "either 'permit' or 'deny'"),
        ({"a": [{"deny": "x:call", "needs": "approval"}]}, "only a 'permit' needs something"),
        ({"a": [{"permit": "x:call", "needs": "luck"}]}, "that is 'approval'; got 'luck'"),
        ({"a": [{"permit": "x:call", "when": None}]}, "when: expected a condition"),
        ({"a": [{"permit": []}]}, "without a permission decides nothing"),
        ({"a": [{"permit": ["a b"]}]}, "'a b' is not a permission"),
        ({"a": [{"permit": "x:call", "tenants": [1]}]}, "tenants: expected a list of names"),
        ({"": []}, "'' is not the name of a role"),
        ({"a": 5}, "expected a list of permissions"),
    ],
)
def test_bad_roles(roles: Any, message: str) -> None:
    """What is no policy is refused at once, and the message names the role."""
    with pytest.raises(BadInput, match=re.escape(message)):
        Roles(roles)


def test_effects_are_actions() -> None:
    """`crm.*:read` is for tools that only read, `:call` for all; a denial by effect hits tools of any permission."""
    policy = Roles({"reader": ["crm.*:read"], "all": ["*:call", "pay:refund", {"deny": "*:irreversible"}]})
    assert may(policy, "reader")
    assert not may(policy, "reader", permission="crm.drop:call", effect="write")
    assert not may(policy, "reader", permission="crm:special", effect="read")
    assert may(policy, "all", permission="crm.drop:call", effect="write")
    assert not may(policy, "all", permission="crm.drop:call", effect="irreversible")
    assert may(policy, "all", permission="pay:refund", effect="write")
    assert not may(policy, "all", permission="pay:refund", effect="irreversible")


def test_denials_win() -> None:
    """A denial decides against any number of grants, also when it comes from another role."""
    policy = Roles({"a": ["*"], "b": [{"deny": "crm.*:call"}]})
    assert may(policy, "a")
    assert not may(policy, "a", "b")
    assert policy.decide(Principal(roles={"a", "b"}), "crm.x:call").rule == "role 'b' denies 'crm.*:call'"


def test_everybodys_role() -> None:
    """The role * is everybody's: what it denies, nobody may; what it grants, all may."""
    policy = Roles({"*": ["kb.*:read", {"deny": "*:irreversible"}], "a": ["*"]})
    assert may(policy, permission="kb.get:call")
    assert not may(policy, "a", effect="irreversible")
    assert policy.decide(Principal(), "kb.get:call", "read").rule == "everybody is granted 'kb.*:read'"


def test_tenants() -> None:
    """What is granted in some tenants holds in no other, neither directly nor by inheritance; nor does a denial."""
    policy = Roles(
        {
            "a": {"tenants": ["acme"], "grants": ["crm.*:call"]},
            "b": {"inherits": ["a"]},
            "c": ["crm.*:call", {"deny": "crm.search:call", "tenants": ["acme"]}],
            "d": {"inherits": ["e"], "tenants": ["acme"]},
            "e": {"tenants": ["globex"], "grants": ["*"]},
        }
    )
    assert may(policy, "b")
    assert not may(policy, "b", tenant="globex")
    assert not may(policy, "b", tenant="elsewhere")
    assert not may(policy, "c")
    assert may(policy, "c", tenant="globex")
    assert not may(policy, "d")
    assert not may(policy, "d", tenant="globex")
    rule = policy.decide(Principal("ana", "globex", frozenset({"a"})), "crm.x:call").rule
    assert rule == "nothing grants 'crm.x:call' to a in this tenant"


CLERK = Roles({"clerk": [{"permit": "pay.charge:call", "when": {"amount": {"<=": 100}, "currency": {"in": ["EUR"]}}}]})
ANA = Principal("ana", "acme", frozenset({"clerk"}))


def test_conditions() -> None:
    """Without arguments it is allowed and not certain; with them the condition decides, and the rule says which."""
    before = CLERK.decide(ANA, "pay.charge:call", "write")
    assert (before.allowed, before.closer) == (True, True)
    assert decided(CLERK, ANA, "pay.charge", {"amount": 5, "currency": "EUR"}).allowed
    assert not decided(CLERK, ANA, "pay.charge", {"amount": 5}).allowed
    refused = decided(CLERK, ANA, "pay.charge", {"amount": 500, "currency": "EUR"})
    rule = """role 'clerk' grants 'pay.charge:call' when amount <= 100 and currency in ["EUR"]"""
    assert refused == Decided(False, f"not with these arguments: {rule}")
    assert "500" not in refused.rule


def test_a_denial_that_may_apply_applies() -> None:
    """A denial under a condition passes only who surely isn't meant."""
    policy = Roles({"clerk": ["*:call", {"deny": "*:call", "when": {"amount": {">": 100}}}]})
    assert decided(policy, ANA, "pay.charge", {"amount": 100}).allowed
    assert not decided(policy, ANA, "pay.charge", {"amount": 101}).allowed
    assert not decided(policy, ANA, "pay.charge", {"amount": "100"}).allowed
    assert not decided(policy, ANA, "pay.charge", {}).allowed
    assert decided(policy, ANA, "pay.charge", {}).rule.endswith(", which these arguments do not rule out")


def test_needs_win_over_grants_without() -> None:
    """If any grant that applies, or that may apply, needs approval, the call does."""
    policy = Roles({"clerk": ["*:call", {"permit": "pay.*:call", "when": {"amount": {">": 100}}, "needs": "approval"}]})
    assert [rank(policy, ANA, "pay.charge", args) for args in ({"amount": 5}, {"amount": 500}, {})] == [2, 1, 1]
    assert rank(Roles({"clerk": ["*:call", {"permit": "*", "needs": "approval"}]}), ANA, "crm.search", {}) == 1


def test_digests() -> None:
    """Policies that decide alike by the same rules have one digest, however written; a changed constant changes it."""
    one = Roles({"b": ["x:call", "y:call"], "a": {"inherits": ["b"], "grants": [{"permit": ["p:*", "q:*"]}]}})
    two = Roles(
        {"a": {"grants": ["q:*", {"permit": "p:*"}], "inherits": "b", "description": "…"}, "b": ["y:call", "x:call"]}
    )
    assert one.digest == two.digest
    assert Roles(one.to_json()["roles"]).digest == one.digest
    assert re.fullmatch(r"[0-9a-f]{64}", one.digest)
    assert CLERK.digest != Roles({"clerk": [{"permit": "pay.charge:call", "when": {"amount": {"<=": 101}}}]}).digest


def test_unknown_parents_are_unknown_names() -> None:
    """They are UnknownName, as everywhere."""
    with pytest.raises(UnknownName, match="did you mean 'reader'"):
        Roles({"a": {"inherits": ["readr"]}, "reader": []})


# ------------------------------------------------------------------------------------------------------- properties


@given(written(), principals, tools, arguments)
def test_nothing_is_allowed_without_a_grant(
    roles: dict[str, Any], who: Principal, tool: str, args: dict[str, Any]
) -> None:
    """Deny by default: without its grants a policy allows nothing, and nobody without a role may do anything."""
    assert rank(made(roles), Principal("ana", who.tenant), tool, args) == 0
    bare = {
        name: {**role, "grants": [rule for rule in role["grants"] if isinstance(rule, dict) and "deny" in rule]}
        for name, role in roles.items()
    }
    assert rank(made(bare), who, tool, args) == 0


@given(written(), st.sampled_from(["a", "b", "c"]), rules(), principals, tools, arguments)
def test_a_denial_never_adds(
    roles: dict[str, Any], name: str, rule: Any, who: Principal, tool: str, args: dict[str, Any]
) -> None:
    """With one more denial nobody may do more than before; with one more grant nobody is denied who was not."""
    pattern = rule if isinstance(rule, str) else rule.get("permit") or rule["deny"]
    kept = {key: rule[key] for key in ("when", "tenants") if key in rule} if isinstance(rule, dict) else {}
    before = made(roles)
    denied = made({**roles, name: {**roles[name], "grants": [*roles[name]["grants"], {"deny": pattern, **kept}]}})
    assert rank(denied, who, tool, args) <= rank(before, who, tool, args)
    granted = made({**roles, name: {**roles[name], "grants": [*roles[name]["grants"], {"permit": pattern, **kept}]}})
    assert rank(granted, who, tool, args) >= rank(before, who, tool, args)


@given(written(), principals, tools, arguments)
def test_before_and_with_arguments(roles: dict[str, Any], who: Principal, tool: str, args: dict[str, Any]) -> None:
    """What is denied before the arguments are known is denied with any; what is certain stays as it is."""
    policy = made(roles)
    before, with_ = policy.decide(who, f"{tool}:call", EFFECTS[tool]), decided(policy, who, tool, args)
    assert before.allowed or not with_.allowed
    assert before.closer or before == with_
    assert before.closer or before.approval == with_.approval


@given(written(), principals, tools, arguments)
def test_inheriting_is_having(roles: dict[str, Any], who: Principal, tool: str, args: dict[str, Any]) -> None:
    """A role that only inherits others is worth the same as these roles."""
    policy = made({**roles, "heir": {"inherits": sorted(who.roles)}})
    heir = Principal("ana", who.tenant, frozenset({"heir"}))
    assert rank(policy, heir, tool, args) == rank(policy, who, tool, args)


@given(written(), principals, tools, arguments)
def test_a_narrower_tenancy_never_adds_grants(
    roles: dict[str, Any], who: Principal, tool: str, args: dict[str, Any]
) -> None:
    """A policy without denials, limited to a tenant: there it is the same, elsewhere nothing is left."""
    grants = {
        name: {**role, "grants": [rule for rule in role["grants"] if isinstance(rule, str) or "permit" in rule]}
        for name, role in roles.items()
    }
    free = {name: {key: value for key, value in role.items() if key != "tenants"} for name, role in grants.items()}
    limited = made({name: {**role, "tenants": ["acme"]} for name, role in free.items()})
    expected = rank(made(free), who, tool, args) if who.tenant == "acme" else 0
    assert rank(limited, who, tool, args) == expected


@given(written())
def test_a_policy_can_be_written_and_read(roles: dict[str, Any]) -> None:
    """The canonical form is read as the same policy."""
    policy = made(roles)
    assert made(policy.to_json()["roles"]).digest == policy.digest


words = st.lists(st.sampled_from(["a", "b", ".", "*", ":"]), min_size=1, max_size=6).map("".join)


@given(st.lists(words, max_size=8), words.map(lambda text: text.replace("*", "a")))
def test_the_index_finds_what_matches(patterns: list[str], text: str) -> None:
    """It finds exactly the patterns that match as regular expressions, in order."""
    expected = [n for n, p in enumerate(patterns) if re.fullmatch(".*".join(map(re.escape, p.split("*"))), text)]
    assert Index(patterns).find(text) == expected


@pytest.mark.parametrize("given", [["crm.*:call"], "crm.*:call", None])
def test_a_policy_is_roles_and_what_they_may_do(given: Any) -> None:
    """A list of permissions, which no role has, is refused."""
    with pytest.raises(BadInput, match="expected roles and what they may do"):
        Roles(given)
