"""Streams: tokens of answers as they are written, climbs, and leaving early without harm."""

from __future__ import annotations

import asyncio
import contextlib
import time

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade import events
from escalade.agents._fields import Fields
from escalade.agents._route import Retry
from escalade.agents.confidence import Logprob, Samples, TypedDecision, Verifier
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.models import Model
from escalade.agents.policies import Agreement, Constant, Threshold
from escalade.agents.streaming import Answered, RungStarted, Token, stream
from escalade.agents.tool_agent import ToolAgent
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, NoScope
from escalade.registry.catalogue import Registry
from escalade.registry.prices import Price
from escalade.registry.tools import tool
from tests.agents.scripted import Scripted

QUESTION = "Ada saves 35 dollars a week for 8 weeks and then spends 9 dollars. How many dollars are left?"
RUNGS = ["small", ("ChainOfThought", "small"), ("ChainOfThought", "large")]


def climbing(policy=None, per_token=0.0, rungs=RUNGS, **options):
    """A ladder in a simulated world."""
    world = World(
        {"small": SimModel(skill=0.5, per_token=per_token), "large": SimModel(skill=0.95, per_token=per_token)}, seed=7
    )
    gateway = Gateway(world.as_models())
    return Escalate(
        "question -> answer", rungs=rungs, policy=policy or Threshold(0.9), gateway=gateway, **options
    ), world


def texts(told):
    """The newest draft of each field."""
    newest = {}
    for event in told:
        if isinstance(event, Token):
            draft, text = newest.get(event.field, (0, ""))
            if event.draft >= draft:
                newest[event.field] = (event.draft, text + event.text if event.draft == draft else event.text)
    return {field: text for field, (_, text) in newest.items()}


async def follow(program, **inputs):
    """All events."""
    return [event async for event in program.stream(**(inputs or {"question": QUESTION}))]


# ------------------------------------------------------------------------------------------------------ what is shown


async def test_a_climb_shows_each_rung_and_the_answer_last():
    """Rungs begin, write, are judged and escalated from, in order; the newest draft is the answer."""
    qa, _ = climbing()
    with escalade.scope(budget="1") as run:
        told = await follow(qa)
        plain = await qa.acall(question=QUESTION)
        assert run.spent == told[-1].result.cost + plain.cost
    kinds = [type(event).__name__ for event in told if not isinstance(event, Token | events.Settled)]
    tried = ["RungStarted", "RungTried"]
    assert kinds == [*tried, "Escalated", *tried, "Escalated", *tried, "ClimbStopped", "Answered"]
    assert [e.rung for e in told if isinstance(e, RungStarted)] == [r.name for r in qa.rungs]
    assert all(e.provisional for e in told if isinstance(e, Token))
    last = told[-1]
    assert isinstance(last, Answered)
    assert (last.result.answer, last.result.explain()) == (plain.answer, plain.explain())
    assert texts(told)["answer"] == plain.answer
    assert texts(told)["reasoning"] == plain.reasoning
    assert [e.seq for e in told] == sorted(e.seq for e in told)


@pytest.mark.parametrize(
    "adapter", [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()], ids=lambda a: type(a).__name__
)
async def test_every_adapter_is_read(adapter):
    """In the format of each of DSPy's adapters, pieces are the fields' own text and nothing of the format."""
    qa, _ = climbing()
    with escalade.scope(), dspy.context(adapter=adapter):
        told = await follow(qa)
    assert texts(told)["answer"] == told[-1].result.answer
    assert texts(told)["reasoning"] == told[-1].result.reasoning
    assert sum(isinstance(e, Token) and e.field == "reasoning" for e in told) > 5


async def test_only_the_rung_that_answers():
    """`provisional=False` shows nothing of a rung before it is certain to answer."""
    qa, _ = climbing()
    with escalade.scope():
        told = [event async for event in qa.stream(question=QUESTION, provisional=False)]
    tokens = [event for event in told if isinstance(event, Token)]
    assert [(e.field, e.text, e.rung, e.provisional) for e in tokens] == [
        ("answer", told[-1].result.answer, "ChainOfThought/large", False)
    ]
    assert told.index(tokens[0]) > max(told.index(e) for e in told if isinstance(e, events.ClimbStopped))


async def test_an_earlier_answer_is_shown_again():
    """Where an attempt other than the last one answers, its text is the newest draft all the same."""
    small = Scripted([_said("7", 0.4), _said("7", 0.3)])
    gateway = Gateway(
        [
            Model("a", "sim/a", small, price=Price.of("1", "1")),
            Model("b", "sim/b", Scripted([_said("8", 0.2)]), price=Price.of("2", "2")),
        ]
    )
    qa = Escalate("question -> answer", rungs=["a", "b"], policy=_FirstAfterAll(), gateway=gateway)
    with escalade.scope():
        told = await follow(qa, question="q")
    assert told[-1].result.answer == "7"
    assert texts(told)["answer"] == "7"
    assert [e.provisional for e in told if isinstance(e, Token) and e.field == "answer"][-1] is False


