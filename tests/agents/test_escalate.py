"""Escalate: the climb as a DSPy module."""

from __future__ import annotations

import asyncio
import copy
import json
import math

import dspy
import pytest
from dspy import lm15

from escalade import events
from escalade.agents._route import Retry
from escalade.agents.calibration import Platt
from escalade.agents.climb import FAILED, OK, REFUSED, WRONG_FORMAT, Rung, Stop, Try, usd
from escalade.agents.confidence import Confidence, Samples
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Agreement, Budgeted, Constant, Threshold
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, NoScope, UnknownName, UnknownPrice
from escalade.money import Money
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from escalade.scopes import current
from tests.agents.scripted import Scripted

CHEAP, DEAR = Price.of("0.10", "0.40"), Price.of("10", "30")
MODES = ("sync", "async")
RUNGS = [("Predict", "small"), ("ChainOfThought", "small"), ("ChainOfThought", "big")]


def said(answer, confidence, *, thought=False):
    """A completion in the Chat format."""
    head = "[[ ## reasoning ## ]]\nhm\n\n" if thought else ""
    return f"{head}[[ ## answer ## ]]\n{answer}\n\n[[ ## confidence ## ]]\n{confidence}\n\n[[ ## completed ## ]]"


def ladder(small=(), big=(), *, policy=None, rungs=RUNGS, **options):
    """An Escalate over a scripted small and big model, and the two transports."""
    first, second = Scripted(small), Scripted(big)
    gateway = Gateway(
        [Model("small", "sim/small", first, price=CHEAP), Model("big", "sim/big", second, price=DEAR)],
        retry=Retry(retries=0),
    )
    policy = policy or Threshold(0.8)
    return Escalate("question -> answer", rungs=rungs, policy=policy, gateway=gateway, **options), first, second


