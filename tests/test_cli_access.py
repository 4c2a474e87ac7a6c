"""The commands access and approvals: thin, clear in their errors, JSON where asked."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App, CycloptsError

import escalade
from escalade import AuditLog, Principal, Registry, Roles, tool
from escalade import _cli_access as commands
from escalade.errors import ApprovalRequired, EscaladeError, PermissionDenied
from escalade.registry.stores.opened import open_requests
from tests._house import ROOT
from tests.registry.approvals.calls import POLICY, desk, governed, ran, scope

EXAMPLE = ROOT / "examples/access"
POLICY_FILE, NEXT = str(EXAMPLE / "policy.yaml"), str(EXAMPLE / "policy_next.yaml")
PEOPLE, TOOLS = str(EXAMPLE / "principals.yaml"), str(EXAMPLE / "tools.yaml")
SIMULATE = ["access", "simulate", POLICY_FILE, NEXT, "--principals", PEOPLE, "--tools", TOOLS]

TABLE = """\
user  tenant                   tool             before         after          for example
rita  acme    loses            kb.search        allowed        denied
rita  acme    loses            kb.get           allowed        denied
sam   acme    loses            kb.get           allowed        denied
sam   acme    gains            mail.send        with approval  allowed
sam   acme    gains and loses  payments.refund  some calls     some calls     amount=100 currency=EUR and amount=50 currency=USD
fay   acme    gains            payments.payout  denied         with approval
fay   acme    loses            reports.export   allowed        denied
3 gained, 5 lost, of 80 asked
"""  # noqa: E501 - as wide as it prints


def run(*words: str) -> Any:
    """As the whole command does, without its catching of errors."""
    app = App(name="escalade")
    app.command(commands.access)
    app.command(commands.approvals)
    return app(list(words), exit_on_error=False, print_error=False, result_action="return_value")


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What was printed since the last look, without blanks at the ends of lines."""
    monkeypatch.delenv("COLUMNS", raising=False)
    return lambda: "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())


def test_who_gains_and_who_loses(printed: Any) -> None:
    """The example of three roles and twenty tools, as a table."""
    assert run(*SIMULATE) == 0
    assert printed() == TABLE


@pytest.mark.parametrize(
    ("options", "new", "code"),
    [
        ([], NEXT, 0),
        (["--fail-on-loss"], NEXT, 100),
        (["--fail-on-gain"], NEXT, 100),
        (["--fail-on-loss", "--fail-on-gain"], POLICY_FILE, 0),
    ],
)
def test_exit_codes_of_a_simulation(options: list[str], new: str, code: int, printed: Any) -> None:
    """100 where it was asked to fail on what it found, else 0."""
    assert run("access", "simulate", POLICY_FILE, new, *SIMULATE[4:], *options, "--json") == code
    found = json.loads(printed())
    assert found["asked"] == 80
    assert (found["gains"], found["losses"]) == ((3, 5) if new == NEXT else (0, 0))