class _FirstAfterAll:
    name = "first after all"

    def decide(self, view):
        return escalade.Try(len(view.attempts)) if len(view.attempts) < 2 else escalade.Stop(0, "on second thought")


def _said(answer, confidence):
    return f"[[ ## answer ## ]]\n{answer}\n\n[[ ## confidence ## ]]\n{confidence}\n\n[[ ## completed ## ]]"


@pytest.mark.parametrize(
    "source",
    [Samples(3, seed=1), Logprob(), TypedDecision(), Verifier("large"), False],
    ids=lambda s: getattr(s, "kind", "none"),
)
async def test_a_stream_climbs_as_a_call_does(source):
    """Whatever confidence comes from, who follows a climb gets the steps that he would have got without."""
    qa, world = climbing(confidence=source)
    for question in [e.question for e in world.task(5, seed=3)]:
        with escalade.scope():
            world.reset()
            told = await follow(qa, question=question)
        with escalade.scope():
            world.reset()
            plain = await qa.acall(question=question)
        assert told[-1].result.climb.path == plain.climb.path
        assert told[-1].result.answer == plain.answer == texts(told)["answer"]


async def test_votes_are_shown_rung_by_rung():
    """Agreement asks two rungs and answers with one of them; nothing is shown twice in one draft."""
    qa, _ = climbing(policy=Agreement((0, 1), then=2))
    with escalade.scope():
        told = await follow(qa)
    assert texts(told)["answer"] == told[-1].result.answer


async def test_an_agent_shows_its_thoughts_tools_and_answer():
    """A ToolAgent's stream has its thoughts, the tools that it used, and the answer; what tools ask of models is not
    shown.
    """
    world = World({"m": SimModel(skill=1.0)})
    gateway = Gateway(world.as_models())

    @tool(side_effects="none")
    async def expert(question: str) -> str:
        """Asks a model."""
        with dspy.context(lm=gateway.lm("m")):
            return (await dspy.Predict("question -> hidden").acall(question=question)).hidden

    for style in ("text", "native"):
        agent = ToolAgent(
            "question -> answer", tools=["expert"], registry=Registry([expert]), gateway=gateway, model="m", style=style
        )
        with escalade.scope():
            told = await follow(agent)
        assert texts(told)["answer"] == told[-1].result.answer == "271"
        assert "hidden" not in texts(told)
        assert [e.tool for e in told if isinstance(e, events.ToolCalled)] == ["expert@1.0.0"]


async def test_a_native_agents_answer_comes_in_pieces():
    """The arguments of `submit` are shown as they are written; those of other tools aren't."""
    answer = 'Guernica, which Picasso painted in 1937, hangs in Madrid; "see" it there.'
    world = World({"m": SimModel(skill=1.0)}, tasks={"Where?": answer}, tool_args={"look": {"answer": "secret " * 9}})

    @tool(name="look", side_effects="none")
    def look(answer: str) -> str:
        """Looks."""
        return "nothing"

    agent = ToolAgent(
        "question -> answer",
        tools=["look"],
        registry=Registry([look]),
        gateway=Gateway(world.as_models()),
        model="m",
        style="native",
    )
    with escalade.scope():
        told = await follow(agent, question="Where?")
    pieces = [event.text for event in told if isinstance(event, Token) and event.field == "answer"]
    assert "".join(pieces) == told[-1].result.answer == answer
    assert len(pieces) > 3


async def test_an_agent_on_a_rung():
    """On a rung, an agent's thoughts carry the rung's name."""
    world = World({"m": SimModel(skill=1.0)})
    gateway = Gateway(world.as_models())

    @tool(side_effects="none")
    def calc(expression: str) -> str:
        """Computes."""
        return "271"

    agent = ToolAgent("question -> answer", tools=["calc"], registry=Registry([calc]))
    qa = Escalate("question -> answer", rungs=[(agent, "m")], policy=Constant(0), gateway=gateway)
    with escalade.scope(budget="1"):
        told = await follow(qa)
    assert {e.rung for e in told if isinstance(e, Token)} == {"ToolAgent/m"}
    assert texts(told)["answer"] == "271"


async def test_any_module_can_be_followed():
    """`stream(program)` works for a plain Predict, too."""
    world = World({"m": SimModel(skill=1.0)})
    with escalade.scope(), dspy.context(lm=Gateway(world.as_models()).lm("m")):
        told = [event async for event in stream(dspy.ChainOfThought("question -> answer"), question=QUESTION)]
    assert texts(told)["answer"] == "271"
    assert not any(e.provisional for e in told if isinstance(e, Token))


