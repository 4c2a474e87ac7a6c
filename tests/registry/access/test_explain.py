"""Explanations: the rule that decided, the way by which one has it, what else was looked at, what it would take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from escalade.registry.access import Roles
from escalade.registry.tools import tool
from escalade.scopes import Principal
from tests.registry.access.policies import EFFECTS, TOOLS, arguments, made, principals, written

POLICY = Roles(
    {
        "reader": ["crm.*:read"],
        "clerk": {
            "inherits": ["reader"],
            "grants": [
                {"permit": "pay.charge:call", "when": {"amount": {"<=": 100}}},
                {"permit": "mail.send:call", "needs": "approval", "tenants": ["acme"]},
                {"deny": "crm.drop:call"},
                {"deny": "pay.*:call", "when": {"currency": {"==": "XXX"}}},
            ],
        },
        "boss": ["*"],
    }
)
ANA = Principal("ana", "acme", frozenset({"clerk"}))


def charge(amount: float, currency: str = "EUR") -> str:
    """Charges."""
    return f"{amount} {currency}"


SPEC = tool(name="pay.charge")(charge).spec


def test_an_inherited_grant() -> None:
    """It prints who, what, by which rule and by which chain of roles."""

    @tool(name="crm.get", side_effects="read")
    def get() -> str:
        return ""

    assert str(POLICY.explain(ANA, get)) == (
        "ana of acme (clerk) calls crm.get: allowed\n"
        "  decided by  role 'reader' grants 'crm.*:read' (inherited by clerk)\n"
        "  inherited   clerk -> reader\n"
        "  considered  role 'reader' grants 'crm.*:read' (inherited by clerk): applies"
    )


@pytest.mark.parametrize(
    ("args", "verdict", "considered", "needed"),
    [
        (None, "allowed for some arguments", "depends on amount", "arguments that fit: amount <= 100"),
        ({"amount": 5}, "allowed", "applies", ""),
        ({"amount": 500}, "denied", "does not apply: amount <= 100 does not hold", "other arguments, or"),
        ({}, "denied", "does not apply: amount <= 100 is not known to hold", "other arguments, or"),
        ({"amount": 5, "currency": "XXX"}, "denied", "applies", "other arguments, or"),
    ],
)
def test_conditions(args: dict[str, Any] | None, verdict: str, considered: str, needed: str) -> None:
    """It says which test of a condition does not hold; arguments that a tool fills in count as given."""
    found = POLICY.explain(ANA, SPEC, args)
    assert found.verdict == verdict
    assert found.considered[0].verdict == considered
    assert found.needed.startswith(needed)
    assert found.chain == ("clerk",)


def test_a_denial_that_can_not_be_ruled_out() -> None:
    """A denial under a condition of which nothing is known is named as such."""
    found = POLICY.explain(ANA, "pay.charge", {"amount": 5})
    assert found.verdict == "denied"
    assert found.considered[1].verdict == """applies: currency == "XXX" can't be ruled out"""
    assert found.chain == ("clerk",)


def test_what_it_would_take() -> None:
    """A denial has to go; a grant may come by another role; or nothing in this policy helps."""
    assert "no longer has the denial" in POLICY.explain(ANA, "crm.drop").needed
    assert POLICY.explain(Principal("bob"), "crm.drop").needed == "one of the roles: boss"
    assert Roles({"a": []}).explain(Principal("bob"), "x").needed == "a rule: no role of this policy grants it here"
    asked = POLICY.explain(ANA, "mail.send")
    assert (asked.verdict, asked.needed) == ("allowed with approval", "a person's approval of the very call")
    elsewhere = POLICY.explain(Principal("ana", "globex", frozenset({"clerk"})), "mail.send")
    assert elsewhere.considered[0].verdict == "not in tenant 'globex'"
    assert "tenant" in elsewhere.rule


@given(written(), principals, arguments)
def test_explained_as_decided(roles: dict[str, Any], who: Principal, args: dict[str, Any]) -> None:
    """An explanation says what the policy decides, can be printed, and is JSON."""
    policy = made(roles)
    for name in TOOLS:
        asked = tool(name=name, side_effects=EFFECTS[name])(charge).spec
        found = policy.explain(who, asked, args)
        decided = policy.decide_call(who, f"{name}:call", EFFECTS[name], {"currency": "EUR", **args})
        assert (found.allowed, found.approval, found.rule) == (decided.allowed, decided.approval, decided.rule)
        assert found.verdict in str(found)
        assert found.to_json()["allowed"] is found.allowed
        assert bool(found.needed) == (not found.allowed or found.approval)