def ask(program, mode="sync", **inputs):
    """Call it, sync or async, in an adapter that makes no second call of its own."""
    inputs = inputs or {"question": "q"}
    with dspy.context(adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return program(**inputs) if mode == "sync" else asyncio.run(program.acall(**inputs))


@pytest.mark.parametrize("mode", MODES)
def test_confident_answer_stays_cheap(mode):
    """A first answer above the threshold is the answer: one call, the cheap price, no escalation."""
    qa, small, big = ladder([said("4", "0.9")])
    with scope(budget="0.10") as run:
        got = ask(qa, mode)
        assert got.cost == run.spent == CHEAP.cost(100, 20)
    assert (got.answer, got.confidence, got.escalated) == ("4", 0.9, False)
    assert got.rung == Rung("Predict/small", "Predict", "small")
    assert (len(small.requests), len(big.requests)) == (1, 0)


@pytest.mark.parametrize("mode", MODES)
def test_doubt_climbs_rung_by_rung(mode):
    """Below the threshold it climbs: cheap Predict, cheap ChainOfThought, then the big model; each is paid."""
    qa, _, _ = ladder([said("4", "0.3"), said("5", "50%", thought=True)], [said("6", "high", thought=True)])
    with scope(budget="0.10") as run:
        got = ask(qa, mode)
        assert got.cost == run.spent == 2 * CHEAP.cost(100, 20) + DEAR.cost(100, 20)
    assert got.answer == "6"
    assert [a.rung for a in got.climb.attempts] == [0, 1, 2]
    assert [a.confidence for a in got.climb.attempts] == [0.3, 0.5, 0.8]
    assert "confidence 0.30 < 0.80" in got.explain()
    assert "ChainOfThought/big" in got.explain()


def test_unknown_confidence_escalates():
    """A confidence that can't be read is unknown, not a guess, costs no second call, and escalates."""
    qa, small, _ = ladder([said("4", "who knows"), said("5", "0.99", thought=True)])
    with scope(budget="0.10"):
        got = ask(qa)
    assert got.answer == "5"
    assert math.isnan(got.climb.attempts[0].confidence)
    assert len(small.requests) == 2


@pytest.mark.parametrize("mode", MODES)
def test_budget_that_does_not_allow_it_stops_with_the_cheap_answer(mode):
    """The seed's rule: escalate only if the budget allows; the cheap answer is the answer then, and nothing raises."""
    qa, _, big = ladder([said("4", "0.3"), said("5", "0.4", thought=True)])
    with scope(budget="0.01") as run:
        got = ask(qa, mode)
        assert run.spent <= Money.of("0.01")
    assert got.answer == "5"
    assert big.requests == []
    assert "doesn't fit" in got.explain()


@pytest.mark.parametrize("mode", MODES)
def test_a_budget_per_request_is_hard(mode):
    """An attempt can cost more than the bound of its one call: what would pass the request's budget is not paid."""
    price = Price.of("1", "1")
    dear = Scripted(["no format at all"] * 9, tokens=(900, 1024))
    gateway = Gateway([Model("x", "sim/x", dear, price=price)], retry=Retry(retries=0))
    policy = Budgeted(Constant(0), per_request="0.0025")
    qa = Escalate("question -> answer", rungs=["x"], policy=policy, gateway=gateway)
    with pytest.raises(BudgetExceeded, match="budget 'request' of"), scope(budget="1.00") as run:
        try:
            qa(question="q") if mode == "sync" else asyncio.run(qa.acall(question="q"))
        finally:
            assert (run.spent, len(dear.requests)) == (price.cost(900, 1024), 1)


def test_budget_too_small_for_any_rung_raises_and_sticks():
    """When not even the first rung fits, BudgetExceeded is raised, even where DSPy swallows it."""
    qa, small, _ = ladder()
    with pytest.raises(BudgetExceeded), scope(budget="0.0000001"), pytest.raises(BudgetExceeded, match="no rung"):
        ask(qa)
    with pytest.raises(BudgetExceeded), scope(budget="0.0000001"):
        dspy.Parallel(num_threads=2, max_errors=9)([(qa, {"question": "a"}), (qa, {"question": "b"})])
    assert small.requests == []


def test_refused_escalation_does_not_exhaust_the_run():
    """A sibling takes the money between look and attempt: the climb ends with what it has, and the run goes on."""

    class Late:
        name = "late"

        def __init__(self):
            self.spent = []

        def decide(self, view):
            if view.attempts and not self.spent:
                self.spent.append(current().purse.reserve(view.budget_left - 10))
                return Try(1, "it still fits, by what I saw")
            return Try(0, "first") if not view.attempts else Stop(0, "enough")

    qa, small, _ = ladder([said("4", "0.3")] * 9, policy=Late())
    with scope(budget="0.10") as run:
        got = ask(qa)
        assert got.answer == "4"
        assert got.climb.attempts[-1].status == REFUSED
        assert got.climb.attempts[-1].cost == 0
        assert run.purse.exhausted is None
    assert len(small.requests) == 1


@pytest.mark.parametrize("mode", MODES)
def test_failed_rung_is_climbed_past(mode):
    """A provider's failure and an unparsable answer are attempts that failed, counted apart, and climbed past."""
    qa, _, _ = ladder([lm15.ServerError("boom"), "garbage"], [said("6", "0.9", thought=True)])
    with scope(budget="0.10"):
        got = ask(qa, mode)
    assert [a.status for a in got.climb.attempts] == [FAILED, WRONG_FORMAT, OK]
    assert got.answer == "6"


@pytest.mark.parametrize("mode", MODES)
def test_last_error_is_raised_when_no_rung_answers(mode):
    """An error never vanishes: with no answer at all the last attempt's error is raised."""
    qa, _, _ = ladder([lm15.ServerError("a"), lm15.ServerError("b")], [lm15.ServerError("the last")])
    with scope(budget="0.10"), pytest.raises(dspy.utils.exceptions.LMServerError, match="the last"):
        ask(qa, mode)


def test_mistakes_of_the_program_are_raised():
    """A mistake in the user's own code is not an attempt that failed: it is raised as it is."""

    class Broken(dspy.Module):
        def forward(self, question):
            raise ZeroDivisionError(question)

    qa, _, _ = ladder(rungs=[(Broken(), "small")])
    with scope(), pytest.raises(ZeroDivisionError):
        ask(qa)


def test_call_without_a_scope_is_refused():
    """No scope, no climb."""
    qa, small, _ = ladder()
    with pytest.raises(NoScope):
        ask(qa)
    assert small.requests == []


def test_deadline_that_has_passed_tries_nothing():
    """With no time left nothing is tried and DeadlineExceeded is raised."""
    qa, small, _ = ladder()
    with scope(budget="0.10", deadline=0.01):
        import time

        time.sleep(0.02)
        with pytest.raises(DeadlineExceeded):
            ask(qa)
    assert small.requests == []


def test_agreement_of_cheap_answers():
    """Two cheap answers that are the same but for case and spaces agree, and the big model is not asked."""
    policy = Agreement(members=(0, 1), then=2)
    qa, _, big = ladder([said("Paris", "0.1"), said(" paris ", "0.1", thought=True)], policy=policy)
    with scope(budget="0.10"):
        assert ask(qa).answer.strip() == "paris"
    assert big.requests == []


def test_confidence_field_of_ones_own_is_kept():
    """A signature that has a confidence already gets no second one, and confidence=False adds none."""
    gateway = ladder()[0]._gateway
    own = Escalate("question -> answer, confidence: float", rungs=["small"], policy=Constant(0), gateway=gateway)
    assert list(own.programs[0].signature.output_fields) == ["answer", "confidence"]
    assert own.programs[0].signature.output_fields["confidence"].annotation is float
    none = Escalate("question -> answer", rungs=["small"], policy=Constant(0), gateway=gateway, confidence=False)
    assert list(none.programs[0].signature.output_fields) == ["answer"]
    added = Escalate("question -> answer", rungs=["small"], policy=Constant(0), gateway=gateway)
    assert added.programs[0].signature.output_fields["confidence"].annotation is Confidence


async def test_no_state_between_calls():
    """One object serves many tasks at once: each gets its own climb."""
    qa, _, _ = ladder([0.001] * 0)
    for program in qa.programs:
        assert program.demos == [] if hasattr(program, "demos") else True
    answers = {f"q{i}": said(f"a{i}", "0.9") for i in range(20)}

    class Echo(Scripted):
        async def acomplete(self, request):
            await asyncio.sleep(0.001)
            text = request.messages[-1].parts[0].text
            name = next(q for q in sorted(answers, key=len, reverse=True) if f"\n{q}\n" in text)
            return self._response(request, answers[name])

    gateway = Gateway([Model("small", "sim/small", Echo(), price=CHEAP)])
    qa = Escalate("question -> answer", rungs=["small"], policy=Threshold(0.5), gateway=gateway)
    with scope(budget="1.00"):
        got = await asyncio.gather(*(qa.acall(question=q) for q in answers))
    assert [g.answer for g in got] == [f"a{i}" for i in range(20)]


def test_dspy_finds_its_predictors():
    """Optimisers see each rung's predictor by name."""
    qa, _, _ = ladder()
    assert [name for name, _ in qa.named_predictors()] == ["programs[0]", "programs[1].predict", "programs[2].predict"]


def test_sampling_from_outside_keeps_the_rungs_models():
    """BestOfN and Refine set one LM on all predictors: its sampling is taken over, each rung keeps its model."""
    qa, small, big = ladder([said("4", "0.3")] * 9, [said("6", "0.9", thought=True)] * 9, rungs=[RUNGS[0], RUNGS[2]])
    with scope(budget="1.00"):
        dspy.BestOfN(qa, N=2, reward_fn=lambda _args, _pred: 0.0, threshold=1.0)(question="q")
    assert [r.model for r in small.requests] == ["sim/small"] * 2
    assert [r.model for r in big.requests] == ["sim/big"] * 2
    assert {r.config.temperature for r in small.requests + big.requests} == {1.0}


def test_set_lm_on_a_rung_of_ones_own_is_refused():
    """A program of one's own would silently change its model: that is said instead."""

    class Own(dspy.Module):
        def __init__(self):
            super().__init__()
            self.step = dspy.Predict("question -> answer")

        def forward(self, question):
            return self.step(question=question)

    qa, small, _ = ladder(rungs=[(Own(), "small", "0.01")], policy=Constant(0))
    qa.set_lm(qa._gateway.lm("big"))
    with scope(budget="0.10"), pytest.raises(BadInput, match="set_lm put model"):
        ask(qa)
    assert small.requests == []


def test_saved_with_its_policy(tmp_path):
    """Demos, instructions and the policy's threshold come back from the JSON file."""
    qa, _, _ = ladder(policy=Threshold(0.65))
    qa.programs[0].demos = [dspy.Example(question="1+1", answer="2", confidence=0.9)]
    qa.save(tmp_path / "qa.json")
    assert json.loads((tmp_path / "qa.json").read_text())["policy"]["threshold"] == 0.65
    other, _, _ = ladder(policy=Constant(2))
    other.load(tmp_path / "qa.json")
    assert other.policy == Threshold(0.65)
    assert other.programs[0].demos[0]["answer"] == "2"


def test_programs_saved_before_sources_were_there_load():
    """A file without sources and calibrators leaves those of the program."""
    qa, _, _ = ladder(policy=Threshold(0.65), confidence=Samples(3))
    qa.calibrators["Predict/small"] = Platt(2.0)
    old = {name: state for name, state in qa.dump_state().items() if name not in {"confidence", "calibrators"}}
    other, _, _ = ladder(policy=Constant(0), confidence=Samples(5))
    other.load_state(old)
    assert (other.policy, other.sources[0], other.calibrators) == (Threshold(0.65), Samples(5), {})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"confidence": [None]}, "has 1 rungs, this one 3"),
        ({"confidence": [{"kind": "oracle"}, None, None]}, "unknown source of confidence 'oracle'"),
        ({"confidence": [{"kind": "threshold"}, None, None]}, "unknown source of confidence 'threshold'"),
        ({"calibrators": {"Predict/small": {"kind": "samples"}}}, "unknown calibrator 'samples'"),
        ({"calibrators": {"Predict/small": {"kind": "platt", "slop": 1}}}, "calibrator 'platt' can't be loaded"),
    ],
)
def test_files_that_do_not_fit_are_refused(change, complaint):
    """Another ladder, a source or a calibrator that isn't there, fields that it doesn't have: each is said."""
    qa, _, _ = ladder()
    with pytest.raises(BadInput, match=complaint):
        qa.load_state({**qa.dump_state(), **change})


