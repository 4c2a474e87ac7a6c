"""Search, analysis and booking work side by side with tools of their own; a coordinator puts together what they found.

    python examples/parallel_agents.py

All of it has one budget and one deadline. Each agent may spend a share, and has some seconds; one that fails or is late
is told to the coordinator, who does without it. Who asks decides which tools there are: a guest may look, not book.
"""

import threading
import time

import dspy

import escalade
from escalade import FanOut, Gateway, Map, Principal, Registry, Roles, ToolAgent, World, node, tool
from escalade.agents.world import SimModel

TRIP = {
    "question": "A weekend in Aveiro: which train, which room, at what price?",
    "journey": "Which train goes to Aveiro?",
    "stay": "Which room is free in Aveiro?",
    "costs": "What do two nights cost?",
}
world = World(
    {"small": SimModel(skill=1.0, latency=0.05)},
    tasks={
        TRIP["journey"]: "the 9:12",
        TRIP["stay"]: "room 12 at the Moliceiro",
        TRIP["costs"]: "140 dollars",
        TRIP["question"]: "Take the 9:12; two nights are 140 dollars.",
    },
)
hotel_answers = threading.Event()
hotel_answers.set()


@tool(name="trains.search", side_effects="read", cost="0.0002")
def trains(to: str) -> list[str]:
    """Trains to a town."""
    return [f"9:12 to {to}", f"11:40 to {to}"]


@tool(name="rates.find", side_effects="read", cost="0.0001")
def rates(nights: int) -> int:
    """Dollars for so many nights."""
    return 70 * nights


@tool(name="rooms.hold", side_effects="write", idempotent=True, cost="0.0005")
def hold(town: str) -> str:
    """Hold a room, until it is paid."""
    hotel_answers.wait(timeout=15)
    return f"room 12 in {town} is held"


registry = Registry([trains, rates, hold])
gateway = Gateway(world.as_models())


def agent(signature: str, name: str) -> ToolAgent:
    """An agent with one tool."""
    return ToolAgent(signature, tools=[name], registry=registry, gateway=gateway, model="small", max_steps=3)


coordinator = dspy.ChainOfThought("question, search, analysis, booking -> plan")
coordinator.set_lm(gateway.lm("small"))

team = FanOut(
    search=node(agent("journey -> train", "trains.search"), budget=0.3, retry=1),
    analysis=node(agent("costs -> price", "rates.find"), budget=0.2, tags="cheap"),
    booking=node(agent("stay -> room", "rooms.hold"), budget="0.02"),
    partial=True,  # the coordinator gets what is there …
    within=4.0,  # … after four seconds at the latest
    timeout=20.0,
    join=node(coordinator, timeout=5.0),
)
roles = Roles({"guest": ["trains.*:call", "rates.*:call", "model.*:call"], "member": ["rooms.*:call"]})
ana = Principal("ana", "acme", frozenset({"guest", "member"}))
ben = Principal("ben", "acme", frozenset({"guest"}))


def ask(who: Principal) -> tuple[dspy.Prediction, escalade.Scope, float]:
    """The team's answer, the scope that it was asked in, and the seconds that it took."""
    began = time.perf_counter()
    with escalade.scope(principal=who, access=roles, budget="0.10", deadline=20) as scope:
        return team(**TRIP), scope, time.perf_counter() - began


if __name__ == "__main__":
    whole, scope, seconds = ask(ana)
    print(f"{whole.plan}  ({scope.spent}, {seconds:.1f} s)")
    for name, status in whole.statuses.items():
        print(f"  {name}: {status.state} after {status.seconds:.1f} s, {escalade.Money(status.cost)}")

    hotel_answers.clear()  # the hotel hangs: nobody waits for it longer than four seconds
    without, _, seconds = ask(ana)
    hotel_answers.set()
    print(f"{without.plan}  ({seconds:.1f} s, without {', '.join(without.missing)})")
    print(f"  booking: {without.statuses['booking']}")

    looking = ask(ben)[0]  # for a guest's agent, there is no tool that holds rooms
    cost = escalade.Money(looking.statuses["booking"].cost)
    print(f"  booking for a guest: {cost}, without a call of rooms.hold")

    # The same team on many requests, four at a time, within one budget.
    many = Map(team, over="questions", item="question", concurrency=4)
    trip = {name: text for name, text in TRIP.items() if name != "question"}
    with escalade.scope(principal=ana, access=roles, budget="0.50", deadline=60) as scope:
        results = many(questions=[TRIP["question"]] * 8, **trip).results
    print(f"{len(results)} plans for {scope.spent} in all")
    for usage in registry.usage():
        print(f"  {usage.name}: {usage.calls} calls, {usage.cost}")
