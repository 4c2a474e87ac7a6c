"""`escalade tools`: what each command prints, and with which code it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Approvals, Budget, Principal, Roles, SqliteRequests, _cli_tools, open_ledger
from escalade.errors import BadInput, EscaladeError
from escalade.registry.audit import reading
from escalade.registry.audit.verify import verify
from escalade.registry.manifest import manifest_schema

MODULE = '''
"""Tools of a shop."""

from escalade import tool


def search(query: str, limit: int = 10) -> list[str]:
    """Customers whose name contains the query.

    By relevance.
    """
    if query == "boom":
        raise ValueError("it broke")
    return [query] * limit


@tool(name="pay.charge", cost="0.25", side_effects="irreversible", owner="finance")
def charge(amount: int) -> str:
    """Charges the [red]card[/red]."""
    return f"charged {amount}"
'''

MANIFEST = """\
tools:
  - {function: "MODULE:search", name: crm.search, version: 1.0.0, side_effects: read, cost: "0.001"}
  - function: MODULE:search
    name: crm.search
    version: 1.1.0
    side_effects: read
    cost: "0.002"
    tags: [crm]
    deprecated: {message: slow, replacement: crm.find}
  - {function: "MODULE:charge"}
"""

POLICY = """\
roles:
  seller: ["crm.*:call"]
  boss: ["*"]
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module, a manifest and a policy, in which one stands."""
    name = f"shop_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "tools.yaml").write_text(MANIFEST.replace("MODULE", name))
    (tmp_path / "policy.yaml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def run(*argv: str) -> int:
    """As `escalade tools` runs: bad input ends with 2."""
    try:
        code: Any = _cli_tools.app([*argv], exit_on_error=False, print_error=False, result_action="return_value")
    except (BadInput, EscaladeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, BadInput) else 1
    return int(code)


SELLER = ("--policy", "policy.yaml", "--role", "seller", "--user", "ana")


@pytest.mark.parametrize(
    ("who", "names"),
    [((), ["crm.search", "pay.charge"]), (SELLER, ["crm.search"]), (("--policy", "policy.yaml"), [])],
)
def test_list(shop: Path, capsys: pytest.CaptureFixture[str], who: tuple[str, ...], names: list[str]) -> None:
    """What somebody may call; without a policy everything; without a role nothing."""
    assert run("list", "--manifest", "tools.yaml", *who, "--json") == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == names
    assert run("list", "--manifest", "tools.yaml", *who) == 0
    out = capsys.readouterr().out
    assert [name for name in ("crm.search", "pay.charge") if name in out] == names
    assert ("no tools" in out) == (not names)


def test_the_table(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Version, effects, price, owner and the first line of the description; brackets as they stand; deprecations."""
    assert run("list", "--manifest", "tools.yaml") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "tool version effects cost owner tags",
        "crm.search 1.1.0 read $0.002 crm deprecated Customers whose name contains the query.",
        "pay.charge 1.0.0 irreversible $0.25 finance Charges the [red]card[/red].",
    ]


