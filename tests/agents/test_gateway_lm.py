"""The governed LM is a `dspy.LM`: what it does without DSPy's threads, a stock one does as well."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy.clients.cache import Cache
from dspy.lm15 import Message, Request
from dspy.utils.callback import BaseCallback

from escalade.agents._engines import AsyncEngine, Engine
from escalade.agents._lm import GatewayLM
from escalade.agents._route import Retry
from escalade.agents.gateway import PREFIX, Gateway
from escalade.agents.models import Model
from escalade.errors import BudgetExceeded, ForeignModel
from escalade.registry.opening import scope
from escalade.registry.prices import Price
from tests.agents.bare import BareAsyncEngine, BareEngine
from tests.agents.scripted import ANSWER, Scripted, rate_limited

OWN = {"uuid", "timestamp", "cost", "cache_hit"}
"""Fields of history in which two calls differ, or which the gateway adds."""


class Seen(BaseCallback):
    """What DSPy tells of a call."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_lm_start(self, call_id, instance, inputs):
        self.events.append(("start", sorted(inputs.items())))

    def on_lm_end(self, call_id, outputs, exception=None):
        self.events.append(("end", outputs, type(exception)))


def pair(script: Any = (), **options: Any) -> dict[str, Any]:
    """The governed LM and a stock one, each over its own gateway with the same script."""
    made = {}
    for kind in ("ours", "stock"):
        carrier = Scripted(script)
        gateway = Gateway([Model("m", "sim/m", carrier, price=Price.of("1", "2"))], retry=Retry(retries=0), name=kind)
        engines = {"engine": Engine(gateway, "m"), "async_engine": AsyncEngine(gateway, "m")}
        given = {"cache": False, "max_tokens": 100, **options}
        lm = gateway.lm("m", **given) if kind == "ours" else dspy.LM(PREFIX + "m", **engines, num_retries=0, **given)
        made[kind] = lm
        lm.carrier = carrier
    assert type(made["ours"]) is GatewayLM
    return made


