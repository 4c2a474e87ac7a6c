"""`escalade confirm` and `compare --live`: from a run directory alone, with exit codes that a CI can use."""

from __future__ import annotations

import json

import pytest

from escalade.cli import main
from escalade.evals.studies.study import Study

WORSE = """
from escalade import Escalate, Gateway, SimModel, World
from escalade.agents.policies import Constant

world = World({"small": SimModel(skill=0.05), "large": SimModel(skill=0.3, price_in="9", price_out="9")})
qa = Escalate("question -> answer", rungs=["small", "large"], policy=Constant(0), gateway=Gateway(world.as_models()))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run directory, and a program beside it whose models have changed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worse_live.py").write_text(WORSE)
    (tmp_path / "study.yaml").write_text(
        "name: qa\ndata: simulated:40\nmetric: simulated\n"
        "rungs: {signature: question -> answer, models: simulated, rungs: [small, large]}\n"
    )
    Study.load("study.yaml").run("runs/qa")
    return tmp_path


def test_what_holds_is_said_and_kept(folder, capsys):
    """Program, questions and metric are those of the run directory; the second time nothing is spent."""
    assert main(["confirm", "threshold-0.8", "runs/qa", "--budget", "0.50"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "threshold-0.8, live on 40 questions: quality" in said
    assert "in the interval of the replay" in said
    assert main(["compare", "--data", "runs/qa", "--policies", "threshold-0.8", "--live", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 40
    assert found["spent_usd"] == 0 < found["spent_before_usd"]
    assert found["holds"]


def test_what_does_not_hold_ends_with_100(folder, capsys):
    """Another program on the same questions: worse and dearer, and the reason is named."""
    options = ["--program", "worse_live:qa", "--dir", "runs/live", "--sample", "30", "--stop-early"]
    assert main(["confirm", "Predict/large", "runs/qa", *options, "--json"]) == 100
    found = json.loads(capsys.readouterr().out)
    assert found["quality"]["verdict"] == "outside"
    assert found["peeking"]
    assert found["n"] + found["owed"] == 30
    assert main(["confirm", "Predict/large", "runs/qa", *options]) == 100
    assert "outside of the interval" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["confirm", "treshold-0.8", "runs/qa"], "treshold-0.8"),
        (["confirm", "Predict/large", "runs/qa", "--program", "nowhere:qa"], "nowhere:qa"),
        (["confirm", "Predict/large", "runs/none"], "runs/none"),
        (["compare", "--data", "runs/qa", "--live"], "--policy"),
        (["compare", "--live", "--policy", "threshold-0.8"], "--data"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, options, said):
    """Exit code 2, with what is wrong."""
    assert main(options) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1]
