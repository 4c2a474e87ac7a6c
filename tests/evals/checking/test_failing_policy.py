"""A failing policy cannot look good: one that raises on half of its questions has half errors, and no more quality
than what it answered, wherever one looks: live, replayed, as a study, and from a terminal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import escalade
from escalade.agents.climb import Decision, View
from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Constant, Threshold, draw, pick
from escalade.agents.world import World
from escalade.cli import main
from escalade.evals.findings import findings
from escalade.evals.studies.live import confirm

N = 80

POLICY = '''\
"""A policy that raises on half of the questions, and answers the others with the strongest rung."""

from escalade.agents.policies import draw, pick


class Half:
    name = "half"

    def decide(self, view):
        if draw(0, view.key) < 0.5:
            raise KeyError("on purpose")
        return pick(view, len(view.rungs) - 1, "")


policy = Half()
'''

STUDY = f"""\
name: failing
data: simulated:{N}
metric: simulated
rungs:
  signature: question -> answer
  models: simulated
  rungs: [small, large]
policies: [half_of_them:policy, threshold-0.8]
latency: none
folds: 2
"""


class Half:
    """Raises on half of the questions, and answers the others with the strongest rung."""

    name = "half"

    def decide(self, view: View) -> Decision:
        if draw(0, view.key) < 0.5:
            raise KeyError("on purpose")
        return pick(view, len(view.rungs) - 1, "")


def program(world: World, policy: Any) -> Escalate:
    """Two rungs of the simulated world."""
    return Escalate("question -> answer", rungs=["small", "large"], policy=policy, gateway=Gateway(world.as_models()))


@pytest.fixture(scope="module")
def recorded() -> escalade.Outcomes:
    """All rungs on all questions."""
    world = World(seed=2)
    with escalade.scope():
        return escalade.record(program(world, Threshold(0.8)), world.task(N), world.metric)


def test_replayed(recorded: escalade.Outcomes) -> None:
    """In the table, in its failures, and in words; against the same policy that doesn't raise it is worse."""
    raises = np.array([draw(0, key) < 0.5 for key in recorded.keys])
    found = escalade.compare(recorded, [Half(), Constant(1, "whole")], baseline="whole", folds=2)
    mine, whole = found.row("half"), found.row("whole")
    assert mine.errors == raises.sum()
    assert abs(raises.mean() - 0.5) < 0.12
    assert mine.quality == pytest.approx(recorded.quality[~raises, 1].sum() / N)
    assert mine.quality < 0.65 * whole.quality
    assert mine.verdict == "worse"
    assert found.cheapest_as_good is not mine
    said = findings(found, only=["checks"])
    row = next(row for row in said.table("failures").rows if row["name"] == "half")
    assert (row["failed"], row["share"]) == (raises.sum(), pytest.approx(raises.mean()))
    assert any(f"half raised on {raises.sum()} of {N} questions" in one and "KeyError" in one for one in said.sentences)
    assert found.to_json()["policies"]


def test_live(recorded: escalade.Outcomes) -> None:
    """Asked live, it has the same errors and the same quality as its replay: the promise holds, and it is a bad one."""
    world = World(seed=2)
    raises = sum(draw(0, key) < 0.5 for key in recorded.keys)
    done = confirm(Half(), program(world, Threshold(0.8)), world.task(N), world.metric, recorded, margin=0.05)
    assert done.errors == (raises, raises)
    assert done.quality.live == done.quality.replayed
    assert done.holds
    assert world.calls.total() == N - raises
    with escalade.scope(), pytest.raises(KeyError, match="on purpose"):
        app = program(world, Half())
        for example in world.task(N):
            app(question=example.question)


def test_from_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`escalade run` shows its errors in the table and in the JSON."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "half_of_them.py").write_text(POLICY)
    assert main(["run", "study.yaml"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    [line] = [words for words in shown if words[:2] == ["†", "half"]]
    assert main(["run", "study.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    row = next(row for row in told["policies"] if row["name"] == "half")
    strong = next(row for row in told["policies"] if row["verdict"] == "baseline")
    assert 0.38 < row["errors"] / N < 0.62
    assert row["quality"] <= 1 - row["errors"] / N
    assert row["quality"] < 0.65 * strong["quality"]
    assert row["verdict"] == "worse"
    assert ("worse", str(row["errors"])) == tuple(line[-2:])
