"""`Recorded`: what was said once is said again, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import threading

import dspy
import pytest
from dspy import lm15
from dspy.lm15 import Config, Message, Request

from escalade.agents.transports import Recorded, Simulated
from escalade.agents.transports.recorded import NotRecorded, Recording, digest
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, DataError
from tests.agents.bare import bare_lm
from tests.agents.scripted import Scripted, rate_limited


def asking(text: str = "hi", model: str = "m", **config) -> Request:
    return Request(model=model, messages=(Message.user(text),), config=Config(**config))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "one.jsonl"


def test_replays_what_was_recorded(path):
    """The answer, its usage and its latency come back; the inner transport is not needed any more."""
    inner = Scripted(["first"])
    said = Recorded(path, inner, "record").complete(asking())
    again = Recorded(path).complete(asking())
    assert again == said
    assert (again.usage.input_tokens, again.usage.output_tokens) == inner.tokens
    line = json.loads(path.read_text().splitlines()[1])
    assert line["latency"] >= 0
    assert line["turn"] == 0


def test_identical_requests_in_order(path):
    """The n-th identical request gets the n-th answer."""
    record = Recorded(path, Scripted(["a", "b", "c"]), "record")
    for _ in range(3):
        record.complete(asking())
    replay = Recorded(path)
    assert [replay.complete(asking()).text for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "other",
    [asking("ho"), asking(model="n"), asking(temperature=1.0), asking(max_tokens=9)],
    ids=["text", "model", "temperature", "limit"],
)
def test_unrecorded_is_an_error(path, other):
    """A request that differs in anything that is sent raises NotRecorded and is never answered by a guess."""
    Recorded(path, Scripted(["a"]), "record").complete(asking())
    with pytest.raises(NotRecorded, match="no answer to this request"):
        Recorded(path).complete(other)


def test_one_too_many(path):
    """More identical requests than recorded are an error that says so; `rewind` begins again."""
    Recorded(path, Scripted(["a"]), "record").complete(asking())
    replay = Recorded(path)
    replay.complete(asking())
    with pytest.raises(NotRecorded, match=r"has 1 answers .* number 2"):
        replay.complete(asking())
    replay.rewind()
    assert replay.complete(asking()).text == "a"


def test_not_recorded_is_the_callers_fault():
    """The error's class is one that is neither retried nor answered by another model."""
    assert issubclass(NotRecorded, lm15.InvalidRequestError)
    assert not issubclass(NotRecorded, lm15.RETRYABLE_ERRORS)


async def test_async_and_streams(path):
    """What was recorded on one of the four ways can be replayed on the other three."""
    ways = ("complete", "acomplete", "stream", "astream")
    for way in ways:
        await _by(Recorded(path, Scripted(["hello there, world"]), "record"), way, asking(way))
    for recorded_by in ways:
        for way in ways:
            assert await _by(Recorded(path), way, asking(recorded_by)) == ("hello there, world", 100)


async def _by(transport, way, request):
    """Text and input tokens, by one of the four ways."""
    if way == "complete":
        answer = transport.complete(request)
    elif way == "acomplete":
        answer = await transport.acomplete(request)
    elif way == "stream":
        answer = lm15.materialize_response(transport.stream(request), request)
    else:
        answer = await lm15.amaterialize_response(transport.astream(request), request)
    return answer.text, answer.usage.input_tokens


async def test_errors_are_recorded(path):
    """Failures come back as what they were, with the wait that was asked for, sync and async, before the answer."""
    record = Recorded(path, Scripted([rate_limited(3.0), lm15.ServerError("boom", status=500), "fine"]), "record")
    for error in (lm15.RateLimitError, lm15.ServerError):
        with pytest.raises(error):
            record.complete(asking())
    record.complete(asking())
    replay = Recorded(path)
    with pytest.raises(lm15.RateLimitError) as limited:
        replay.complete(asking())
    assert limited.value.retry_after == 3.0
    with pytest.raises(lm15.ServerError, match="boom") as failed:
        await replay.acomplete(asking())
    assert failed.value.status == 500
    assert replay.complete(asking()).text == "fine"


def test_a_cut_stream_is_recorded_as_its_error(path):
    """A stream that broke off is replayed as the error that it ended with."""
    cut = ("some text", lm15.StreamAssemblyError("cut"))
    with pytest.raises(lm15.StreamAssemblyError):
        list(Recorded(path, Scripted([cut]), "record").stream(asking()))
    with pytest.raises(lm15.StreamAssemblyError):
        list(Recorded(path).stream(asking()))


def test_a_stream_left_early_is_not_recorded(path):
    """What nobody heard to its end is not in the recording."""
    record = Recorded(path, Scripted(["some text"]), "record")
    events = record.stream(asking())
    next(events)
    events.close()
    assert len(record.recording) == 0


def test_fill_asks_only_for_what_is_missing(path):
    """Mode "fill" replays what there is, asks for the rest, and remembers it."""
    Recorded(path, Scripted(["a"]), "record").complete(asking())
    inner = Scripted(["b"])
    fill = Recorded(path, inner, "fill")
    assert [fill.complete(asking()).text, fill.complete(asking("ho")).text] == ["a", "b"]
    assert len(inner.requests) == 1
    assert Recorded(path).complete(asking("ho")).text == "b"


