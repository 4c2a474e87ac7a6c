"""Sources of confidence: what they read, what they spend, and that they never lose an answer."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import threading
from dataclasses import dataclass
from statistics import NormalDist

import cloudpickle
import dspy
import pytest
from dspy import lm15
from dspy.experimental import Choice, Noul
from hypothesis import given
from hypothesis import strategies as st

from escalade import events
from escalade.agents._route import Retry
from escalade.agents._saving import load_saved
from escalade.agents._sigmoid import sigmoid
from escalade.agents.calibration import Platt, auroc, brier, ece
from escalade.agents.climb import REFUSED, WRONG_FORMAT
from escalade.agents.confidence import (
    Call,
    Combined,
    Confidence,
    Logprob,
    Peers,
    Reading,
    Samples,
    Source,
    TypedDecision,
    Verbalised,
    Verifier,
)
from escalade.agents.confidence.agreement import drawing, grouped
from escalade.agents.confidence.logprob import field_logprobs, field_span, tokens_of
from escalade.agents.confidence.source import Draws, Given
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Constant, Threshold
from escalade.agents.transports import LM15, LiteLLM
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, BudgetExceeded, DataError, UnknownName
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from tests.agents.scripted import Scripted
from tests.servers.fault_server import FaultServer, logprobs_of

MODES = ("sync", "async")
ADAPTERS = {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}
CHEAP, DEAR = Price.of("0.10", "0.40"), Price.of("10", "30")
USE = CHEAP.cost(100, 20)


def wrote(**fields):
    """A completion in the Chat format."""
    return "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in fields.items()) + "[[ ## completed ## ]]"


def program(source, small=(), big=(), *, rungs=("small",), policy=None, **options):
    """An Escalate with this source over a scripted small and big model, and the two transports."""
    first, second = Scripted(small), Scripted(big)
    gateway = Gateway(
        [Model("small", "sim/small", first, price=CHEAP), Model("big", "sim/big", second, price=DEAR)],
        retry=Retry(retries=0),
    )
    qa = Escalate(
        "question -> answer", rungs=rungs, policy=policy or Constant(0), gateway=gateway, confidence=source, **options
    )
    return qa, first, second


def ask(qa, mode="sync", question="q"):
    """Its prediction, in an adapter that makes no second call of its own."""
    with dspy.context(adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        return qa(question=question) if mode == "sync" else asyncio.run(qa.acall(question=question))


def one(source, small=(), big=(), mode="sync", budget="1.00"):
    """The attempt of the only rung, the transports, and what the ledger has."""
    qa, first, second = program(source, small, big)
    with scope(budget=budget, recorder=(journal := Journal())) as run:
        attempt = ask(qa, mode).attempt
        assert run.purse.spent == attempt.cost == sum(entry.cost for entry in journal.entries())
        assert run.purse.held == 0
    return attempt, first, second


# ------------------------------------------------------------------------------------------------------ what is said


def test_true_and_false_are_as_they_were():
    """True is a verbalised confidence on every rung, False none."""
    assert program(True)[0].sources == (Verbalised(),)
    assert program(False)[0].sources == (None,)
    attempt, _, _ = one(False, [wrote(answer="4")])
    assert math.isnan(attempt.confidence)
    assert attempt.signals == {}


@pytest.mark.parametrize("mode", MODES)
def test_verbalised(mode):
    """The model's own word: no further call, no further cost."""
    attempt, small, _ = one(Verbalised(), [wrote(answer="4", confidence="80%")], mode=mode)
    assert (attempt.confidence, attempt.raw, attempt.signals) == (0.8, 0.8, {"verbalised": 0.8})
    assert (attempt.cost, attempt.confidence_cost, len(small.requests)) == (USE, 0, 1)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("said", ["noul", "score"])
def test_decision_types(said, adapter):
    """A Noul's probability and the place of a Score are read through every adapter; never Noul's own `confidence`."""
    world = World({"m": SimModel(0.6)}, seed=2)
    example = world.task(1, seed=3)[0]
    values = {}
    for source in (Verbalised(), TypedDecision(said)):
        qa = Escalate(
            "question -> answer", rungs=["m"], policy=Constant(0), gateway=Gateway(world.as_models()), confidence=source
        )
        with scope(budget="1.00", recorder=(journal := Journal())), dspy.context(adapter=ADAPTERS[adapter]()):
            attempt = qa(question=example.question).attempt
            assert journal.entries()[0].held <= qa.view(question=example.question).ceilings[0]
        values[source.name] = attempt.confidence
        assert len(journal.entries()) == 1
    assert values["decision"] == pytest.approx(values["verbalised"], abs=0.01)


def test_noul_confidence_is_not_its_probability():
    """DSPy's Noul calls the distance from its threshold a confidence: 0.66 where the model said 0.83."""
    evidence = json.dumps({"noul": 0.83})
    attempt, _, _ = one(TypedDecision(), [wrote(answer="4", confidence=evidence)])
    assert attempt.result.confidence.confidence == pytest.approx(0.66)
    assert attempt.confidence == 0.83


