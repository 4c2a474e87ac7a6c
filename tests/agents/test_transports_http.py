"""The two HTTP transports against a server that fails on demand: the same fault is the same error on both."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import time

import dspy
import pytest
from dspy import lm15
from dspy.lm15 import Config, FunctionTool, Message, Request, Usage

from escalade.agents._route import billed
from escalade.agents.transports import LM15, LiteLLM, resolve_secret
from escalade.agents.transports.lm15 import _usage
from tests.agents.bare import bare_lm
from tests.servers.fault_server import FaultServer

pytestmark = [
    # litellm builds its pydantic models on the first call, and pydantic doesn't like them.
    pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict class:UserWarning"),
]

NOBODY = "http://127.0.0.1:9/v1"
SHORT, LONG = 1.0, 10.0
"""Seconds: for servers that are too slow, and for those that are not, on a machine that may be."""

FAULTS = [
    ("e401", lm15.AuthError, None),
    ("e429", lm15.RateLimitError, None),
    ("e429:7", lm15.RateLimitError, 7.0),
    ("e429quota", lm15.BillingError, None),
    ("e500", lm15.ServerError, None),
    ("e503", lm15.ServerError, None),
    ("slow:2", lm15.TimeoutError, None),
    ("ctx", lm15.ContextLengthError, None),
    ("badjson", lm15.ProviderError, None),
    ("drop", lm15.TransportError, None),
    ("refused", lm15.TransportError, None),
]
STREAM_FAULTS = [
    ("e500", lm15.ServerError),
    ("e429:7", lm15.RateLimitError),
    ("slow:2", lm15.TimeoutError),
    ("slowstream:2000", lm15.TimeoutError),
    ("drop", lm15.TransportError),
    ("refused", lm15.TransportError),
    ("cut:2", lm15.StreamAssemblyError),
    ("cut:0", lm15.StreamAssemblyError),
    ("broken:2", lm15.TransportError),
]


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(server):
    server.reset()
    # litellm's sync calls ask asyncio for a loop, which makes one that nobody closes; told of none, it won't.
    asyncio.set_event_loop(None)


@pytest.fixture(scope="module", autouse=True)
def _litellm():
    LiteLLM.preload().join()


@pytest.fixture(params=[LM15, LiteLLM], ids=["lm15", "litellm"])
def make(request):
    """Makes a transport of one of the two kinds."""
    return lambda base, **options: request.param(**{"api_key": "k", "api_base": base, "timeout": LONG, **options})


def asking(model: str, **config) -> Request:
    return Request(model=f"openai/{model}", messages=(Message.user("hi there"),), system="sys", config=Config(**config))


def base_for(kind: str, server: FaultServer) -> str:
    return NOBODY if kind == "refused" else server.base


def made(make, kind: str, server: FaultServer):
    return make(base_for(kind, server), timeout=SHORT if "slow" in kind else LONG)


async def all_events(transport, request):
    return [event async for event in transport.astream(request)]


@pytest.mark.parametrize(("kind", "error", "retry_after"), FAULTS, ids=[f[0] for f in FAULTS])
class TestFaults:
    def test_sync(self, server, make, kind, error, retry_after):
        """A fault is exactly this lm15 error, after one attempt, with the wait that the provider asked for."""
        with pytest.raises(lm15.LM15Error) as caught:
            made(make, kind, server).complete(asking(kind))
        assert type(caught.value) is error
        assert caught.value.retry_after == retry_after
        assert server.calls[kind] == (kind != "refused")

    @pytest.mark.blocking(3000)
    async def test_async(self, server, make, kind, error, retry_after):
        """The async side says the same."""
        with pytest.raises(lm15.LM15Error) as caught:
            await made(make, kind, server).acomplete(asking(kind))
        assert type(caught.value) is error
        assert caught.value.retry_after == retry_after
        assert server.calls[kind] == (kind != "refused")


@pytest.mark.parametrize(("kind", "error"), STREAM_FAULTS, ids=[f[0] for f in STREAM_FAULTS])
class TestStreamFaults:
    def test_sync(self, server, make, kind, error):
        """A stream that fails, or breaks off, raises and never ends as if it were complete."""
        events = []
        with pytest.raises(lm15.LM15Error) as caught:
            events.extend(made(make, kind, server).stream(asking(kind)))
        assert type(caught.value) is error
        assert "end" not in {event.type for event in events}
        assert server.calls[kind] == (kind != "refused")

    @pytest.mark.blocking(3000)
    async def test_async(self, server, make, kind, error):
        """The async side says the same."""
        with pytest.raises(lm15.LM15Error) as caught:
            await all_events(made(make, kind, server), asking(kind))
        assert type(caught.value) is error
        assert server.calls[kind] == (kind != "refused")


@pytest.mark.parametrize(
    ("kind", "billed_at"), [("refused", 0), ("e500", 0), ("e429", 0), ("drop", 100), ("slow:2", 100), ("badjson", 100)]
)
def test_what_a_failure_is_billed_at(server, make, kind, billed_at):
    """The gateway gives money back exactly where nothing can have been billed: its causes are still to be seen."""
    with pytest.raises(lm15.LM15Error) as caught:
        made(make, kind, server).complete(asking(kind))
    assert billed(caught.value, 100) == billed_at


class TestAnswers:
    def test_usage_is_the_providers(self, server, make):
        """Tokens are those that the server billed, to the token."""
        answer = make(server.base).complete(asking("ok", max_tokens=50))
        assert answer.text == "hello from the fault server"
        assert answer.finish_reason == "stop"
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == server.tokens["ok"]

    async def test_async_usage(self, server, make):
        """The same on the async side."""
        answer = await make(server.base).acomplete(asking("ok"))
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == server.tokens["ok"]

    def test_stream(self, server, make):
        """A stream is one start, deltas that make the answer, and one end with the usage that the server billed."""
        events = list(make(server.base).stream(asking("ok")))
        assert [e.type for e in events] == ["start", *["delta"] * (len(events) - 2), "end"]
        assert "".join(e.delta.text for e in events[1:-1]) == "hello from the fault server"
        usage = events[-1].usage
        assert (usage.input_tokens, usage.output_tokens) == server.tokens["ok"]

    async def test_async_stream(self, server, make):
        """The same on the async side."""
        events = await all_events(make(server.base), asking("ok"))
        usage = events[-1].usage
        assert (usage.input_tokens, usage.output_tokens) == server.tokens["ok"]

    def test_usage_that_nobody_told_is_unknown(self, server, make):
        """A provider that doesn't count in streams leaves usage unknown: litellm's own guess is not passed on."""
        assert list(make(server.base).stream(asking("silent")))[-1].usage is None

    def test_settings_reach_the_wire(self, server, make):
        """Temperature, limit and key arrive; nothing of a cache, of retries or of this library does."""
        make(server.base).complete(asking("ok", max_tokens=50, temperature=0.5))
        sent = server.requests[0]
        assert sent["authorization"] == "Bearer k"
        assert sent["body"]["temperature"] == 0.5
        assert sent["body"].get("max_tokens", sent["body"].get("max_completion_tokens")) == 50
        allowed = {"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "n", "stream"}
        assert set(sent["body"]) <= allowed

    def test_tools(self, server, make):
        """A native tool call arrives as one, without the mcp package."""
        tool = FunctionTool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
        request = Request(model="openai/tool", messages=(Message.user("hi"),), tools=(tool,))
        answer = make(server.base).complete(request)
        assert answer.finish_reason == "tool_call"
        assert [(c.name, c.input) for c in answer.tool_calls] == [("weather", {"city": "x"})]

    def test_works_under_dspy(self, server, make):
        """A DSPy program answers over it, typed."""
        lm = bare_lm(make(server.base), "openai/ok")
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            answer = dspy.Predict("question -> answer, confidence: float")(question="hi")
        assert (answer.answer, answer.confidence) == ("answer value", 0.9)

    async def test_streams_under_dspy(self, server, make):
        """`dspy.streamify` shows the pieces of a field as they come."""
        lm = bare_lm(make(server.base), "openai/ok")
        listener = dspy.streaming.StreamListener(signature_field_name="answer")
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
            program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener])
            items = [item async for item in program(question="hi")]
        assert "".join(i.chunk for i in items if isinstance(i, dspy.streaming.StreamResponse)).strip() == "answer value"
        assert items[-1].answer == "answer value"


class TestLoopsAndCancellation:
    def test_two_event_loops(self, server, make):
        """One transport serves several event loops, one after the other and at once in threads."""
        transport = make(server.base, timeout=5)

        async def some() -> list[str]:
            return [a.text for a in await asyncio.gather(*(transport.acomplete(asking("ok")) for _ in range(5)))]

        assert all(len(asyncio.run(some())) == 5 for _ in range(3))
        assert server.calls["ok"] == 15

    async def test_cancelling_ends_it(self, server, make):
        """A cancelled attempt ends at once; it doesn't wait for the answer."""
        transport = make(server.base, timeout=10)
        await transport.acomplete(asking("ok"))
        began = time.perf_counter()
        task = asyncio.create_task(transport.acomplete(asking("slow:9")))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.perf_counter() - began < 6

    def test_a_stream_may_be_left(self, server, make):
        """Closing a stream early raises nothing, and the transport works on."""
        transport = make(server.base)
        events = transport.stream(asking("slowstream:20"))
        assert next(events).type == "start"
        events.close()
        assert transport.complete(asking("ok")).finish_reason == "stop"

    async def test_an_async_stream_may_be_left(self, server, make):
        """The same on the async side."""
        transport = make(server.base)
        events = transport.astream(asking("slowstream:20"))
        assert (await anext(events)).type == "start"
        await events.aclose()
        assert (await transport.acomplete(asking("ok"))).finish_reason == "stop"