def test_recording_goes_on(path):
    """A second recorder appends to the file of the first."""
    Recorded(path, Scripted(["a"]), "record").complete(asking())
    Recorded(path, Scripted(["b"]), "record").complete(asking())
    replay = Recorded(path)
    assert [replay.complete(asking()).text for _ in range(2)] == ["a", "b"]


def test_in_memory():
    """A `Recording` without a path is shared between a recorder and a replayer."""
    recording = Recording()
    Recorded(recording, Scripted(["a"]), "record").complete(asking())
    assert Recorded(recording).complete(asking()).text == "a"


def test_many_threads(path):
    """Recorded and replayed by 16 threads at once, nothing is lost, torn or handed out twice."""
    world = World({"m": SimModel()})
    record = Recorded(path, Simulated(world), "record")
    _in_threads(16, lambda i: [record.complete(asking(f"q{k % 10}")) for k in range(50)])
    replay = Recorded(path)
    assert len(replay.recording) == 800
    ids = []
    _in_threads(16, lambda i: ids.extend(replay.complete(asking(f"q{k % 10}")).id for k in range(50)))
    assert len(set(ids)) == 800


def _in_threads(n, work):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def test_many_tasks():
    """The same for tasks on one loop."""
    recording = Recording()
    record = Recorded(recording, Simulated(World({"m": SimModel(latency=0.01)})), "record")
    said = await asyncio.gather(*(record.acomplete(asking(f"q{k}")) for k in range(20)))
    replay = Recorded(recording)
    assert list(await asyncio.gather(*(replay.acomplete(asking(f"q{k}")) for k in range(20)))) == list(said)


def test_a_torn_last_line_is_cut_off(path):
    """A recorder that died in the middle of a line loses that line only, and the file can be written on."""
    Recorded(path, Scripted(["a"]), "record").complete(asking())
    with path.open("a") as file:
        file.write('{"key": "abc", "tu')
    Recorded(path, Scripted(["b"]), "record").complete(asking("ho"))
    replay = Recorded(path)
    assert [replay.complete(asking()).text, replay.complete(asking("ho")).text] == ["a", "b"]


@pytest.mark.parametrize(
    "line", ["{oops", "[1]", '{"key": "k"}', '{"key": "k", "latency": 1}', '{"escalade_recording": 99, "supports": {}}']
)
def test_a_bad_line_is_named(path, line):
    """A line that is not one of a recording is a DataError with its number."""
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    with pytest.raises(DataError, match="line 1"):
        Recorded(path)


def test_no_file(path):
    """Replaying a file that doesn't exist says how to make one."""
    with pytest.raises(DataError, match="mode='record'"):
        Recorded(path)


@pytest.mark.parametrize("options", [{"mode": "rewind"}, {"mode": "record"}, {"mode": "fill"}, {"pace": -1}])
def test_bad_options(path, options):
    """An unknown mode, recording without something to record, a negative pace: BadInput."""
    with pytest.raises(BadInput):
        Recorded(path, **options)


def test_pace(path):
    """At pace 1 a replay takes the recorded time."""
    import time

    record = Recorded(path, Simulated(World({"m": SimModel(latency=0.05)})), "record")
    record.complete(asking())
    began = time.perf_counter()
    Recorded(path, pace=1.0).complete(asking())
    assert time.perf_counter() - began >= 0.045


def test_hints_are_recorded(path):
    """A replay offers what the recorded transport offered: DSPy writes its prompts by it."""
    inner = Scripted()
    inner.supports_response_schema = False
    Recorded(path, inner, "record").complete(asking())
    replay = Recorded(path)
    assert not replay.supports_response_schema
    assert replay.supports_function_calling
    assert not replay.supports_reasoning
    assert replay.supported_params == inner.supported_params
    assert (replay.name, Recorded(path, inner, "fill").name) == ("recorded", "recorded scripted")


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()])
def test_a_program_replayed(path, adapter):
    """A DSPy program, with tools and log probabilities, gives the same predictions from its recording."""
    world = World(seed=3)
    questions = [e.question for e in world.task(5)]

    def run(transport):
        program = dspy.ChainOfThought("question -> answer: int, confidence: float")
        agent = dspy.ReAct("question -> answer", tools=[calc], max_iters=2)
        with dspy.context(lm=bare_lm(transport, "small"), adapter=adapter):
            return [(program(question=q).toDict(), agent(question=q).toDict()) for q in questions]

    assert run(Recorded(path, Simulated(world), "record")) == run(Recorded(path))


def calc(expression: str) -> str:
    """Calculate."""
    return "12"


def test_digest_is_stable():
    """The digest of a request doesn't change between versions: recordings are kept for years."""
    assert digest(asking("hello", temperature=0.5)) == "ba02ee5e91100f2f7510c432f585e79d"


def test_contract():
    """The private helpers of DSPy that recordings are written with are there."""
    from dspy._vendor.lm15.errors import canonical_error_code, error_class_for_code
    from dspy._vendor.lm15.serde import response_from_dict, response_to_dict

    answer = Scripted()._response(asking(), "hi")
    assert response_from_dict(response_to_dict(answer, include_provider_data=True)) == answer
    assert error_class_for_code(canonical_error_code(lm15.TimeoutError("x"))) is lm15.TimeoutError
