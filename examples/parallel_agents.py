"""Search, analysis and booking work side by side; a coordinator puts together what they found.

    python examples/parallel_agents.py

Each branch takes the inputs that its signature names, has a time limit, and may have a budget of its own. When one
fails, the others are cancelled; nothing runs on in the background.
"""

import time

import dspy

import escalade
from escalade import Chain, FanOut, Gateway, Map, World
from escalade.agents.world import SimModel

TRIP = {
    "question": "A weekend in Aveiro: which train, and which room?",
    "journey": "Which train goes to Aveiro?",
    "stay": "Which room is free in Aveiro?",
}
world = World(
    {"small": SimModel(skill=1.0, latency=0.3)},
    tasks={
        TRIP["journey"]: "the 9:12",
        TRIP["stay"]: "room 12 at the Moliceiro",
        TRIP["question"]: "Take the 9:12; room 12 is yours.",
    },
)

team = Chain(
    agents=FanOut(
        search=dspy.Predict("journey -> train"),
        booking=dspy.Predict("stay -> room"),
        analysis=lambda nights: f"{nights} nights at 70 dollars are {70 * nights} dollars",  # a function is a node too
        timeout=5.0,
        budgets={"booking": "0.01"},
    ),
    coordinator=dspy.ChainOfThought("question, search, booking, analysis -> plan"),
)

with dspy.context(lm=Gateway(world.as_models()).lm("small")), escalade.scope(budget="0.05") as scope:
    began = time.perf_counter()
    result = team(**TRIP, nights=2)
    print(f"{result.plan}  ({scope.spent}, {time.perf_counter() - began:.1f} s: two model calls deep, three wide)")

    # The same team on many requests, eight at a time.
    many = Map(team, over="nights", item="nights", concurrency=8)
    results = many(nights=range(1, 9), **TRIP).results
    print(f"{len(results)} plans for {scope.spent} in all")
