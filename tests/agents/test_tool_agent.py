"""Tool agents: the loop on governed tools, money, refusals, loops, parallel calls."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
import time

import dspy
import pytest
from dspy import lm15
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade.agents._route import Retry
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Constant, Threshold
from escalade.agents.tool_agent import ToolAgent
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, NoScope, ScopeClosed, UnknownName
from escalade.money import Money
from escalade.registry.access import Roles
from escalade.registry.catalogue import Registry
from escalade.registry.prices import Price
from escalade.registry.tools import tool
from escalade.scopes import Principal
from tests.agents.calling import TOKENS, ByQuestion, Calling, done, fields, wants

PRICE = Price.of("0.10", "0.40")
CALL = int(PRICE.cost(*TOKENS))
MODES = ("sync", "async")


@tool(name="db.read", side_effects="read", cost="0.001")
def read(key: str) -> str:
    """The value of a key."""
    if key == "broken":
        raise RuntimeError("disk on fire\nat /secret/path.py")
    return f"value of {key}"


@tool(name="db.write", side_effects="write")
def write(key: str, value: str) -> str:
    """Sets a key."""
    return f"{key} is {value}"


def setup(script, *, tools=("db.read", "db.write"), more=(), **options):
    """An agent over a scripted model, and its transport."""
    transport = Calling(script)
    gateway = Gateway([Model("m", "sim/m", transport, price=PRICE, max_output=100)], retry=Retry(retries=0))
    registry = Registry([read, write, *more])
    options = {"model": "m", "registry": registry, "gateway": gateway, "signature": "question -> answer", **options}
    return ToolAgent(tools=list(tools), **options), transport


def model_of(agent):
    """The model that it is set to."""
    return agent._lm._engine_spec.gateway.model(agent.model)


def ask(agent, mode="sync", **inputs):
    """Call it, sync or async."""
    inputs = inputs or {"question": "q"}
    return agent(**inputs) if mode == "sync" else asyncio.run(agent.acall(**inputs))


SCRIPTS = {
    "text": [wants("db_read", key="a"), wants("db_write", key="b", value="1"), *done("42")],
    "native": [[("db_read", {"key": "a"}), ("db_write", {"key": "b", "value": "1"})], [("submit", {"answer": "42"})]],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("style", SCRIPTS)
def test_answers_with_tools(style, mode):
    """It uses tools, sees what they answer, and answers; the trajectory and the cost say all of it."""
    agent, model = setup(SCRIPTS[style], style=style)
    with escalade.scope(budget="1.00") as run:
        got = ask(agent, mode)
        assert got.cost == run.spent == len(model.requests) * CALL + Money.of("0.001")
    assert (got.answer, got.ended) == ("42", "finished")
    used = [one for step in got.steps for one in step.calls]
    assert [(one.tool, one.observation, one.error) for one in used] == [
        ("db.read@1.0.0", "value of a", ""),
        ("db.write@1.0.0", "b is 1", ""),
    ]
    assert [one.cost for one in used] == [Money.of("0.001"), 0]
    assert sum(step.cost for step in got.steps) == len(got.steps) * CALL
    assert got.trajectory["observation_0"] == "value of a"
    assert "value of a" in str(model.requests[1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("style", SCRIPTS)
def test_refused_tool_is_one_line(style, mode):
    """A tool that one may not use is unknown, a failing one is a line without paths; both stand in `refusals`."""
    bad = [("db_write", {"key": "k", "value": "v"}), ("db_read", {"key": "broken"}), ("nope", {})]
    script = [wants(name, **args) for name, args in bad[:2]] + done("x") if style == "text" else [
        bad, [("submit", {"answer": "x"})]
    ]  # fmt: skip
    agent, _ = setup(script, style=style)
    reader = Roles({"reader": ["db.read:call", "model.*:call"]})
    with escalade.scope(principal=Principal("ann", "acme", frozenset({"reader"})), access=reader):
        got = ask(agent, mode)
    lines = [one.observation for one in got.refusals]
    assert lines[0].startswith("unknown_tool: Unknown tool: db_write")
    assert lines[1].startswith("tool_failed: RuntimeError: disk on fire")
    assert all("\n" not in line and "/secret" not in line for line in lines)
    if style == "native":
        assert lines[2].startswith("unknown_tool: Unknown tool: nope")
    assert got.answer == "x"


@pytest.mark.parametrize("style", SCRIPTS)
def test_the_same_call_again_ends_the_loop(style):
    """Twice the same call is made, the third time the model is told, the fourth time the agent answers."""
    one = wants("db_read", key="a") if style == "text" else [("db_read", {"key": "a"})]
    end = fields(reasoning="r", answer="enough") if style == "text" else [("submit", {"answer": "enough"})]
    agent, _ = setup([one, one, one, one, end], style=style, max_steps=20)
    with escalade.scope() as run:
        got = ask(agent)
    calls = [used for step in got.steps for used in step.calls]
    assert [used.error for used in calls] == ["", "", "repeated_call", "repeated_call"]
    assert run.spent == 5 * CALL + 2 * Money.of("0.001")
    assert (got.ended, got.answer) == ("loop", "enough")


def test_cycles_are_loops_too():
    """A, B, A, B, … is found as well as A, A, A."""
    turns = [wants("db_read", key=key) for key in "abababab"]
    agent, _ = setup([*turns[:7], fields(reasoning="r", answer="x")], max_steps=20)
    with escalade.scope():
        assert ask(agent).ended == "loop"


@pytest.mark.parametrize("style", SCRIPTS)
def test_answers_when_steps_run_out(style):
    """After `max_steps` turns it has to answer with what it has."""
    turn = (lambda k: wants("db_read", key=str(k))) if style == "text" else (lambda k: [("db_read", {"key": str(k)})])
    end = fields(reasoning="r", answer="best guess") if style == "text" else [("submit", {"answer": "best guess"})]
    agent, model = setup([turn(0), turn(1), end], style=style, max_steps=2)
    with escalade.scope():
        got = ask(agent)
    assert (got.ended, got.answer, len(model.requests)) == ("max_steps", "best guess", 3)
    if style == "native":
        assert model.requests[-1].config.tool_choice.mode == "required"


@pytest.mark.parametrize("mode", MODES)
def test_reads_of_one_turn_run_at_once_and_writes_in_turn(mode):
    """Calls that read run side by side; one that writes waits for them, and they for it; results keep their order."""
    running, most, order, lock = 0, 0, [], threading.Lock()

    @tool(side_effects="read")
    def slow(n: int) -> str:
        """Takes a while."""
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05 * (3 - n % 3))
        with lock:
            running -= 1
            order.append(n)
        return f"read {n}"

    @tool(side_effects="write")
    def change(n: int) -> str:
        """Writes."""
        order.append(n)
        assert running == 0
        return f"wrote {n}"

    calls = [("slow", {"n": 0}), ("slow", {"n": 1}), ("change", {"n": 2}), ("slow", {"n": 3})]
    agent, _ = setup(
        [calls, [("submit", {"answer": "ok"})]], tools=["slow", "change"], more=(slow, change), style="native"
    )
    with escalade.scope():
        got = ask(agent, mode)
    assert [used.observation for used in got.steps[0].calls] == ["read 0", "read 1", "wrote 2", "read 3"]
    assert most == 2
    assert order == [1, 0, 2, 3]


def test_too_many_calls_in_a_turn_are_not_made():
    """Four calls a turn are made, the rest is told off; so the bound of a turn holds."""
    calls = [("db_read", {"key": str(n)}) for n in range(6)]
    agent, _ = setup([calls, [("submit", {"answer": "ok"})]], style="native")
    with escalade.scope() as run:
        got = ask(agent)
        assert run.spent == 2 * CALL + 4 * Money.of("0.001")
    assert [used.error for used in got.steps[0].calls] == [*[""] * 4, "too_many_calls", "too_many_calls"]


@settings(max_examples=60)
@given(micros=st.integers(0, 9_000), mode=st.sampled_from(MODES))
def test_keeps_enough_for_its_answer(micros, mode):
    """However little it may spend: an agent that began with a turn can pay for its answer, whatever its tools cost."""
    turns = [wants("db_read", key=str(k)) for k in range(7)]
    transport = Calling()
    transport._next = lambda request: _reply(transport, request, turns)
    gateway = Gateway([Model("m", "sim/m", transport, price=PRICE, max_output=100)], retry=Retry(retries=0))
    agent = ToolAgent(
        "question -> answer", tools=["db.read"], registry=Registry([read]), gateway=gateway, model="m", shown=100
    )
    budget = Money(micros * 1_000)
    with contextlib.suppress(BudgetExceeded), escalade.scope(budget=budget) as run:
        try:
            got = ask(agent, mode)
        except BudgetExceeded:
            assert transport.requests == []
            raise
        assert got.answer == "so far"
        assert got.ended in {"budget", "finished"}
        assert got.cost == run.spent <= budget
    assert run.purse.held == 0


def _reply(transport, request, turns):
    """The next turn; the answer to whoever asks for that."""
    text = "".join(part.text for part in request.messages[-1].parts)
    transport.requests.append(request)
    asked = len(transport.requests) - 1
    transport._item = None
    if "`[[ ## reasoning ## ]]`" in text:
        return fields(reasoning="r", answer="so far")
    return turns[asked] if asked < len(turns) else wants("finish")


@pytest.mark.parametrize("mode", MODES)
def test_refused_tool_money_is_told_or_raised(mode):
    """A tool that doesn't fit the budget: the model is told to finish, or BudgetExceeded is raised, as it was set."""

    @tool(side_effects="read", cost="0.90")
    def dear(key: str) -> str:
        """Costs a lot."""
        return key

    script = [wants("dear", key="a"), *done("without")]
    agent, _ = setup(script, tools=["dear"], more=(dear,))
    with escalade.scope(budget="0.50"):
        got = ask(agent, mode)
    assert got.refusals[0].observation.startswith("budget_exceeded: ")
    assert got.answer == "without"

    strict, model = setup(script, tools=["dear"], more=(dear,), on_budget="raise")
    with pytest.raises(BudgetExceeded), escalade.scope(budget="0.50"):
        ask(strict, mode)
    assert len(model.requests) == 1


