"""Agents as tools of agents: shares of the budget, roles, depth."""

from __future__ import annotations

import asyncio

import dspy
import pytest

import escalade
from escalade.agents._route import Retry
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.tool_agent import ToolAgent
from escalade.errors import BadInput
from escalade.money import Money
from escalade.registry.access import Roles
from escalade.registry.catalogue import Registry
from escalade.registry.tools import tool
from escalade.scopes import Principal
from tests.agents.calling import Calling, done, fields, wants
from tests.agents.test_tool_agent import CALL, MODES, PRICE, ask, read, write


def models(**scripts):
    """A gateway with one scripted model for each name."""
    return Gateway(
        [Model(name, f"sim/{name}", Calling(script), price=PRICE, max_output=100) for name, script in scripts.items()],
        retry=Retry(retries=0),
    )


def team(boss, expert, **options):
    """A coordinator, and an expert that is its only tool."""
    gateway = models(boss=boss, expert=expert)
    tools = Registry([read, write], name="of the expert")
    specialist = ToolAgent("task -> answer", tools=["db.read"], registry=tools, gateway=gateway, model="expert")
    registry = Registry([specialist.as_tool("billing", description="Knows invoices.", **options)])
    return ToolAgent("question -> answer", tools=["billing"], registry=registry, gateway=gateway, model="boss")


BOSS = [wants("billing", task="find it"), *done("Ada paid")]
EXPERT = [wants("db_read", key="a"), *done("paid")]


@pytest.mark.parametrize("mode", MODES)
def test_a_specialist_answers(mode):
    """What the specialist answers is what the coordinator reads; what it spends is counted once, in the one call."""
    agent = team(BOSS, EXPERT)
    with escalade.scope(budget="1.00") as run:
        got = ask(agent, mode)
        assert got.cost == run.spent == 6 * CALL + Money.of("0.001")
    (used,) = got.steps[0].calls
    assert (used.tool, used.observation, used.cost) == ("billing@1.0.0", "paid", 3 * CALL + Money.of("0.001"))
    assert got.answer == "Ada paid"


def test_the_schema_is_the_signatures():
    """Inputs are the arguments, with their types and descriptions; effects are those of the specialist's own tools."""
    gateway, tools = models(m=[]), Registry([read, write])

    class Asks(dspy.Signature):
        """Finds."""

        task: str = dspy.InputField(desc="what to find")
        limit: int = dspy.InputField()
        history: dspy.History = dspy.InputField()
        found: list[str] = dspy.OutputField()
        note: str = dspy.OutputField()

    reader = ToolAgent(Asks, tools=["db.read"], registry=tools, gateway=gateway, model="m")
    writer = ToolAgent(Asks, tools=["db.read", "db.write"], registry=tools, gateway=gateway, model="m")
    made = reader.as_tool("finder", description="Finds.", version="1.2.0", timeout=5)
    assert set(made.spec.input_schema["properties"]) == {"task", "limit"}
    assert made.spec.input_schema["properties"]["task"]["description"] == "what to find"
    assert made.spec.input_schema["properties"]["limit"]["type"] == "integer"
    assert (made.spec.label, made.spec.timeout, made.spec.side_effects) == ("finder@1.2.0", 5, "read")
    assert writer.as_tool("w", description="Writes.").spec.side_effects == "write"


@pytest.mark.parametrize("budget", ["0.0001", 0.0001])
def test_its_share_holds(budget):
    """Dollars or a share of what is left: the specialist can't spend more; the coordinator reads that, and goes on."""
    agent = team(BOSS, EXPERT, budget=budget)
    with escalade.scope(budget="1.00") as run:
        got = ask(agent)
        assert run.spent == 3 * CALL
    assert got.refusals[0].observation.startswith("budget_exceeded: ")
    assert got.answer == "Ada paid"


