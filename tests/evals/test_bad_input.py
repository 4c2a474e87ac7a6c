"""Bad input in the terminal: one clear line on stderr, exit code 2, no traceback, nothing half-printed."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pytest

from escalade.agents.escalate import Escalate
from escalade.agents.gateway import Gateway
from escalade.agents.policies import Threshold
from escalade.agents.world import World
from escalade.cli import main
from escalade.errors import BadInput, DataError
from escalade.evals.compare import compare
from escalade.evals.record import record
from escalade.money import Money
from escalade.registry.opening import scope
from tests.evals._tables import table

HOLES = "question_id,model,correct\n1,a,1\n1,b,0\n2,a,1\n3,a,0\n3,b,1\n"
FILES = {
    "three.csv": "question_id,model,correct\n1,a,1\n1,b,0\n1,c,0\n2,a,1\n2,c,1\n",
    "holes.csv": HOLES,
    "empty.csv": "",
    "header.csv": "prompt,a,b\n",
    "strange.csv": "x,y\n1,2\n",
    "ragged.csv": "prompt,a,b\nq,1\n",
    "verdict.csv": "prompt,a,b\nq,1,maybe\n",
    "outside.csv": "prompt,a,b\nq,1,7\n",
    "alone.csv": "prompt\nq\n",
    "twice.csv": "question_id,model,correct\n1,a,1\n1,a,0\n",
    "nameless.csv": "question_id,model,correct\n,a,1\n",
    "cost.csv": "question_id,model,correct,cost\n1,a,1,cheap\n",
    "minus.csv": "question_id,model,correct,cost\n1,a,1,-1\n",
    "dear.csv": "question_id,model,correct,cost\n1,a,1,1e12\n",
    "confidence.csv": "question_id,model,correct,confidence\n1,a,1,80\n",
    "status.csv": "question_id,model,correct,status\n1,a,1,great\n",
    "column.csv": "question_id,model,right\n1,a,1\n",
    "same.csv": "prompt,a,a\nq,1,1\n",
    "empty.jsonl": "\n",
    "list.jsonl": "[1]\n",
    "unpriced.csv": "prompt,a,b\n" + "".join(f"q{i},1,0\n" for i in range(9)),
    "prices.json": "[]",
    "broken.toml": "a = ",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder of bad files, to be in."""
    for name, text in FILES.items():
        tmp_path.joinpath(name).write_text(text, "utf-8")
    tmp_path.joinpath("latin.csv").write_bytes(b"prompt,a,b\n\xe9,1,0\n")
    tmp_path.joinpath("cut.csv.gz").write_bytes(gzip.compress(b"prompt,a,b\nq,1,0\n")[:-9])
    tmp_path.joinpath("folder").mkdir()
    for name, file, text in (
        ("others", "x.csv", "a,b\n1,0\n"),
        ("leaked", "pair.csv", "prompt,a,b\nq,1,0\n"),
        ("leaked", "contaminated_prompts.jsonl", '["q"]\n'),
    ):
        tmp_path.joinpath(name).mkdir(exist_ok=True)
        tmp_path.joinpath(name, file).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--policies", "treshold"], "unknown policy 'treshold'; did you mean 'threshold"),
        (["--baseline", "gpt4"], "unknown policy 'gpt4'"),
        (["--data", "nowhere.csv"], "no such data file: nowhere.csv"),
        (["--data", "csv:holes.csv"], "unknown loader 'csv'"),
        (["--data", "strange.csv"], "expected the columns question_id, model, correct"),
        (["--data", "long:column.csv"], "column.csv has no column 'correct'; it has question_id, model, right"),
        (["--data", "routellm:holes.csv"], "holes.csv has no column 'prompt'; it has question_id, model, correct"),
        (["--data", "empty.csv"], "an empty data set"),
        (["--data", "header.csv"], "an empty data set"),
        (["--data", "empty.jsonl"], "an empty data set"),
        (["--data", "folder"], "no CSV file in this folder"),
        (["--data", "others"], "none of its 1 CSV files has a column 'prompt'"),
        (
            ["--data", "leaked/pair.csv"],
            "contaminated_prompts.jsonl: line 1: expected a JSON object with 'eval_prompt'",
        ),
        (["--data", "holes.csv"], "or name the rungs that are to be compared with --rungs A,B,C"),
        (["--data", "three.csv"], "or compare the rungs that lack none with --rungs a,c"),
        (["--rungs", "qwen"], "unknown rung 'qwen'"),
        (["--rungs", ","], "no rung is named"),
        (["--data", "jsonl:folder"], "folder"),
        (["--data", "list.jsonl"], "line 1"),
        (["--data", "ragged.csv"], "line 2: 2 cells under 3 columns"),
        (["--data", "verdict.csv"], "line 2: column 'b' has 'maybe'"),
        (["--data", "outside.csv"], "a verdict lies between 0 and 1"),
        (["--data", "alone.csv"], "no column with the verdicts of a model"),
        (["--data", "same.csv"], "two columns are called 'a'"),
        (["--data", "twice.csv"], "line 3: question '1' has two lines for 'a'"),
        (["--data", "nameless.csv"], "line 2: a question_id and a model are needed"),
        (["--data", "cost.csv"], "line 2: column 'cost'"),
        (["--data", "minus.csv"], "a cost isn't negative"),
        (["--data", "dear.csv"], "has 1e12; no attempt costs a million"),
        (["--data", "confidence.csv"], "'confidence' has 80, outside 0 to 1"),
        (["--data", "status.csv"], "column 'status' has 'great'"),
        (["--data", "latin.csv"], "not a text in UTF-8"),
        (["--data", "cut.csv.gz"], "a damaged gzip file"),
        (["--data", "holes.csv"], "1 of 3 questions without an outcome on every rung (b lacks 1)"),
        (["--data", "unpriced.csv", "--labels", "regraded"], "it has no re-graded labels"),
        (["--data", "unpriced.csv", "--per-request", "1"], "a budget needs prices, and what b, a cost is unknown"),
        (["--data", "unpriced.csv", "--policies", "threshold"], "it needs a confidence"),
        (["--data", "unpriced.csv", "--policies", "agreement"], "it needs answers to compare"),
        (["--per-request", "0.0000001"], "no rung fits a budget of $0.0000001 per request"),
        (["--per-run", "0.0000001"], "no rung fits a budget of $0.0000001 per run"),
        (["--per-request", "cheap"], "not an amount of dollars"),
        (["--price", "gpt-4-1106"], "write NAME=IN/OUT"),
        (["--price", "gpt=1/2"], "unknown rung to price 'gpt'"),
        (["--price", "gpt-4-1106=-1/2"], "can't be below zero"),
        (["--prices", "nowhere.json"], "price file nowhere.json"),
        (["--prices", "prices.json"], "expected an object of prices"),
        (["--prices", "broken.toml"], "price file broken.toml"),
        (["--margin", "2"], "a margin is a difference in quality"),
        (["--limit", "0"], "a limit of questions is 1 or more"),
        (["--folds", "1"], "2 folds or more"),
        (["--labels", "best"], "--labels"),
        (["--seed", "x"], "--seed"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_one_line_and_exit_code_2(files, capsys, arguments, told) -> None:
    """Each kind of bad input: one line that says what, exit code 2, and nothing on stdout."""
    before = sorted(files.rglob("*"))
    assert main(["compare", *arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not out
    assert sorted(files.rglob("*")) == before


def test_missing_outcomes_can_be_dropped(files, capsys) -> None:
    """`--missing drop` leaves the questions out and says how many."""
    assert main(["compare", "--data", "holes.csv", "--missing", "drop"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "2 questions" in text
    assert "1 of 3 questions without an outcome on every rung (b lacks 1) are dropped" in text


def test_unknown_command(capsys) -> None:
    """A command that doesn't exist is bad input too."""
    assert main(["compere"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ("agreement-2", r"policies: expected a list, \['agreement-2'\]"),
        (Threshold(0.8), "policies: expected a list"),
        ([0.8], "expected names and policies, like Threshold"),
        ([Threshold(0.7), Threshold(0.9)], "two policies are named 'threshold'; rows need different names"),
    ],
)
def test_policies_to_compare_are_a_list_of_different_names(policies, expected):
    """No policy is dropped without a word because another one has its name."""
    with pytest.raises(BadInput, match=expected):
        compare(None, policies)


def test_the_same_policy_twice_is_one_row():
    """Naming one twice is no mistake."""
    rows = compare(None, [Threshold(0.9), Threshold(0.9), "agreement-2", "agreement-2"], baselines=False).rows
    assert sorted(row.name for row in rows) == ["agreement-2", "gpt-4-1106", "threshold"]


def test_a_metric_with_a_mistake_costs_one_question():
    """Questions are graded as they are answered, so that a broken metric is found before the rest is paid for."""
    world = World(seed=1)
    qa = Escalate("question -> answer", rungs=["small"], policy=Threshold(0.8), gateway=Gateway(world.as_models()))
    with scope() as run, pytest.raises(TypeError):
        record(qa, world.task(20, seed=1), lambda example: 1.0)
    assert len(run.recorder.entries()) == 1
    with scope() as run:
        with pytest.raises(BadInput, match="metric: expected a function of an example and a prediction"):
            record(qa, world.task(2, seed=1), "accuracy")
        with pytest.raises(BadInput, match="expected dspy.Examples with their inputs marked, got 'why"):
            record(qa, ["why?"], world.metric)
        assert run.spent == Money(0)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("quality", 7.0, "quality of question 'q1' on 'r1' is 7.0; expected 0 to 1"),
        ("quality", -0.5, "quality of question 'q1' on 'r1' is -0.5"),
        ("cost", -1000, "cost of question 'q1' on 'r1' is -1000; expected nano-dollars, 0 or more, -1 where"),
        ("spent", -2, "spent of question 'q1' on 'r1' is -2"),
        ("gradings", 2.0, "quality by 'other' of question 'q1' on 'r1' is 2.0"),
    ],
)
def test_outcomes_that_can_not_be(column, value, told):
    """Whoever makes outcomes himself is held to the ranges that files are held to: nothing is reckoned with others."""
    whole = table(quality=[[1, 0], [0, 1]])
    figures = np.array(whole.cost if column in {"cost", "spent"} else whole.quality)
    figures[1, 1] = value
    with pytest.raises(DataError, match=told):
        replace(whole, **{column: {"other": figures} if column == "gradings" else figures})