async def told(lm: dspy.LM, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Everything that one call tells."""
    seen, mistake, outputs = Seen(), None, None
    with scope(budget="1.00"), dspy.context(callbacks=[seen], track_usage=True):
        with dspy.track_usage() as usage:
            try:
                outputs = await lm.acall(*args, **kwargs)
            except Exception as error:
                mistake = type(error).__name__, str(error)
    history = [{name: value for name, value in entry.items() if name not in OWN} for entry in lm.history]
    return {
        "outputs": [str(one) for one in outputs] if isinstance(outputs, list) else str(outputs),
        "usage": usage.get_total_tokens(),
        "history": str(history),
        "events": str(seen.events),
        "error": mistake,
        "sent": str(lm.carrier.requests),
    }


REQUEST = Request(model=PREFIX + "m", messages=(Message.user("hi"),))
CALLS: dict[str, Any] = {
    "prompt": (("hello",), {}),
    "typed request": ((REQUEST,), {}),
    "request by keyword": ((), {"request": REQUEST}),
    "three candidates": (("hello",), {"n": 3, "temperature": 0.7}),
    "settings": (("hello",), {"temperature": 0.3, "max_tokens": 20, "logprobs": True}),
    "rollout": (("hello",), {"rollout_id": 7, "temperature": 1.0}),
    "no candidates": (("hello",), {"n": 0}),
    "broken text": (("\ud800",), {}),
    "a connection of one's own": (("hello",), {"api_base": "http://other"}),
    "twice": ((REQUEST,), {"request": REQUEST}),
}


@pytest.mark.parametrize("case", CALLS, ids=str)
async def test_call_tells_what_a_stock_lm_tells(case):
    """Outputs, usage, history, callbacks, errors and what is sent are the same."""
    args, kwargs = CALLS[case]
    both = pair()
    ours, stock = await told(both["ours"], *args, **kwargs), await told(both["stock"], *args, **kwargs)
    assert ours == stock


@pytest.mark.parametrize(
    "error",
    [
        lm15.ServerError("boom"),
        rate_limited(5.0),
        lm15.AuthError("no"),
        lm15.InvalidRequestError("use /v1/responses"),
        lm15.TimeoutError("late"),
        lm15.ContextLengthError("long"),
        ValueError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_failure_is_told_like_a_stock_lms(error):
    """The same class, message, usage and callbacks, for the provider's failures and for bugs."""
    both = pair([error])
    ours, stock = await told(both["ours"], "hello"), await told(both["stock"], "hello")
    assert ours == stock
    assert ours["error"] is not None


async def test_candidate_that_fails_is_accounted_like_a_stock_lms():
    """What was paid before the second of three failed is in the usage."""
    both = pair([ANSWER, lm15.ServerError("boom")])
    ours = await told(both["ours"], "hello", n=3, temperature=1.0)
    assert ours == await told(both["stock"], "hello", n=3, temperature=1.0)
    assert ours["usage"]


async def test_dspys_cache_is_used_like_by_a_stock_lm(tmp_path, monkeypatch):
    """With cache=True hits, rollouts and calls without the cache are the same, and so is what is kept."""
    figures = {}
    for kind in ("ours", "stock"):
        cache = Cache(True, True, str(tmp_path / kind), memory_max_entries=100)
        monkeypatch.setattr(dspy, "cache", cache)
        lm = pair(cache=True, temperature=1.0)[kind]
        asked = [{}, {}, {"rollout_id": 1}, {"rollout_id": 1}, {"rollout_id": 2}, {"cache": False}, {"n": 2}, {"n": 2}]
        figures[kind] = [await told(lm, "hello", **one) for one in asked], len(cache.memory_cache)
        cache.disk_cache.close()
    assert figures["ours"] == figures["stock"]
    assert figures["ours"][1] == 4


async def test_streams_like_a_stock_lm():
    """Pieces that listeners get, and the prediction at the end."""
    shown = {}
    for kind, lm in pair().items():
        predict = dspy.Predict("question -> answer")
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        program = dspy.streamify(predict, stream_listeners=[listener])
        with scope(budget="1.00"), dspy.context(lm=lm):
            shown[kind] = [str(piece) async for piece in program(question="q")]
    pieces = {
        kind: [piece.replace("'ours'", "").replace("'stock'", "") for piece in all_] for kind, all_ in shown.items()
    }
    assert len(pieces["ours"]) == len(pieces["stock"]) > 1
    assert pieces["ours"][-1] == pieces["stock"][-1]


async def test_predict_is_the_same():
    """The adapter's second call, the parsed answer, and the history of the module."""
    answers = {}
    for kind, lm in pair(["no format at all", '{"answer": "42"}']).items():
        predict = dspy.Predict("question -> answer")
        with scope(budget="1.00"), dspy.context(lm=lm):
            answers[kind] = (await predict.acall(question="q")).answer, len(predict.history), len(lm.carrier.requests)
    assert answers["ours"] == answers["stock"] == ("42", 2, 2)


async def test_call_hops_through_no_thread():
    """All of a governed call runs in the thread of its event loop, and no thread is started."""
    threads = set()

    class Noting(Scripted):
        async def acomplete(self, request):
            threads.add(threading.get_ident())
            return await super().acomplete(request)

    lm = Gateway([Model("m", "sim/m", Noting(), price=Price.of("1", "2"))]).lm("m")
    loop = asyncio.get_running_loop()

    def forbidden(*args: Any) -> None:
        raise AssertionError("a hop")

    executor = loop.run_in_executor
    loop.run_in_executor = forbidden  # type: ignore[method-assign,assignment]
    try:
        with scope(budget="1.00"), dspy.context(lm=lm):
            await dspy.Predict("question -> answer").acall(question="q")
    finally:
        loop.run_in_executor = executor  # type: ignore[method-assign]
    assert threads == {threading.get_ident()}


async def test_more_candidates_than_the_budget_pays_are_refused_before_the_first():
    """Sync and async alike; nothing is sent."""
    lm = pair()["ours"]
    with pytest.raises(BudgetExceeded), scope(budget="0.0004"):
        await lm.acall("hello", n=3, temperature=1.0)
    assert lm.carrier.requests == []


async def test_copy_on_another_engine_is_refused_in_a_scope():
    """Also when only its async half is somebody else's."""
    lm, carrier = pair()["ours"], Scripted()
    for engines in (
        {"engine": BareEngine(carrier), "async_engine": BareAsyncEngine(carrier)},
        {"engine": lm._engine_spec, "async_engine": BareAsyncEngine(carrier)},
    ):
        copy = lm.copy()
        copy._engine_spec, copy._async_engine_spec = engines["engine"], engines["async_engine"]
        with scope(budget="1.00"), pytest.raises(ForeignModel):
            await copy.acall("hello")
    assert carrier.requests == []


async def test_lm_with_retries_of_dspy_keeps_them():
    """Who asks for DSPy's own retries gets them, over the gateway's."""
    lm = pair([lm15.ServerError("boom", retry_after=0.0)])["ours"].copy(num_retries=1)
    with scope(budget="1.00"):
        assert await lm.acall("hello")
    assert len(lm.carrier.requests) == 2


def test_priority_is_checked_saved_and_loaded():
    """`gateway.lm(..., priority=)` survives a pickle of its engines."""
    gateway = Gateway([Model("m", "sim/m", Scripted(), price=Price.of("1", "2"))], name="prio")
    engine = gateway.lm("m", priority="batch")._engine_spec
    assert Engine.load_state(engine.dump_state()).dump_state() == {"gateway": "prio", "model": "m", "priority": "batch"}
    with pytest.raises(ValueError, match="unknown priority 'bulk'"):
        gateway.lm("m", priority="bulk")
