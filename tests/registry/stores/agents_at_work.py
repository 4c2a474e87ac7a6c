"""A process in which 50 agents climb on one budget in SQLite until they are killed, or the budget is used up.

    python -m tests.registry.stores.agents_at_work budgets.db log.txt

Each answer writes what its run cost to the log (O_APPEND, one write), once its scope has ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import escalade
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Threshold
from escalade.agents.world import SimModel, World
from escalade.errors import BudgetExceeded
from escalade.registry.access import Roles
from escalade.registry.stores.sqlite_ledger import SqliteLedger
from escalade.scopes import Principal

AGENTS = 50
ANA = Principal("ana", "acme", frozenset({"user"}))
MODELS = {
    "small": SimModel(skill=0.5, price_in="1", price_out="4", latency=0.02),
    "big": SimModel(skill=0.95, price_in="10", price_out="40", latency=0.05),
}


def agent() -> tuple[Escalate, World]:
    """An agent that climbs from a small model to a big one."""
    world = World(MODELS, seed=4)
    gateway = Gateway(world.as_models(), name="agents at work")
    rungs = [("Predict", "small"), ("ChainOfThought", "big")]
    return Escalate("question -> answer", rungs=rungs, policy=Threshold(0.9), gateway=gateway), world


async def work(ask: Any, ledger: Any, questions: list[str], log: int) -> None:
    """Answers until the money is gone."""
    access = Roles({"user": ["model.*:call"]})
    for question in questions:
        try:
            async with escalade.scope(ledger=ledger, principal=ANA, access=access) as scope:
                await ask.acall(question=question)
        except BudgetExceeded:
            os.write(log, f"{int(scope.spent)} refused\n".encode())
            return
        os.write(log, f"{int(scope.spent)}\n".encode())


async def main(path: str, log: str) -> None:
    """All agents at once."""
    ledger = SqliteLedger(path, patience=10.0)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    ask, world = agent()
    print("ready", flush=True)
    every = [example.question for example in world.task(200, seed=5)]
    await asyncio.gather(*(work(ask, ledger, every[number:] + every[:number], file) for number in range(AGENTS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