async def test_models_that_write_at_once():
    """In a module that asks two models side by side, pieces of both come interleaved, each under its own draft."""
    world = World({"m": SimModel(skill=1.0, per_token=0.001)})
    with escalade.scope(), dspy.context(lm=Gateway(world.as_models()).lm("m")):
        fan = escalade.FanOut(
            one=dspy.Predict("question -> first, reasoning"), two=dspy.Predict("question -> second, reasoning")
        )
        told = [event async for event in stream(fan, question=QUESTION)]
    drafts = {}
    for event in told:
        if isinstance(event, Token):
            drafts[event.draft, event.field] = drafts.get((event.draft, event.field), "") + event.text
    one, two = told[-1].result.one, told[-1].result.two
    assert sorted(drafts.values()) == sorted([one.first, one.reasoning, two.second, two.reasoning])


def test_sync_iteration():
    """`for` gives the same events as `async for`, with a loop running in this thread or without."""
    qa, world = climbing()
    with escalade.scope() as run:
        told = list(qa.stream(question=QUESTION))
        world.reset()

        async def inside():
            return list(qa.stream(question=QUESTION))

        assert [type(e) for e in asyncio.run(inside())] == [type(e) for e in told]
        assert run.purse.held == 0
    assert texts(told)["answer"] == told[-1].result.answer


_VALUE = st.text(st.characters(codec="ascii", exclude_characters="\r\x0b\x0c\x1c\x1d\x1e"), max_size=60)


@settings(max_examples=150)
@given(
    reasoning=_VALUE | st.sampled_from(["a\n[[", "[[ ## x", "x [[ ## y ## ]] z", "]] [[ ##", "\n\n[\n"]),
    answer=_VALUE,
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=30),
    kind=st.sampled_from([dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter]),
)
def test_pieces_make_the_value_that_is_parsed(reasoning, answer, cuts, kind):
    """However an answer is cut into pieces: what is given is never taken back, and is in the end what DSPy parses."""
    adapter, signature = kind(), dspy.Signature("question -> reasoning, answer")
    fields = {"reasoning": reasoning, "answer": answer}
    text = adapter.format_assistant_message_content(signature, fields)
    try:
        parsed = adapter.parse(signature, text)
    except Exception:  # what DSPy can't read itself
        return
    reading, got, at = Fields(adapter, ("reasoning", "answer")), {"reasoning": "", "answer": ""}, 0
    while at < len(text):
        step = cuts[at % len(cuts)]
        for name, piece in reading.feed(text[at : at + step]):
            got[name] += piece
        at += step
    assert got == parsed


# ------------------------------------------------------------------------------------------------------- leaving early


async def leave_by_aclose(following, n):
    """Take n events, then close."""
    async with following as open_:
        async for _ in open_:
            n -= 1
            if n <= 0:
                break


