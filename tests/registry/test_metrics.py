"""Usage in figures: refusals and arguments, and the text that Prometheus reads."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import escalade
from escalade import Journal, Principal, Registry, Roles, tool
from escalade.money import Money
from escalade.registry.guard import UNKNOWN_ARGUMENT
from escalade.registry.metrics import usage_metrics
from escalade.registry.stores.sqlite_limits import SqliteLimiter
from escalade.registry.usage import usage_of


def search(query: str, limit: int = 10) -> str:
    """Search."""
    if query == "boom":
        raise ValueError(query)
    return query * limit


def shop() -> Registry:
    made = [tool(name="crm.search", version=v, cost="0.002", limits="5/h")(search) for v in ("1.0.0", "1.1.0")]
    return Registry(made, name="shop")


def used(registry: Registry, journal: Journal | None = None) -> None:
    """Two calls that work, one that fails, three with wrong arguments, one that is denied, two over the limit."""
    access = Roles({"caller": ["crm.*:call"], "guest": ["x:read"]})
    with escalade.scope(principal=Principal(roles={"caller"}), access=access, recorder=journal):
        called = registry.resolve("crm.search", "1.0.0")
        for args in ({"query": "a"}, {"query": "b", "limit": 2}, {"query": "boom"}):
            _quietly(called, args)
        for args in ({"query": "a", "limit": "many"}, {"limit": 1}, {"query": "a", "colour": "red"}):
            _quietly(called, args)
        with escalade.scope(principal=Principal("eve", roles={"guest"})):
            _quietly(called, {"query": "a"})
        for _ in range(4):
            _quietly(called, {"query": "a"})


def _quietly(called: Any, args: dict[str, Any]) -> None:
    try:
        called(**args)
    except Exception as error:  # whatever it is, it is counted
        assert not isinstance(error, AssertionError)


def test_what_was_refused_and_why() -> None:
    """Denials by class, and wrong arguments by the names that the schema has; made-up names count as one."""
    registry = shop()
    used(registry)
    usage = registry.usage()[0]
    assert (usage.calls, usage.failures, usage.successes, usage.denied) == (5, 1, 4, 6)
    assert usage.refusals == {"InvalidArguments": 3, "PermissionDenied": 1, "RateLimited": 2}
    assert usage.invalid == {UNKNOWN_ARGUMENT: 1, "limit": 1, "query": 1}
    assert usage.seconds > 0
    assert usage.as_dict()["cost"] == 10_000_000
    assert usage.as_dict()["successes"] == 4


def test_usage_out_of_a_record() -> None:
    """A journal's entries give the same figures, also of which arguments were wrong."""
    registry, journal = shop(), Journal()
    used(registry, journal)
    (found,) = usage_of(journal.entries() + journal.denials())
    usage = registry.usage()[0]
    for name in ("name", "version", "calls", "failures", "denied", "cost", "unpriced", "refusals", "invalid"):
        assert getattr(found, name) == getattr(usage, name), name


def test_tokens_are_reported() -> None:
    """By who knows them."""
    registry = shop()
    registry.log_usage("crm.search", 0.5, True, version="1.0.0", cost="0.01", tokens=120)
    registry.log_usage("crm.search", 0.5, True, version="1.0.0", tokens=3)
    usage = registry.usage()[0]
    assert (usage.tokens, usage.cost, usage.unpriced, usage.seconds) == (123, Money.of("0.01"), 1, 1.0)


LINE = re.compile(r'[a-z_]+(\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\})? (\S+)')


def test_prometheus_can_read_it() -> None:
    """Each family with help and type, each sample well-formed, numbers as they were; nothing of who called what."""
    registry = shop()
    used(registry)
    text = usage_metrics(registry)
    assert text.endswith("\n")
    families = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(families) == len(set(families)) == 11
    for line in text.splitlines():
        assert line.startswith("# ") or LINE.fullmatch(line), line
    one = 'tool="crm.search",version="1.0.0"'
    for expected in (
        f'escalade_tool_calls_total{{{one},outcome="ok"}} 4',
        f'escalade_tool_calls_total{{{one},outcome="failed"}} 1',
        f'escalade_tool_refusals_total{{{one},reason="RateLimited"}} 2',
        f'escalade_tool_invalid_arguments_total{{{one},argument="limit"}} 1',
        f"escalade_tool_cost_dollars_total{{{one}}} 0.01",
        f"escalade_tool_duration_seconds_count{{{one}}} 5",
        'escalade_tool_duration_seconds{tool="crm.search",version="1.1.0",quantile="0.5"} NaN',
    ):
        assert expected in text.splitlines()
    assert "eve" not in text
    assert "boom" not in text


def test_labels_are_bounded() -> None:
    """Whatever models make up, the number of samples is that of tools, arguments and refusals."""
    registry = shop()
    with escalade.scope():
        called = registry.resolve("crm.search", "1.1.0")
        for n in range(50):
            with pytest.raises(escalade.InvalidArguments):
                called(**{f"made_up_{n}": n})
    text = usage_metrics(registry)
    assert "made_up" not in text
    assert f'argument="{UNKNOWN_ARGUMENT}"}} 50' in text


def test_an_empty_registry() -> None:
    """Families without samples are well-formed, too."""
    assert usage_metrics(Registry(name="empty")).count("# HELP") == 10


def down(tmp_path: Path) -> tuple[SqliteLimiter, sqlite3.Connection]:
    """A limiter whose file somebody else writes to without end, and that somebody."""
    limiter = SqliteLimiter(tmp_path / "limits.db", patience=0.05)
    limiter.wait(())
    other = sqlite3.connect(tmp_path / "limits.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return limiter, other


def test_what_did_not_run_and_what_was_not_checked(tmp_path: Path) -> None:
    """Answers by where they came from, uses past a gate that was down, failures of the cache: counted per tool, and the
    same out of a record.
    """
    limiter, other = down(tmp_path)
    made = [
        tool(name="look", side_effects="read", cache=60, dry="dry")(lambda: "looked"),
        tool(name="send", once=True)(lambda: "sent"),
        tool(name="open", limits="5/h", when_store_is_down="open")(lambda: "done"),
    ]
    registry, journal = Registry(made, name="sources", limiter=limiter), Journal()
    with escalade.scope(recorder=journal):
        for _ in range(3):
            registry.resolve("look")()
            registry.resolve("send")()
        registry.resolve("open")()
        with escalade.scope(mode="dry-run"):
            registry.resolve("look")()
    other.close()
    looked, opened, sent = registry.usage()
    assert (looked.calls, looked.answered) == (1, {"cache": 2, "dry-run": 1})
    assert (sent.calls, sent.answered) == (1, {"once": 2})
    assert (opened.calls, opened.unchecked) == (1, {"limits": 1})
    text = usage_metrics(registry).splitlines()
    for expected in (
        'escalade_tool_answers_total{tool="look",version="1.0.0",source="cache"} 2',
        'escalade_tool_answers_total{tool="look",version="1.0.0",source="dry-run"} 1',
        'escalade_tool_answers_total{tool="send",version="1.0.0",source="once"} 2',
        'escalade_tool_unchecked_total{tool="open",version="1.0.0",gate="limits"} 1',
        'escalade_tool_cache_failures_total{tool="look",version="1.0.0"} 0',
        'escalade_tool_calls_total{tool="look",version="1.0.0",outcome="ok"} 1',
    ):
        assert expected in text
    found = {usage.name: usage for usage in usage_of(journal.entries() + journal.denials())}
    for usage in (looked, opened, sent):
        assert (found[usage.name].answered, found[usage.name].unchecked) == (usage.answered, usage.unchecked)
