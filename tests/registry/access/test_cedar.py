"""Cedar behind the same protocol: it decides as Roles do on policies that both can say, and fails closed."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import escalade
from escalade import Journal, Principal, Registry, Roles, tool
from escalade.errors import ApprovalRequired, BadInput, PermissionDenied
from tests.registry.access.policies import EFFECTS, TOOLS

pytest.importorskip("cedarpy")

from escalade.registry.access.cedar import CedarAccess

POLICIES = """
@id("crm") permit (principal in Role::"analyst", action in Action::"call", resource in Namespace::"crm");
permit (principal in Role::"clerk", action in Action::"call", resource == Tool::"pay.charge")
    when { context has amount && context.amount <= 100 };
@needs("approval")
permit (principal in Tenant::"acme", action in Action::"write", resource == Tool::"mail.send");
forbid (principal, action in Action::"irreversible", resource);
"""
ANA = Principal("ana", "acme", frozenset({"analyst", "clerk"}))
CEDAR = CedarAccess(POLICIES)


def test_what_a_request_has() -> None:
    """Roles, tenants, effects and namespaces are there to be named; the rule names the policy."""
    found = CEDAR.decide(ANA, "crm.search:call", "read")
    assert (found.allowed, found.rule) == (True, "Cedar permits it by crm")
    assert CEDAR.decide(ANA, "crm.drop:call", "irreversible").rule == "Cedar forbids it by policy3"
    assert CEDAR.decide(Principal("bob"), "crm.search:call", "read").rule == "no Cedar policy permits 'crm.search:call'"
    assert CEDAR.decide_call(ANA, "mail.send:call", "write", {}).approval
    assert not CEDAR.decide(Principal("x", "globex"), "mail.send:call", "write").allowed
    assert CEDAR.roles == ["analyst", "clerk"]


def test_arguments_in_context() -> None:
    """A tool is seen for the sake of calls that are allowed; the arguments of a call decide."""
    before = CEDAR.decide(ANA, "pay.charge:call", "write")
    assert (before.allowed, before.closer) == (True, True)
    assert CEDAR.decide_call(ANA, "pay.charge:call", "write", {"amount": 100}).allowed
    assert not CEDAR.decide_call(ANA, "pay.charge:call", "write", {"amount": 101}).allowed
    assert not CEDAR.decide_call(ANA, "pay.charge:call", "write", {}).allowed
    assert not CEDAR.decide_call(ANA, "pay.charge:call", "write", {"amount": None}).allowed


@pytest.mark.parametrize(
    "value", [2**63, 1.5, 0.00001, float("nan"), Decimal(10**15), object(), "\ud800", {"a": b"\xff"}]
)
def test_what_cedar_can_not_say_is_denied(value: Any) -> None:
    """An argument that Cedar has no type for, or that a policy can't be evaluated with, denies."""
    assert not CEDAR.decide_call(ANA, "pay.charge:call", "write", {"amount": value}).allowed


def test_a_failing_policy_denies() -> None:
    """Cedar skips a policy that fails; one that would have forbidden must not be skipped."""
    policy = CedarAccess(
        "permit (principal, action, resource); forbid (principal, action, resource) when {context.x > 5};"
    )
    assert policy.decide(ANA, "a:call").allowed
    assert policy.decide_call(ANA, "a:call", "", {"x": 5}).allowed
    assert not policy.decide_call(ANA, "a:call", "", {"x": 6}).allowed
    assert policy.decide_call(ANA, "a:call", "", {}).rule.startswith("a Cedar policy failed: ")


def test_entities_and_schemas() -> None:
    """Own entities say more: which role is in which, and what is known of a user; a schema is checked at once."""
    above = {"uid": {"type": "Role", "id": "lead"}, "attrs": {}, "parents": [{"type": "Role", "id": "analyst"}]}
    known = {"uid": {"type": "User", "id": "acme/zoe"}, "attrs": {"level": 3, "user": "mallory"}, "parents": []}
    when = 'principal has level && principal.level > 2 && principal.user == "zoe"'
    more = f"permit (principal, action, resource) when {{ {when} }};"
    policy = CedarAccess(POLICIES + more, [above, known])
    assert policy.decide(Principal("bob", roles=frozenset({"lead"})), "crm.search:call", "read").allowed
    assert policy.decide(Principal("zoe", "acme"), "anything:call").allowed
    assert not policy.decide(Principal("zoe", "other"), "anything:call").allowed
    with pytest.raises(BadInput, match="don't fit their schema"):
        CedarAccess(POLICIES, schema="entity User;")


def test_roles_that_no_policy_names() -> None:
    """They are entities without permissions of their own; what their holder may do by his tenant, he may."""
    policy = CedarAccess('permit (principal in Tenant::"acme", action, resource);')
    clerk = Principal("ann", "acme", frozenset({"clerk"}))
    with escalade.scope(principal=clerk, access=policy) as run:
        assert run.permits("crm.search:call", "read").allowed
    with escalade.scope(principal=Principal("bob", "globex", frozenset({"clerk"})), access=policy) as run:
        assert not run.permits("crm.search:call", "read").allowed


