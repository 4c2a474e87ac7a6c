"""Budgets of requests, budgets in a file, and how an account stands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import jsonschema_rs
import pytest

import escalade
from escalade import events
from escalade.agents.gateway import Gateway
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, BudgetExceeded
from escalade.money import Money
from escalade.registry.budgets import Budget, Period
from escalade.registry.budgets_file import SCHEMA_FILE, budgets_schema, load_budgets
from escalade.registry.catalogue import Registry
from escalade.registry.ledger import Account, Ledger
from escalade.registry.standing import month_at_this_rate, standing
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.registry.tools import tool
from escalade.scopes import set_default

DAY, HOUR = 86_400.0, 3_600.0
APRIL = 1_775_001_600.0
"""The first of April 2026, UTC; it has 30 days."""

GOOD = """\
budgets:
  - {account: everything, limit: "500", period: month}
  - {account: "tenant:*", limit: 25, period: day}
  - {account: "tenant:acme", limit: "100.00", period: day, warn: 0.7, brake: 0.9}
  - {account: "user:acme/*", limit: "2.50"}
  - {account: request, limit: "0.50"}
"""


@tool(version="1.0.0", cost="0.30", side_effects="read")
def look(x: int) -> int:
    """Look it up."""
    return x


@pytest.fixture
def unscoped() -> Iterator[None]:
    """No configured scope stays behind."""
    yield
    set_default(None)


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """A ledger with a budget of each request."""
    budgets = [Budget("request", "0.50", warn=0.5, brake=0.6)]
    return Ledger(budgets) if request.param == "memory" else SqliteLedger(tmp_path / "budgets.db", budgets)


def test_each_request_has_its_budget(ledger: Ledger) -> None:
    """A request can't spend more, whatever it asks for; the next one begins anew; a tighter budget of its own holds."""
    call = Registry([look]).resolve("look")
    with pytest.raises(BudgetExceeded, match=r"budget 'run' of \$0.5 has \$0.2 left"), escalade.scope(ledger=ledger):
        call(x=1)
        call(x=2)
    with escalade.scope(ledger=ledger, budget="100") as run:
        assert run.left == Money.of("0.50")
    with escalade.scope(ledger=ledger, budget="0.10") as run:
        assert run.left == Money.of("0.10")


def test_tools_and_models_share_the_budget_of_a_request(ledger: Ledger) -> None:
    """What a request spends on a tool is not there for its models: one budget is for both."""
    world = World({"dear": SimModel(price_in="100", price_out="400")})
    ask = dspy.Predict("question -> answer")
    ask.set_lm(Gateway(world.as_models(), name="budget of a request").lm("dear", max_tokens=500))
    call = Registry([look]).resolve("look")
    with escalade.scope(ledger=ledger) as run:
        ask(question=world.task(1)[0].question)
        assert 0 < run.spent < Money.of("0.10")
    with pytest.raises(BudgetExceeded, match="dear may cost"), escalade.scope(ledger=ledger) as run:
        call(x=1)
        ask(question=world.task(1)[0].question)
    assert run.spent == Money.of("0.30"), "the refused model cost nothing"


def test_marks_of_requests(ledger: Ledger) -> None:
    """A request warns and brakes at the shares that its budget says, and its listeners hear of it."""
    heard: list[Any] = []
    with escalade.scope(ledger=ledger, listen=heard.append) as run:
        Registry([look]).resolve("look")(x=1)
        assert run.purse.braked
    (crossed,) = [event for event in heard if isinstance(event, events.BudgetCrossed)]
    assert (crossed.account, crossed.level, crossed.used, crossed.limit) == ("run", "brake", 300_000_000, 500_000_000)


@pytest.mark.usefixtures("unscoped")
def test_a_process_is_no_request(ledger: Ledger) -> None:
    """The configured scope is not a request; each that is opened within it is, in coroutines as well; nested scopes
    are parts of one.
    """

    async def left() -> Money | None:
        async with escalade.scope() as run:
            return run.left

    configured = escalade.configure(ledger=ledger)
    assert configured.left is None
    assert asyncio.run(left()) == Money.of("0.50")
    with escalade.scope() as run:
        run.purse.reserve(int(Money.of("0.20"))).settle(int(Money.of("0.20")))
        with escalade.scope(budget="10") as part:
            assert part.left == Money.of("0.30")