def test_own_budget_holds():
    """An agent's own budget is a limit even where its scope has none, and no answer is BudgetExceeded, which sticks."""
    agent, model = setup([], budget="0.0000001")
    with pytest.raises(BudgetExceeded), escalade.scope() as run:
        with pytest.raises(BudgetExceeded):
            agent(question="q")
    assert (run.spent, model.requests) == (0, [])


def test_deadline_ends_it():
    """A call that takes longer than the agent may ends in DeadlineExceeded, whatever step it is at."""

    @tool(side_effects="read")
    async def sleepy(key: str) -> str:
        """Takes its time."""
        await asyncio.sleep(5)
        return key

    with escalade.scope():
        for mode in MODES:
            agent, _ = setup([wants("sleepy", key="a"), *done("x")], tools=["sleepy"], more=(sleepy,), deadline=0.2)
            began = time.perf_counter()
            with pytest.raises(DeadlineExceeded):
                ask(agent, mode)
            assert time.perf_counter() - began < 4, "the tool takes 5 s"


def test_needs_a_scope():
    """Without a scope nothing is asked; in one that has ended neither."""
    agent, model = setup([])
    with pytest.raises(NoScope):
        agent(question="q")
    with escalade.scope() as run:
        pass
    with dspy.context(escalade=run), pytest.raises(ScopeClosed):
        agent(question="q")
    assert model.requests == []