def test_rules_that_speak_of_no_tool_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the answer, where a file says which tools there are: what is misspelt denies nothing."""
    (tmp_path / "p.json").write_text('{"roles": {"a": ["*:call", {"deny": "paymnets.*:call"}]}}')
    policy = str(tmp_path / "p.json")
    note = "note: role 'a' denies 'paymnets.*:call': none of the 20 tools has it; did you mean 'payments.list:call'?\n"
    who = ["--role", "a", "--tools", TOOLS]
    assert run("access", "explain", "payments.list", "--policy", policy, *who) == 0
    told = capsys.readouterr()
    assert told.err == note
    assert (
        "considered  role 'a' denies 'paymnets.*:call': does not match 'payments.list:call', though nearly" in told.out
    )
    assert run("access", "simulate", POLICY_FILE, policy, *SIMULATE[4:], "--json") == 0
    told = capsys.readouterr()
    assert (told.err, json.loads(told.out)["asked"]) == (note, 80)


@pytest.fixture
def audited(tmp_path: Path) -> str:
    """A log of four calls: two that were allowed, one refused for its arguments, one refused outright."""

    @tool(name="payments.refund")
    def refund(amount: int) -> str:
        return f"refunded {amount}"

    policy = Roles({"clerk": [{"permit": "payments.*:call", "when": {"amount": {"<=": 50}}}], "guest": ["z:call"]})
    registry = Registry([refund], name="audited")
    with AuditLog(tmp_path / "audit.sqlite") as log:
        for role, amount in (("clerk", 5), ("clerk", 6), ("clerk", 500), ("guest", 5)):
            who = Principal(f"a {role}", "acme", frozenset({role}))
            with escalade.scope(principal=who, access=policy, recorder=log), suppress(PermissionDenied):
                registry.get_tool("payments.refund")(amount=amount)
    (tmp_path / "same.json").write_text(json.dumps(policy.to_json()))
    (tmp_path / "none.json").write_text('{"roles": {"clerk": ["z:call"], "guest": ["payments.*:call"]}}')
    (tmp_path / "most.json").write_text(
        '{"roles": {"clerk": [{"permit": "payments.*:call", "when": {"amount": {"<": 90}}}]}}'
    )
    return str(tmp_path / "audit.sqlite")


NONE = """\
user     tenant  tool             before   after    calls  rule
a clerk  acme    payments.refund  allowed  denied   2      nothing grants 'payments.refund:call' to clerk
a guest  acme    payments.refund  denied   allowed  1      role 'guest' grants 'payments.*:call'
1 gained, 2 lost, 0 not to be told from the record, of 4 decisions
"""
MOST = """\
user     tenant  tool             before   after                 calls  rule
a clerk  acme    payments.refund  allowed  depends on arguments  2      role 'clerk' grants 'payments.*:call' when amount < 90
a clerk  acme    payments.refund  denied   depends on arguments  1      role 'clerk' grants 'payments.*:call' when amount < 90
0 gained, 0 lost, 3 not to be told from the record, of 4 decisions
"""  # noqa: E501 - as wide as it prints


@pytest.mark.parametrize(
    ("policy", "table"),
    [("same", "0 gained, 0 lost, 0 not to be told from the record, of 4 decisions\n"), ("none", NONE), ("most", MOST)],
)
def test_recorded_calls_under_another_policy(audited: str, policy: str, table: str, printed: Any) -> None:
    """The last decisions of a log, held against a policy; in doubt, a check fails."""
    words = ["access", "simulate", str(Path(audited).with_name(f"{policy}.json")), "--audit", audited]
    assert run(*words) == 0
    assert printed() == table
    assert run(*words, "--fail-on-loss") == run(*words, "--fail-on-gain") == (0 if policy == "same" else 100)
    printed()
    assert run(*words, "--last", "1", "--json") == 0
    found = json.loads(printed())
    assert (found["asked"], len(found["changes"])) == (1, int(policy == "none"))


def test_why(printed: Any) -> None:
    """An explanation in words and in JSON; side effects from a file of tools, or by option."""
    who = ["--policy", POLICY_FILE, "--user", "sam", "--role", "support", "--tenant", "acme"]
    assert run("access", "explain", "payments.refund", *who, "--tools", TOOLS, "--args", '{"amount": 60}') == 0
    assert printed() == (
        "sam of acme (support) calls payments.refund: denied\n"
        "  decided by  not with these arguments: role 'support' grants 'payments.refund:call' when amount <= 50 and "
        'currency in ["EUR", "USD"]\n'
        "  considered  role 'support' grants 'payments.refund:call' when amount <= 50 and "
        'currency in ["EUR", "USD"]: does not apply: amount <= 50 does not hold\n'
        "  needed      other arguments, or a role that grants it with these\n"
    )
    assert run("access", "explain", "crm.get", *who, "--effect", "read", "--json") == 0
    found = json.loads(printed())
    assert (found["allowed"], found["chain"]) == (True, ["support", "reader"])
    assert len(found["policy"]) == 64
    assert run("access", "explain", "crm.get", *who) == 0
    assert "calls crm.get: denied" in printed()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["access", "explain", "x", "--policy", "none.yaml"], "none.yaml: can't be read (No such file or directory)"),
        (["access", "explain", "x", "--policy", POLICY_FILE, "--role", "suport"], "did you mean 'support'?"),
        (["access", "explain", "x", "--policy", POLICY_FILE, "--args", "["], "--args: is not JSON"),
        (["access", "explain", "x", "--policy", POLICY_FILE, "--args", "[]"], "--args: expected a JSON object"),
        (["access", "explain", "crm.serch", "--policy", POLICY_FILE, "--tools", TOOLS], "did you mean 'crm.search'?"),
        (["access", "explain", "x"], "--policy"),
        (SIMULATE[:4], "expected OLD NEW --principals FILE --tools FILE, or NEW --audit LOG"),
        ([*SIMULATE, "--audit", "audit.sqlite"], "expected the proposed one alone"),
        ([*SIMULATE[:3], "--audit", "none.sqlite"], "audit log none.sqlite: there is no none.sqlite"),
        ([*SIMULATE[:3], "--audit", "none.sqlite", "--last", "0"], "expected 1 decision or more, got 0"),
        ([*SIMULATE[:4], "--principals", TOOLS, "--tools", TOOLS], "expected a list of mappings under 'principals'"),
        (["approvals", "list", "--store", "none.db"], "none.db: there is no such store of approvals"),
        (["approvals", "list", "--store", "none.db", "--state", "lost"], "lost"),
    ],
)
def test_bad_input(words: list[str], message: str) -> None:
    """One clear line for what the user can put right (the command's exit code is 2 then)."""
    with pytest.raises((CycloptsError, ValueError)) as caught:
        run(*words)
    assert message in str(caught.value)


@pytest.fixture
def files(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """A store with one request (a file, or what a test asks for), the policy, and people."""
    found = {name: str(tmp_path / name) for name in ("store.db", "policy.json", "people.toml")}
    Path(found["policy.json"]).write_text(json.dumps(POLICY.to_json()))
    Path(found["people.toml"]).write_text(
        'principals = [{user = "bea", tenant = "acme", roles = ["boss"]}, {user = "ana", tenant = "acme"}, '
        '{user = "ana", tenant = "globex"}]'
    )
    if getattr(request, "param", "") == "postgres":
        found["store.db"] = request.getfixturevalue("postgres_url")
    with scope(desk(open_requests(found["store.db"]))), pytest.raises(ApprovalRequired) as caught:
        governed()(amount=5, currency="[b]\x1b[31m")
    return {**found, "id": caught.value.request_id}


@pytest.mark.parametrize("files", ["file", "postgres"], indirect=True)
def test_a_call_is_approved(files: dict[str, str], printed: Any) -> None:
    """Listed, approved by somebody who may, listed as approved; the call then runs."""
    store = ["--store", files["store.db"]]
    assert run("approvals", "list", *store) == 0
    text = printed()
    assert files["id"] in text
    assert "pay.charge@1.0.0" in text
    assert "[b]" in text
    assert "\x1b" not in text
    decide = [files["id"], *store, "--policy", files["policy.json"], "--reason", "agreed"]
    assert run("approvals", "approve", *decide, "--by", "bea", "--principals", files["people.toml"]) == 0
    assert printed().startswith("approved: pay.charge@1.0.0 {")
    assert run("approvals", "list", *store) == 0
    assert printed() == "no pending requests\n"
    assert run("approvals", "list", *store, "--state", "all", "--json") == 0
    (request,) = json.loads(printed())["requests"]
    assert (request["state"], request["decided_by"], request["reason"]) == ("approved", "bea", "agreed")
    with scope(desk(open_requests(files["store.db"]))):
        governed()(amount=5, currency="[b]\x1b[31m")
    assert len(ran) == 1


def test_a_call_is_denied(files: dict[str, str], printed: Any) -> None:
    """By role on the command line; the tenant is that of the request."""
    decide = [files["id"], "--store", files["store.db"], "--policy", files["policy.json"]]
    assert run("approvals", "deny", *decide, "--by", "bea", "--role", "boss", "--json") == 0
    assert json.loads(printed())["state"] == "denied"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "bea"], "nothing grants 'pay.charge:approve'"),
        (["--by", "ana", "--role", "boss"], "asks for it and may not decide it"),
        (["--by", "bea", "--role", "boss", "--tenant", "globex"], "may not decide for tenant 'acme'"),
        (["--by", "bea", "--role", "bos"], "did you mean 'boss'?"),
        (["--by", "zoe", "--principals", "people.toml"], "unknown principal 'zoe'"),
        (["--by", "ana", "--principals", "people.toml"], "say which --tenant"),
    ],
)
def test_who_may_not_decide(files: dict[str, str], options: list[str], message: str) -> None:
    """Whoever may not decide changes nothing, and is told why."""
    words = [files.get(word, word) for word in options]
    decide = [files["id"], "--store", files["store.db"], "--policy", files["policy.json"]]
    for verb in ("approve", "deny"):
        with pytest.raises(EscaladeError) as caught:
            run("approvals", verb, *decide, *words)
        assert message in str(caught.value)
    assert desk(open_requests(files["store.db"])).get(files["id"]).state == "pending"


def test_unknown_requests(files: dict[str, str]) -> None:
    """A request that there is not is bad input."""
    with pytest.raises(ValueError, match="unknown approval request 'x'"):
        run("approvals", "deny", "x", "--store", files["store.db"], "--policy", files["policy.json"], "--by", "bea")
