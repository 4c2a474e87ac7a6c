"""Slips of the pen in rules are told where nothing else would tell them; nothing is refused for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.registry.access import Roles
from escalade.registry.access.index import Index
from escalade.registry.access.near import is_near
from escalade.registry.access.unmatched import unmatched
from escalade.registry.tools import tool
from escalade.scopes import Principal

SLIPS = ["pay.*:cal", "pya.*:call", "Pay.*:call", "pay.otu:call", "pay.*:wirte", "pay*:cal"]
OTHERS = ["crm.*:call", "pay.*:read", "pay.*:recall", "x:call", "pa.*:call", "*:irreversible"]


def out() -> str:
    """Pays."""
    return ""


OUT = tool(name="pay.out", side_effects="write")(out).spec


def denying(pattern: str) -> Roles:
    return Roles({"r": ["*:call", {"deny": pattern}]})


@pytest.mark.parametrize("pattern", SLIPS + OTHERS)
def test_denials_that_nearly_match_are_explained(pattern: str) -> None:
    """An explanation lists denials that would have denied but for a letter or two, and no others."""
    found = denying(pattern).explain(Principal(roles=frozenset({"r"})), OUT)
    assert found.verdict == "allowed"
    near = [one for one in found.considered if one.verdict == "does not match 'pay.out:call', though nearly"]
    assert [one.rule for one in near] == ([f"role 'r' denies {pattern!r}"] if pattern in SLIPS else [])
    assert [one.rule for one in found.considered if one not in near] == ["role 'r' grants '*:call'"]


@pytest.mark.parametrize("pattern", SLIPS + OTHERS)
def test_rules_that_speak_of_no_tool(pattern: str) -> None:
    """Each is a line, with what was perhaps meant."""
    (line,) = unmatched(denying(pattern), [OUT])
    assert line.startswith(f"role 'r' denies {pattern!r}: none of the 1 tools has it")
    assert ("did you mean 'pay.out:" in line) == (pattern in SLIPS)


def test_rules_that_speak_of_a_tool() -> None:
    """By any name of a call, by consents, and for models, of which a list of tools says nothing."""
    rules = ["pay.*:write", "pay.out:approve", {"deny": "*:write"}, "model.big:call", {"deny": "pay.out:call"}, "*"]
    assert unmatched(Roles({"r": rules}), [OUT]) == []
    own = tool(name="pay.back", permission="payments:refund")(out).spec
    assert unmatched(Roles({"r": ["payments:refund", {"deny": "payments:write"}]}), [own]) == []
    assert len(unmatched(Roles({"r": ["payments:write"]}), [own])) == 1, "that name grants nothing"


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [("pay.*:cal", "call"), ("*:Call", "call"), ("crm:raed", "read"), ("*:irreversable", "irreversible")],
)
def test_actions_with_a_slip_are_told_when_a_policy_is_made(
    pattern: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, with what was meant."""
    denying(pattern)
    action = pattern.partition(":")[2]
    assert caplog.messages == [
        f"role 'r' denies {pattern!r}: the action {action!r} is no tool's own; did you mean {meant!r}?"
    ]


def test_actions_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    """Actions are open: what isn't spelt nearly like a known one is somebody's own."""
    Roles({"r": ["payments:refund", "device:recall", "a:use", "crm.*:*", "crm*", "a.*:re*", "a:call", "a:approve"]})
    assert caplog.messages == []


@given(st.text("ab.:*", min_size=1, max_size=6), st.text("ab.:", max_size=6))
def test_what_matches_is_near(pattern: str, text: str) -> None:
    """A pattern with nothing to mend is near, whatever its stars stand for (where both have an action, or neither)."""
    if Index([pattern]).find(text) and pattern.count(":") == text.count(":") <= 1:
        assert is_near(pattern, text)