def test_bad_input_is_told():
    """Each mistake names the thing and says what was expected."""
    agent, _ = setup([])
    with escalade.scope():
        with pytest.raises(UnknownName, match="unknown input 'questoin'; did you mean 'question'"):
            agent(questoin="q")
        with pytest.raises(BadInput, match="needs question"):
            agent()
    for wrong in (
        {"tools": "db.read"}, {"tools": [print]}, {"tools": ["db.read", "db.read"]}, {"tools": ["db.raed"]},
        {"style": "xml"}, {"max_steps": 0}, {"deadline": 0}, {"on_budget": "maybe"}, {"repeats": 0}, {"shown": 1},
        {"model": "nope"}, {"signature": "question, trajectory -> answer"},
        {"signature": "q -> history", "style": "native"},
        {"signature": "conversation, h: dspy.History -> answer"}, {"model": None}, {"budget": 0.5}, {"budget": "-1"},
    ):  # fmt: skip
        with pytest.raises(BadInput):
            setup([], **wrong)


def test_an_input_may_be_called_tools():
    """In text the name is free; what such an input says is no tool."""
    agent, _ = setup(SCRIPTS["text"], signature="question, tools -> answer")
    with escalade.scope(budget="1.00"):
        assert agent(question="q", tools="a hammer").answer == "42"


