"""Pay once for every rung on every question, then try out policies for nothing.

    python examples/record_and_replay.py

`record` asks live, through the gateway, under a budget. The replay runs the same loop and the same policy objects over
the recorded figures, so that what it says of a policy is what that policy would have done and cost.
"""

import escalade
from escalade import Agreement, Budgeted, Constant, Escalate, Gateway, Threshold, World, compare
from escalade.evals.record import record
from escalade.evals.report import show

world = World(seed=7)  # three simulated models: small, medium, large
ladder = Escalate(
    "question -> answer",
    rungs=[("Predict", "small"), ("ChainOfThought", "medium"), ("ChainOfThought", "large")],
    policy=Threshold(0.8),  # what it would do live; recording tries every rung
    gateway=Gateway(world.as_models()),
)

with escalade.scope(budget="1.00") as scope:
    outcomes = record(ladder, world.task(200, seed=1), world.metric, name="word problems")
print(f"recorded {outcomes.n} questions x {outcomes.k} rungs for {scope.spent}; from here on nothing is paid\n")

policies = [
    Constant("Predict/small", name="small alone"),
    Threshold(0.8, name="threshold 0.8"),
    Agreement(members=(0, 1), then=2, name="two must agree"),
    Budgeted(Threshold(0.8), per_request="0.01", name="threshold, 1 cent"),
]
show(compare(outcomes, policies, baseline="ChainOfThought/large"))