def test_deepcopy_shares_the_gateway_and_copies_the_rest():
    """An optimiser's copy has its own demos and the same gateway."""
    qa, _, _ = ladder([said("4", "0.9")] * 2)
    for twin in (copy.deepcopy(qa), qa.deepcopy(), qa.reset_copy()):
        assert twin._gateway is qa._gateway
        assert twin.programs[0] is not qa.programs[0]
    with scope(budget="0.10"):
        assert ask(qa.deepcopy()).answer == "4"


def test_events_tell_each_rung_and_each_escalation():
    """Who listens learns, as it happens, what was tried, with what confidence, at what cost, and why it climbed."""
    qa, _, _ = ladder([said("4", "0.3"), said("5", "0.9", thought=True)])
    heard = []
    with scope(budget="0.10", listen=heard.append):
        ask(qa)
    kinds = [type(e).__name__ for e in heard if not isinstance(e, events.Settled)]
    assert kinds == ["RungTried", "Escalated", "RungTried", "ClimbStopped"]
    climbed = next(e for e in heard if isinstance(e, events.Escalated))
    assert (climbed.from_rung, climbed.to_rung) == ("Predict/small", "ChainOfThought/small")
    assert "0.30 < 0.80" in climbed.why
    assert sum(e.cost for e in heard if isinstance(e, events.RungTried)) == 2 * CHEAP.cost(100, 20)