@pytest.mark.parametrize(
    ("kind", "evidence", "value"),
    [
        (Noul, {"noul": 0.9}, 0.9),
        (Noul, {"noul": 0.1}, 0.9),
        (Choice[("a", "first"), ("b", "second")], {"probabilities": {"a": 0.3, "b": 0.7}, "confidence": 0.2}, 0.7),
    ],
)
def test_decision_of_ones_own_field(kind, evidence, value):
    """A decision that is the answer itself: how likely the value is that was chosen."""
    signature = dspy.Signature(
        {"question": (str, dspy.InputField()), "label": (kind, dspy.OutputField(desc="which is it?"))}, "Decide."
    )
    gateway = Gateway([Model("m", "sim/m", Scripted([wrote(label=json.dumps(evidence))]), price=CHEAP)])
    qa = Escalate(signature, rungs=["m"], policy=Constant(0), gateway=gateway, confidence=TypedDecision(field="label"))
    with scope(budget="1.00"):
        assert ask(qa).attempt.confidence == pytest.approx(value)


# -------------------------------------------------------------------------------------------------- log probabilities

VALUE = st.text(
    st.characters(codec="utf-8", exclude_characters="[]<>#&", exclude_categories=["C", "Z"]), min_size=1, max_size=20
)
FORMATS = {
    "chat": lambda a, b: f"[[ ## reasoning ## ]]\n{a}\n\n[[ ## answer ## ]]\n{b}\n\n[[ ## completed ## ]]",
    "json": lambda a, b: json.dumps({"reasoning": a, "answer": b}, ensure_ascii=False),
    "xml": lambda a, b: f"<reasoning>\n{a}\n</reasoning>\n\n<answer>\n{b}\n</answer>",
}


@pytest.mark.parametrize("form", FORMATS)
@given(before=VALUE, answer=VALUE)
def test_the_span_of_a_field_is_its_value(form, before, answer):
    """In every adapter's format, the span that is cut out holds the value and nothing of its frame."""
    text = FORMATS[form](before, answer)
    begin, end = field_span(text, "answer")
    cut = text[begin:end]
    assert (json.loads(f'"{cut}"') if form == "json" else cut) == answer


@pytest.mark.parametrize("text", ["", "no format at all", '{"answer": ', "{}", "[1]", '{"other": 1}', '{"a" 1}', "{{{"])
def test_a_field_that_is_not_there(text):
    """Texts in no format, broken or cut off, have no span: the confidence is unknown, and nothing is raised."""
    assert field_span(text, "answer") is None
    assert field_logprobs([(text, -0.1)], "answer") == []


@given(st.lists(st.text('ab{}":,[]# \\n<>/answer', min_size=1, max_size=8)), st.sampled_from(["answer", "a"]))
def test_any_text_is_looked_through(tokens, name):
    """Whatever a model wrote, looking for a field in it gives a span inside of it, or none."""
    text = "".join(tokens)
    span = field_span(text, name)
    assert span is None or 0 <= span[0] <= span[1] <= len(text)
    assert all(p <= 0 for p in field_logprobs([(t, -0.5) for t in tokens], name))


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (Logprob(), math.exp(-0.6)),
        (Logprob("sum"), math.exp(-1.2)),
        (Logprob("quantile", 0.0), math.exp(-0.9)),
        (Logprob("quantile", 1.0), math.exp(-0.3)),
        (Logprob(fields=("reasoning",)), math.exp(-0.2)),
    ],
)
def test_only_the_answers_tokens_count(source, value):
    """The frame's and the reasoning's log probabilities don't count, unless they are asked for."""
    pieces = [
        ("[[ ## reasoning ## ]]\n", -5),
        ("so", -0.2),
        ("\n\n[[ ## answer ## ]]\n", -4),
        ("forty", -0.3),
        (" two", -0.9),
    ]
    content = [{"token": token, "logprob": logprob} for token, logprob in [*pieces, ("\n\n[[ ## completed ## ]]", -3)]]
    told = dspy.Prediction(reasoning="so", answer="forty two", logprobs={"content": content})
    assert source._of(tokens_of(told.logprobs), source.fields or ("answer",)) == pytest.approx(value)


@pytest.mark.slow
@pytest.mark.parametrize("transport", [LM15, LiteLLM])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_log_probabilities_over_http(adapter, transport):
    """Asked for and read over HTTP on both routes; unknown, not an error, where the provider sends none."""
    with FaultServer() as server:
        models = [
            Model(n, f"openai/{n}", transport(api_base=server.base, api_key="k"), price=CHEAP) for n in ("ok", "mute")
        ]
        gateway = Gateway(models)
        for name in ("ok", "mute"):
            qa = Escalate("question -> answer", rungs=[name], policy=Constant(0), gateway=gateway, confidence=Logprob())
            with scope(budget="1.00"), dspy.context(adapter=ADAPTERS[adapter]()):
                attempt = qa(question="q").attempt
            assert attempt.answer == "answer value"
            if name == "mute":
                assert math.isnan(attempt.confidence)
                continue
            text = {
                "chat": "[[ ## answer ## ]]\nanswer value\n\n[[ ## completed ## ]]",
                "json": '{"answer": "answer value"}',
                "xml": "",
            }[adapter]
            if text:
                at, told = text.index("answer value"), logprobs_of(text)
                hot = [
                    t["logprob"]
                    for i, t in enumerate(told)
                    if 4 * i < at + 12 and 4 * i + 4 > at and t["token"].strip()
                ]
                assert attempt.confidence == pytest.approx(math.exp(sum(hot) / len(hot)))
            else:
                assert 0 < attempt.confidence < 1
        assert all(request["body"]["logprobs"] is True for request in server.requests)