def test_roles_by_entities() -> None:
    """Who is in a role by another role, by his tenant or by himself, has it, as for Cedar's `in`."""
    role, user = {"type": "Role", "id": "lead"}, {"type": "User", "id": "acme/zoe"}
    entities = [
        {"uid": role, "attrs": {}, "parents": [{"type": "Role", "id": "seller"}]},
        {
            "uid": {"__entity": {"type": "Role", "id": "seller"}},
            "attrs": {},
            "parents": [{"type": "Role", "id": "all"}],
        },
        {"uid": {"type": "Tenant", "id": "acme"}, "attrs": {}, "parents": [{"type": "Role", "id": "customer"}]},
        {"uid": user, "attrs": {}, "parents": [{"type": "Role", "id": "beta"}, {"type": "Team", "id": "x"}]},
    ]
    policy = CedarAccess('permit (principal in Role::"all", action, resource);', entities)
    assert policy.roles_of(Principal("zoe", "acme")) == {"beta", "customer"}
    assert policy.roles_of(Principal("zoe", "other", frozenset({"lead"}))) == {"lead", "seller", "all"}
    assert policy.decide(Principal("zoe", "other", frozenset({"lead"})), "a:call").allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("permit (", "can't be read"),
        ('permit (principal, action == Action::"call", resource);', "write `action in`"),
        ("permit (principal == ?principal, action, resource);", "templates"),
    ],
)
def test_bad_policies(text: str, message: str) -> None:
    """What can't be used is refused at the start."""
    with pytest.raises(BadInput, match=message):
        CedarAccess(text)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cedarpy the error says what to install."""
    monkeypatch.setitem(sys.modules, "cedarpy", None)
    with pytest.raises(ImportError, match=r"escalade\[cedar\]"):
        CedarAccess(POLICIES)


def test_in_a_scope() -> None:
    """A scope takes it as it takes Roles: calls, lists, approvals and the record are the same."""

    @tool(name="pay.charge")
    def charge(amount: int) -> str:
        return f"charged {amount}"

    @tool(name="mail.send")
    def send() -> str:
        return "sent"

    registry, journal = Registry([charge, send], name="cedar"), Journal()
    with escalade.scope(principal=ANA, access=CEDAR, recorder=journal):
        assert [one.spec.name for one in registry.tools_for()] == ["mail.send", "pay.charge"]
        assert registry.get_tool("pay.charge")(amount=5) == "charged 5"
        with pytest.raises(PermissionDenied):
            registry.get_tool("pay.charge")(amount=500)
        with pytest.raises(ApprovalRequired):
            registry.get_tool("mail.send")()
    assert journal.entries()[0].policy_digest == CEDAR.digest
    with pytest.raises(escalade.NoPolicy), escalade.scope(principal=Principal(), access=CedarAccess("")):
        pass


# ------------------------------------------------------------------------------------------------ parity with Roles

WHERE = {
    "crm.*:call": 'action in Action::"call", resource in Namespace::"crm"',
    "crm.*:read": 'action in Action::"read", resource in Namespace::"crm"',
    "pay.charge:call": 'action in Action::"call", resource == Tool::"pay.charge"',
    "*:irreversible": 'action in Action::"irreversible", resource',
    "*": "action, resource",
}
amounts = st.sampled_from([0, 1, 5, 10])
whens = st.none() | st.builds(
    lambda op, amount: {"amount": {"exists": True, op: amount}},
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    amounts,
)
lines = st.builds(
    lambda allows, where, when, tenant, needs: (allows, where, when, tenant, needs),
    st.booleans(), st.sampled_from(sorted(WHERE)), whens, st.sampled_from([None, "acme"]), st.booleans(),
)  # fmt: skip


def as_rule(line: Any) -> dict[str, Any]:
    allows, where, when, tenant, needs = line
    rule: dict[str, Any] = {"permit" if allows else "deny": where}
    if when:
        rule["when"] = when
    if tenant:
        rule["tenants"] = [tenant]
    return {**rule, "needs": "approval"} if needs and allows else rule


def as_cedar(role: str, line: Any) -> str:
    allows, where, when, tenant, needs = line
    clauses = "" if tenant is None else f' when {{ principal.tenant == "{tenant}" }}'
    if when:
        (op, amount) = next((op, value) for op, value in when["amount"].items() if op != "exists")
        clauses += f" when {{ context has amount && context.amount {op} {amount} }}"
    note = '@needs("approval") ' if needs and allows else ""
    return f'{note}{"permit" if allows else "forbid"} (principal in Role::"{role}", {WHERE[where]}){clauses};'


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(["a", "b"]), st.lists(lines, max_size=4), min_size=1),
    st.sets(st.sampled_from(["a", "b"])),
    st.sampled_from(["acme", "globex"]),
    st.none() | amounts | st.just(7),
)
def test_decides_as_roles_do(policy: dict[str, Any], roles: set[str], tenant: str, amount: int | None) -> None:
    """The same policy in both languages gives the same answers, arguments and approvals included."""
    ours = Roles({role: [as_rule(line) for line in listed] for role, listed in policy.items()})
    text = "\n".join(as_cedar(role, line) for role, listed in policy.items() for line in listed)
    cedar, who = CedarAccess(text), Principal("ana", tenant, frozenset(roles))
    args = {} if amount is None else {"amount": amount}
    for name in TOOLS:
        one = ours.decide_call(who, f"{name}:call", EFFECTS[name], args)
        two = cedar.decide_call(who, f"{name}:call", EFFECTS[name], args)
        assert (one.allowed, one.approval) == (two.allowed, two.approval), text
        seen = cedar.decide(who, f"{name}:call", EFFECTS[name])
        assert seen.allowed or not two.allowed
