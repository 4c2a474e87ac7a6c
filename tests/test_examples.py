"""What the examples print, beyond that they run (`test_docs.py` runs each as it is)."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import escalade
from tests._house import ROOT


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs an example by name; its variables and what it printed."""

    def running(name: str) -> tuple[dict[str, Any], str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", [name])
        names = runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return names, capsys.readouterr().out

    return running


def test_cost_aware_agent(run: Any) -> None:
    """It escalates some questions and not others, stays within its budget, and says why it climbed."""
    names, text = run("cost_aware_agent.py")
    assert 0 < names["escalated"] < len(names["questions"])
    assert names["right"] > names["alone"]
    assert 0 < names["scope"].spent <= 50_000_000
    assert re.search(r"confidence 0\.\d\d < 0\.80", text)
    assert f"{names['scope'].spent} spent" in text


def test_cost_aware_agent_keeps_each_request_within_its_budget(run: Any) -> None:
    """No request costs more than its own budget, and one that is too small for the dear rung is answered cheaply."""
    names, text = run("cost_aware_agent.py")
    assert names["dearest"] <= 15_000_000
    assert "doesn't fit" in text


def test_parallel_agents(run: Any) -> None:
    """Three agents with tools wait side by side; who is late is missing and nobody waits for him; a guest's agent can't
    book; what the calls of models and tools cost is what was spent.
    """
    names, text = run("parallel_agents.py")
    whole, without, looking = names["whole"], names["without"], names["looking"]
    assert whole.plan == without.plan == looking.plan == "Take the 9:12; two nights are 140 dollars."
    assert {name: status.state for name, status in whole.statuses.items()} == dict.fromkeys(
        ["search", "analysis", "booking"], "ok"
    )
    assert without.missing.keys() == {"booking"}
    assert without.missing["booking"].state == "timeout"
    assert names["seconds"] < 12, "the hotel hangs for 15 s"
    calls = {usage.name: usage.calls for usage in names["registry"].usage()}
    assert calls == {"trains.search": 11, "rates.find": 11, "rooms.hold": 10}
    assert looking.statuses["booking"].cost < whole.statuses["booking"].cost
    assert len(names["results"]) == 8
    assert "8 plans" in text


def test_long_document(run: Any) -> None:
    """Forty pages, eight at once: shown as they come, kept as events and as a picture. A run that is stopped goes on
    with what it had, and its result is found again for nothing.
    """
    names, text = run("long_document.py")
    assert len(names["early"]) == 40
    assert "summaries: 40/40" in text
    assert Path("document.svg").read_text("utf-8").startswith("<svg")
    told = list(escalade.read_events("document-events.jsonl"))
    assert sum(type(event).__name__ == "Progress" for event in told) == 40
    assert escalade.Profile.of(told).cost == names["profile"].cost > 0
    assert names["result"].verdict.verdict == names["kept"].verdict.verdict == names["found"].verdict.verdict
    assert 8 <= names["there"] < 41 == len(names["run"].calls())
    assert 82 <= names["asked"] <= 82 + 8  # those at work when it was stopped were asked again
    assert "0 calls of models" in text


@pytest.mark.slow
def test_record_and_replay(run: Any) -> None:
    """Only the recording pays; the replay compares four policies with the strongest rung."""
    names, text = run("record_and_replay.py")
    assert names["world"].calls.total() == names["outcomes"].n * names["outcomes"].k == 600
    for name in ("large", "two must agree", "threshold 0.8", "threshold, 1 cent", "small alone"):
        assert name in text
    assert "a true difference to large" in text


def test_specialists(run: Any) -> None:
    """Cheap specialists make the same answer cheaper; a clerk's coordinator does without one that he may not ask."""
    names, text = run("specialists.py")
    cheap, dear = (line.rpartition("$")[2] for line in text.splitlines() if line.startswith("specialists on"))
    assert float(cheap) < float(dear)
    assert names["clerk"].answer == names["answer"].answer
    assert [used.error for used in names["clerk"].refusals] == ["unknown_tool"]


def test_failover(run: Any) -> None:
    """An invalid key is answered by the other provider; with all down it answers worse, and recovers."""
    names, text = run("failover.py")
    assert names["levels"] == [2, 3, 4, 4, 5, 2]
    assert "fallback (secondary)" in text
    assert "We are open from 9 to 18 h." in text
    assert "try again in 60 s" in text


@pytest.mark.slow
def test_stress(run: Any) -> None:
    """Every query of every user is answered, within the budgets, and some by another provider or worse."""
    names, text = run("stress.py")
    assert len(names["seconds"]) == sum(names["levels"].values()) == 200
    assert names["levels"][2] > 0
    assert names["levels"][3] > 0
    assert set(names["levels"]) <= {2, 3, 4, 5}
    assert int(names["total"]) == names["ledger"].account("everything").settled <= 5_000_000_000
    assert max(names["costs"]) <= 20_000_000
    assert re.search(r"p50 \d+ ms  p95 \d+ ms  p99 \d+ ms", text)
