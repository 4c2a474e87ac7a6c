"""What another policy would change: for people and tools, and for what was recorded."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from rich.console import Console

import escalade
from escalade import AuditLog, Journal, Principal, Registry, Roles, tool
from escalade.errors import ApprovalRequired, BadInput, PermissionDenied
from escalade.registry.access.simulate import read_principals, read_tools, replay, simulate
from escalade.registry.audit import reading
from escalade.registry.audit.entries import decisions
from escalade.scopes import Entry
from tests._house import ROOT
from tests.registry.access.policies import EFFECTS, TOOLS, made, principals, written

EXAMPLE = ROOT / "examples/access"
TEXT = """\
rita of acme loses kb.search: allowed -> denied
rita of acme loses kb.get: allowed -> denied
sam of acme loses kb.get: allowed -> denied
sam of acme gains mail.send: with approval -> allowed
sam of acme changes payments.refund: some calls -> some calls, like amount=100 currency=EUR and amount=50 currency=USD
fay of acme gains payments.payout: denied -> with approval
fay of acme loses reports.export: allowed -> denied
3 gained, 5 lost, of 80 asked"""


def example() -> Any:
    policies = [Roles.load(EXAMPLE / name) for name in ("policy.yaml", "policy_next.yaml")]
    return simulate(*policies, read_principals(EXAMPLE / "principals.yaml"), read_tools(EXAMPLE / "tools.yaml"))


def test_three_roles_and_twenty_tools() -> None:
    """The example prints who gains and who loses what, with arguments where these make the difference."""
    changes = example()
    assert str(changes) == TEXT
    assert len(read_tools(EXAMPLE / "tools.yaml")) == 20
    assert len(Roles.load(EXAMPLE / "policy.yaml").roles) == 3
    Console(file=io.StringIO()).print(str(changes))
    assert (len(changes), len(changes.gains), len(changes.losses)) == (7, 3, 5)
    assert changes.to_json()["changes"][0]["kind"] == "loses"
    assert next(iter(changes)).tool == "kb.search"


@settings(max_examples=50)
@given(written(), principals)
def test_nothing_changes_by_itself(roles: dict[str, Any], who: Principal) -> None:
    """Against itself no policy changes anything."""
    policy = made(roles)
    assert len(simulate(policy, made(policy.to_json()["roles"]), [who], TOOLS)) == 0


@settings(max_examples=50)
@given(written(), written(), principals)
def test_gains_are_losses_the_other_way(one: dict[str, Any], two: dict[str, Any], who: Principal) -> None:
    """What is gained by going there is lost by coming back; who gains was not allowed everything before."""
    tools = [tool(name=name, side_effects=EFFECTS[name])(_anything).spec for name in TOOLS]
    there, back = simulate(made(one), made(two), [who], tools), simulate(made(two), made(one), [who], tools)
    assert [(c.tool, c.before, c.after) for c in there] == [(c.tool, c.after, c.before) for c in back]
    assert [c.tool for c in there.gains] == [c.tool for c in back.losses]
    assert all(c.after != "denied" and c.before != "allowed" for c in there.gains)


def _anything(amount: float | str | None = None, currency: str | None = None) -> str:
    return ""


@tool(name="crm.search", side_effects="read")
def search() -> str:
    return "found"


@tool(name="pay.charge")
def charge(amount: int) -> str:
    return "charged"


@pytest.mark.parametrize("kept", ["journal", "log", "export"])
def test_recorded_decisions(kept: str, tmp_path: Path) -> None:
    """Recorded uses are decided anew, with the permissions they had then; others that were refused had been allowed. A
    journal and an audit log say the same.
    """
    old = Roles({"a": ["crm.*:read"], "b": [{"permit": "pay.*:write", "needs": "approval"}]})
    recorder: Any = Journal() if kept == "journal" else AuditLog(tmp_path / "audit.sqlite")
    tools = Registry([search, charge], name="recorded")
    ana, bob = Principal("ana", roles=frozenset({"a"})), Principal("bob", roles=frozenset({"b"}))
    with escalade.scope(principal=ana, access=old, recorder=recorder):
        tools.get_tool("crm.search")()
        with pytest.raises(BadInput, match="unknown tool"):
            tools.tool_for("made.up")
        with pytest.raises(PermissionDenied):
            tools.get_tool("pay.charge")(amount=5)
    with escalade.scope(principal=bob, access=old, recorder=recorder), pytest.raises(ApprovalRequired):
        tools.get_tool("pay.charge")(amount=5)
    entries = recorded(recorder, kept)
    assert replay(entries, old) == []
    assert {entry.policy_digest for entry in entries if entry.permission} == {old.digest}
    new = Roles({"a": ["pay.charge:call"], "b": [{"permit": "*", "when": {"amount": {"<": 3}}}]})
    found = replay(entries, new)
    assert [(one.entry.resource, one.before, one.after, one.certain) for one in found] == [
        ("crm.search", "allowed", "denied", True),
        ("pay.charge", "denied", "allowed", True),
        ("pay.charge", "with approval", "depends on arguments", False),
    ]
    assert found[0].rule == "nothing grants 'crm.search:call' to a"


def recorded(recorder: Any, kept: str) -> list[Entry]:
    """What was decided, out of the journal, the log, or an export of the log."""
    if kept == "journal":
        decided: list[Entry] = recorder.decisions()
        return decided
    recorder.close()
    lines = recorder.path.with_suffix(".jsonl")
    lines.write_text("".join(f"{row.to_json()}\n" for row in reading.rows(recorder.path)))
    return decisions(lines if kept == "export" else recorder.path)


OLD = Roles({"r": [{"permit": "pay.*:call", "when": {"amount": {"<=": 50}}}], "z": ["q.*:call"]})


@pytest.mark.parametrize("kept", ["journal", "log"])
@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (OLD.to_json()["roles"], []),
        ({"r": ["pay.*:call"], "z": ["*:call"]}, [("r", "denied", "allowed"), ("z", "denied", "allowed")]),
        ({"r": ["q:call"], "z": ["q:call"]}, [("r", "allowed", "denied")]),
        (
            {"r": [{"permit": "pay.*:call", "when": {"amount": {"<=": 90}}}]},
            [("r", "denied", "depends on arguments"), ("r", "allowed", "depends on arguments")],
        ),
    ],
)
def test_refused_for_arguments(kept: str, roles: Any, expected: list[Any], tmp_path: Path) -> None:
    """A call that was refused for its arguments was denied, by whatever record; nobody guesses what they were."""
    recorder: Any = Journal() if kept == "journal" else AuditLog(tmp_path / "audit.sqlite")
    tools = Registry([charge], name="by arguments")
    for role, amount in (("r", 2000), ("r", 20), ("z", 20)):
        who = Principal(role, roles=frozenset({role}))
        with escalade.scope(principal=who, access=OLD, recorder=recorder), suppress(PermissionDenied):
            tools.get_tool("pay.charge")(amount=amount)
    found = replay(recorded(recorder, kept), Roles(roles))
    assert [(one.entry.principal.user, one.before, one.after) for one in found] == expected
    assert all(one.certain == (one.after != "depends on arguments") for one in found)


def test_rows_are_no_entries(tmp_path: Path) -> None:
    """Rows of a log are not taken for what they record; the error says what is."""
    AuditLog(tmp_path / "audit.sqlite").close()
    rows: Any = reading.tail(tmp_path / "audit.sqlite")
    with pytest.raises(BadInput, match=r"expected entries, such as audit.entries.decisions\(.*got Row\(seq=1"):
        replay(rows, OLD)


def test_a_hidden_tool_is_decided_by_its_effect() -> None:
    """Who asked for a tool that he didn't see may get it by a grant of what it does, as in a call."""
    journal, tools = Journal(), Registry([search], name="hidden")
    with escalade.scope(principal=Principal(roles=frozenset({"a"})), access=Roles({"a": ["z:call"]}), recorder=journal):
        with pytest.raises(BadInput, match="unknown tool"):
            tools.tool_for("crm.search")
    (found,) = replay(journal.decisions(), Roles({"a": ["crm.*:read"]}))
    assert (found.before, found.after, found.gains, found.loses) == ("denied", "allowed", True, False)