def test_fields_that_are_not_there_are_refused():
    """An output to read that the signature doesn't have is said when the program is built."""
    with pytest.raises(BadInput, match="no output 'anser'"):
        program(Logprob(fields=("anser",)))
    with pytest.raises(BadInput, match="no output 'label'"):
        program(TypedDecision(field="label"))


# ------------------------------------------------------------------------------------------------------------- samples


def drawn(answers, draws):
    """(answers drawn, sizes of the rounds) when the samples give these answers in order; None is a failure."""
    asked = []
    steps = drawing(draws, {}, lambda said: said)
    calls = next(steps)
    while True:
        asked.append(len(calls))
        given = [
            Given(error=ValueError()) if answers[c.sample] is None else Given(result=answers[c.sample]) for c in calls
        ]
        try:
            calls = steps.send(given)
        except StopIteration as end:
            return [g.result for g in end.value], asked


def sequential(answers):
    """How many samples have to be drawn, one after the other, until the majority can't change any more."""
    for n in range(1, len(answers) + 1):
        counts = [*sorted((c for _, c in grouped([a for a in answers[:n] if a is not None])), reverse=True), 0, 0]
        if counts[0] - counts[1] > len(answers) - n:
            return n
    return len(answers)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=2, max_size=9))
def test_samples_stop_early_without_waste(answers):
    """Drawn in rounds at once, no more are paid than one by one; and the majority is that of all k samples."""
    early, _ = drawn(answers, Draws(len(answers), 1.0, None, early=True))
    assert len(early) == sequential(answers)
    full = grouped([a for a in answers if a is not None])
    part = grouped([a for a in early if a is not None])
    if full and len(early) < len(answers):
        assert max(part, key=lambda g: g[1])[0] == max(full, key=lambda g: g[1])[0]
    everything, rounds = drawn(answers, Draws(len(answers), 1.0, None, early=False))
    assert (everything, rounds) == (answers, [len(answers)])


@pytest.mark.parametrize("mode", MODES)
def test_samples_agree(mode):
    """Three of five that agree are enough; the first is the answer, the others are for confidence."""
    attempt, small, _ = one(Samples(5), [wrote(answer="4")] * 9, mode=mode)
    assert (attempt.answer, attempt.confidence, len(small.requests)) == ("4", 1.0, 3)
    assert (attempt.cost, attempt.confidence_cost) == (3 * USE, 2 * USE)
    assert all(r.config.temperature == 1.0 for r in small.requests)


def test_the_majority_answers():
    """The answer is that of most samples, not that of the first."""
    said = [wrote(answer=a) for a in ("3", "4", "4", "4", "3")]
    attempt, small, _ = one(Samples(5, early=False), said)
    assert (attempt.answer, attempt.confidence, len(small.requests)) == ("4", 0.6, 5)


@pytest.mark.parametrize("mode", MODES)
def test_samples_are_drawn_at_once(mode):
    """The model is asked for three samples before it has answered with the first."""
    qa, small, _ = program(Samples(5), [0.5] * 3)
    with scope(budget="1.00"):
        ask(qa, mode)
    assert (len(small.requests), small.at_once) == (3, 3)


def test_samples_are_not_copies_out_of_a_cache():
    """Each sample has a rollout of its own: with DSPy's cache on, the second question alike is free, but no copy."""
    world = World({"m": SimModel(0.5)}, seed=1)
    gateway = Gateway(world.as_models())
    qa = Escalate(
        "question -> answer", rungs=["m"], policy=Constant(0), gateway=gateway, confidence=Samples(4, early=False)
    )
    qa._lms = type(qa._lms)([gateway.lm("m", cache=True)])
    question = world.task(1, seed=5)[0].question
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    with scope(budget="1.00"):
        first = ask(qa, question=question).attempt
        again = ask(qa, question=question).attempt
    assert world.calls["m"] == 4
    assert first.cost > 0
    assert (again.cost, again.answer, again.confidence) == (0, first.answer, first.confidence)