def test_show(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of a version: arguments with types and defaults, price, versions, and its warning."""
    assert run("show", "crm.search@^1", "--manifest", "tools.yaml") == 0
    out = " ".join(capsys.readouterr().out.split())
    for expected in (
        "crm.search@1.1.0", "By relevance.", "cost $0.002", "permission crm.search:call", "versions 1.0.0, 1.1.0",
        "is deprecated: slow; use crm.find", "query string required", "limit integer = 10",
    ):  # fmt: skip
        assert expected in out
    assert run("show", "crm.search@1.0.0", "--manifest", "tools.yaml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["cost"], found["deprecated"]) == ("1.0.0", "0.001", None)
    assert [one["version"] for one in found["versions"]] == ["1.0.0", "1.1.0"]


@pytest.mark.parametrize("command", ["show", "call"])
def test_a_tool_that_one_may_not_use_is_unknown(shop: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The same line as for a tool that there isn't, and the same code."""
    said = []
    for name in ("pay.charge", "pay.change"):
        assert run(command, name, "--manifest", "tools.yaml", *SELLER) == 2
        said.append(capsys.readouterr().err.splitlines()[-1].replace(name, "NAME"))
    assert said[0] == said[1] == "error: unknown tool 'NAME' (known: crm.search)"


def test_search(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Best first, with scores for programs; nothing that one may not call."""
    assert run("search", "card customers", "--manifest", "tools.yaml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in found} == {"pay.charge", "crm.search"}
    assert found[0]["score"] >= found[1]["score"] > 0
    assert run("search", "card", "--manifest", "tools.yaml", *SELLER) == 0
    assert capsys.readouterr().out == "no tools\n"
    assert run("search", "card", "--manifest", "tools.yaml", "--limit", "0") == 2
    assert "--limit: expected 1 or more, got 0" in capsys.readouterr().err


def test_check(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sound manifest ends with 0, and says what is deprecated."""
    assert run("check", "tools.yaml") == 0
    out = capsys.readouterr().out
    assert "warning  tool crm.search@1.1.0 is deprecated: slow; use crm.find" in out
    assert "3 versions of 2 tools, 0 problems" in out


def test_check_against_a_policy(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules that speak of no tool, and limits of roles that there are not, are warnings."""
    name = next(shop.glob("shop_*.py")).stem
    (shop / "limited.yaml").write_text(
        f"tools: [{{function: '{name}:charge', limits: {{'role:seler': 2/min, 'role:boss': 9/min}}}}]"
    )
    (shop / "typo.yaml").write_text("roles: {seller: [{deny: 'pya.*:call'}], boss: ['pay.*:call', 'model.*:call']}")
    assert run("check", "limited.yaml", "--policy", "typo.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == [
        "role 'seller' denies 'pya.*:call': none of the 1 tools has it; did you mean 'pay.charge:call'?",
        "a limit of pay.charge@1.0.0 is for nobody: unknown role 'seler'; did you mean 'seller'? (known: boss, seller)",
    ]
    assert run("check", "limited.yaml", "--policy", "nowhere.yaml") == 2


def test_check_hints_at_what_would_write_twice(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tools that write and say neither `once` nor `idempotent` are named. That is no problem."""
    name = next(shop.glob("shop_*.py")).stem
    (shop / "post.yaml").write_text(
        f"tools:\n  - {{function: '{name}:search', name: post.send}}\n"
        f"  - {{function: '{name}:search', name: post.news, once: true}}\n"
        f"  - {{function: '{name}:search', name: post.put, idempotent: true}}\n"
        f"  - {{function: '{name}:search', name: post.read, side_effects: read}}\n"
    )
    assert run("check", "post.yaml", "--json") == 0
    (hint,) = json.loads(capsys.readouterr().out)["hints"]
    assert hint.endswith("say neither once nor idempotent: post.send@1.0.0")
    assert run("check", "post.yaml") == 0
    assert f"hint     {hint}" in capsys.readouterr().out


def test_check_finds(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Imports that fail, bad fields, versions that break what was promised: each in a line, with 100 in the end."""
    name = next(shop.glob("shop_*.py")).stem
    (shop / "bad.yaml").write_text(
        MANIFEST.replace("MODULE", name)
        + f"  - {{function: '{name}:nothing'}}\n"
        + f"  - {{function: '{name}:search', name: crm.search, version: 1.2.0, side_effects: write}}\n"
        + f"  - {{function: '{name}:search', name: free, cost: 0.5}}\n"
    )
    assert run("check", "bad.yaml") == 100
    out = capsys.readouterr().out
    assert "bad.yaml:11: tools[3].function: module" in out
    assert "bad.yaml:12: tools[4]: crm.search@1.2.0 breaks callers of 1.1.0" in out
    assert "bad.yaml:13: tools[5].cost: not an amount of dollars: 0.5" in " ".join(out.split())
    assert run("check", "bad.yaml", "--json") == 100
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], len(found["problems"]), found["tools"]) == (False, 3, 3)
    assert run("list", "--manifest", "bad.yaml") == 0
    assert capsys.readouterr().err.count("warning: bad.yaml:") == 3, "what is fine can be used"


def test_lock_and_drift(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A lock is written, holds, and tells what has changed since."""
    assert run("lock", "tools.yaml", "crm.search@^1", "pay.charge", "--out", "x.lock") == 0
    assert capsys.readouterr().out == "2 tools locked in x.lock\n"
    assert run("lock", "tools.yaml", "pay.charge", "--out", "y.lock", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"file": "y.lock", "tools": ["pay.charge@1.0.0"]}
    assert run("check", "tools.yaml", "--lock", "x.lock") == 0
    path = shop / "tools.yaml"
    path.write_text(path.read_text().replace('cost: "0.002"', 'cost: "0.003"'))
    capsys.readouterr()
    assert run("check", "tools.yaml", "--lock", "x.lock") == 100
    assert "cost: 0.002 -> 0.003" in capsys.readouterr().out
    assert run("check", "tools.yaml", "--lock", "nowhere.lock") == 2


def test_call(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The result, as text or JSON, with arguments as an object or one by one."""
    assert run("call", "pay.charge", "--manifest", "tools.yaml", "--arg", "amount=3") == 0
    assert capsys.readouterr().out == "charged 3\n"
    assert (
        run("call", "crm.search@1.0.0", "--manifest", "tools.yaml", "--args", '{"limit": 2}', "--arg", "query=x") == 0
    )
    assert json.loads(capsys.readouterr().out) == ["x", "x"]
    assert (
        run("call", "crm.search@1.0.0", "--manifest", "tools.yaml", "--arg", "query=x", "--arg", "limit=1", "--json")
        == 0
    )
    assert json.loads(capsys.readouterr().out) == {"tool": "crm.search@1.0.0", "result": ["x"], "cost": "$0.001"}


def test_a_call_is_recorded_approved_and_booked(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the options say: a person approves this call, once; the log has each try, the ledger what was spent."""
    manifest = shop / "tools.yaml"
    manifest.write_text(manifest.read_text().replace(':charge"}', ':charge", approval: always}'))
    open_ledger("books.db", [Budget("user:default/ana", "0.30")]).close()
    boss = ("--policy", "policy.yaml", "--user", "ana", "--role", "boss")
    books = ("--audit", "log.db", "--anchor", "anchor", "--approvals", "asked.db", "--ledger", "books.db")
    call = ("call", "pay.charge", "--manifest", "tools.yaml", "--arg", "amount=3", *boss)

    assert run(*call) == 100
    assert "nobody can be asked here" in capsys.readouterr().err
    assert run(*call, *books) == 100
    desk = Approvals(SqliteRequests("asked.db"), access=Roles.load("policy.yaml"))
    [asked] = desk.requests("pending")
    assert asked.id in capsys.readouterr().err
    desk.approve(asked.id, Principal("eve", "default", frozenset({"boss"})), "fine")
    assert run(*call, *books) == 0
    assert capsys.readouterr().out == "charged 3\n"
    assert run(*call, *books) == 100, "it was approved once"
    again = desk.requests("pending")[0].id
    desk.approve(again, Principal("eve", "default", frozenset({"boss"})), "fine")
    assert run(*call, *books) == 100
    assert "budget 'user:default/ana' of $0.3 has $0.05 left" in capsys.readouterr().err

    rows = [row for row in reading.tail("log.db", 100) if row.event not in {"genesis", "opened", "closed"}]
    assert [row.event for row in rows] == ["denied", "intent", "outcome", "denied", "denied"]
    assert verify("log.db", ["anchor"]).ok


def test_the_record_is_left_where_it_was_said(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Anchors without a record are refused; without any of it no file is made."""
    before = {path.name for path in shop.iterdir()}
    assert run("call", "crm.search", "--manifest", "tools.yaml", "--arg", "query=x", "--anchor", "a") == 2
    assert "say --audit FILE" in capsys.readouterr().err
    assert run("call", "crm.search", "--manifest", "tools.yaml", "--arg", "query=x") == 0
    assert {path.name for path in shop.iterdir()} - {"__pycache__"} == before


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("crm.search", "--arg", "query=boom"), 100, "error: tool_failed: ValueError: it broke"),
        (("crm.search", "--arg", "quary=x"), 100, "error: invalid_arguments: crm_search: unknown argument 'quary'"),
        (("pay.charge", "--arg", "amount=3", "--budget", "0.1"), 100, "error: budget_exceeded: "),
        (("crm.search@^7", "--arg", "query=x"), 2, "has no version in '^7'"),
        (("crm.search", "--args", "[1]"), 2, "--args: expected a JSON object"),
        (("crm.search", "--args", "{"), 2, "--args: is not JSON"),
        (("crm.search", "--arg", "query"), 2, "--arg: expected NAME=VALUE, got 'query'"),
        (("crm.search", "--role", "seller"), 2, "a principal needs an access policy"),
        (("crm.search", "--policy", "policy.yaml", "--role", "ghost"), 2, "unknown role 'ghost'"),
        (("crm.search", "--policy", "nowhere.yaml", "--role", "x"), 2, "nowhere.yaml: can't be read"),
    ],
)
def test_calls_that_end_otherwise(
    shop: Path, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], code: int, message: str
) -> None:
    """One line on standard error, nothing on standard output; 100 for refused and failed, 2 for bad input."""
    assert run("call", argv[0], "--manifest", "tools.yaml", *argv[1:]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1


ROWS = [
    {"event": "intent", "body": {"resource": "crm.search", "version": "1.0.0", "kind": "tool"}},
    *(
        {
            "event": "outcome",
            "body": {
                "resource": "crm.search", "version": "1.0.0", "kind": "tool", "outcome": outcome, "cost": cost,
                "took_us": 1_000 * ms, "priced": True,
            },
        }
        for outcome, cost, ms in (("ok", 10**6, 10), ("ok", 10**6, 30), ("failed", 0, 20))
    ),
    *(
        {
            "event": "outcome",
            "body": {"resource": "crm.search", "version": "1.0.0", "kind": "tool", "outcome": "ok", **said},
        }
        for said in ({"source": "cache"}, {"source": "cache"}, {"source": "once"}, {"unchecked": "limits"})
    ),
    {
        "event": "denied",
        "body": {"resource": "crm.search", "version": "1.0.0", "kind": "tool", "outcome": "RateLimited"},
    },
    {"event": "outcome", "body": {"resource": "big", "version": "", "kind": "model", "outcome": "ok", "cost": 5}},
]  # fmt: skip


def test_stats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an exported log comes to, per version of a tool; models are not tools."""
    path = tmp_path / "log.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    assert run("stats", str(path), "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["calls"], row["successes"], row["failures"], row["denied"]) == (4, 3, 1, 1)
    assert (row["p50"], row["p95"], row["cost"]) == (0.01, 0.03, 2_000_000)
    assert (row["answered"], row["unchecked"]) == ({"cache": 2, "once": 1}, {"limits": 1})
    assert run("stats", str(path)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "crm.search 1.0.0 4 3 1 1 10.0 ms 30.0 ms $0.002 RateLimited 1 cache 2, once 1 limits 1" in out
    path.write_text("")
    assert run("stats", str(path)) == 0
    assert capsys.readouterr().out == "no calls\n"


@pytest.mark.parametrize("text", ["{", "{}", '{"event": "outcome"}', "3"])
def test_stats_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """What is no export is refused, with its line."""
    path = tmp_path / "log.jsonl"
    path.write_text(f"{json.dumps(ROWS[0])}\n{text}\n")
    assert run("stats", str(path)) == 2
    assert f"{path}:2: is no row of an audit log" in capsys.readouterr().err
    assert run("stats", str(tmp_path / "nowhere.jsonl")) == 2


def test_stats_out_of_a_log(shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit log itself will do: it says what the registry's own usage says, also of arguments that didn't fit."""
    audit = pytest.importorskip("escalade.registry.audit")
    monkeypatch.syspath_prepend(shop)
    log = audit.AuditLog(shop / "audit.db")
    registry = escalade.Registry.load("tools.yaml")
    with escalade.scope(recorder=log):
        registry.resolve("pay.charge")(amount=1)
        for wrong in ({"amount": "much"}, {"amount": 1, "colour_of_ana": "red"}):
            with pytest.raises(escalade.InvalidArguments):
                registry.resolve("pay.charge")(**wrong)
    log.close()
    assert run("stats", "audit.db", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    (usage,) = (one for one in registry.usage() if one.name == "pay.charge")
    assert (row["name"], row["calls"], row["cost"]) == ("pay.charge", 1, 250_000_000)
    assert row["invalid"] == usage.invalid == {"(unknown)": 1, "amount": 1}
    assert b"colour_of_ana" not in (shop / "audit.db").read_bytes()
    assert run("stats", "audit.db") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "refusals invalid" in shown
    assert "InvalidArguments 2 (unknown) 1, amount 1" in shown


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON schema of manifests."""
    assert run("schema") == 0
    assert json.loads(capsys.readouterr().out) == manifest_schema()


@pytest.mark.parametrize("text", ["1234", "true", '{"a": 1}'])
def test_a_text_that_looks_like_json_stays_one(text: str, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The order 1234 needs no quotes in quotes where the tool takes a text."""
    assert (
        run("call", "crm.search@1.0.0", "--manifest", "tools.yaml", "--arg", f"query={text}", "--arg", "limit=1") == 0
    )
    assert json.loads(capsys.readouterr().out) == [text]