def test_approvals_that_the_tool_may_have_wanted() -> None:
    """That an approval is no longer needed is not certain: the record doesn't say who wanted it."""
    wary = tool(name="pay.out", approval="always")(_anything)
    journal, tools, who = Journal(), Registry([wary], name="wary"), Principal(roles=frozenset({"a"}))
    with escalade.scope(principal=who, access=Roles({"a": ["*"]}), recorder=journal), pytest.raises(ApprovalRequired):
        tools.get_tool("pay.out")()
    (found,) = replay(journal.decisions(), Roles({"a": ["*:call"]}))
    assert (found.before, found.after, found.certain, found.gains) == ("with approval", "allowed", False, True)


def test_entries_with_arguments() -> None:
    """A log that keeps arguments has its entries decided with them."""
    who = Principal("bob", roles=frozenset({"b"}))
    entry: Any = SimpleNamespace(
        permission="pay.charge:call", side_effects="write", resource="pay.charge", principal=who, principals=(),
        outcome="ok", approval_id="", policy_digest="", arguments={"amount": 5},
    )  # fmt: skip
    policy = Roles({"b": [{"permit": "*", "when": {"amount": {"<": 3}}}]})
    (found,) = replay([entry], policy)
    assert (found.before, found.after, found.certain) == ("allowed", "denied", True)
    entry.arguments = {"amount": 2}
    assert replay([entry], policy) == []


def test_all_who_asked_count() -> None:
    """A use in a nested scope had to be allowed to everybody, and has to be again."""
    old = Roles({"a": ["*"], "b": ["*"]})
    journal, tools = Journal(), Registry([search], name="nested")
    ana, bob = Principal("ana", roles=frozenset({"a"})), Principal("bob", roles=frozenset({"b"}))
    with escalade.scope(principal=ana, access=old, recorder=journal), escalade.scope(principal=bob):
        tools.get_tool("crm.search")()
    (found,) = replay(journal.entries(), Roles({"a": ["z:call"], "b": ["*"]}))
    assert (found.after, found.rule) == ("denied", "nothing grants 'crm.search:call' to a")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.yaml", "people: []", "expected a list of mappings under 'principals'"),
        ("p.yaml", "principals: [5]", "expected a list of mappings under 'principals'"),
        ("p.yaml", "principals: [{name: ana}]", "principal 1: expected {user, tenant, roles}"),
        ("p.yaml", "principals: [{user: ana, roles: x}]", "principal 1: expected"),
        ("t.yaml", "tools: [{name: a}, {name: B}]", "tool 2: "),
        ("t.yaml", "tools: [{side_effects: read}]", "tool 1: "),
    ],
)
def test_bad_files(tmp_path: Any, name: str, text: str, message: str) -> None:
    """What can't be read as people or tools is refused in one line that says which one."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        (read_principals if name == "p.yaml" else read_tools)(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
