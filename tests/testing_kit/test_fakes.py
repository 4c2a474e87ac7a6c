"""Fake models and tools, and faults: what a test says happens, the same on every run."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import dspy
import pytest
from dspy.lm15 import Config, Message, Request

import escalade
from escalade import BadInput, Chain, FanOut, Money, Retry, events, node
from escalade.testing.clock import virtual_time
from escalade.testing.failing import Fault, faults, faulty
from escalade.testing.models import FakeModel, Reply, fake_gateway
from escalade.testing.tools import fake_tool


def ask(gateway: Any, alias: str, signature: str = "question -> answer") -> dspy.Predict:
    made = dspy.Predict(signature)
    made.lm = gateway.lm(alias, cache=False)
    return made


def test_models_answer_by_text_table_script_and_function() -> None:
    """Through the real adapters, with tokens and a price; what they were asked is kept."""
    table = FakeModel({"capital of Peru?": "Lima", "*": {"answer": "no idea"}}, price_in="4.00", price_out="4.00")
    gateway = fake_gateway(
        {
            "text": "42",
            "table": table,
            "script": ["one", Reply({"answer": "two"}, tokens=(1000, 100))],
            "function": lambda inputs: {"answer": inputs["question"].upper()},
        },
        name="fakes",
    )
    with escalade.scope(budget="1.00") as scope:
        assert ask(gateway, "text", "question -> n: int")(question="?").n == 42
        assert ask(gateway, "table")(question="capital of Peru?").answer == "Lima"
        assert ask(gateway, "table")(question="?").answer == "no idea"
        assert ask(gateway, "function")(question="why").answer == "WHY"
        script = ask(gateway, "script")
        assert script(question="?").answer == "one"
        before = scope.spent
        assert script(question="?").answer == "two"
        assert scope.spent - before == Money.of("0.0012")
        with pytest.raises(Exception, match="its script has 2 answers"):
            script(question="?")
    assert table.asked == [{"question": "capital of Peru?"}, {"question": "?"}]


def test_latency_tools_and_streams_go_by_virtual_time() -> None:
    """Sync and async."""
    gateway = fake_gateway({"slow": FakeModel("a", latency=30.0)}, name="late")
    tool = fake_tool("kit.find", "found", latency=20.0, parameters={"question": str})
    registry = escalade.Registry([tool])
    chain = Chain(b=registry.get_tool("kit.find"), a=ask(gateway, "slow"))
    with virtual_time() as clock, escalade.scope(deadline=600):
        assert chain(question="?").answer == "a"
        assert clock.elapsed == pytest.approx(50)
        ask(gateway, "slow")(question="?")
        assert clock.elapsed == pytest.approx(80)

        def inside(question: str) -> str:
            return str(ask(gateway, "slow")(question=question).answer)

        assert FanOut(a=inside, b=inside)(question="?").a == "a"
        assert clock.elapsed == pytest.approx(110)


def test_a_native_call_of_a_tool() -> None:
    """A Reply may be one; and one that is cut off, or sure of its words."""
    model = FakeModel([Reply(tool="find", args={"n": 1}), Reply(text="half an", finish="length", sure=0.5)])
    request = Request(model="fake/m", messages=(Message.user("hi"),), config=Config(logprobs=0))
    first, second = model.complete(request), model.complete(request)
    (part,) = first.message.parts
    assert (part.name, part.input, first.finish_reason) == ("find", {"n": 1}, "tool_call")
    assert (second.message.parts[0].text, second.finish_reason) == ("half an", "length")
    assert math.exp(sum(one.logprob for one in second.logprobs)) == pytest.approx(0.5)


def test_faults_meet_the_calls_that_they_are_for() -> None:
    """By number and by chance, the same on every run; told afterwards; the guard does its work."""

    def made() -> Any:
        models = {"small": FakeModel("a", fallbacks=("big",)), "big": "b"}
        return fake_gateway(models, retry=Retry(retries=0), name="faulty")

    def run(seed: int) -> tuple[list[str], list[Any]]:
        gateway = made()
        with faults(Fault("small", rate=0.5, limited=1.0), Fault("big", calls=2, slow=3.0), seed=seed) as told:
            with virtual_time(), escalade.scope(budget="1.00"):
                answers = [ask(gateway, "small")(question=str(k)).answer for k in range(8)]
        return answers, list(told)

    first = run(1)
    assert run(1)[1] == first[1]
    assert {"a", "b"} == set(first[0])
    limited = [one.call for one in first[1] if one.what == "limited"]
    assert [k + 1 for k, answer in enumerate(first[0]) if answer == "b"] == limited
    with escalade.scope(budget="1.00"):
        assert ask(made(), "big")(question="?").answer == "b"


def test_faults_of_tools_and_nodes() -> None:
    """A tool hangs until its timeout; a wrapped function fails once; garbage is no answer."""
    registry = escalade.Registry([fake_tool("kit.hung", "ok", timeout=5.0)])
    gateway = fake_gateway({"m": "fine"}, name="garbage")
    work = faulty(lambda x: x, "work")
    plan = (
        Fault("kit.*", calls=1, hang=True),
        Fault("work", calls=1, error=ConnectionError("down")),
        Fault("m", garbage="{{{"),
    )
    heard: list[events.Event] = []
    with virtual_time() as clock, faults(*plan) as told, escalade.scope(budget="1.00", listen=heard.append):
        with pytest.raises(escalade.ToolTimeout):
            registry.get_tool("kit.hung")(query="?")
        assert clock.elapsed == pytest.approx(5.0, abs=0.01)
        assert registry.get_tool("kit.hung")(query="?") == "ok"
        assert Chain(a=node(work, retry=1))(x=1).a == 1
        with pytest.raises(Exception, match="(?i)adapter|parse|json"):
            ask(gateway, "m", "question -> n: int")(question="?")
    assert [(one.on, one.call, one.what) for one in told][:2] == [
        ("kit.hung", 1, "hang"),
        ("work", 1, "ConnectionError"),
    ]
    assert [event.attempt for event in heard if isinstance(event, events.NodeRetried)] == [2]


def _whole(error: BaseException) -> str:
    inner = getattr(error, "exceptions", ())
    return repr(error) + "".join(map(_whole, inner))


async def test_a_stream_that_breaks_off() -> None:
    """After so many events."""
    gateway = fake_gateway({"m": FakeModel("a long answer indeed", per_token=0.0)}, retry=Retry(retries=0), name="cut")
    with faults(Fault("m", cut=1)) as told, escalade.scope(budget="1.00"):
        asked = dspy.streamify(
            ask(gateway, "m"), stream_listeners=[dspy.streaming.StreamListener(signature_field_name="answer")]
        )
        with pytest.raises(BaseException, check=lambda error: "broke off" in _whole(error)):  # noqa: B017
            async for _ in asked(question="?"):
                await asyncio.sleep(0)
    assert [one.what for one in told] == ["cut"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "one of error, hang"),
        ({"hang": True, "slow": 1.0}, "one of error, hang"),
        ({"hang": True, "calls": 1, "rate": 0.1}, "not both"),
        ({"hang": True, "rate": 2.0}, "between 0 and 1"),
    ],
)
def test_what_is_no_fault(options: dict[str, Any], said: str) -> None:
    """Is refused where it is written."""
    with pytest.raises(BadInput, match=said):
        Fault("m", **options)