class TestSecrets:
    def test_by_reference(self, server, make, monkeypatch):
        """`env:NAME` is read when it is needed, and neither the key nor the variable's value shows in the repr."""
        monkeypatch.setenv("ESCALADE_TEST_KEY", "from-env")
        transport = make(server.base, api_key="env:ESCALADE_TEST_KEY")
        transport.complete(asking("ok"))
        assert server.requests[0]["authorization"] == "Bearer from-env"
        assert "from-env" not in repr(transport)

    def test_missing_variable(self, server, make, monkeypatch):
        """A variable that isn't set is a NotConfiguredError that names it, and nothing is sent."""
        monkeypatch.delenv("ESCALADE_TEST_KEY", raising=False)
        with pytest.raises(lm15.NotConfiguredError, match="ESCALADE_TEST_KEY"):
            make(server.base, api_key="env:ESCALADE_TEST_KEY").complete(asking("ok"))
        assert not server.calls

    def test_plain(self):
        """Any other text is the secret itself, None stays None."""
        assert resolve_secret("sk-1") == "sk-1"
        assert resolve_secret(None) is None


class TestNormalising:
    """Usage is in OpenAI's convention whatever the provider calls it."""

    def test_anthropic_input_includes_the_cached(self):
        """Anthropic counts cached tokens beside the input; here they are part of it."""
        usage = _usage(
            Usage(input_tokens=10, output_tokens=5, cache_read_tokens=100, cache_write_tokens=7), "anthropic"
        )
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (117, 5, 122)

    @pytest.mark.parametrize("provider", ["gemini", "vertex", "xai"])
    def test_output_includes_reasoning(self, provider):
        """Gemini and xAI count reasoning beside the output; here it is part of it."""
        usage = _usage(Usage(input_tokens=10, output_tokens=5, reasoning_tokens=20), provider)
        assert (usage.input_tokens, usage.output_tokens) == (10, 25)

    @pytest.mark.parametrize("provider", ["anthropic", "gemini", "xai", "openai"])
    def test_agrees_with_dspy(self, provider):
        """It is DSPy's own mapping, which DSPy doesn't apply to custom engines."""
        from dspy.clients.call_result import usage_dict
        from dspy.lm15 import Response

        told = Usage(input_tokens=10, output_tokens=5, cache_read_tokens=3, reasoning_tokens=2)
        answer = Response(id="1", model="m", message=Message.assistant("x"), finish_reason="stop", usage=told)
        theirs, ours = usage_dict(answer, provider), _usage(told, provider)
        assert (theirs["prompt_tokens"], theirs["completion_tokens"]) == (ours.input_tokens, ours.output_tokens)

    def test_unknown_stays_unknown(self):
        """What was not reported is None, not 0."""
        assert _usage(Usage(), "anthropic") == Usage()