def test_explanations_have_what_the_decision_was_made_from():
    """Each line: the signal and the threshold, what was left, what the rung or the next one was expected to cost."""
    qa, _, _ = ladder([said("4", "0.3"), said("5", "0.85", thought=True)])
    with scope(budget="0.10"):
        prices = [Money(p) for p in qa.view(question="q").prices]
        lines = ask(qa).explain().splitlines()
    spent, climbs = CHEAP.cost(100, 20), "ChainOfThought/small: confidence 0.30 < 0.80"
    assert lines == [
        f"Predict/small: cheapest first [$0.1 left, expected {usd(prices[0])}] -> confidence 0.30, {spent}",
        f"{climbs} [$0.1 left, expected {usd(prices[1])}] -> confidence 0.85, {spent}",
        f"stop: confidence 0.85 >= 0.80 [$0.1 left, next is ChainOfThought/big at {usd(prices[2])}]",
    ]


def test_a_rung_that_was_held_back_is_the_next_one():
    """What the budget didn't allow is named with its price; without a rung left, that is said."""
    qa, _, _ = ladder([said("4", "0.3"), said("5", "0.4", thought=True)])
    with scope(budget="0.01"):
        got = ask(qa)
    assert got.climb.held_back == got.climb.steps[-1].next == 2
    assert "next is ChainOfThought/big at" in got.explain().splitlines()[-1]
    qa, _, _ = ladder([said("4", "0.3")], rungs=["small"])
    with scope():
        assert ask(qa).explain().endswith("[no limit, no rung is left]")


