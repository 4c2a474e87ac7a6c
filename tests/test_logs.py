"""Logs as lines of JSON: what a line says, what none says, and that nothing is configured by an import."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy import lm15
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import escalade
from escalade import Chain, Gateway, Model, Price, Registry, json_logs, telemetry, tool
from escalade.agents._route import Retry
from tests.agents.scripted import Scripted, rate_limited

SECRET = "canary@example.com"
ANSWER = f"[[ ## answer ## ]]\nwrite to {SECRET}\n\n[[ ## completed ## ]]"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go; whatever a test opened is closed."""
    before = list(logging.getLogger("escalade").handlers)
    yield io.StringIO()
    for handler in logging.getLogger("escalade").handlers:
        if handler not in before and not isinstance(handler, logging.NullHandler):
            handler.close()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def lm(*script: Any) -> Any:
    model = Model("small", "openai/tiny-1", Scripted([*script, ANSWER]), price=Price.of("1", "10"))
    return Gateway([model], name="logs", retry=Retry(retries=1, base=0.0)).lm("small")


def test_a_line_for_all_that_ends(stream: io.StringIO) -> None:
    """Run, node, model, cost, outcome, seconds; what failed is a warning with the class of its error."""
    json_logs(stream)
    model = lm(rate_limited(0.0))

    async def ask(question: str) -> str:
        return str((await dspy.Predict("question -> answer").acall(question=question, lm=model)).answer)

    with escalade.scope(budget="1.00", run_id="run-7") as run:
        Chain(ask=ask)(question=f"who is {SECRET}?")
        spent = int(run.spent)
    failed, answered, node, workflow, last = lines(stream)
    assert failed["time"].endswith("Z")
    assert (failed["level"], failed["event"], failed["error"]) == ("warning", "chat tiny-1", "RateLimitError")
    about = {"event": "chat tiny-1", "level": "info", "run": "run-7", "node": "ask", "model": "small", "outcome": "ok"}
    assert about.items() <= answered.items()
    assert answered["cost_nanos"] == node["cost_nanos"] == workflow["cost_nanos"] == last["cost_nanos"] == spent
    assert answered["gen_ai.usage.input_tokens"] == 100
    assert answered["seconds"] > 0
    assert (node["event"], node["node"]) == ("escalade.node ask", "ask")
    assert [line["event"] for line in (workflow, last)] == ["invoke_workflow Chain(ask)", "escalade.run"]
    assert SECRET not in stream.getvalue()
    assert "write to" not in stream.getvalue()


def test_previews(stream: io.StringIO) -> None:
    """Asked for, prompts and answers of models have a hash, their length and a redacted beginning; equal texts have
    equal hashes.
    """
    json_logs(stream, previews=True)
    model = lm(ANSWER)
    with escalade.scope():
        for _ in range(2):
            model(f"mail {SECRET} about it")
    first, second, _ = lines(stream)
    assert first["escalade.input.preview"] == "mail <email> about it"
    assert first["escalade.input.length"] == len(f"mail {SECRET} about it")
    assert first["escalade.input.hash"] == second["escalade.input.hash"] != first["escalade.output.hash"]
    assert "write to <email>" in first["escalade.output.preview"]
    assert SECRET not in stream.getvalue()


@pytest.mark.parametrize("logs_first", [True, False])
@pytest.mark.parametrize("wanted", ["logs", "spans"])
def test_previews_are_for_who_asked(stream: io.StringIO, wanted: str, logs_first: bool) -> None:
    """Those of the log never go out in spans, nor the other way round, whoever was switched on first; and switching the
    spans off leaves the log its own.
    """
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    starts = [
        lambda: json_logs(stream, previews=wanted == "logs"),
        lambda: telemetry.enable(provider, previews=wanted == "spans"),
    ]
    try:
        for start in starts if logs_first else reversed(starts):
            start()
        with escalade.scope():
            lm()("a diagnosis")
        logged = [line.get("escalade.input.preview") for line in lines(stream) if line["event"].startswith("chat")]
        told = [(s.attributes or {}).get("escalade.input.preview") for s in exporter.get_finished_spans()]
        assert logged == (["a diagnosis"] if wanted == "logs" else [None])
        assert ("a diagnosis" in told) == (wanted == "spans")
    finally:
        telemetry.disable()
    with escalade.scope():
        lm()("another one")
    assert ("another one" in stream.getvalue()) == (wanted == "logs")


