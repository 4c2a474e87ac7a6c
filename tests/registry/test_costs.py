"""What tools cost: per call, by their arguments, or as they say themselves; reserved before, settled after."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest

import escalade
from escalade import Money, Registry
from escalade.errors import BadInput, BudgetExceeded, ToolError, ToolTimeout, UnknownPrice
from escalade.registry.journal import Journal


def by_pages(args: Any) -> Decimal:
    """A dollar per thousand pages."""
    return Decimal("0.001") * args["pages"]


def registered(function: Any, **said: Any) -> Any:
    """A GovernedTool of it."""
    made = escalade.tool(name="t", **said)(function)
    return Registry([made], name="costs").get_tool("t")


def test_by_its_arguments() -> None:
    """The cost is worked out from the validated arguments, defaults in Python types, before anything runs."""
    ran = []

    def read(pages: int, deep: bool = False) -> int:
        ran.append(pages)
        return pages

    tool = registered(read, cost=by_pages)
    with escalade.scope(budget="0.01", recorder=(journal := Journal())) as run:
        assert tool(pages=3) == 3
        assert run.spent == Money.of("0.003")
        with pytest.raises(BudgetExceeded), escalade.scope(optional=True):
            tool(pages=8)
    assert ran == [3]
    assert [(entry.held, entry.cost) for entry in journal.entries()] == [(3_000_000, 3_000_000)]


@pytest.mark.parametrize(
    ("cost", "error"),
    [
        (lambda args: None, UnknownPrice),
        (lambda args: Decimal(-1), ToolError),
        (lambda args: 0.5, ToolError),
        (lambda args: args["nothing"], ToolError),
        (lambda args: "0.06", ToolError),
    ],
)
def test_a_cost_that_nobody_can_tell(cost: Any, error: Any) -> None:
    """Unknown is refused under a budget; what is no amount, or above max_cost, is refused anywhere; nothing runs."""
    tool = registered(lambda: pytest.fail("ran"), cost=cost, max_cost="0.05")
    with pytest.raises(error), escalade.scope(budget="1"):
        tool()


@pytest.mark.parametrize(
    ("said", "bill"),
    [
        ({"cost": "0.01", "max_cost": "0.5"}, "0.01"),
        ({"cost": "0", "max_cost": "0.5"}, "0"),
        ({"cost": None, "max_cost": "0.5"}, "0.5"),
        ({"max_cost": "0.5"}, "0.5"),
        ({}, "0"),
    ],
)
def test_a_known_cost_is_the_bill(said: Any, bill: str) -> None:
    """A `max_cost` beside it changes nothing; where no cost is known, that is reserved and billed. The estimate of a
    pipeline goes by the same figure.
    """
    tool = registered(lambda: "done", **said)
    with escalade.scope(budget="1", recorder=(journal := Journal())) as run:
        tool()
        assert run.spent == Money.of(bill) == tool.spec.most
    assert [(entry.held, entry.cost) for entry in journal.entries()] == [(Money.of(bill), Money.of(bill))]
    assert escalade.Chain(a=tool).estimate().most == Money.of(bill)


def test_metered_by_the_tool() -> None:
    """The tool says what it spends while it runs; what it may cost at most is held meanwhile, the rest freed after."""
    held: list[int] = []

    def search(times: int) -> int:
        for _ in range(times):
            escalade.charge("0.003")
        held.append(run.purse.held)
        return times

    tool = registered(search, max_cost="0.01", metered=True)
    with escalade.scope(budget="0.02") as run:
        assert tool(times=2) == 2
        assert (held, run.spent, run.left) == ([10_000_000], Money.of("0.006"), Money.of("0.014"))
        tool(times=0)
        assert run.spent == Money.of("0.006")


@pytest.mark.parametrize("kind", ["sync", "async", "sync in a thread"])
async def test_never_above_its_reservation(kind: str) -> None:
    """The charge that would pass max_cost is refused before it is made; what was charged before is what it costs."""
    charged = []

    def spend() -> None:
        for _ in range(5):
            escalade.charge("0.004")
            charged.append(1)

    async def aspend() -> None:
        spend()

    tool = registered(aspend if kind == "async" else spend, max_cost="0.01", metered=True)
    with escalade.scope(budget="1") as run:
        with pytest.raises(BudgetExceeded, match=r"may charge \$0.01 per call and has \$0.002 left; \$0.004 more"):
            tool() if kind == "sync" else await tool.acall()
        assert (len(charged), run.spent) == (2, Money.of("0.008"))
    assert run.purse.exhausted is None, "the run has money left: the tool asked for more than its own limit"


def test_a_metered_tool_that_is_cut_off() -> None:
    """It may go on spending in its thread: its whole reservation counts, and it can't charge any more."""
    over, refused = threading.Event(), threading.Event()

    def slow() -> None:
        escalade.charge("0.001")
        over.wait(30)
        try:
            escalade.charge("0.001")
        except ToolError:
            refused.set()

    tool = registered(slow, max_cost="0.01", metered=True, timeout=0.05)
    with escalade.scope(budget="1") as run:
        with pytest.raises(ToolTimeout):
            tool()
        over.set()
        assert run.spent == Money.of("0.01")
        assert refused.wait(30)
        assert run.spent == Money.of("0.01")


def test_a_tool_in_a_tool_has_a_tab_of_its_own() -> None:
    """What an inner tool charges is its own cost; the outer one goes on with its own tab."""

    @escalade.tool(max_cost="0.01", metered=True)
    def inner() -> None:
        """Spend."""
        escalade.charge("0.002")

    @escalade.tool(max_cost="0.01", metered=True)
    def outer() -> None:
        """Spend, and use a tool."""
        escalade.charge("0.001")
        registry.get_tool("inner")()
        escalade.charge("0.001")

    registry = Registry([inner, outer], name="tabs")
    with escalade.scope(budget="1", recorder=(journal := Journal())):
        registry.get_tool("outer")()
    assert sorted((entry.resource, entry.cost) for entry in journal.entries()) == [
        ("inner", 2_000_000),
        ("outer", 2_000_000),
    ]


def test_charging_where_nothing_is_metered() -> None:
    """Outside of a metered tool, a charge would be lost: it is refused; so is what is no amount."""
    with pytest.raises(ToolError, match="metered=True"):
        escalade.charge("0.001")
    tool = registered(lambda: escalade.charge("0.001"), cost="0.001")
    with escalade.scope(), pytest.raises(ToolError, match="metered=True"):
        tool()
    for amount, error in (("-1", ToolError), (0.1, BadInput)):
        said: Any = amount
        tool = registered(lambda: escalade.charge(said), max_cost="1", metered=True)  # noqa: B023 - called at once
        with escalade.scope(), pytest.raises(error):
            tool()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"metered": True}, "a metered tool needs max_cost"),
        ({"max_cost": "-1"}, "can't be negative"),
        ({"max_cost": 0.5}, "not an amount of dollars"),
        ({"cost": "1", "max_cost": "0.5"}, r"a cost of \$1 is more than the max_cost of \$0.5"),
        ({"cost": "0.1", "max_cost": "1", "metered": True}, "a metered tool says itself what a call costs"),
    ],
)
def test_what_can_not_be_declared(said: Any, message: str) -> None:
    """What makes no sense is said when the tool is declared."""
    with pytest.raises(BadInput, match=message):
        registered(lambda: None, **said)