class Counting(dspy.ChatAdapter):
    """DSPy's own, which counts the prompts that it writes."""

    written = 0

    def format(self, *args, **options):
        """As it is, counted."""
        self.written += 1
        return super().format(*args, **options)


def test_bounds_render_a_prompt_once_a_turn_at_most():
    """What doesn't change from one question to the next is rendered once: then each turn's prompt is written for the
    model, and once more for the bounds where it has steps; a tool that says something else is rendered again.
    """
    agent, _ = setup(SCRIPTS["native"] * 2, style="native")
    adapter, bounds = Counting(use_native_function_calling=True), []
    with escalade.scope(budget="1.00"), dspy.context(adapter=adapter):
        bounds.append(agent.bill(model_of(agent), {"question": "q"})[1])
        assert adapter.written == 1
        ask(agent)
        ask(agent, question="another one")
        assert adapter.written == 1 + 2 * (2 + 1)
        agent.tools["db_read"].desc += " It looks into all tables."
        bounds += [agent.bill(model_of(agent), {"question": question})[1] for question in ("q", "q" * 100)]
        assert adapter.written == 8
    assert bounds == sorted(set(bounds))
    fresh, _ = setup([], style="native")
    fresh.tools["db_read"].desc += " It looks into all tables."
    assert fresh.bill(model_of(fresh), {"question": "q" * 100})[1] == bounds[-1]


def test_versions_are_decided_once_a_run():
    """A name means one version within a run, though a newer one is registered meanwhile; the next run has that."""
    agent, _ = setup(
        [wants("db_read", key="a"), wants("db_read", key="b"), *done("x"), wants("db_read", key="a"), *done("y")]
    )
    registry = agent._registry.registry

    @tool(name="db.read", version="1.1.0", side_effects="read", cost="0.001")
    def newer(key: str) -> str:
        """The value of a key."""
        return f"newer {key}"

    with escalade.scope(listen=lambda event: "db.read@1.1.0" in registry._shelf.tools or None):
        assert registry.resolve("db.read").spec.version == "1.0.0"
        registry.register(newer)
        got = agent(question="q")
    assert [used.tool for step in got.steps for used in step.calls] == ["db.read@1.0.0", "db.read@1.0.0"]
    with escalade.scope():
        again = agent(question="q")
    assert [used.tool for step in again.steps for used in step.calls] == ["db.read@1.1.0"]


@pytest.mark.parametrize("style", SCRIPTS)
def test_stands_on_a_rung(style):
    """On a rung of Escalate it uses the rung's model, has a known bound, and never costs more than it."""
    agent, model = setup([fields(answer="?", confidence="0.1"), *SCRIPTS[style]], style=style, model=None, gateway=None)
    gateway = Gateway([Model("m", "sim/m", model, price=PRICE, max_output=100)], retry=Retry(retries=0))
    qa = escalade.Escalate(
        "question -> answer", rungs=["m", (agent, "m")], policy=Threshold(0.8), gateway=gateway, confidence={1: False}
    )
    with escalade.scope(budget="1.00") as run:
        view = qa.view(question="q")
        got = qa(question="q")
    assert got.answer == "42"
    assert got.rung.name == "ToolAgent/m"
    assert got.cost == run.spent <= view.ceilings[1]
    assert got.attempt.result.steps[0].calls[0].tool == "db.read@1.0.0"
    with pytest.raises(BudgetExceeded):
        with escalade.scope(budget="0.0002"):
            escalade.Escalate("question -> answer", rungs=[(agent, "m")], policy=Constant(0), gateway=gateway)(
                question="q"
            )


def test_a_rung_of_another_model_is_told():
    """An agent with a model of its own on a rung with another one is a mistake: its bound would be of the wrong one."""
    agent, model = setup([])
    gateway = Gateway([Model("n", "sim/n", model, price=PRICE)])
    qa = escalade.Escalate("question -> answer", rungs=[(agent, "n")], policy=Constant(0), gateway=gateway)
    with escalade.scope(budget="1"), pytest.raises(BadInput, match="leave its model= out"):
        qa(question="q")


