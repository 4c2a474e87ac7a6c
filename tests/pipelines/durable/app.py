"""Runs whose processes are killed: six calls of a model each, four of them in two branches at once.

`ESCALADE_RUNS`: where they are kept. `FAULT_SERVER`: the provider. `ESCALADE_USES`: a file to which every use of the
model is written.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
from pathlib import Path

import dspy

from escalade import Budget, Chain, DbosEngine, FanOut, Gateway, Model, Price, Principal, Roles
from escalade.agents.transports import LM15
from escalade.pipelines.durable.runs import Runs
from escalade.registry.journal import Journal
from escalade.registry.stores.opened import open_ledger

PRICE = Price.of("1.013", "2.017")
STEPS = ("start", "left1", "left2", "side1", "side2", "final")
"""All names are of one length, so that all calls cost the same."""


class Uses(Journal):
    """Writes every use to a file that all processes share."""

    def _line(self, what, entry):
        told = {"what": what, "call": entry.call_id, "held": entry.held, "cost": entry.cost, "outcome": entry.outcome}
        line = json.dumps({**told, "kind": entry.kind, "source": entry.source, "resource": entry.resource}) + "\n"
        number = os.open(os.environ["ESCALADE_USES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(number, line.encode())
        os.close(number)

    def intent(self, entry):
        self._line("intent", entry)

    def outcome(self, entry):
        self._line("outcome", entry)


@functools.cache
def lm():
    """The model, at the provider that the environment names."""
    transport = LM15(api_key="k", api_base=os.environ["FAULT_SERVER"], timeout=30)
    name = f"openai/slow:{os.environ.get('ESCALADE_SECONDS', '0.2')}"
    return Gateway([Model("small", name, transport, price=PRICE, max_output=64)]).lm("small")


ask = dspy.Predict("question -> answer")


def step(name):
    """A node that asks the model a question of its own."""

    async def asks(key: str) -> dict[str, str]:
        with dspy.context(lm=lm()):
            answer = await ask.acall(question=f"{key}/{name}")
        return {name: f"{key}/{name}: {answer.answer}"}

    asks.__qualname__ = asks.__name__ = name
    return asks


async def sleeps(seconds: float) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"slept": seconds}


def blocks(path: str) -> None:
    """A node that nobody can stop; says that it has begun."""
    Path(path).touch()
    time.sleep(600)


async def last(slept: float) -> dict[str, float]:
    return {"done": slept}


report = Chain(
    start=step("start"),
    sides=FanOut(
        left=Chain(left1=step("left1"), left2=step("left2")), side=Chain(side1=step("side1"), side2=step("side2"))
    ),
    final=step("final"),
)
nap = Chain(nap=sleeps, last=last)
stuck = Chain(blocks=blocks)

ACCESS = Roles({"clerk": ["model.*:call"]})
CLERK = Principal("ada", "acme", frozenset({"clerk"}))


def opened(url, **options):
    """The runs, executed here or not."""
    beside = f"{url}.ledger" if url.startswith("sqlite:") else url
    return Runs(
        url,
        engine=DbosEngine(url, **options),
        pipelines={"report": report, "nap": nap},
        ledger=open_ledger(beside, [Budget("everything", "1000")]),
        access=ACCESS,
        recorder=Uses(),
    )


def __getattr__(name):
    if name == "runs":
        return opened(os.environ["ESCALADE_RUNS"], concurrency=int(os.environ.get("ESCALADE_CONCURRENCY", "8")))
    raise AttributeError(name)
