"""No request to a model escapes: each way that DSPy has to one is governed, refused, or named here as outside.

Governed: every physical call has an entry in the journal, and the scope has paid for it to the nano-dollar. Refused:
with a model that isn't the gateway's, nothing is sent. What DSPy exports is classified below, name by name, so that a
new class of DSPy fails the last tests until somebody has looked at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import dspy
import numpy as np
import pytest
from dspy import lm15
from dspy.evaluate import CompleteAndGrounded, SemanticF1
from dspy.experimental import Noul, ReAnchor
from dspy.predict.avatar import Avatar
from dspy.propose import GroundedProposer

from escalade.agents.gateway import Gateway
from escalade.agents.transports.simulated import Simulated
from escalade.agents.world import World
from escalade.errors import ForeignModel
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from tests.agents.bare import bare_lm

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

QA = "question -> answer"
WORLD = World(seed=4)
TRAIN = WORLD.task(6, 1)
ASKED = TRAIN[0].question
Way = Callable[[Any], Any]


class Sure(dspy.Signature):
    """Say how sure one can be."""

    question: str = dspy.InputField()
    sure: Noul = dspy.OutputField(desc="is there one answer")


def look(topic: str) -> str:
    """Looks a topic up."""
    return f"nothing on {topic}"


def vectors(texts: list[str]) -> Any:
    """An embedder of one's own."""
    return np.ones((len(texts), 2), dtype=np.float32)


class Asking:
    """An interpreter of code that asks a model by every function it was given to do so."""

    def __init__(self, tools: Any = None, **_: Any) -> None:
        self.tools: dict[str, Any] = dict(tools or {})

    def start(self) -> None:
        """Nothing to start."""

    def shutdown(self) -> None:
        """Nothing to end."""

    def execute(self, code: str, variables: Any = None) -> Any:
        """Asks, whatever the code is."""
        if "llm_query" in self.tools:
            self.tools["llm_query"](ASKED)
            self.tools["llm_query_batched"]([ASKED, TRAIN[1].question])
        return dspy.FinalOutput({"answer": "42"})


def run(coroutine: Any) -> Any:
    """The result of a coroutine of ours."""
    return asyncio.run(coroutine)


# -- ways with the model around them: called with the gateway's model, and again with a foreign one


def _predict(lm: Any) -> Any:
    return dspy.Predict(QA)(question=ASKED)


def _predict_async(lm: Any) -> Any:
    return run(dspy.Predict(QA).acall(question=ASKED))


def _predict_lm(lm: Any) -> Any:
    with dspy.context(lm=None):
        return dspy.Predict(QA)(question=ASKED, lm=lm)


def _set_lm(lm: Any) -> Any:
    program = dspy.ChainOfThought(QA)
    program.set_lm(lm)
    with dspy.context(lm=None):
        return program(question=ASKED)


def _copied_program(lm: Any) -> Any:
    program = dspy.Predict(QA)
    program.set_lm(lm)
    return program.deepcopy()(question=ASKED), program.reset_copy()(question=ASKED)


def _chain_of_thought(lm: Any) -> Any:
    return dspy.ChainOfThought(QA)(question=ASKED)


def _candidates(lm: Any) -> Any:
    return dspy.Predict(QA, n=3, temperature=1.0)(question=ASKED)


def _decision(lm: Any) -> Any:
    return dspy.Predict(Sure)(question=ASKED)


def _prompt(lm: Any) -> Any:
    return lm(ASKED)


def _messages(lm: Any) -> Any:
    return lm(messages=[{"role": "user", "content": ASKED}])


def _request(lm: Any) -> Any:
    return lm(lm15.Request(model=lm.model, messages=(lm15.Message.user(ASKED),)))


def _acall(lm: Any) -> Any:
    return run(lm.acall(ASKED))


def _lm_copy(lm: Any) -> Any:
    return lm.copy(temperature=0.5)(ASKED)