def test_events_say_what_explanations_say():
    """Signals, budget left, price of the next rung and why are in the events, step by step, as in the explanation."""
    qa, _, _ = ladder([said("4", "0.3"), said("5", "0.9", thought=True)])
    qa.calibrators["Predict/small"] = Platt(slope=0.5)
    heard = []
    with scope(budget="0.10", listen=heard.append):
        steps = ask(qa).climb.steps
    tried = [e for e in heard if isinstance(e, events.RungTried)]
    [climbed] = [e for e in heard if isinstance(e, events.Escalated)]
    [stopped] = [e for e in heard if isinstance(e, events.ClimbStopped)]
    for event, step in zip(tried, steps[:2], strict=True):
        attempt = step.attempt
        assert (event.confidence, event.raw, event.signals) == (attempt.confidence, attempt.raw, attempt.signals)
        assert (event.cost, event.confidence_cost) == (attempt.cost, attempt.confidence_cost)
    assert (climbed.why, climbed.budget_left, climbed.price) == (
        steps[1].decision.why,
        steps[1].budget_left,
        steps[1].price,
    )
    assert climbed.confidence == steps[0].attempt.confidence != steps[0].attempt.raw
    assert (stopped.why, stopped.budget_left, stopped.price) == (
        steps[2].decision.why,
        steps[2].budget_left,
        steps[2].price,
    )
    assert (stopped.rung, stopped.next_rung) == ("ChainOfThought/small", "ChainOfThought/big")
    assert stopped.cost == sum(e.cost for e in tried)


def test_a_climb_without_an_answer_says_that_it_stopped():
    """The event comes for those, too, with no rung in it."""
    qa, _, _ = ladder()
    heard = []
    with pytest.raises(BudgetExceeded), scope(budget="0.0000001", listen=heard.append):
        ask(qa)
    [stopped] = heard
    assert (stopped.rung, stopped.next_rung, stopped.cost) == ("", "Predict/small", 0)


def test_price_bound_of_a_rung_bounds_its_reservation():
    """What the policy sees as a rung's bound is at least what the gateway reserves, for every adapter and input."""
    from escalade.registry.journal import Journal

    for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()):
        for question in ("q", "a longer one, with ünïcödé " * 20):
            qa, _, _ = ladder(rungs=RUNGS, policy=Constant(1))
            with scope(budget="1.00", recorder=(journal := Journal())), dspy.context(adapter=adapter):
                bounds = qa.view(question=question).ceilings
                qa.attempt_sync(1, question=question)
            assert journal.entries()[0].held <= bounds[1], adapter
            assert bounds[1] < 2 * journal.entries()[0].held, adapter


def test_price_bound_of_other_inputs_than_strings():
    """Inputs that aren't strings are rendered, not guessed."""
    gateway = ladder()[0]._gateway
    qa = Escalate("facts: list[str] -> answer", rungs=["small"], policy=Constant(0), gateway=gateway)
    with scope(budget="1.00"):
        short = qa.view(facts=["a"]).ceilings[0]
        assert qa.view(facts=["a" * 1000]).ceilings[0] == short + CHEAP.cost(999, 0)