def test_seeds_make_samples_reproducible():
    """With a seed, the same samples come again; with another one, others."""

    def share(seed):
        world = World({"m": SimModel(0.5)}, seed=1)
        source = Samples(9, seed=seed, early=False)
        qa = Escalate(
            "question -> answer", rungs=["m"], policy=Constant(0), gateway=Gateway(world.as_models()), confidence=source
        )
        with scope():
            return [qa(question=e.question).attempt.confidence for e in world.task(5, seed=2)]

    assert share(3) == share(3) != share(100)


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_that_fails_agrees_with_none(mode):
    """One of three writes garbage: the others answer, and two of three agree."""
    attempt, _, _ = one(Samples(3, early=False), ["garbage", wrote(answer="4"), wrote(answer="4")], mode=mode)
    assert (attempt.answer, attempt.confidence) == ("4", pytest.approx(2 / 3))


def test_all_samples_failing_is_a_failed_attempt():
    """With no sample left there is no answer: the first error is the attempt's, and all are paid."""
    qa, _, _ = program(Samples(2), ["garbage"] * 2, rungs=["small", "big"], policy=Threshold(0.5))
    with scope(budget="1.00") as run:
        got = ask(qa)
        assert run.purse.spent == got.cost
    failed = got.climb.attempts[0]
    assert (failed.status, failed.cost) == (WRONG_FORMAT, 2 * USE)


def test_optimisers_see_only_the_sample_that_answered():
    """DSPy's trace has one entry for the rung, that of the answer: the others are no demonstrations."""
    said = [wrote(answer=a) for a in ("3", "4", "4")]
    qa, _, _ = program(Samples(3, early=False), said)
    with scope(budget="1.00"), dspy.context(trace=(trace := [])):
        ask(qa)
    assert [prediction.answer for _, _, prediction in trace] == ["4"]


def test_sampling_from_outside_gives_other_samples():
    """Under BestOfN each of its rounds draws rollouts of its own."""
    qa, small, _ = program(Samples(2, early=False))
    rollouts = []
    lm = qa._lms[0]
    copy = type(lm).copy

    def noted(self, **options):
        rollouts.append(options.get("rollout_id"))
        return copy(self, **options)

    with pytest.MonkeyPatch.context() as patch, scope(budget="1.00"):
        patch.setattr(type(lm), "copy", noted)
        dspy.BestOfN(qa, N=2, reward_fn=lambda _args, _pred: 0.0, threshold=1.0)(question="q")
    mine = [r for r in rollouts if r is not None]
    assert len(small.requests) == 4
    assert len(set(mine)) >= 4


# -------------------------------------------------------------------------------------------- peers, verifier, combined


@pytest.mark.parametrize("mode", MODES)
def test_peers(mode):
    """The share of the others that say the same; each is asked once, without a confidence of its own."""
    attempt, small, big = one(
        Peers(("big", ("ChainOfThought", "small"))),
        [wrote(answer="4"), wrote(reasoning="hm", answer="5")],
        [wrote(answer=" 4 ")],
        mode=mode,
    )
    assert (attempt.answer, attempt.confidence) == ("4", 0.5)
    assert attempt.confidence_cost == USE + DEAR.cost(100, 20)
    assert (len(small.requests), len(big.requests)) == (2, 1)


def test_no_peer_answers():
    """One peer that fails agrees with none; all that fail leave it unknown, with the reason."""
    two = Peers(("big", ("ChainOfThought", "big")))
    attempt, _, _ = one(two, [wrote(answer="4")], [lm15.ServerError("down"), wrote(reasoning="hm", answer="4")])
    assert attempt.confidence == 0.5
    attempt, _, _ = one(two, [wrote(answer="4")], [lm15.ServerError("down")] * 2)
    assert math.isnan(attempt.confidence)
    assert "down" in str(attempt.confidence_error)


@pytest.mark.parametrize("mode", MODES)
def test_verifier(mode):
    """The judge is shown question and answer, and its word is the confidence; its call is paid as confidence."""
    attempt, _, big = one(Verifier("big"), [wrote(answer="4")], [wrote(confidence="70%")], mode=mode)
    assert (attempt.confidence, attempt.signals) == (0.7, {"verifier": 0.7})
    assert (attempt.cost, attempt.confidence_cost) == (USE + DEAR.cost(100, 20), DEAR.cost(100, 20))
    shown = big.requests[0].messages[-1].parts[0].text
    assert "[[ ## question ## ]]\nq\n" in shown
    assert "[[ ## answer ## ]]\n4\n" in shown


@pytest.mark.parametrize(("said", "value"), [("True", 1.0), ("False", 0.0)])
def test_a_verifier_with_a_signature_of_ones_own(said, value):
    """Any inputs out of the rung's, and one output: a truth value is 0 or 1."""
    attempt, _, big = one(Verifier("big", signature="answer -> right: bool"), [wrote(answer="4")], [wrote(right=said)])
    assert attempt.confidence == value
    assert "question" not in big.requests[0].messages[-1].parts[0].text


@pytest.mark.parametrize("signature", [None, "question, answer -> confidence: Confidence"])
def test_a_verifier_is_told_what_it_is_told(signature):
    """Instructions of one's own reach the judge, with our signature and with one's own."""
    source = Verifier("big", signature=signature, instructions="Units must be there.")
    attempt, _, big = one(source, [wrote(answer="4")], [wrote(confidence="0.4")])
    assert attempt.confidence == 0.4
    assert "Units must be there." in big.requests[0].system


