"""`escalade demo`: three agents plan a weekend, a coordinator joins, and every nano-dollar is accounted for.

    Ada asks ─┬─ search     ReAct with two governed tools                      ─┐
              ├─ booking    tries to charge her card; its role doesn't let it  ─┼─ coordinator ── the plan
              └─ analysis   Escalate: up a rung while it isn't sure enough     ─┘

The models are simulated: no key, no network, the same run for the same seed. Everything else is what an application
does; with `Model("small", "openai/gpt-4o-mini", transport=LM15())` in place of the world it runs on real ones.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import dspy
from rich.console import Console

from escalade import (
    Budget,
    Chain,
    Escalate,
    FanOut,
    Gateway,
    Journal,
    Ledger,
    Principal,
    Registry,
    Roles,
    SimModel,
    Threshold,
    World,
    node,
    scope,
    tool,
)
from escalade._demo_view import Books, Story
from escalade.evals._terminal import Terminal

# What is asked. Each agent takes the field that its signature names.

TRIP = {
    "question": "Plan Ada's weekend in Aveiro: the train, the room, and whether her savings pay for it.",
    "journey": "Which direct train takes Ada from Porto to Aveiro?",
    "stay": "Hold a room in Aveiro for two nights, and pay for it.",
    "savings": "Ada saves 35 dollars a week for 8 weeks and then spends 9 dollars. How many dollars are left?",
}

# What may be used: tools with a price, limits and side effects.


@tool(name="trains.search", version="1.2.0", cost="0.002", limits="5/s", side_effects="read")
async def trains(town: str) -> str:
    """Trains to a town."""
    await asyncio.sleep(0.2)
    return f"To {town}: the 8:40 with one change, the 9:12 direct."


@tool(name="weather.forecast", cost="0.0005", side_effects="read", timeout=2.0)
async def forecast(town: str) -> str:
    """The weather in a town at the weekend."""
    await asyncio.sleep(0.1)
    return f"{town}: sunny, 24 degrees."


@tool(name="rooms.hold", cost="0.01", limits="10/min", side_effects="write")
async def hold(town: str) -> str:
    """Hold a room in a town until Friday."""
    await asyncio.sleep(0.2)
    return f"A room in {town} is held until Friday."


@tool(name="cards.charge", cost="0.02", side_effects="irreversible")
def charge(dollars: int) -> NoReturn:
    """Charge Ada's card."""
    raise AssertionError(f"somebody who may not pay has paid {dollars} dollars")


# Who may use it. Ada may do all of it; an agent may do what both she and its own role may.

ROLES = Roles(
    {
        "traveller": ["trains.*:call", "weather.*:call", "rooms.*:call", "cards.*:call", "model.*:call"],
        "researcher": ["trains.search:call", "weather.forecast:call", "model.small:call"],
        "clerk": ["rooms.*:call", "model.small:call"],
        "analyst": ["model.*:call"],
    }
)
ADA = Principal(user="ada", tenant="acme", roles=frozenset({"traveller"}))


def agent(name: str, role: str) -> Principal:
    """In whose name a branch works."""
    return Principal(user=name, tenant="acme", roles=frozenset({role}))


def office(gateway: Gateway, registry: Registry) -> Chain:
    """The agents side by side, then the coordinator, then a function that puts together what there is to tell."""
    search = dspy.ReAct("journey -> train", tools=registry.tools(["trains.search@^1", "weather.forecast"]))
    booking = dspy.ReAct("stay -> booked", tools=registry.tools(["rooms.hold", "cards.charge"]))
    analysis = Escalate(
        "savings -> dollars",
        rungs=[("Predict", "small"), ("ChainOfThought", "small"), ("ChainOfThought", "large")],
        policy=Threshold(0.8),
        gateway=gateway,
    )
    coordinator = dspy.ChainOfThought("question, search, booking, analysis -> plan")
    coordinator.set_lm(gateway.lm("large"))  # all others use the LM of the context
    agents = FanOut(
        search=node(search, principal=agent("search", "researcher")),
        booking=node(booking, principal=agent("booking", "clerk")),
        analysis=node(analysis, principal=agent("analysis", "analyst")),
    )
    return Chain(agents=agents, coordinator=coordinator, summary=summary)


def summary(plan: str, search: Any, booking: Any, analysis: Any) -> dict[str, Any]:
    """A step may be a function; it takes the fields that it names."""
    found = {"search": search.train, "booking": booking.booked, "analysis": f"{analysis.dollars} dollars"}
    return {"plan": plan, "found": found, "climb": analysis.explain().splitlines()}


def world(seed: int, pace: float) -> World:
    """Models that have been to Aveiro. `pace`: seconds per call of the small one."""
    models = {
        "small": SimModel(skill=0.45, price_in="0.10", price_out="0.40", latency=pace),
        "large": SimModel(skill=0.95, price_in="2.50", price_out="10.00", latency=2 * pace),
    }
    plan = "Take the 9:12. The savings pay for it. The room is held until Friday: Ada has to charge her card herself."
    answers = {TRIP["journey"]: "the 9:12", TRIP["stay"]: "held until Friday", TRIP["question"]: plan}
    return World(models, seed=seed, tasks={question: (answer, 0.0) for question, answer in answers.items()})


def main(
    *, seed: int = 7, json: bool = False, fast: bool = False, slow: bool = False, console: Console | None = None
) -> int:
    """Run the demo. Returns 0 when the books agree to the nano-dollar, else 1.

    `seed`: of the simulated world. `json`: print one JSON object instead of the show. `fast`: models answer at once.
    `slow`: they take their time. `console`: where to print, stdout if None.
    """
    console = console or Terminal()
    registry, journal = Registry([trains, forecast, hold, charge], name="demo"), Journal()
    ledger = Ledger([Budget("tenant:acme", "1.00", period="day"), Budget("user:acme/ada", "0.25")])
    gateway = Gateway(world(seed, pace=0.0 if fast else 1.0 if slow else 0.25).as_models(), name="demo")
    story = Story(TRIP["question"], console, quiet=json)
    with (
        story,
        dspy.context(lm=gateway.lm("small")),
        scope(principal=ADA, access=ROLES, ledger=ledger, recorder=journal, budget="0.10", deadline=60, listen=story),
    ):
        answer = office(gateway, registry)(**TRIP)
    books = Books(journal, ledger.accounts(), {usage.name: usage.calls for usage in registry.usage()})
    if story.broken is not None:
        raise story.broken
    wrong = books.wrong()
    if json:
        told = {"question": story.title, "answer": answer.plan, "found": answer.found, "climb": answer.climb}
        console.print_json(data={**told, "steps": story.as_dicts(), **books.as_dict()})
    else:
        found = "\n".join(f"{agent}: {what}" for agent, what in answer.found.items())
        shown = f"\n[bold]{answer.plan}[/]\n[dim]{found}[/]\n", books.table(), books.verdict()
        console.print(*shown, sep="\n", soft_wrap=True, highlight=False)
    for line in wrong:
        Console(stderr=True).print(f"[red]the books are wrong:[/] {line}")
    return 1 if wrong else 0