def test_top_k_reaches_litellm(server):
    """`top_k`, which OpenAI's dialect doesn't have, is handed on: servers behind litellm may take it."""
    LiteLLM(api_key="k", api_base=server.base).complete(asking("ok", top_k=5))
    assert server.requests[0]["body"]["top_k"] == 5


@pytest.mark.slow
def test_litellm_stays_at_home():
    """Left alone, litellm asks GitHub for its price map when it is imported; the transport's import of it doesn't."""
    code = (
        "import socket\n"
        "def no(*a, **k): raise SystemExit('asked the network for ' + repr(a))\n"
        "socket.getaddrinfo = no\n"
        "from escalade.agents.transports import LiteLLM\n"
        "LiteLLM.preload().join()\n"
        "import litellm, time; time.sleep(0.5)\n"
        "print('quiet')"
    )
    env = {k: v for k, v in os.environ.items() if k != "LITELLM_LOCAL_MODEL_COST_MAP"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "quiet"
    assert "asked the network" not in done.stderr


def test_lm15_closes(server):
    """Closing drops the connections; the next call opens new ones."""
    transport = LM15(api_key="k", api_base=server.base)
    transport.complete(asking("ok"))
    transport.close()
    assert transport.complete(asking("ok")).finish_reason == "stop"


def test_unknown_provider_on_lm15(server):
    """A model that lm15 has no route for is refused before anything is sent."""
    with pytest.raises(lm15.UnknownModelError):
        LM15(api_key="k", api_base=server.base).complete(Request(model="nonsuch/model", messages=(Message.user("hi"),)))


def test_nobody_imports_litellm_in_passing():
    """The transports' package, and every transport but litellm's own, leave litellm and its seconds alone."""
    code = (
        "import sys\n"
        "import escalade.agents.transports as t\n"
        "assert 'dspy' not in sys.modules\n"
        "t.LM15, t.Recorded, t.Simulated, t.LiteLLM\n"
        "print('litellm' in sys.modules and hasattr(sys.modules['litellm'], '__file__') and "
        "'litellm.main' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_unknown_transport():
    """A transport that doesn't exist is an AttributeError, like any other name of a module."""
    from escalade.agents import transports

    with pytest.raises(AttributeError, match="Telepathy"):
        _ = transports.Telepathy


class TestContract:
    """What `litellm.py` borrows from DSPy's inside and from litellm's: an upgrade that moves it fails here, by name."""

    def test_dspys_helpers(self):
        """The private helpers are there and take what we hand them."""
        from dspy.clients._http import retry_after_seconds
        from dspy.clients._litellm import get_litellm
        from dspy.clients.engines.litellm_engine import _ChatStream
        from dspy.clients.engines.litellm_errors import to_lm15_error
        from dspy.clients.lm15_boundary import request_kwargs, response_value

        assert list(inspect.signature(request_kwargs).parameters) == ["request", "model_type"]
        assert list(inspect.signature(response_value).parameters) == ["response", "model_type", "request"]
        assert {"model", "provider"} <= set(inspect.signature(to_lm15_error).parameters)
        assert list(inspect.signature(get_litellm).parameters) == ["feature"]
        assert retry_after_seconds("7") == 7.0
        codec = _ChatStream(asking("ok"))
        assert callable(codec.feed)
        assert callable(codec.finish)

    def test_litellms_stream_says_whether_it_was_finished(self, server):
        """The wrapper's two attributes by which a cut stream is told from a complete one."""
        import litellm

        source = litellm.completion(
            model="openai/ok",
            messages=[{"role": "user", "content": "hi"}],
            api_key="k",
            api_base=server.base,
            stream=True,
        )
        assert source.received_finish_reason is None
        assert source.intermittent_finish_reason is None
        list(source)
        assert source.received_finish_reason == "stop"

    def test_the_engine_pair_is_not_dspys(self):
        """DSPy goes around a wrapper that offers `complete_legacy`: ours must not look like its engine."""
        assert not hasattr(LiteLLM, "complete_legacy")
        assert not hasattr(LiteLLM(), "complete_legacy")
        assert not hasattr(LM15(), "complete_legacy")
