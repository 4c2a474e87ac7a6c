"""The cheap model answers first; the dear one only where that wasn't sure enough and the money allows.

    python examples/cost_aware_agent.py

The same idea is often written by hand, with a price guessed in the code and a counter on the agent:

    result = self.cheap(query=query); self.spent += 0.01
    if result.confidence < 0.8 and self.spent + 0.05 < self.budget: ...

Here the prices are those of the models, what is spent is what was billed, each request has a budget of its own, many
requests may run at once, and the whole run can't pass its limit.
"""

import escalade
from escalade import Budgeted, Escalate, Gateway, Threshold, World
from escalade.agents.world import SimModel

# Simulated models: no key, no network. With a provider: Model("cheap", "openai/gpt-4o-mini", transport=LM15()).
world = World(
    {
        "cheap": SimModel(skill=0.5, price_in="0.15", price_out="0.60"),
        "dear": SimModel(skill=0.95, price_in="2.50", price_out="10.00"),
    },
    seed=3,
)
agent = Escalate(
    "question -> answer",
    rungs=[("Predict", "cheap"), ("ChainOfThought", "dear")],
    policy=Budgeted(Threshold(0.8), per_request="0.015"),
    gateway=Gateway(world.as_models()),
)

questions = world.task(30, seed=1)
right = alone = escalated = dearest = 0
with escalade.scope(budget="0.05") as scope:
    for example in questions:
        answer = agent(question=example.question)
        right += world.metric(example, answer) == 1.0
        alone += world.metric(example, answer.climb.attempts[0].result) == 1.0
        escalated += answer.escalated
        dearest = max(dearest, answer.cost)
print(
    f"{right} of {len(questions)} right, {alone} without climbing; {escalated} escalated, {scope.spent} spent of $0.05"
)
print(f"the last one:\n{answer.explain()}\n")

# A request with a tenth of a cent can't pay for the dear rung's worst case, so it gets the cheap answer.
with escalade.scope(budget="0.001"):
    print(agent(question=example.question).explain())