@pytest.mark.parametrize("signature", ["answer, context -> right: bool", "question, answer -> right: bool, why"])
def test_a_verifier_that_cannot_be_asked(signature):
    """An input that no rung gives, or several outputs, are refused when the program is built."""
    with pytest.raises(BadInput, match="verifier's signature"):
        program(Verifier("big", signature=signature))


def test_a_verifier_is_shown_no_more_than_its_price_allows():
    """A long answer is cut, so that the bound of the judge's price holds."""
    _, _, big = one(Verifier("big", shown=10), [wrote(answer="é" * 500)], [wrote(confidence="0.7")])
    assert "[[ ## answer ## ]]\nééééé\n" in big.requests[0].messages[-1].parts[0].text


def test_the_bound_has_room_for_all_that_a_verifier_may_be_shown():
    """An answer that is longer than usual is judged at a price that is in the rung's bound, and the bound is tight."""
    qa, _, _ = program(Verifier("big", shown=900), [wrote(answer="x" * 2000)], [wrote(confidence="0.7")])
    with scope(budget="1.00", recorder=(journal := Journal())):
        view = qa.view(question="q")
        assert ask(qa).attempt.confidence == 0.7
    answer, judge = journal.entries()
    assert answer.held + judge.held <= view.ceilings[0] < answer.held + judge.held + DEAR.cost(200, 0)


@dataclass(frozen=True)
class Broken(Source):
    """A source with a mistake in it, before or after a call."""

    kind = name = "broken"
    after: bool = False
    value: float = math.nan

    def weigh(self, answered):
        if self.after:
            yield [Call(answered.inputs, "nobody")]
        if math.isnan(self.value):
            raise ZeroDivisionError("a mistake")
        return Reading(self.value)
        yield


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("source", "big", "error"),
    [
        (Verifier("big"), [lm15.ServerError("down")], "down"),
        (Verifier("big"), ["garbage"], "AdapterParseError"),
        (Verifier("big"), [ValueError("odd")], "odd"),
        (Broken(), [], "a mistake"),
        (Broken(after=True), [], "a mistake"),
        (Broken(value=7.0), [], "0..1 or nan"),
        (Combined((Broken(), Verbalised())), [], "a mistake"),
    ],
)
def test_whatever_fails_in_a_source_the_answer_stays(source, big, error, mode):
    """The confidence is unknown, the error is kept, told and shown; the answer is there and paid."""
    qa, _, _ = program(source, [wrote(answer="4", confidence="")], big)
    heard = []
    with scope(budget="1.00", listen=heard.append) as run:
        got = ask(qa, mode)
        assert run.purse.spent == got.cost
    assert got.answer == "4"
    assert math.isnan(got.attempt.confidence)
    assert error in repr(got.attempt.confidence_error)
    tried = next(e for e in heard if isinstance(e, events.RungTried))
    assert tried.confidence_error
    assert f"confidence unknown ({type(got.attempt.confidence_error).__name__}" in got.explain()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "source", [Verifier("big", shown=10), Peers(("big",)), Samples(3), Combined((Verifier("big"), Verbalised()))]
)
def test_a_refused_confidence_leaves_the_answer(source, mode):
    """When the money for confidence isn't there after all, the answer stays, its confidence unknown; nothing sticks."""
    said = [0.1] * 3 if isinstance(source, Samples) else [wrote(answer="42", confidence="0.9")]
    qa, _, _ = program(source, said, [wrote(confidence="0.5")])
    answer_only = Escalate("question -> answer", rungs=["small"], policy=Constant(0), gateway=qa._gateway)
    with scope():
        room = answer_only.view(question="q").ceilings[0] + 20_000
    with scope(budget=f"{room / 1e9:.9f}") as run:
        attempt = ask_rung(qa, mode)
        assert run.purse.spent == attempt.cost <= room
        assert run.purse.exhausted is None
    assert attempt.answer == "42"
    assert isinstance(attempt.confidence_error, BudgetExceeded)
    assert math.isnan(attempt.confidence) or isinstance(source, Combined)