def test_unknown_prices_have_no_bound():
    """With an unpriced tool or model the bound is unknown, and refused under a budget."""

    @tool(side_effects="read", cost=None)
    def mystery(key: str) -> str:
        """Costs who knows."""
        return key

    agent, _ = setup([], tools=["mystery"], more=(mystery,))
    assert agent.bill(model_of(agent), {"question": "q"}) == (None, None)


@settings(max_examples=30)
@given(
    steps=st.integers(1, 4),
    style=st.sampled_from(["text", "native"]),
    result=st.integers(0, 3_000),
    question=st.text(min_size=1, max_size=200),
)
def test_the_bound_is_one(steps, style, result, question):
    """Whatever tools answer, however many steps it takes: reservations and costs stay within the bound."""
    held = []

    @tool(side_effects="read", cost="0.0001")
    def talk(key: str) -> str:
        """Says a lot."""
        return "é" * result

    turns = [wants("talk", key=str(k)) if style == "text" else [("talk", {"key": str(k)})] for k in range(steps)]
    end = [fields(reasoning="r", answer="x")] if style == "text" else [[("submit", {"answer": "x"})]]
    agent, _ = setup([*turns, *end], tools=["talk"], more=(talk,), style=style, max_steps=steps, shown=500)
    most = agent.bill(model_of(agent), {"question": question})[1]
    ledger = escalade.Ledger()
    reserve = ledger._reserve
    ledger._reserve = lambda path, amount, *rest: held.append(amount) or reserve(path, amount, *rest)
    with escalade.scope(ledger=ledger) as run:
        assert agent(question=question).ended == "max_steps"
    assert run.spent <= sum(held) <= most


def test_copies_and_saving():
    """Copies have predictors of their own and share what counts; state saved and loaded brings demos back."""
    agent, _ = setup(SCRIPTS["text"])
    twin = copy.deepcopy(agent)
    assert [name for name, _ in twin.named_predictors()] == ["react", "extract.predict"]
    twin.react.demos = [
        dspy.Example(question="a", trajectory="", next_thought="t", next_tool_name="finish", next_tool_args={})
    ]
    assert agent.react.demos == []
    other, _ = setup(SCRIPTS["text"])
    other.load_state(twin.dump_state())
    assert len(other.react.demos) == 1
    with escalade.scope() as run:
        assert twin(question="q").answer == "42"
        assert run.spent > 0


@pytest.mark.parametrize("style", SCRIPTS)
def test_pickles(style, tmp_path):
    """A whole agent is saved and loaded: it finds its gateway and its registry by name, and works; what its tools are
    is saved beside it.
    """
    agent, _ = setup(SCRIPTS[style], style=style)
    agent.save(tmp_path / "agent", save_program=True)
    again = dspy.load(tmp_path / "agent", allow_pickle=True)
    with escalade.scope(budget="1"):
        assert again(question="q").answer == "42"
    escalade.save_program(agent, tmp_path / "state.json")
    assert escalade.load_program(agent, tmp_path / "state.json") == []


def test_best_of_n_samples_it():
    """BestOfN runs copies of it, with models of their own, and takes the better answer; all is paid."""
    agent, model = setup([*done("bad"), *done("good")])
    best = dspy.BestOfN(agent, N=2, reward_fn=lambda _, got: float(got.answer == "good"), threshold=1.0)
    with escalade.scope(budget="1") as run:
        assert best(question="q").answer == "good"
    assert run.spent == len(model.requests) * CALL == 4 * CALL


def test_a_rung_that_runs_out_is_climbed_past():
    """An agent without money for its answer is a refused rung; the next one answers, and the run isn't exhausted."""
    agent, model = setup([fields(answer="plain", confidence="0.9")], budget="0.0000001", model=None, gateway=None)
    gateway = Gateway([Model("m", "sim/m", model, price=PRICE)], retry=Retry(retries=0))
    qa = escalade.Escalate(
        "question -> answer", rungs=[(agent, "m"), "m"], policy=Threshold(0.8), gateway=gateway, confidence={0: False}
    )
    with escalade.scope(budget="1"):
        got = qa(question="q")
    assert (got.answer, [attempt.status for attempt in got.climb.attempts]) == ("plain", ["refused", "ok"])