def test_a_file_of_budgets(tmp_path: Path) -> None:
    """Each entry of the file is a Budget; YAML and JSON say the same."""
    file = tmp_path / "budgets.yaml"
    file.write_text(GOOD, "utf-8")
    found = load_budgets(file)
    assert found == (
        Budget("everything", "500", "month"),
        Budget("tenant:*", "25", "day"),
        Budget("tenant:acme", "100", "day", 0.7, 0.9),
        Budget("user:acme/*", "2.50"),
        Budget("request", "0.50"),
    )
    import yaml

    other = tmp_path / "budgets.json"
    other.write_text(json.dumps(yaml.safe_load(GOOD)), "utf-8")
    assert load_budgets(other) == found
    assert jsonschema_rs.validator_for(budgets_schema()).is_valid(yaml.safe_load(GOOD))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "budgets.yaml: expected a mapping with the key 'budgets'"),
        ("budgets: []\nalerts: []", "budgets.yaml:2: alerts: unknown key"),
        ("version: 2\nbudgets: []", "budgets.yaml:1: version: version 2 is not known"),
        ("budgets:\n- {account: everything}", r"2: budgets\[0\]: expected a mapping with account and limit"),
        ("budgets:\n- {account: everything, limit: 25.00}", r'2: budgets\[0\]: limit: .* quotes, like "25.0"'),
        ('budgets:\n- {account: all, limit: "1"}', r"2: budgets\[0\]: unknown budget account 'all'"),
        ('budgets:\n- {account: request, limit: "1", period: day}', "a request has no period"),
        ('budgets:\n- {account: everything, limit: "1", period: week}', "unknown budget period 'week'"),
        ('budgets:\n- {account: everything, limit: "1", warn: yes}', "warn: expected a share"),
        ('budgets:\n- {account: everything, limit: "1", warn: 0.99}', "expected 0 < warn <= brake <= 1"),
        ('budgets:\n- {account: everything, limit: "1", owner: me}', "unknown key 'owner'"),
        ('budgets:\n- {account: 1, limit: "1"}', "account: expected text"),
        ('budgets:\n- {account: request, limit: "1"}\n- {account: request, limit: "2"}', r"3: budgets\[1\]: .* twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file(tmp_path: Path, text: str, what: str) -> None:
    """The error names the file, the line and the key, and what was expected."""
    file = tmp_path / "budgets.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(BadInput, match=what):
        load_budgets(file)


def test_the_published_schema_is_up_to_date() -> None:
    """`data/budgets.schema.json` is what this version says."""
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == budgets_schema()


@pytest.mark.parametrize(
    ("period", "now", "month"),
    [
        ("day", APRIL + 12 * HOUR, 600),  # 10 in half a day: 30 days of 20
        ("day", APRIL + 5 * DAY + 6 * HOUR, 1200),
        ("month", APRIL + 3 * DAY, 100),
        ("month", APRIL + 30 * DAY - 1, 10),
        ("day", APRIL + 1800, None),
        ("month", APRIL + 1800, None),
        ("none", APRIL + 12 * HOUR, None),
    ],
)
def test_a_month_at_this_rate(period: Period, now: float, month: int | None) -> None:
    """What was spent, over the time that it took, over 30 days; unknown in the first hour and without a period."""
    assert month_at_this_rate(10, period, now) == month


def test_standing_of_an_account() -> None:
    """Spent, held, left and the mark that is reached add up; a bill that ran over counts as spent."""
    ledger = Ledger([Budget("everything", "0.0000001", "day")], now=lambda: APRIL + 12 * HOUR)
    purse = ledger.purse()
    purse.reserve(50).settle(50)
    hold = purse.reserve(32)
    (account,) = ledger.accounts()
    found = standing(account, APRIL + 12 * HOUR)
    assert (found.spent, found.held, found.left, found.level, found.month) == (50, 32, 18, "warn", 3000)
    assert (found.share, found.ends) == (0.82, APRIL + DAY)
    hold.settle(60)
    found = standing(account, APRIL + 12 * HOUR)
    assert (found.spent, found.held, found.left, found.level) == (110, 0, 0, "brake")
    assert found.as_dict()["spent"] == "0.00000011"
    assert found.as_dict()["ends"] == "2026-04-02T00:00:00+00:00"


def test_standing_of_nothing() -> None:
    """A limit of zero is used up."""
    account = Account("everything", 0, sticky=False)
    assert (standing(account, APRIL).share, standing(account, APRIL).level) == (1.0, "brake")