async def test_previews_of_streams(stream: io.StringIO) -> None:
    """The same, once the stream has come to its end."""
    json_logs(stream, previews=True)
    engine = lm()._async_engine_spec
    async with escalade.scope():
        async for _ in engine.stream(lm15.Request("escalade/small", (lm15.Message.user(f"mail {SECRET}"),))):
            pass
    line = lines(stream)[0]
    assert line["escalade.input.preview"] == "mail <email>"
    assert line["escalade.output.length"] == len(ANSWER)
    assert "write to <email>" in line["escalade.output.preview"]
    assert SECRET not in stream.getvalue()


def test_tools_and_refusals(stream: io.StringIO) -> None:
    """Tools by name; a refusal is a warning."""
    json_logs(stream)
    found = Registry([tool(name="crm.search", cost="2")(lambda: SECRET)], name="logs").resolve("crm.search")
    with pytest.raises(escalade.BudgetExceeded), escalade.scope(budget="3.00"):
        found()
        found()
    ran, refused = lines(stream)[:2]
    assert (ran["tool"], ran["outcome"], ran["cost_nanos"]) == ("crm.search", "ok", 2_000_000_000)
    assert (refused["level"], refused["outcome"], refused["error"]) == ("warning", "refused", "BudgetExceeded")
    assert SECRET not in stream.getvalue()


def test_what_our_loggers_say(stream: io.StringIO) -> None:
    """Other records are lines of the same form: message, extra fields and exception, redacted; what is no JSON is
    written as text.
    """
    json_logs(stream)
    logger = logging.getLogger("escalade.somewhere")
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("%s is late", SECRET, extra={"when": {"at": float("nan"), "who": object}, "mail": SECRET})
    (line,) = lines(stream)
    assert (line["level"], line["logger"], line["message"]) == ("error", "escalade.somewhere", "<email> is late")
    assert line["exception"].endswith("ValueError: <email>")
    assert line["mail"] == "<email>"
    assert SECRET not in stream.getvalue()


def test_levels_and_the_end(stream: io.StringIO) -> None:
    """Below its level nothing is written; closed, nothing at all, and loggers are as they were."""
    tree = logging.getLogger("escalade")
    before = tree.level
    handler = json_logs(stream, level=logging.WARNING)
    with escalade.scope():
        lm()("hi")
    assert not lines(stream)
    handler.close()
    with pytest.raises(escalade.BudgetExceeded), escalade.scope(budget="0.000001"):
        lm()("hi")
    assert not lines(stream)
    assert tree.level == before
    assert telemetry.switch.tracer is None


def test_lines_and_spans_belong_together(stream: io.StringIO) -> None:
    """With spans on, a line names its trace and its span."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable(provider)
    handler = json_logs(stream)
    try:
        with escalade.scope():
            lm()("hi")
    finally:
        telemetry.disable()
        handler.close()
    spans = {f"{s.context.span_id:016x}": f"{s.context.trace_id:032x}" for s in exporter.get_finished_spans()}
    assert {line["span_id"]: line["trace_id"] for line in lines(stream)} == spans


@pytest.mark.slow
def test_an_import_configures_nothing() -> None:
    """`import escalade`, and even a scope, change no logger's level and write no line."""
    code = (
        "import logging, escalade\n"
        "from escalade import Registry, tool\n"
        "found = Registry([tool(name='t')(lambda: 'x')], name='r').resolve('t')\n"
        "with escalade.scope():\n    found()\n"
        "print(logging.getLogger('escalade').level, logging.getLogger().handlers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0 []\n"
    assert done.stderr == ""