async def leave_by_cancel(following, n):
    """Take n events, then be cancelled while waiting."""
    taken = asyncio.Event()

    async def reader():
        count = 0
        async for _ in following:
            count += 1
            if count >= n:
                taken.set()
                await asyncio.sleep(30)

    task = asyncio.create_task(reader())
    waiting = asyncio.create_task(taken.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await following.aclose()


async def leave_by_timeout(following, n):
    """Be out of time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.002 * n):
            async for _ in following:
                pass
    await following.aclose()


async def leave_by_for(following, n):
    """Break out of a `for`, in a thread."""

    def read():
        with following as open_:
            for count, _ in enumerate(open_, 1):
                if count >= n:
                    break

    await asyncio.to_thread(read)


LEAVING = {"aclose": leave_by_aclose, "cancel": leave_by_cancel, "timeout": leave_by_timeout, "for": leave_by_for}


@settings(max_examples=60)
@given(n=st.integers(1, 70), way=st.sampled_from(sorted(LEAVING)), agent=st.booleans())
def test_wherever_one_leaves_the_ledger_is_exact(n, way, agent):
    """For any stop point and any way to leave: nothing stays held, what is spent is what was settled and covers what
    the provider bills, and the caller goes on.
    """

    async def main():
        qa, world = climbing(per_token=0.0005)
        if agent:
            calc = tool(name="calc", side_effects="none")(lambda: "1")
            qa = ToolAgent(
                "question -> answer", tools=["calc"], registry=Registry([calc]), gateway=qa._gateway, model="small"
            )
        settled = []
        listen = lambda e: settled.append(e.cost) if isinstance(e, events.Settled) else None  # noqa: E731
        async with escalade.scope(budget="1", listen=listen) as run:
            await LEAVING[way](qa.stream(question=QUESTION), n)
            assert await asyncio.sleep(0.001, "not cancelled") == "not cancelled"
            assert asyncio.current_task().cancelling() == 0
            assert run.purse.held == 0
            assert run.spent == sum(settled)
            assert run.spent >= world.cost()
        assert [t for t in asyncio.all_tasks() if t is not asyncio.current_task()] == []

    asyncio.run(main())


async def test_leaving_harms_nobody_else():
    """Of twenty streams at once, half are left early; the others get their whole answers."""
    qa, world = climbing(per_token=0.0005)
    questions = [e.question for e in world.task(20, seed=5)]

    async def one(at):
        if at % 2:
            await leave_by_aclose(qa.stream(question=questions[at]), at)
            return None
        return [event async for event in qa.stream(question=questions[at])]

    async with escalade.scope(budget="1") as run:
        told = await asyncio.gather(*(one(at) for at in range(20)))
        assert run.purse.held == 0
    with escalade.scope():
        for at in range(0, 20, 2):
            assert texts(told[at])["answer"] == (await qa.acall(question=questions[at])).answer


async def test_break_stops_the_model():
    """After a plain `break` the call ends by itself, long before the model would have."""
    qa, world = climbing(per_token=0.02, policy=Constant(1))
    async with escalade.scope(budget="1") as run:
        async for event in qa.stream(question=QUESTION):
            if isinstance(event, Token):
                break
        for _ in range(50):
            await asyncio.sleep(0.01)
            if run.purse.held == 0:
                break
        assert run.purse.held == 0
        assert world.output_tokens["small"] < 20


async def test_a_slow_reader_holds_up_the_model():
    """The model is a few tokens ahead of its reader, not more: what nobody reads isn't paid for."""
    price = Price.of("0", "1000")  # a millionth of a dollar per byte that was seen
    long = f"[[ ## answer ## ]]\n{'words ' * 1_000}\n\n[[ ## completed ## ]]"
    gateway = Gateway([Model("m", "sim/m", Scripted([long]), price=price, max_output=10_000)])
    qa = Escalate("question -> answer", rungs=["m"], policy=Constant(0), gateway=gateway, confidence=False)
    async with escalade.scope() as run, qa.stream(question="q") as open_:
        following = aiter(open_)
        while not isinstance(await anext(following), Token):
            pass
        await asyncio.sleep(0.1)
        assert run.purse.held > 0
    assert 0 < run.spent < price.cost(0, 200)


def test_interrupted_iteration_is_closed():
    """An exception in the body of the `for` ends the call before it is raised on."""
    qa, _ = climbing(per_token=0.005)
    with escalade.scope(budget="1") as run:
        with pytest.raises(KeyboardInterrupt), qa.stream(question=QUESTION) as open_:
            for _ in open_:
                raise KeyboardInterrupt
        assert run.purse.held == 0


async def test_errors_are_raised():
    """What the call raises is raised to the reader, after what came before; nothing is swallowed."""
    qa, _ = climbing(per_token=0.02)
    with pytest.raises(NoScope):
        await follow(qa)
    with escalade.scope(), pytest.raises(escalade.UnknownName):
        await follow(qa, questoin="q")
    with pytest.raises(BudgetExceeded):
        with escalade.scope(budget="0.0000001"):
            await follow(qa)
    with escalade.scope(deadline=0.1):
        with pytest.raises(DeadlineExceeded):
            await follow(qa)
    with escalade.scope():
        once = qa.stream(question=QUESTION)
        await once.aclose()
        async for _ in once:
            break
        with pytest.raises(BadInput, match="followed once"):
            aiter(once)
        await once.aclose()


async def test_a_broken_stream_is_climbed_past():
    """A provider that breaks off in the middle is a failed rung; what was shown of it gives way to the next draft."""
    from dspy import lm15

    broken = Scripted([(_said("wrong answer", 0.9), lm15.TransportError("cut", provider="x"))])
    gateway = Gateway(
        [
            Model("a", "sim/a", broken, price=Price.of("1", "1")),
            Model("b", "sim/b", Scripted([_said("right", 0.9)]), price=Price.of("1", "1")),
        ],
        retry=Retry(retries=0),
    )
    qa = Escalate("question -> answer", rungs=["a", "b"], policy=Threshold(0.5), gateway=gateway)
    with escalade.scope(budget="1") as run:
        told = await follow(qa, question="q")
        assert run.purse.held == 0
    assert "wrong" in "".join(e.text for e in told if isinstance(e, Token))
    assert texts(told)["answer"] == told[-1].result.answer == "right"


async def test_the_first_token_comes_before_the_answer_is_complete():
    """Tokens arrive while the model writes: the first long before the last."""
    qa, _ = climbing(per_token=0.01, policy=Constant(1))
    began, first, last = time.perf_counter(), None, 0.0
    with escalade.scope():
        async for event in qa.stream(question=QUESTION):
            if isinstance(event, Token):
                last = time.perf_counter() - began
                first = first or last
    assert first < last / 2