def ask_rung(qa, mode):
    """The first rung's attempt, though the climb would find that its bound doesn't fit."""
    with dspy.context(adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
        if mode == "sync":
            return qa.attempt_sync(0, question="q")
        from escalade.scopes import require

        return asyncio.run(qa._bench(require()).aattempt(0, {"question": "q"}))


def test_a_rung_whose_confidence_is_not_affordable_is_not_tried():
    """The bound of a rung has all that its source may spend: what doesn't fit the budget with it, isn't begun."""
    plain, _, _ = program(False)
    with scope():
        room = plain.view(question="q").ceilings[0]
    for source in (Samples(3), Verifier("big"), Peers(("big",))):
        qa, small, _ = program(source)
        with pytest.raises(BudgetExceeded), scope(budget=f"{2 * room / 1e9:.9f}"):
            ask(qa)
        assert small.requests == []


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    "source",
    [
        True,
        False,
        TypedDecision(),
        Logprob(),
        Samples(3),
        Peers(("big", ("ChainOfThought", "small"))),
        Verifier("big", shown=30),
        Combined((Verbalised(), Samples(3, early=False), Verifier("big", strategy="ChainOfThought"), Peers(("big",)))),
    ],
    ids=str,
)
def test_the_bound_of_a_rung_holds_all_that_its_source_reserves(source, adapter):
    """All reservations of an attempt together stay below the bound that the policy sees, for every adapter."""
    world = World({"small": SimModel(0.6), "big": SimModel(0.9, price_in="2")}, seed=2)
    qa = Escalate(
        "question -> answer",
        rungs=["small"],
        policy=Constant(0),
        gateway=Gateway(world.as_models()),
        confidence=source,
    )
    question = world.task(1)[0].question + " ünïcödé" * 20
    with scope(budget="9.00", recorder=(journal := Journal())), dspy.context(adapter=ADAPTERS[adapter]()):
        view = qa.view(question=question)
        attempt = qa.attempt_sync(0, question=question)
    assert attempt.ok
    assert attempt.cost == sum(entry.cost for entry in journal.entries())
    assert sum(entry.held for entry in journal.entries()) <= view.ceilings[0]
    assert attempt.cost <= view.ceilings[0]
    assert 0 < view.prices[0] <= view.ceilings[0]


def test_combined_weighs_what_is_known():
    """A weighted mean of the signals that are known; each of them is kept; calls of all sources are made at once."""
    source = Combined((Verbalised(), Verifier("big"), Verifier("big", strategy="ChainOfThought")), weights=(1, 2, 1))
    attempt, _, big = one(
        source,
        [wrote(answer="4", confidence="0.8")],
        [wrote(confidence="0.5"), wrote(reasoning="hm", confidence="no idea")],
    )
    assert attempt.confidence == pytest.approx((0.8 + 2 * 0.5) / 3)
    signals = dict(attempt.signals)
    assert math.isnan(signals.pop("verifier_2"))
    assert signals == {"combined": attempt.confidence, "verbalised": 0.8, "verifier": 0.5}
    assert len(big.requests) == 2


def test_combined_asks_at_once():
    """Three judges are asked before the first has answered."""
    source = Combined((Verifier("big"), Verifier("big", signature="answer -> right: bool"), Peers(("big",))))
    qa, _, big = program(source, (), [0.5] * 3)
    with scope(budget="9.00"):
        ask(qa, "async")
    assert (len(big.requests), big.at_once) == (3, 3)


@pytest.mark.slow
def test_a_fitted_combination_beats_its_parts():
    """Two independent signals, one of them overconfident: fitted, they are calibrated and order better than either."""
    world = World({"m": SimModel(0.5, calibration="overconfident")}, seed=6)
    source = Combined((Verbalised(), Logprob("sum")))
    qa = Escalate(
        "question -> answer", rungs=["m"], policy=Constant(0), gateway=Gateway(world.as_models()), confidence=source
    )
    examples = world.task(1200, seed=8)
    with scope():
        attempts = [qa.attempt_sync(0, question=e.question) for e in examples]
    right = [world.metric(e, a.result) for e, a in zip(examples, attempts, strict=True)]
    fitted = source.fitted([a.signals for a in attempts[:800]], right[:800])
    rest, truth = attempts[800:], right[800:]
    parts = [[a.signals[label] for a in rest] for label in source.labels]
    both = [fitted.weighed(a.signals) for a in rest]
    assert ece(parts[0], truth) > 0.12
    assert ece(both, truth) < 0.06
    assert auroc(both, truth) > max(auroc(part, truth) for part in parts) + 0.02
    assert brier(both, truth) < min(brier(part, truth) for part in parts)
    assert load_saved(fitted.dump(), "source of confidence") == fitted


def test_a_fitted_combination_takes_the_usual_for_the_unknown():
    """A signal that is missing counts as the mean log-odds that it was fitted on; none at all is unknown."""
    fitted = Combined((Verbalised(), Logprob()), coefficients=(1.0, 2.0), bias=-0.5, fill=(0.3, 0.7))
    assert fitted.weighed({"verbalised": 0.5}) == pytest.approx(sigmoid(-0.5 + 2 * 0.7))
    assert fitted.weighed({"logprob": 0.5}) == pytest.approx(sigmoid(-0.5 + 0.3))
    assert math.isnan(fitted.weighed({}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "area"), [(Verifier("sage"), NormalDist().cdf(3 / math.sqrt(2))), (Verifier("fool"), 0.5)]
)
def test_the_simulated_judges_discern_as_they_are_said_to(source, area):
    """A judge that is never wrong tells right from wrong with an AUROC of Phi(3 / sqrt 2), one that always is not."""
    world = World({"m": SimModel(0.5), "sage": SimModel(1.0), "fool": SimModel(0.0)}, seed=5)
    qa = Escalate(
        "question -> answer", rungs=["m"], policy=Constant(0), gateway=Gateway(world.as_models()), confidence=source
    )
    examples = world.task(700, seed=8)
    with scope():
        attempts = [qa.attempt_sync(0, question=e.question) for e in examples]
    right = [world.metric(e, a.result) for e, a in zip(examples, attempts, strict=True)]
    assert auroc([a.confidence for a in attempts], right) == pytest.approx(area, abs=0.02)