@pytest.mark.parametrize("last", [fields(next_thought="no"), [("submit", {"wrong": 1})], [("db_read", {"key": "z"})]])
def test_no_answer_is_a_failed_attempt(last):
    """A native model that submits nothing that is an answer fails as unreadable, and a climb goes past it."""
    agent, model = setup(
        [[("submit", {})], last, fields(answer="plain")], style="native", max_steps=1, model=None, gateway=None
    )
    gateway = Gateway([Model("m", "sim/m", model, price=PRICE)], retry=Retry(retries=0))
    qa = escalade.Escalate(
        "question -> answer", rungs=[(agent, "m"), "m"], policy=Threshold(0.8), gateway=gateway, confidence=False
    )
    adapter = dspy.ChatAdapter(use_native_function_calling=True, use_json_adapter_fallback=False)
    with escalade.scope(budget="1") as run, dspy.context(adapter=adapter):
        got = qa(question="q")
        assert got.answer == "plain"
        assert got.climb.attempts[0].status == "wrong_format"
        assert run.spent == got.cost == len(model.requests) * CALL


@pytest.mark.parametrize("style", SCRIPTS)
def test_too_long_a_past_is_forgotten(style):
    """When the prompt no longer fits the model, the oldest step is left out of it, and the trajectory keeps it."""
    too_long = lm15.ContextLengthError("too long", provider="x")
    if style == "text":
        turns = [wants("db_read", key="old"), wants("db_read", key="b"), too_long, wants("finish"), too_long]
        script = [*turns, fields(reasoning="r", answer="42")]
    else:
        turns = [[("db_read", {"key": "old"})], [("db_read", {"key": "b"})], too_long]
        script = [*turns, [("submit", {"answer": "42"})]]
    agent, model = setup(script, style=style)
    with escalade.scope(), dspy.context(adapter=dspy.ChatAdapter(use_native_function_calling=style == "native")):
        got = agent(question="the question")
    assert (got.answer, len(got.steps)) == ("42", 2)
    assert "value of old" in str(model.requests[2])
    assert "value of old" not in str(model.requests[-1])
    assert "the question" in str(model.requests[-1])


@pytest.mark.parametrize("at", [0, 1])
def test_an_unreadable_turn_ends_the_loop(at):
    """A turn that can't be read ends the loop; the agent answers with what it has."""
    script = [*[wants("db_read", key="a")][:at], "gibberish", "gibberish", fields(reasoning="r", answer="42")]
    agent, _ = setup(script)
    with escalade.scope() as run:
        got = agent(question="q")
        assert got.cost == run.spent == (3 + at) * CALL + at * Money.of("0.001")
    assert (got.answer, got.ended, len(got.steps)) == ("42", "unreadable", at)


@pytest.mark.parametrize("mode", MODES)
def test_other_errors_are_raised(mode):
    """A provider that is down, and a mistake of one's own, are no observations."""
    agent, _ = setup([lm15.ServerError("down", provider="x")])
    with escalade.scope(), pytest.raises(dspy.LMError):
        ask(agent, mode)
    with escalade.scope(), dspy.context(adapter="none"), pytest.raises((TypeError, AttributeError)):
        ask(agent, mode)


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter])
@pytest.mark.parametrize("style", SCRIPTS)
def test_every_adapter(style, adapter):
    """Both styles work under each of DSPy's adapters; without native calls the tools are called in text."""
    world = World({"m": SimModel(skill=1.0)}, tool_args={"db_read": {"key": "a"}}, tasks={"What is a?": "value of a"})
    gateway = Gateway(world.as_models())
    agent = ToolAgent(
        "question -> answer", tools=["db.read"], registry=Registry([read]), gateway=gateway, model="m", style=style
    )
    with dspy.context(adapter=adapter()), escalade.scope(budget="1") as run:
        got = agent(question="What is a?")
        assert run.spent == world.cost() + Money.of("0.001")
    assert (got.answer, got.ended, got.steps[0].calls[0].observation) == ("value of a", "finished", "value of a")


