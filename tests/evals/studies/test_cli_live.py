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
    assert main(["confirm", "threshold-0.8", "runs/qa", "--budget", "0.50", "--margin", "0.06"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "threshold-0.8, live on 40 questions: quality" in said
    assert "in the interval of the replay" in said
    again = ["compare", "--data", "runs/qa", "--policies", "threshold-0.8", "--live", "--json"]
    assert main([*again, "--margin", "0.06"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 40
    assert found["spent_usd"] == 0 < found["spent_before_usd"]
    assert found["holds"]


def test_what_can_not_be_told_ends_with_101(folder, capsys):
    """Neither three questions nor an interval that is wider than the margin confirm anything."""
    assert main(["confirm", "threshold-0.8", "runs/qa", "--sample", "3", "--json"]) == 101
    found = json.loads(capsys.readouterr().out)
    assert found["holds"] is None
    assert found["quality"]["verdict"] == found["cost"]["verdict"] == "too few"
    assert main(["confirm", "threshold-0.8", "runs/qa", "--sample", "3"]) == 101
    said = " ".join(capsys.readouterr().out.split())
    assert "quality 100.0 %, replayed 100.0 %; cost" in said
    assert "Too few to tell whether it holds: 3 are compared, and intervals are shown to hold from 30 on." in said
    assert main(["confirm", "threshold-0.8", "runs/qa"]) == 101
    assert "an interval is wider than the margin" in " ".join(capsys.readouterr().out.split())


def test_another_model_behind_an_alias_is_refused(folder, capsys):
    """What was recorded of one model promises nothing of another one; who says so may run it, and is told."""
    (folder / "models_live.py").write_text(
        "from escalade import Escalate, Gateway, World\n"
        "from escalade.agents.policies import Constant\n"
        "models = World().as_models()\n"
        "models[0].id = 'sim/large'\n"
        "qa = Escalate('question -> answer', rungs=['small', 'large'], policy=Constant(0), gateway=Gateway(models))\n"
    )
    options = ["confirm", "threshold-0.8", "runs/qa", "--program", "models_live:qa", "--dir", "runs/live"]
    assert main(options) == 2
    said = capsys.readouterr().err
    assert "rung 'Predict/small' isn't what was recorded: model (small, sim/small -> small, sim/large) changed" in said
    assert "--changed" in said
    assert not (folder / "runs" / "live").exists()
    assert main([*options, "--changed"]) in {100, 101}
    assert "not what the replay is of: rung 'Predict/small'" in " ".join(capsys.readouterr().out.split())


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


def test_another_responder_is_told(folder, capsys):
    """A provider who names another model than in the record, under the same id, stands first among what differs."""
    path = folder / "runs" / "qa" / "attempts.jsonl"
    path.write_text(path.read_text().replace('"model":"sim/large"', '"model":"sim/large-2025-01-01"'))
    told = "Predict/large is answered by sim/large, and was by sim/large-2025-01-01"
    for _ in range(2):  # asked, and as it was kept
        assert main(["confirm", "Predict/large", "runs/qa", "--margin", "0.06"]) == 0
        assert told in " ".join(capsys.readouterr().out.split())
    assert main(["confirm", "Predict/small", "runs/qa", "--margin", "0.06", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["causes"] == []


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