@pytest.mark.slow
def test_simulated_log_probabilities_are_calibrated():
    """However much a model overstates in words, its log probabilities are honest: a truth to measure against."""
    world = World({"m": SimModel(0.5, calibration="overconfident")}, seed=5)
    qa = Escalate(
        "question -> answer", rungs=["m"], policy=Constant(0), gateway=Gateway(world.as_models()), confidence=Logprob()
    )
    examples = world.task(1500, seed=8)
    with scope():
        attempts = [qa.attempt_sync(0, question=e.question) for e in examples]
    right = [world.metric(e, a.result) for e, a in zip(examples, attempts, strict=True)]
    assert ece([a.confidence for a in attempts], right) < 0.04


def test_too_few_rows_for_a_combination_are_refused():
    """Sixty rows for two sources; a source that is never known is named."""
    source = Combined((Verbalised(), Logprob()))
    rows = [{"verbalised": i / 60, "logprob": 0.5} for i in range(60)]
    with pytest.raises(DataError, match="2 sources need 60 rows to be fitted, got 59"):
        source.fitted(rows[:59], [i % 2 for i in range(59)])
    with pytest.raises(DataError, match="'logprob' is unknown in all 60 rows"):
        source.fitted([{"verbalised": 0.5}] * 60, [i % 2 for i in range(60)])
    assert 0 <= source.fitted(rows, [i % 2 for i in range(60)]).weighed({"verbalised": 0.3}) <= 1


# ------------------------------------------------------------------------------------------------------ several sources


def test_a_source_for_each_rung():
    """By name or index of a rung; the others say it themselves."""
    qa, _, _ = program({0: Samples(3), "Predict/big": False}, rungs=["small", ("ChainOfThought", "small"), "big"])
    assert qa.sources == (Samples(3), Verbalised(), None)
    with pytest.raises(UnknownName, match="Predict/huge"):
        program({"Predict/huge": True})


def test_rungs_share_the_programs_of_a_source():
    """One judge for all rungs, found by DSPy: an optimiser improves it once. Another source has a judge of its own."""
    same, other = Verifier("big"), Verifier("small")
    qa, _, _ = program({0: same, 1: same, 2: other}, rungs=["small", ("ChainOfThought", "small"), "big"])
    assert [name for name, _ in qa.named_predictors()] == [
        "programs[0]",
        "programs[1].predict",
        "programs[2]",
        "judges['verifier judge']",
        "judges['verifier_2 judge']",
    ]


@pytest.mark.parametrize("given", ["high", 0.8, Samples, [True]])
def test_what_is_no_source_is_refused(given):
    """A word, a number, a class, a list."""
    with pytest.raises(BadInput, match="expected True, False or a source"):
        program(given)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Samples(1),
        lambda: Samples(3, temperature=0),
        lambda: Peers(()),
        lambda: Peers(("a", "a")),
        lambda: Verifier("big", shown=0),
        lambda: Verifier("big", signature=dspy.Signature("answer -> right: bool")),
        lambda: Logprob("median"),
        lambda: Logprob("quantile", 2),
        lambda: TypedDecision("choice"),
        lambda: Combined(()),
        lambda: Combined((Samples(2), Samples(3))),
        lambda: Combined((Verbalised(),), weights=(1, 2)),
        lambda: Combined((Verbalised(),), weights=(-1,)),
        lambda: Combined((True,)),
    ],
)
def test_sources_that_make_no_sense_are_refused(make):
    """Each mistake in a source is said when it is made."""
    with pytest.raises(BadInput):
        make()


def test_unknown_models_of_sources_are_refused_when_built():
    """A judge on a model that the gateway doesn't have."""
    with pytest.raises(UnknownName, match="huge"):
        program(Verifier("huge"))


def test_answer_carries_the_confidence_that_decided():
    """Whatever the source: `answer.confidence` is what the policy saw, calibrated; the raw value is kept."""
    qa, _, _ = program(Verifier("big"), [wrote(answer="4")], [wrote(confidence="0.9")])
    qa.calibrators["Predict/small"] = Platt(slope=0.5, bias=-1.0)
    with scope(budget="1.00"):
        got = ask(qa)
    assert got.confidence == got.attempt.confidence == Platt(0.5, -1.0)(0.9)
    assert isinstance(got.confidence, Confidence)
    assert (got.attempt.raw, got.attempt.signals) == (0.9, {"verifier": 0.9})
    assert f"confidence {got.confidence:.2f} (verifier 0.90)" in got.explain()
    assert "of it for confidence" in got.explain()