def _forward(lm: Any) -> Any:
    return lm.forward(ASKED)


def _aforward(lm: Any) -> Any:
    return run(lm.aforward(ASKED))


def _replayed_history(lm: Any) -> Any:
    past = dspy.History(messages=[{"question": ASKED, "answer": "42"}])
    return dspy.Predict("history: dspy.History, question -> answer")(history=past, question=ASKED)


def _react(lm: Any) -> Any:
    return dspy.ReAct(QA, tools=[look], max_iters=2)(question=ASKED)


def _react_v2(lm: Any) -> Any:
    return dspy.ReActV2(QA, tools=[look], max_iters=2)(question=ASKED)


def _avatar(lm: Any) -> Any:
    tool = dspy.predict.avatar.Tool(tool=dspy.Tool(look), name="look", desc="Looks up.", input_type="topic")
    return Avatar(QA, [tool])(question=ASKED)


def _program_of_thought(lm: Any) -> Any:
    return dspy.ProgramOfThought(QA, max_iters=1, interpreter_factory=Asking)(question=ASKED)


def _code_act(lm: Any) -> Any:
    return dspy.CodeAct(QA, tools=[look], max_iters=1, interpreter_factory=Asking)(question=ASKED)


def _rlm(lm: Any) -> Any:
    return dspy.RLM(QA, max_iters=1, interpreter_factory=Asking)(question=ASKED)


def _rlm_sub(lm: Any) -> Any:
    return dspy.RLM(QA, max_iters=1, interpreter_factory=Asking, sub_lm=lm)(question=ASKED)


def _flex(lm: Any) -> Any:
    return dspy.Flex(dspy.Signature(QA), interpreter_factory=dspy.LocalInterpreter)(question=ASKED)


def _multi_chain(lm: Any) -> Any:
    attempts = [dspy.Prediction(reasoning="so", answer=str(n)) for n in range(3)]
    return dspy.MultiChainComparison(QA, M=3)(attempts, question=ASKED)


def _best_of_n(lm: Any) -> Any:
    return dspy.BestOfN(dspy.Predict(QA), N=3, reward_fn=lambda args, said: 0.0, threshold=1.0)(question=ASKED)


def _refine(lm: Any) -> Any:
    return dspy.Refine(dspy.Predict(QA), N=3, reward_fn=lambda args, said: 0.0, threshold=1.0)(question=ASKED)


def _parallel(lm: Any) -> Any:
    jobs = [(dspy.Predict(QA), e.inputs()) for e in TRAIN]
    return dspy.Parallel(num_threads=2, disable_progress_bar=True)(jobs)


def _batch(lm: Any) -> Any:
    return dspy.Predict(QA).batch(TRAIN, num_threads=2, disable_progress_bar=True)


def _evaluate(lm: Any) -> Any:
    return dspy.Evaluate(devset=TRAIN, metric=WORLD.metric, num_threads=2, display_progress=False)(dspy.Predict(QA))


def _streamify(lm: Any) -> Any:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")

    async def follow() -> list[Any]:
        return [part async for part in dspy.streamify(dspy.Predict(QA), [listener])(question=ASKED)]

    return run(follow())


def _asyncify(lm: Any) -> Any:
    return run(dspy.asyncify(dspy.Predict(QA))(question=ASKED))


