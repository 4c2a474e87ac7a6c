"""How many users at once, how fast, at what price, and how well while a provider is down.

    python examples/stress.py [users] [queries]

Each user asks his queries one after the other; all users at once, under one budget for all of them and one for each
request. In the middle of it the primary provider is down.
"""

import asyncio
import sys
import time
from collections import Counter

import dspy
from dspy import lm15

import escalade
from escalade import (
    Breaker,
    Budget,
    Gateway,
    Ledger,
    Principal,
    Replies,
    Reply,
    Resilient,
    Roles,
    SimModel,
    Simulated,
    World,
)
from escalade.agents.models import Model

USERS, QUERIES = map(int, sys.argv[1:3]) if len(sys.argv) > 2 else (20, 10)
PER_REQUEST, FOR_ALL = "0.02", "5.00"

seconds, levels, costs = [], Counter(), []


def down_in_the_middle(_):
    """The primary fails for a third of the queries."""
    if 1 / 3 <= len(seconds) / (USERS * QUERIES) < 2 / 3:
        return lm15.ServerError("overloaded", provider="primary", status=503)
    return None


world = World(
    {
        "primary": SimModel(skill=0.9, latency=0.02, price_in="2.50", price_out="10", faults=down_in_the_middle),
        "secondary": SimModel(skill=0.7, latency=0.01, price_in="0.15", price_out="0.60", fail_every=5),
    },
    seed=2,
)
gateway = Gateway(
    [
        Model(
            "primary",
            "simulated/primary",
            Simulated(world),
            price=world.models["primary"].price,
            fallbacks="secondary",
            breaker=Breaker(cooldown=0.05),
        ),
        Model(
            "secondary",
            "simulated/secondary",
            Simulated(world),
            price=world.models["secondary"].price,
            breaker=Breaker(cooldown=0.05),
        ),
    ],
    retry=escalade.Retry(retries=0),
)
program = dspy.Predict("question -> answer")
program.set_lm(gateway.lm("primary", max_tokens=200))
ask = Resilient(program, replies=Replies([Reply("Please count again tomorrow.", words=("how many",))]), also=["budget"])
ledger = Ledger([Budget("everything", FOR_ALL, "day"), Budget("request", PER_REQUEST)])
roles = Roles({"user": ["model.*:call"]})


async def user(number):
    """One user's queries, one after the other."""
    principal = Principal(f"user-{number}", "acme", "user")
    for example in world.task(QUERIES, seed=number):
        began = time.perf_counter()
        async with escalade.scope(ledger=ledger, principal=principal, access=roles) as scope:
            answer = await ask.acall(question=example.question)
        seconds.append(time.perf_counter() - began)
        levels[answer.level] += 1
        costs.append(scope.spent)


async def main():
    """All users at once."""
    await asyncio.gather(*(user(number) for number in range(USERS)))


def percentile(share):
    """Of the durations, in milliseconds; the smallest that at least this share doesn't exceed."""
    ordered = sorted(seconds)
    return 1000 * ordered[max(0, -(-len(ordered) * share // 100) - 1)]


began = time.perf_counter()
asyncio.run(main())
took = time.perf_counter() - began
total = sum(costs, escalade.Money(0))

print(f"{USERS} users, {len(seconds)} queries in {took:.2f} s: {len(seconds) / took:,.0f} a second")
print("  ".join(f"p{share} {percentile(share):.0f} ms" for share in (50, 95, 99)))
for level in sorted(levels):
    print(f"level {level}: {levels[level]:5d}  {'█' * round(40 * levels[level] / len(seconds))}")
print(f"${total.dollars:.4f} in all, ${total.dollars / len(costs):.6f} a query, the dearest {max(costs)}")
print(f"budget: {ledger.account('everything')}")