def test_roles_decide_who_asks_it():
    """Without the permission the specialist is an unknown tool, and isn't asked."""
    agent = team(BOSS, EXPERT)
    roles = Roles({"some": ["model.*:call", "db.read:call"], "all": ["*"]})
    for role, known in (("some", False), ("all", True)):
        with escalade.scope(principal=Principal("ann", "acme", frozenset({role})), access=roles):
            got = ask(team(BOSS, EXPERT))
        assert (got.steps[0].calls[0].error == "") is known
    assert agent is not None


def test_depth_is_bounded():
    """A specialist that asks itself is stopped at its depth; each level reads why, and answers."""
    turns = [part for _ in range(9) for part in [wants("loop", task="again")]]
    registry = Registry([read], name="deep")
    gateway = models(m=[*turns[:3], *[t for _ in range(3) for t in done("stopped")]])
    agent = ToolAgent("task -> answer", tools=["db.read"], registry=registry, gateway=gateway, model="m")
    registry.register(agent.as_tool("loop", description="Itself.", max_depth=2))
    again = ToolAgent("task -> answer", tools=["loop"], registry=registry, gateway=gateway, model="m")
    agent.tools, agent._names, agent.react = again.tools, again._names, again.react
    with escalade.scope(budget="1") as run:
        got = ask(agent, task="go")
    assert got.answer == "stopped"
    assert run.spent == 9 * CALL


def test_specialists_that_read_work_at_once():
    """Two specialists of one native turn work side by side, each in its own scope."""
    running, most = 0, 0

    @tool(side_effects="read")
    async def slow(key: str) -> str:
        """Takes a while."""
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.5)
        running -= 1
        return key

    tools = Registry([slow], name="slow")
    gateway = models(
        boss=[[("one", {"task": "a"}), ("two", {"task": "b"})], [("submit", {"answer": "both"})]],
        one=[wants("slow", key="1"), *done("first")],
        two=[wants("slow", key="2"), *done("second")],
    )
    experts = [
        ToolAgent("task -> answer", tools=["slow"], registry=tools, gateway=gateway, model=name).as_tool(
            name, description=name
        )
        for name in ("one", "two")
    ]
    boss = ToolAgent(
        "question -> answer",
        tools=["one", "two"],
        registry=Registry(experts),
        gateway=gateway,
        model="boss",
        style="native",
    )
    with escalade.scope() as run:
        got = asyncio.run(boss.acall(question="q"))
    assert [used.observation for used in got.steps[0].calls] == ["first", "second"]
    assert most == 2
    assert run.spent == got.cost == 8 * CALL


def test_any_program_can_be_one():
    """An Escalate, or a plain Predict, is a specialist as well."""
    from escalade.agents.tool_agent import as_tool

    gateway = models(boss=BOSS, m=[fields(answer="paid", confidence="0.9")])
    qa = escalade.Escalate("task -> answer", rungs=["m"], policy=escalade.Constant(0), gateway=gateway)
    registry = Registry([as_tool(qa, "billing", description="Knows invoices.", side_effects="none")])
    agent = ToolAgent("question -> answer", tools=["billing"], registry=registry, gateway=gateway, model="boss")
    with escalade.scope():
        assert ask(agent).steps[0].calls[0].observation == "paid"
    talks = escalade.Escalate(
        "task, history: dspy.History -> answer",
        rungs=["m"],
        policy=escalade.Constant(0),
        gateway=gateway,
        confidence=False,
    )
    registry = Registry([as_tool(talks, "billing", description="Knows invoices.", side_effects="none")])
    assert set(registry.get_tool("billing").args) == {"task"}
    with escalade.scope():
        assert registry.get_tool("billing")(task="a") == "42"
    with pytest.raises(BadInput, match="no aforward"):
        best = dspy.BestOfN(dspy.Predict("a -> b"), N=2, reward_fn=lambda *_: 1.0, threshold=1.0)
        best.signature = talks.signature
        as_tool(best, "billing", description="")
    for wrong in ({"budget": 2.0}, {"max_depth": 0}):
        with pytest.raises(BadInput):
            as_tool(qa, "billing", description="", **wrong)
    with pytest.raises(BadInput, match="no signature"):
        as_tool(lambda: 1, "billing", description="")