def test_refused_answer_with_a_source():
    """An attempt that is refused outright has no answer, and its source is not asked."""
    qa, small, big = program(Verifier("big"))
    with scope(budget="0.0000001", optional=True):
        attempt = ask_rung(qa, "sync")
    assert attempt.status == REFUSED
    assert small.requests == big.requests == []


@pytest.mark.parametrize("source", [Samples(5), Peers(("big", ("ChainOfThought", "big"))), Verifier("big")])
async def test_a_cancelled_question_leaves_nothing_held(source):
    """Cancelled among samples, peers or judges: every reservation is settled, none stays held."""
    samples = isinstance(source, Samples)
    qa, small, big = program(source, [30.0] * 5 if samples else [wrote(answer="4")], [30.0] * 5)
    with scope(budget="9.00", recorder=(journal := Journal())) as run:
        asked = asyncio.create_task(qa.acall(question="q"))
        while not (small if samples else big).at_once:  # noqa: ASYNC110 - a model that is asked
            await asyncio.sleep(0.01)
        assert run.purse.held > 0
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert run.purse.held == 0
        assert run.purse.spent == sum(entry.cost for entry in journal.entries())
    assert not journal.running()


@pytest.mark.parametrize("mode", MODES)
def test_a_mistake_in_one_of_several_samples_is_raised(mode):
    """A mistake in the user's program is no failed sample: it comes out as it is, and nothing stays held."""

    class Odd(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            raise ZeroDivisionError(question)

        async def aforward(self, question):
            raise ZeroDivisionError(question)

    qa, _, _ = program(Samples(3), rungs=[(Odd(), "small", "0.01")])
    with scope(budget="1.00") as run, pytest.raises(ZeroDivisionError):
        ask(qa, mode)
    assert run.purse.held == 0


def test_sources_know_nothing_of_threads():
    """A program with a drawing source serves many threads at once, each with its own samples."""
    world = World({"m": SimModel(0.9)}, seed=1)
    qa = Escalate(
        "question -> answer",
        rungs=["m"],
        policy=Constant(0),
        gateway=Gateway(world.as_models()),
        confidence=Samples(3, seed=1),
    )
    examples = world.task(12)
    with scope():
        alone = [qa(question=e.question).answer for e in examples]
        before = threading.active_count()
        got = dspy.Parallel(num_threads=6, disable_progress_bar=True)([(qa, e.inputs()) for e in examples])
    assert [g.answer for g in got] == alone
    assert threading.active_count() < before + 20


def _with_everything(world):
    source = Combined((Verbalised(), Samples(3, seed=1), Verifier("large"), Peers(("medium",))))
    return Escalate(
        "question -> answer",
        rungs=["small", ("ChainOfThought", "medium")],
        policy=Threshold(0.99),
        gateway=Gateway(world.as_models()),
        confidence={0: source},
    )


def test_optimisers_improve_rungs_and_judges_alike():
    """BootstrapFewShot gives each predictor demonstrations, those of the sources too; all of it is paid and counted."""
    world = World(seed=3)
    qa = _with_everything(world)
    with scope() as run:
        compiled = dspy.BootstrapFewShot(metric=world.metric, max_bootstrapped_demos=2, max_labeled_demos=0).compile(
            qa, trainset=world.task(12, seed=1)
        )
        assert run.purse.spent == world.cost() > 0
    assert {name: len(p.demos) for name, p in compiled.named_predictors()} == {
        "programs[0]": 2,
        "programs[1].predict": 2,
        "judges['combined verifier judge']": 2,
        "judges['combined peers Predict/medium']": 2,
    }
    assert compiled.sources == qa.sources


def test_copies_and_pickles_decide_the_same():
    """A deep copy has judges of its own and the same LMs; a pickle finds the gateway by name."""
    world = World(seed=3)
    qa = _with_everything(world)
    copied = qa.deepcopy()
    assert copied.judges["combined verifier judge"] is not qa.judges["combined verifier judge"]
    assert copied._helpers is qa._helpers
    for twin in (copied, pickle.loads(cloudpickle.dumps(qa))):
        with scope():
            for example in world.task(4, seed=1):
                assert twin(**example.inputs()).explain() == qa(**example.inputs()).explain()


def test_seeds_reach_the_provider_and_rollouts_do_not():
    """Over HTTP: temperature and seed of each sample are in its request, DSPy's rollout number isn't."""
    with FaultServer() as server:
        gateway = Gateway([Model("m", "openai/ok", LM15(api_base=server.base, api_key="k"), price=CHEAP)])
        qa = Escalate(
            "question -> answer",
            rungs=["m"],
            policy=Constant(0),
            gateway=gateway,
            confidence=Samples(3, temperature=0.7, seed=40, early=False),
        )
        with scope(budget="1.00"):
            assert ask(qa).attempt.confidence == 1.0
        bodies = [request["body"] for request in server.requests]
    assert sorted(body["seed"] for body in bodies) == [40, 41, 42]
    assert {body["temperature"] for body in bodies} == {0.7}
    assert not any("rollout_id" in body for body in bodies)