def _syncify(lm: Any) -> Any:
    class Slow(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        async def aforward(self, question: str) -> Any:
            return await self.ask.acall(question=question)

    return dspy.syncify(Slow())(question=ASKED)


def _two_steps(lm: Any) -> Any:
    with dspy.context(adapter=dspy.TwoStepAdapter(extraction_model=lm)):
        return dspy.Predict(QA)(question=ASKED)


def _adapter(kind: Any) -> Way:
    def way(lm: Any) -> Any:
        return kind()(lm, {}, dspy.ensure_signature(QA), [], {"question": ASKED})

    return way


def _fallback(lm: Any) -> Any:
    with dspy.context(adapter=dspy.ChatAdapter()):
        return dspy.Predict("question -> answer: dict[str, list[int]]")(question=ASKED)


def _semantic_f1(lm: Any) -> Any:
    return SemanticF1()(dspy.Example(question=ASKED, response="4"), dspy.Prediction(response="5"))


def _grounded(lm: Any) -> Any:
    gold = dspy.Example(question=ASKED, response="4")
    return CompleteAndGrounded()(gold, dspy.Prediction(response="5", context="six"))


def _knn_few_shot(lm: Any) -> Any:
    few = dspy.KNNFewShot(k=2, trainset=TRAIN, vectorizer=dspy.Embedder(vectors, caching=False), metric=WORLD.metric)
    return few.compile(dspy.Predict(QA))(question=ASKED)


def _ensemble(lm: Any) -> Any:
    return dspy.Ensemble(reduce_fn=dspy.majority).compile([dspy.Predict(QA), dspy.ChainOfThought(QA)])(question=ASKED)


def _labelled(lm: Any) -> Any:
    return dspy.LabeledFewShot(k=2).compile(dspy.Predict(QA), trainset=TRAIN)(question=ASKED)


def _trace_data(lm: Any) -> Any:
    return dspy.bootstrap_trace_data(dspy.Predict(QA), TRAIN, metric=WORLD.metric, num_threads=1)


def _bootstrap(lm: Any) -> Any:
    return dspy.BootstrapFewShot(metric=WORLD.metric).compile(dspy.Predict(QA), trainset=TRAIN)


def _teacher(lm: Any) -> Any:
    few = dspy.BootstrapFewShot(metric=WORLD.metric, teacher_settings={"lm": lm})
    return few.compile(dspy.Predict(QA), teacher=dspy.Predict(QA), trainset=TRAIN)


def _random_search(lm: Any) -> Any:
    search = dspy.BootstrapFewShotWithRandomSearch(metric=WORLD.metric, num_candidate_programs=1, num_threads=1)
    return search.compile(dspy.Predict(QA), trainset=TRAIN)


def _optuna(lm: Any) -> Any:
    search = dspy.BootstrapFewShotWithOptuna(metric=WORLD.metric, num_candidate_programs=1, num_threads=1)
    return search.compile(dspy.Predict(QA), trainset=TRAIN, max_demos=2)


def _copro(lm: Any) -> Any:
    eval_kwargs = {"num_threads": 1, "display_progress": False}
    tuned = dspy.COPRO(metric=WORLD.metric, prompt_model=lm, breadth=2, depth=1)
    return tuned.compile(dspy.Predict(QA), trainset=TRAIN, eval_kwargs=eval_kwargs)


def _mipro(lm: Any) -> Any:
    options: dict[str, Any] = {"auto": None, "num_candidates": 2, "num_threads": 1, "verbose": False}
    tuned = dspy.MIPROv2(metric=WORLD.metric, prompt_model=lm, task_model=lm, teacher_settings={"lm": lm}, **options)
    return tuned.compile(dspy.Predict(QA), trainset=TRAIN, valset=TRAIN, num_trials=1, minibatch=False)


def _gepa(lm: Any) -> Any:
    tuned = dspy.GEPA(metric=WORLD.feedback, max_metric_calls=20, reflection_lm=lm, num_threads=1)
    return tuned.compile(dspy.Predict(QA), trainset=TRAIN, valset=TRAIN)


def _simba(lm: Any) -> Any:
    tuned = dspy.SIMBA(metric=WORLD.metric, bsize=4, num_candidates=2, max_steps=1, prompt_model=lm, num_threads=1)
    return tuned.compile(dspy.Predict(QA), trainset=TRAIN)


def _infer_rules(lm: Any) -> Any:
    tuned = dspy.InferRules(num_candidates=1, num_rules=2, num_threads=1, metric=WORLD.metric)
    return tuned.compile(dspy.Predict(QA), trainset=TRAIN, valset=TRAIN)


def _better_together(lm: Any) -> Any:
    program = dspy.Predict(QA)
    program.set_lm(lm)
    tuned = dspy.BetterTogether(metric=WORLD.metric, p=dspy.BootstrapFewShot(metric=WORLD.metric))
    return tuned.compile(program, trainset=TRAIN, valset=TRAIN, strategy="p", num_threads=1)


def _finetune(lm: Any) -> Any:
    program = dspy.Predict(QA)
    program.set_lm(lm)
    return dspy.BootstrapFinetune(metric=WORLD.metric, num_threads=1).compile(program, trainset=TRAIN)


def _reanchor(lm: Any) -> Any:
    program = dspy.Predict(Sure)
    tuned = ReAnchor(lambda example, said, trace=None: 1.0, num_threads=1, require_cache=False)
    return tuned.compile(program, trainset=TRAIN)


def _avatar_optimizer(lm: Any) -> Any:
    tool = dspy.predict.avatar.Tool(tool=dspy.Tool(look), name="look", desc="Looks up.", input_type="topic")
    tuned = dspy.AvatarOptimizer(metric=WORLD.metric, max_iters=1)
    return tuned.compile(Avatar(QA, [tool]), trainset=TRAIN)


def _proposer(lm: Any) -> Any:
    proposer = GroundedProposer(lm, dspy.Predict(QA), TRAIN, program_aware=False, use_dataset_summary=True)
    return proposer.propose_instruction_for_predictor(dspy.Predict(QA), 0, {}, 0, 1.0, [], [])


WAYS: dict[str, Way] = {
    name.removeprefix("_"): way
    for name, way in list(globals().items())
    if name.startswith("_") and inspect.isfunction(way) and [*inspect.signature(way).parameters] == ["lm"]
} | {kind.__name__: _adapter(kind) for kind in (dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter)}

BROKEN = {"avatar", "avatar_optimizer"}
"""They ask nobody: they need `dspy.TypedPredictor`, which DSPy 3.4 doesn't have."""


def carried_out(way: Way, lm: Any, around: Any) -> BaseException | None:
    """Go the way; what it raises in the end is DSPy's affair."""
    try:
        with dspy.context(lm=around):
            way(lm)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("name", WAYS)
def test_through_the_gateway_each_call_is_recorded_and_paid(name):
    """As many entries as calls, and the scope has spent just what the provider bills."""
    world = World(seed=4)
    lm, journal = Gateway(world.as_models()).lm("small"), Journal()
    with scope(budget="5.00", recorder=journal) as run_:
        carried_out(WAYS[name], lm, lm)
        assert run_.purse.held == 0
    calls = sum(world.calls.values())
    assert (calls == 0) == (name in BROKEN)
    assert len(journal.entries()) == calls
    assert run_.spent == journal.settled == world.cost()


@pytest.mark.parametrize("name", WAYS)
def test_a_foreign_model_is_never_asked(name):
    """With a model that was made by hand, nothing is sent: inside of a scope it is refused wherever it turns up."""
    world = World(seed=4)
    with scope(), contextlib.suppress(ForeignModel):
        foreign = bare_lm(Simulated(world), "small")
        carried_out(WAYS[name], foreign, foreign)
    assert sum(world.calls.values()) == 0


HELPERS = ["two_steps", "rlm_sub", "teacher", "copro", "mipro", "gepa", "simba", "better_together", "proposer"]
"""Ways that take a second model beside the one around them."""


@pytest.mark.parametrize("name", [*HELPERS, "predict_lm", "set_lm"])
def test_a_foreign_second_model_is_never_asked(name):
    """The model around is the gateway's, the one handed in isn't: that one gets nothing, the other is paid."""
    world, outside, journal = World(seed=4), World(seed=4), Journal()
    governed = Gateway(world.as_models()).lm("small")
    with scope(budget="5.00", recorder=journal) as run_:
        carried_out(WAYS[name], bare_lm(Simulated(outside), "small"), governed)
    assert sum(outside.calls.values()) == 0
    assert len(journal.entries()) == sum(world.calls.values())
    assert run_.spent == world.cost()


@pytest.mark.parametrize("name", ["predict", "prompt", "batch", "predict_async", "gepa"])
def test_without_a_scope_nothing_is_asked(name):
    """The gateway's own model refuses where nobody pays."""
    world = World(seed=4)
    lm = Gateway(world.as_models()).lm("small")
    carried_out(WAYS[name], lm, lm)
    assert sum(world.calls.values()) == 0


def test_the_ways_ask_a_foreign_model_outside_of_scopes():
    """The tests above can fail: the same ways do reach the same model where no scope is open."""
    for name in ("predict", "request", "best_of_n", "gepa", "two_steps"):
        world = World(seed=4)
        lm = bare_lm(Simulated(world), "small")
        carried_out(WAYS[name], lm, lm)
        assert sum(world.calls.values()) > 0, name


@pytest.mark.parametrize("embedder", ["openai/small", "cohere/embed"])
def test_embedders_of_providers_are_refused(embedder):
    """By hand, in a nearest-neighbour search and in an index: no vector is bought past the gateway."""
    hosted = dspy.Embedder(embedder, caching=False)
    for use in (
        lambda: hosted(["a"]),
        lambda: asyncio.run(hosted.acall(["a"])),
        lambda: dspy.KNN(k=1, trainset=TRAIN, vectorizer=hosted),
        lambda: dspy.Embeddings(corpus=["a", "b"], embedder=hosted, k=1),
    ):
        with scope(), pytest.raises(ForeignModel):
            use()


# -- what is outside, and why


def test_what_is_outside_of_the_wall():
    """Known, and said in `registry/wall.py`: what doesn't pass through DSPy's own call of a model isn't seen."""
    world = World(seed=4)
    foreign = bare_lm(Simulated(world), "small")
    request = lm15.Request(model="small", messages=(lm15.Message.user(ASKED),))
    with scope(budget="1.00") as run_:
        foreign._engine_spec.complete(request)
        assert run_.spent == 0
    assert sum(world.calls.values()) == 1


def test_the_dummy_model_is_foreign():
    """DSPy's model for tests is refused in a scope as any other is: nothing pays for it."""
    with scope(), pytest.raises(ForeignModel):
        dspy.utils.DummyLM([{"answer": "42"}])(ASKED)


# -- what DSPy exports

ROOMS = (
    "dspy",
    "dspy.predict",
    "dspy.teleprompt",
    "dspy.clients",
    "dspy.retrievers",
    "dspy.evaluate",
    "dspy.propose",
    "dspy.streaming",
    "dspy.adapters",
    "dspy.experimental",
    "dspy.utils",
    "dspy.primitives",
    "dspy.signatures",
    "dspy.datasets",
)

TESTED: dict[str, tuple[str, ...]] = {
    "Adapter": ("ChatAdapter", "JSONAdapter", "XMLAdapter"),
    "Avatar": ("avatar",),
    "AvatarOptimizer": ("avatar_optimizer",),
    "BaseLM": ("prompt", "messages", "request", "acall", "lm_copy", "forward", "aforward"),
    "BestOfN": ("best_of_n",),
    "BetterTogether": ("better_together",),
    "BootstrapFewShot": ("bootstrap", "teacher"),
    "BootstrapFewShotWithOptuna": ("optuna",),
    "BootstrapFewShotWithRandomSearch": ("random_search",),
    "BootstrapFinetune": ("finetune",),
    "BootstrapRS": ("random_search",),
    "COPRO": ("copro",),
    "ChainOfThought": ("chain_of_thought",),
    "ChatAdapter": ("ChatAdapter", "fallback"),
    "CodeAct": ("code_act",),
    "CompleteAndGrounded": ("grounded",),
    "Ensemble": ("ensemble",),
    "Evaluate": ("evaluate",),
    "Flex": ("flex",),
    "GEPA": ("gepa",),
    "GroundedProposer": ("proposer",),
    "History": ("replayed_history",),
    "InferRules": ("infer_rules",),
    "JSONAdapter": ("JSONAdapter",),
    "KNNFewShot": ("knn_few_shot",),
    "LM": ("prompt", "messages", "request", "acall", "lm_copy", "forward", "aforward"),
    "LabeledFewShot": ("labelled",),
    "LocalInterpreter": ("flex",),
    "MIPROv2": ("mipro",),
    "Module": ("batch", "set_lm", "copied_program"),
    "MultiChainComparison": ("multi_chain",),
    "Noul": ("decision",),
    "Parallel": ("parallel",),
    "Predict": ("predict", "predict_async", "predict_lm", "candidates"),
    "ProgramOfThought": ("program_of_thought",),
    "RLM": ("rlm", "rlm_sub"),
    "ReAct": ("react",),
    "ReActV2": ("react_v2",),
    "ReAnchor": ("reanchor",),
    "Refine": ("refine",),
    "SIMBA": ("simba",),
    "SemanticF1": ("semantic_f1",),
    "StreamListener": ("streamify",),
    "TwoStepAdapter": ("two_steps",),
    "XMLAdapter": ("XMLAdapter",),
    "asyncify": ("asyncify",),
    "bootstrap_trace_data": ("trace_data",),
    "context": ("predict",),
    "streamify": ("streamify",),
    "syncify": ("syncify",),
}
"""Name in DSPy -> the ways above that take it."""

REFUSED = {"Embedder", "Embeddings", "EmbeddingsWithScores", "KNN", "TypeSafe"}
"""With a provider's model they are refused: `test_embedders_of_providers_are_refused` and `registry/test_wall.py`."""

OUTSIDE = {
    "ColBERTv2": "asks a server of passages, which is no model and has no price; make it a tool to govern it",
    "DummyLM": "a model for tests that answers itself; refused in a scope like any foreign model",
    "HotPotQA": "downloads a data set",
    "MATH": "downloads a data set",
    "Provider": "starts trainings and servers: BootstrapFinetune of a governed model has none, and is refused by DSPy",
    "PythonInterpreter": "runs code without a network; what that asks of models goes through RLM's functions",
    "Retrieve": "calls the retriever in `dspy.settings.rm`, which is a function of one's own",
    "TrainingJob": "of a Provider",
    "download": "fetches a file",
}
"""Reaches something that isn't a model, or reaches none of a provider's."""

ASKS_NOBODY = {
    "Audio",
    "BaseCallback",
    "BaseModule",
    "Choice",
    "Citations",
    "Code",
    "CodeInterpreter",
    "Colors",
    "Completions",
    "DataLoader",
    "Dataset",
    "Document",
    "DummyVectorizer",
    "EM",
    "EvaluationResult",
    "Example",
    "File",
    "FinalOutput",
    "Image",
    "InputField",
    "OldField",
    "OldInputField",
    "OldOutputField",
    "OutputField",
    "Prediction",
    "Reasoning",
    "SandboxSerializable",
    "Score",
    "Signature",
    "SignatureMeta",
    "StatusMessage",
    "StatusMessageProvider",
    "StreamResponse",
    "Tool",
    "ToolCallResults",
    "ToolCalls",
    "Type",
    "answer_exact_match",
    "answer_passage_match",
    "apply_sync_streaming",
    "configure",
    "configure_cache",
    "configure_dspy_loggers",
    "disable_litellm_logging",
    "disable_logging",
    "dummy_rm",
    "enable_litellm_logging",
    "enable_logging",
    "ensure_signature",
    "experimental",
    "infer_prefix",
    "inspect_history",
    "is_retryable_lm_error",
    "load",
    "load_settings",
    "majority",
    "make_signature",
    "normalize_text",
    "pretty_print_history",
    "resolve_interpreter_factory",
    "streaming_response",
    "track_usage",
    "with_callbacks",
}
"""Data, signatures, settings and helpers."""


def exported() -> set[str]:
    """Classes and functions of DSPy's own that its rooms export; exceptions left out."""
    names = set()
    for room in map(importlib.import_module, ROOMS):
        for name in getattr(room, "__all__", None) or vars(room):
            value = getattr(room, name)
            ours = callable(value) and str(getattr(value, "__module__", "")).startswith("dspy")
            error = isinstance(value, type) and issubclass(value, BaseException)
            if ours and not error and not name.startswith("_"):
                names.add(name)
    return names


def test_each_name_of_dspy_is_classified_once():
    """A class or function that DSPy exports is tested above, refused, outside for a reason, or asks nobody."""
    known = [set(TESTED), REFUSED, set(OUTSIDE), ASKS_NOBODY]
    assert exported() - set().union(*known) == set(), "new in DSPy: does it reach a model? Then test the way it does."
    assert sum(map(len, known)) == len(set().union(*known))
    assert set().union(*known) - exported() <= {"Avatar"}, "gone from DSPy"


def test_each_way_is_of_some_name():
    """Names and ways fit together: no name without its way, no way without a name."""
    assert {way for ways in TESTED.values() for way in ways} == set(WAYS)


def test_rooms_of_dspy_are_known():
    """A new package in DSPy has to be looked at as well."""
    found = {f"dspy.{module.name}" for module in pkgutil.iter_modules(dspy.__path__) if module.ispkg}
    inside = {"dspy.core", "dspy.dsp", "dspy._vendor"}
    assert found - inside == set(ROOMS) - {"dspy"}


def descendants(kind: type) -> set[type]:
    """All classes below it."""
    below = set(kind.__subclasses__())
    return below.union(*(descendants(one) for one in below))


def test_no_kind_of_model_module_or_adapter_hides():
    """What DSPy makes of its own base classes, exported or not: programs are made of tested ones, models are known."""
    teleprompter = dspy.teleprompt.teleprompt.Teleprompter
    kinds = (dspy.BaseLM, dspy.Adapter, dspy.Embedder, teleprompter)
    found = {one.__name__ for kind in kinds for one in descendants(kind) if one.__module__.startswith("dspy.")}
    assert found <= set(TESTED) | REFUSED | set(OUTSIDE) | INTERNAL


INTERNAL = {"FinetuneTeleprompter", "SandboxLM"}
"""A base of optimisers that are tested; the model around it as Flex and RLM hand it to the code that they run."""


def test_engines_by_hand_are_known():
    """lm15's clients send when they are called by hand, as litellm does, without DSPy: outside. These are all."""
    verbs = ("complete", "stream", "acomplete", "astream")
    clients = {name for name in lm15.__all__ if isinstance(getattr(lm15, name), type)} - {"EndpointSupport"}
    assert {name for name in clients if any(hasattr(getattr(lm15, name), verb) for verb in verbs)} == CLIENTS


CLIENTS = {
    *("AnthropicLM", "ClaudeCodeLM", "GeminiLM", "LMRouter", "OpenAIChatLM", "OpenAICodexLM", "OpenAILM"),
    *("ProviderLM", "TypeSafeLM", "XaiLM", "AsyncAnthropicLM", "AsyncClaudeCodeLM", "AsyncGeminiLM"),
    *("AsyncLMRouter", "AsyncOpenAIChatLM", "AsyncOpenAICodexLM", "AsyncOpenAILM", "AsyncTypeSafeLM", "AsyncXaiLM"),
}
"""Who calls them by hand bypasses DSPy and this library: there is nothing to stop it with but a firewall."""