async def test_in_pipelines():
    """An agent is a node: its inputs are found by name, its refusals pass, its cost is the node's."""
    gateway = Gateway([Model("m", "sim/m", ByQuestion(by_question), price=PRICE)])
    agent = ToolAgent("question -> answer", tools=["db.read"], registry=Registry([read]), gateway=gateway, model="m")
    async with escalade.scope(budget="1") as run:
        fan = escalade.FanOut(one=agent, two=agent)
        got = await fan.acall(question="k1")
        assert (got.one.answer, got.two.answer) == ("k1", "k1")
        many = await escalade.Map(agent, over="questions", item="question").acall(questions=["a", "b", "c"])
        assert [one.answer for one in many.results] == ["a", "b", "c"]
        assert run.spent == 5 * (3 * CALL + Money.of("0.001"))
    with pytest.raises(BudgetExceeded):
        async with escalade.scope(budget="0.0000001"):
            await escalade.FanOut(one=agent, two=agent).acall(question="k1")


@pytest.mark.parametrize("style", SCRIPTS)
def test_optimisers_find_its_predictors(style):
    """BootstrapFewShot compiles it, and its demos come from the trajectory's own calls."""
    agent, _ = setup([part for _ in range(3) for part in SCRIPTS[style]], style=style)
    with escalade.scope():
        better = dspy.BootstrapFewShot(metric=lambda *_: True, max_bootstrapped_demos=1, max_labeled_demos=0).compile(
            agent, trainset=[dspy.Example(question="q", answer="42").with_inputs("question")]
        )
    assert len(better.react.demos) >= 1
    if style == "text":
        assert len(better.extract.predict.demos) == 1
    assert copy.deepcopy(better).react.demos


def test_a_history_is_an_input():
    """Earlier turns are told to the model; without them the conversation is empty."""
    transport = Calling([*done("again"), *done("first")])
    gateway = Gateway([Model("m", "sim/m", transport, price=PRICE)])
    agent = ToolAgent(
        "question, history: dspy.History -> answer",
        tools=["db.read"],
        registry=Registry([read]),
        gateway=gateway,
        model="m",
    )
    history = dspy.History(messages=[{"question": "who?", "answer": "Ada"}])
    with escalade.scope():
        assert agent(question="and?", history=history).answer == "again"
        assert agent(question="and?").answer == "first"
    assert "answer: Ada" in str(transport.requests[0])
    assert "answer: Ada" not in str(transport.requests[2])


def by_question(prompt):
    """Reads the key of its own question, then answers with what it read."""
    key = prompt.rpartition("[[ ## question ## ]]\n")[2].split("\n")[0]
    if "reasoning" in prompt.rpartition("Respond with")[2]:
        return fields(reasoning="r", answer=prompt.rpartition("value of ")[2].split("\n")[0])
    return wants("finish") if "observation_0" in prompt else wants("db_read", key=key)


@pytest.mark.slow
@pytest.mark.blocking(20_000)
async def test_a_thousand_at_once():
    """1,000 calls of one agent at once: each has its own answer and its own cost, and the ledger has the sum."""
    gateway = Gateway([Model("m", "sim/m", ByQuestion(by_question), price=PRICE)])
    agent = ToolAgent(
        "question -> answer", tools=["db.read"], registry=Registry([read]), gateway=gateway, model="m", max_steps=1
    )
    before = copy.deepcopy({k: v for k, v in vars(agent).items() if not k.startswith("_")}).keys()
    async with escalade.scope(budget="100") as run:
        got = await asyncio.gather(*(agent.acall(question=f"k{n}") for n in range(1_000)))
    assert [one.answer for one in got] == [f"k{n}" for n in range(1_000)]
    assert {one.cost for one in got} == {2 * CALL + Money.of("0.001")}
    assert run.spent == sum(one.cost for one in got)
    assert run.purse.held == 0
    assert {k for k in vars(agent) if not k.startswith("_")} == before


def test_under_dspy_parallel():
    """In DSPy's own threads the scope, the tools and the costs are the same."""
    gateway = Gateway([Model("m", "sim/m", ByQuestion(by_question), price=PRICE)])
    agent = ToolAgent("question -> answer", tools=["db.read"], registry=Registry([read]), gateway=gateway, model="m")
    with escalade.scope(budget="1") as run:
        pairs = [(agent, {"question": f"k{n}"}) for n in range(12)]
        got = dspy.Parallel(num_threads=4, disable_progress_bar=True)(pairs)
    assert [one.answer for one in got] == [f"k{n}" for n in range(12)]
    assert run.spent == 12 * (3 * CALL + Money.of("0.001"))
