"""`escalade compare`, `show`, `plot` and `export`: what they print, what they write, and how they end."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from escalade import cli
from escalade.evals.loaders import load_outcomes
from escalade.evals.studies.study import Study

SMALL = ("--limit", "60", "--policies", "threshold-0.8,agreement-3", "--only")


@pytest.mark.parametrize(
    ("conditions", "code", "said"),
    [
        (["policy.quality < baseline - 2"], 100, "threshold-0.8.quality is "),
        (["policy.quality < baseline - 90"], 0, ""),
        (["threshold-0.8.cost > 0.001", "agreement-3.cost < 0"], 100, "failed: threshold-0.8.cost > 0.001: "),
        (["treshold-0.8.cost > 1"], 2, "did you mean 'threshold-0.8'"),
        (["threshold-0.8.csot > 1"], 2, "did you mean 'cost'"),
        (["threshold-0.8.cost > 1", "nonsense"], 2, "can't be read"),
        (["threshold-0.8.p95 > 1"], 2, "is unknown on this data"),
    ],
)
def test_fail_if(capsys, conditions, code, said) -> None:
    """100 where a condition holds, with the figures; 2 for one that names nothing, and before anything is printed."""
    options = [word for one in conditions for word in ("--fail-if", one)]
    assert cli.main(["compare", *SMALL, *options]) == code
    out, err = capsys.readouterr()
    assert said in err
    assert (code == 2) == (not out)
    assert err.count("failed:") == (1 if code == 100 else 0)


def test_json_stays_json_where_a_condition_holds(capsys) -> None:
    """What fails is said on the error output."""
    assert cli.main(["compare", *SMALL, "--json", "--fail-if", "policy.quality < baseline"]) == 100
    assert json.loads(capsys.readouterr().out)["baseline"] == "gpt-4-1106"


def test_failing_data_is_an_error_of_input(capsys) -> None:
    """No data, no verdict: 2, never 0 and never 100."""
    assert cli.main(["compare", "--data", "nowhere.csv", "--fail-if", "policy.quality < 1"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err


def test_compare_writes_reports(capsys, tmp_path) -> None:
    """A page and Markdown, with the conditions in both; folders are made."""
    html, md = tmp_path / "out" / "report.html", tmp_path / "pr.md"
    options = ("--html", str(html), "--markdown", str(md), "--fail-if", "policy.quality < baseline - 2")
    assert cli.main(["compare", *SMALL, *options]) == 100
    for text in (html.read_text("utf-8"), md.read_text("utf-8")):
        assert "policy.quality" in text
        assert "threshold-0.8.quality is" in text
    assert html.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_a_file_that_can_not_be_written(capsys, tmp_path) -> None:
    """One line, 2."""
    assert cli.main(["plot", *SMALL, "--out", str(tmp_path)]) == 2
    assert "can't be written" in capsys.readouterr().err


def test_plot_with_and_without_texts(capsys, tmp_path) -> None:
    """The page says where it is, and has the questions' words unless they are left out."""
    outcomes, page = load_outcomes(limit=30), tmp_path / "page.html"
    texts = np.array([f"wordy {number}" for number in range(30)], dtype=object)
    outcomes = replace(outcomes, features={**outcomes.features, "text": texts})
    data = outcomes.save(tmp_path / "some.jsonl", texts=True)
    assert cli.main(["plot", str(data), "--policies", "threshold-0.8", "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert "wordy 7" in page.read_text("utf-8")
    assert cli.main(["plot", str(data), "--policies", "threshold-0.8", "--out", str(page), "--no-texts"]) == 0
    assert "wordy 7" not in page.read_text("utf-8")


def test_show(capsys) -> None:
    """The report, the tables that are named by themselves or by their room, and the self-checks."""
    assert cli.main(["show", *SMALL, "--tables", "comparison"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"agreement-3 +8\d\.\d% \[", text)
    assert cli.main(["show", *SMALL, "--tables", "nonsense"]) == 2
    assert "unknown table 'nonsense'" in capsys.readouterr().err
    assert cli.main(["show", *SMALL, "--json"]) == 0
    assert {"policies", "tables", "checks", "sentences"} <= json.loads(capsys.readouterr().out).keys()


def test_export(capsys, tmp_path) -> None:
    """A folder of tables, one table alone, the questions when they are named, JSON and Markdown."""
    folder = tmp_path / "tables"
    assert cli.main(["export", *SMALL, "--to", "csv", "--out", str(folder)]) == 0
    assert (folder / "comparison.csv").is_file()
    assert not (folder / "questions.csv").exists()
    one = tmp_path / "questions.csv"
    assert cli.main(["export", *SMALL, "--to", "csv", "--out", str(one), "--tables", "questions"]) == 0
    rows = list(csv.DictReader(one.read_text("utf-8").splitlines()))
    assert {row["policy"] for row in rows} >= {"threshold-0.8", "agreement-3"}
    assert cli.main(["export", *SMALL, "--to", "json", "--out", str(tmp_path / "all.json")]) == 0
    assert "comparison" in json.loads((tmp_path / "all.json").read_text("utf-8"))["tables"]
    assert cli.main(["export", *SMALL, "--to", "md", "--out", str(tmp_path / "pr.md")]) == 0
    assert (tmp_path / "pr.md").read_text("utf-8").startswith("### gsm8k-ladder")


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory) -> Path:
    """A study of the simulated world, run."""
    rungs = {"signature": "question -> answer", "models": "simulated", "rungs": ["small", "large"]}
    study = Study(
        name="arithmetic",
        data="simulated:24",
        metric="simulated",
        rungs=rungs,
        margin=0.07,
        folds=3,
        policies=["prompt-length"],
    )
    path = tmp_path_factory.mktemp("runs") / "one"
    study.run(path)
    return path


@pytest.mark.parametrize("command", [["show"], ["compare", "--data"]])
def test_run_directories(capsys, run_directory, command) -> None:
    """A run directory is data, and what its study says of margin, folds and policies holds unless it is chosen."""
    assert cli.main([*command, str(run_directory), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dataset"]["n"], told["margin"], told["folds"]) == (24, 0.07, 3)
    assert cli.main([*command, str(run_directory), "--margin", "0.05", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["margin"] == 0.05


def test_run_directories_as_reports(capsys, run_directory, tmp_path) -> None:
    """They are plotted and exported as any other data."""
    page = tmp_path / "page.html"
    assert cli.main(["plot", str(run_directory), "--out", str(page)]) == 0
    assert "arithmetic" in page.read_text("utf-8")
    assert (
        cli.main(["export", str(run_directory), "--to", "csv", "--out", str(tmp_path), "--tables", "comparison"]) == 0
    )
    assert (tmp_path / "comparison.csv").is_file()
