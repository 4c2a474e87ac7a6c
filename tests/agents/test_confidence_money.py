"""What confidence costs is never hidden and never passes the budget; what is saved decides the same."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

import dspy
from dspy.utils.exceptions import AdapterParseError, LMError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escalade import events
from escalade.agents._route import Retry
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Constant, Threshold
from escalade.agents.world import SimModel, World
from escalade.errors import BudgetExceeded
from escalade.money import Money
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from tests.test_live_equals_replay import CALIBRATORS, classified, policies, sources, steps_of

PATIENT = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
SILENT = (BudgetExceeded, LMError, AdapterParseError)
"""What a question ends with that stays without an answer."""

RUNGS = [("Predict", "a"), ("ChainOfThought", "a"), ("Predict", "b"), ("ChainOfThought", "b")]


@dataclass(frozen=True)
class Made:
    """A random program, as plain values: hypothesis draws these, DSPy is left for the test."""

    sims: dict
    seed: int
    max_output: int
    rungs: list
    confidence: dict
    policy: object
    calibrators: dict

    def build(self):
        """(world, program, how to build it again with other settings)"""
        world = World(self.sims, seed=self.seed)
        gateway = Gateway(world.as_models(max_output=self.max_output), retry=Retry(retries=0))

        def again(**changed):
            options = {"policy": self.policy, "confidence": self.confidence, "features": classified} | changed
            return Escalate("question -> answer", rungs=self.rungs, gateway=gateway, **options)

        qa = again()
        qa.calibrators = {qa.rungs[k].name: calibrator for k, calibrator in self.calibrators.items()}
        return world, qa, again


@st.composite
def programs(draw, *, faults=True):
    """Models, rungs, sources, calibrators and a policy."""
    every = st.sampled_from([None, None, 2, 3, 5] if faults else [None])
    rungs = draw(st.lists(st.sampled_from(RUNGS), min_size=1, max_size=3, unique=True))
    at = st.integers(0, len(rungs) - 1)
    return Made(
        sims={
            name: SimModel(draw(st.sampled_from([0.2, 0.6, 0.95])), price, price, fail_every=draw(every))
            for name, price in (("a", "0.10"), ("b", "2"))
        },
        seed=draw(st.integers(0, 99)),
        max_output=draw(st.sampled_from([8, 40, 512])),
        rungs=rungs,
        confidence=draw(st.dictionaries(at, sources(["a", "b"]))),
        policy=draw(policies(len(rungs))),
        calibrators=draw(st.dictionaries(at, CALIBRATORS)),
    )


@PATIENT
@given(programs(), st.one_of(st.none(), st.integers(0, 3_000_000)), st.sampled_from(["sync", "async"]))
def test_every_nano_dollar_is_accounted_for(made, budget, mode):
    """Attempts, events and the ledger's entries say the same sum; confidence is a part of it; no budget is passed."""
    world, qa, _ = made.build()
    heard = []
    journal = Journal()
    with scope(budget=None if budget is None else Money(budget), recorder=journal, listen=heard.append) as run:
        for example in world.task(3, seed=4):
            before = run.purse.spent
            with suppress(*SILENT), scope(name="request", optional=True):
                got = qa(**example.inputs()) if mode == "sync" else asyncio.run(qa.acall(**example.inputs()))
                assert got.cost == run.purse.spent - before
                assert all(0 <= a.confidence_cost <= a.cost for a in got.climb.attempts)
            assert run.purse.held == 0
        assert budget is None or run.purse.spent <= budget
        tried = [e for e in heard if isinstance(e, events.RungTried)]
        assert run.purse.spent == sum(e.cost for e in journal.entries()) == sum(e.cost for e in tried)
        assert run.purse.spent == world.cost()


@PATIENT
@given(programs(faults=False), st.integers(100_000, 4_000_000))
def test_requests_at_once_share_one_hard_budget(made, budget):
    """Many questions at once, each with samples, judges and peers of its own: together they stay within the budget."""
    world, qa, _ = made.build()

    async def all_at_once():
        asked = (qa.acall(**example.inputs()) for example in world.task(6, seed=4))
        return await asyncio.gather(*asked, return_exceptions=True)

    journal = Journal()
    with suppress(BudgetExceeded), scope(recorder=journal), scope(budget=Money(budget), optional=True) as run:
        got = asyncio.run(all_at_once())
        assert run.purse.spent <= budget
        assert run.purse.spent == sum(e.cost for e in journal.entries()) == world.cost()
        assert sum(g.cost for g in got if isinstance(g, dspy.Prediction)) <= run.purse.spent


@PATIENT
@given(programs(faults=False), st.booleans())
def test_what_is_saved_decides_the_same(made, other):
    """Policy, sources, calibrators and demos come back from JSON into a program that was built with others."""
    world, qa, build = made.build()
    qa.programs[0].predictors()[0].demos = [dspy.Example(question="1 + 1", answer="2", confidence=0.5)]
    saved = json.loads(json.dumps(qa.dump_state()))
    again = build(policy=Constant(0) if other else Threshold(0.5), confidence=other)
    again.load_state(saved)
    assert (again.policy, again.sources, again.calibrators) == (qa.policy, qa.sources, qa.calibrators)
    assert again.dump_state() == qa.dump_state()
    for example in world.task(3, seed=4):
        told = []
        for program in (qa, again):
            try:
                with scope():
                    got = program(**example.inputs())
                told.append((steps_of(got.climb), got.answer, [a.signals for a in got.climb.attempts]))
            except SILENT as error:
                told.append(str(error))
        assert repr(told[0]) == repr(told[1])