@pytest.mark.parametrize("mode", MODES)
def test_rung_of_ones_own_module(mode):
    """Any dspy.Module can be a rung, with `forward` alone; under a budget it needs a price bound, and says so."""

    class Twice(dspy.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = dspy.Predict("question -> answer"), dspy.Predict("question -> answer")

        def forward(self, question):
            self.first(question=question)
            return self.second(question=question)

    qa, small, _ = ladder(rungs=[(Twice(), "small")], policy=Constant(0))
    with scope() as run:
        assert ask(qa, mode).answer == "42"
        assert run.spent == 2 * CHEAP.cost(100, 20)
    with scope(budget="0.10"), pytest.raises(UnknownPrice, match="no price bound"):
        ask(qa, mode)
    assert len(small.requests) == 2
    bounded, _, _ = ladder(rungs=[(Twice(), "small", "0.01")], policy=Constant(0))
    with scope(budget="0.10"):
        assert ask(bounded, mode).answer == "42"


@pytest.mark.parametrize(
    ("rungs", "complaint"),
    [
        ([], "at least one rung"),
        ([("Predikt", "small")], "unknown strategy 'Predikt'"),
        ([("Predict", 3)], "expected the alias of a model"),
        (["small", "small"], "different names"),
        (["tiny"], "unknown model 'tiny'"),
    ],
)
def test_ladders_that_make_no_sense_are_refused(rungs, complaint):
    """Each mistake in a ladder is said in one line, when it is built."""
    gateway = ladder()[0]._gateway
    with pytest.raises(BadInput, match=complaint):
        Escalate("question -> answer", rungs=rungs, policy=Constant(0), gateway=gateway)


def test_unknown_rung_of_a_policy_is_said():
    """A policy that names a rung that isn't there fails with the ladder's names."""
    qa, _, _ = ladder(policy=Constant("Predict/huge"))
    with scope(budget="0.10"), pytest.raises(UnknownName, match="Predict/huge"):
        ask(qa)


@pytest.mark.parametrize("inputs", [{"qestion": "q"}, {}, {"question": "q", "extra": "x"}])
def test_inputs_that_are_not_the_signatures_are_refused_before_anything_is_paid(inputs):
    """DSPy only warns of a misspelt input, and pays for an answer to nothing; this says which it is."""
    qa, small, _ = ladder()
    with scope(budget="0.10"), pytest.raises(BadInput, match="question"):
        qa(**inputs)
    assert small.requests == []


@pytest.mark.parametrize("policy", [0.8, "threshold=0.8", None, Threshold])
def test_what_is_no_policy_is_refused_when_it_is_handed_in(policy):
    """A number or a name is no policy: that is said at once, not at the first call."""
    with pytest.raises(BadInput, match="expected a policy"):
        Escalate("question -> answer", rungs=["small"], policy=policy, gateway=ladder()[0]._gateway)


@pytest.mark.parametrize("decision", [3, None, Stop("enough"), Stop(5), Try(9), Try("small"), Try(-1)])
def test_decision_that_makes_no_sense_names_its_policy(decision):
    """A policy of one's own that decides nonsense is named, with what was expected."""

    class Odd:
        name = "odd"

        def decide(self, view):
            return decision

    qa, small, _ = ladder(policy=Odd())
    with scope(budget="0.10"), pytest.raises(BadInput, match="policy 'odd' decided"):
        ask(qa)
    assert small.requests == []


def test_strings_for_lists():
    """A string where a list belongs is told as one, not taken letter by letter."""
    gateway = Gateway([Model("small", "small", Scripted())], name="strings")
    with pytest.raises(BadInput, match=r"rungs: expected a list, \['small'\]"):
        Escalate("question -> answer", rungs="small", policy=Threshold(0.8), gateway=gateway)
    with pytest.raises(BadInput, match="got 'words'"):
        Escalate("question -> answer", rungs=["small"], policy=Threshold(0.8), gateway=gateway, features="words")
