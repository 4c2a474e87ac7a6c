"""`escalade run`, `record` and `ls`: tables on the output, progress on standard error, exit codes for scripts."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from escalade import load_outcomes
from escalade.cli import main
from tests._house import ROOT

STUDY = """\
name: arithmetic
data: simulated:20
metric: simulated
rungs:
  signature: question -> answer
  models: simulated
  rungs: [small, large]
latency: none
folds: 2
"""

PROGRAM = """\
from escalade import Escalate, Gateway, Threshold, World
world = World(seed=1)
def qa():
    gateway = Gateway(world.as_models(), name="cli")
    return Escalate("question -> answer", rungs=["small", "large"], policy=Threshold(0.8), gateway=gateway)
"""


POLICIES = """\
from random import Random

from escalade import Stop, Try


class Small:
    name = "mine"

    def decide(self, view):
        return Stop(why="asked") if view.attempts else Try(0, why="first")


class Tosses(Small):
    name = "tosses"
    coin = Random(1)

    def decide(self, view):
        return Stop(why="asked") if view.attempts else Try(self.coin.randrange(2), why="a coin")


class Exits(Small):
    def decide(self, view):
        raise SystemExit(0)


mine, tosses, exits = Small(), Tosses(), Exits()


def metric(example, prediction):
    raise SystemExit(0)
"""


class Closed(io.StringIO):
    """An output whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "program_of_cli.py").write_text(PROGRAM)
    (tmp_path / "policies_of_cli.py").write_text(POLICIES)
    return tmp_path


def test_run_and_run_again(here, capsys):
    """The second time nothing is asked, and the same table is printed."""
    assert main(["run", "study.yaml"]) == 0
    first = capsys.readouterr()
    assert "arithmetic: 20 questions" in first.out
    assert "40/40 attempts" in first.err
    assert main(["run", "study.yaml"]) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert "40 of 40 attempts are there" in again.err
    assert main(["compare", "--data", "runs/arithmetic"]) == 0
    assert capsys.readouterr().out == first.out
    assert main(["run", "study.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"]["done"], told["run"]["owed"]) == (40, 0)
    assert told["dataset"] == {"name": "arithmetic", "n": 20}


@pytest.mark.parametrize("texts", ["", "texts: true\n"])
def test_a_directory_says_the_same_whoever_asks_it(here, capsys, texts):
    """Policies that look at words see them where the directory has them, and nowhere else."""
    (here / "study.yaml").write_text(STUDY.replace(":20", ":60") + "policies: [nearest, threshold-0.8]\n" + texts)
    assert main(["run", "study.yaml"]) == 0
    first = capsys.readouterr().out
    assert main(["compare", "--data", "runs/arithmetic"]) == 0
    assert capsys.readouterr().out == first
    assert ("text" in load_outcomes("run:runs/arithmetic").features) is bool(texts)
    assert main(["run", "study.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(["compare", "--data", "runs/arithmetic", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {name: told[name] for name in told if name != "run"}


def test_a_budget_that_ends(here, capsys):
    """Exit code 1, what is missing and what it would cost; with more money it goes on."""
    assert main(["run", "study.yaml", "--budget", "0.02"]) == 1
    said = capsys.readouterr().err
    assert re.search(r"attempts are owed \(about \$0\.0*[1-9]\d{0,2} at what others cost\)", said), said
    assert "run it again with a higher budget" in said
    assert main(["ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"][0]
    assert listed["owed"] > 0 < listed["done"]
    assert 0 < listed["spent"] <= 0.02
    assert main(["run", "study.yaml", "--budget", "1"]) == 0
    capsys.readouterr()
    assert main(["ls"]) == 0
    assert "arithmetic  40    0" in capsys.readouterr().out


def test_ls_counts_what_was_killed(here, capsys):
    """A directory without a summary, or with an old one, is counted by its lines."""
    main(["run", "study.yaml"])
    with (here / "runs" / "arithmetic" / "attempts.jsonl").open("r+b") as file:
        file.truncate(len(b"".join(file.readlines()[:30])) + 5)
    capsys.readouterr()
    main(["ls", "--json"])
    listed = json.loads(capsys.readouterr().out)["runs"][0]
    assert (listed["done"], listed["owed"]) == (30, 10)
    (here / "runs" / "arithmetic" / "attempts.jsonl").write_text("{oops\n")
    main(["ls", "--json"])
    assert "no JSON" in json.loads(capsys.readouterr().out)["runs"][0]["wrong"]


def test_record(here, capsys):
    """A program by its name, questions, a metric: the matrix is filled, and compared for nothing."""
    command = ["record", "program_of_cli:qa", "simulated:6", "--metric", "simulated", "--dir", "mine"]
    assert main([*command, "--budget", "1.00"]) == 0
    assert "12 attempts of 12" in capsys.readouterr().out
    assert main([*command, "--epochs", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["done"] == 24
    assert main(["compare", "--data", "run:mine", "--policies", "oracle"]) == 0


def test_what_failed_is_told_by_rung_and_kind(here, capsys):
    """Whoever is to blame: what nobody answered stands apart from what the model got wrong, and can be made again."""
    (here / "failing_of_cli.py").write_text(
        PROGRAM.replace("World(seed=1)", "World({'small': SimModel(fail_every=3), 'large': SimModel()}, seed=1)")
        .replace("import Escalate", "import Escalate, Retry, SimModel")
        .replace('name="cli"', 'name="cli", retry=Retry(retries=0)')
    )
    command = ["record", "failing_of_cli:qa", "simulated:6", "--metric", "simulated", "--dir", "mine"]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    assert "Predict/small: 2 attempts failed and count as wrong: 2 LMServerError" in said.err
    assert "2 of them nobody answered; --retry-failed makes them again" in said.err
    assert json.loads(said.out)["run"]["failures"] == {"Predict/small": {"LMServerError": 2}}
    assert main([*command, "--retry-kind", "LMTimeoutError"]) == 0
    assert "2 LMServerError" in capsys.readouterr().err
    assert main([*command, "--retry-failed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["failures"] == {}
    assert main([*command, "--retry-kind", "AdapterParseError"]) == 2


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["run"], "expected a study"),
        (["run", "nothing.yaml"], "can't be read"),
        (["run", "study.yaml", "--budget", "much"], "not an amount of dollars"),
        (["record", "program_of_cli:nobody", "simulated:3", "--metric", "simulated"], "has no 'nobody'"),
        (["record", "program_of_cli:qa", "nothing.jsonl", "--metric", "simulated"], "no such file"),
        (["record", "program_of_cli:qa", "simulated:3", "--metric", "exat"], "exat"),
        (["ls", "nowhere"], "no such folder"),
        (["compare", "--data", "run:nowhere"], "no such data file"),
    ],
)
def test_bad_input(here, capsys, command, told):
    """One line, exit code 2."""
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: ")
    assert told in said[-1]


def test_bad_yaml(here, capsys):
    """What is wrong in the file is said with its line, or its field."""
    for text, told in (("data: [\n", "study.yaml:2: is not YAML"), ("data: x\nmargin: 2\n", "study.yaml: margin: ")):
        (here / "study.yaml").write_text(text)
        assert main(["run", "study.yaml"]) == 2
        assert told in capsys.readouterr().err


def test_the_schema(capsys):
    """For editors."""
    assert main(["run", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        (ROOT / "escalade" / "evals" / "data" / "study.schema.json").read_text("utf-8")
    )


def study_of(here, policies: str) -> None:
    """The study asks for these."""
    (here / "study.yaml").write_text(STUDY.replace(":20", ":60") + f"policies: [{policies}]\n")


@pytest.mark.parametrize(
    ("condition", "code"),
    [("mine.quality < baseline", 100), ("policy.quality < 80", 100), ("mine.quality < baseline - 90", 0)],
)
def test_a_policy_of_ones_own_is_gated(here, capsys, condition, code):
    """`run` takes conditions as `compare` does, for policies that only Python can name."""
    study_of(here, '"policies_of_cli:mine"')
    assert main(["run", "study.yaml", "--fail-if", condition]) == code
    assert (f"failed: {condition}: mine.quality is" in capsys.readouterr().err) is bool(code)


def test_a_condition_is_read_before_anything_is_paid(here, capsys):
    """One that can't be read is bad input, and no directory is begun."""
    assert main(["run", "study.yaml", "--fail-if", "mine.quality"]) == 2
    assert "can't be read" in capsys.readouterr().err
    assert not (here / "runs").exists()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_failed_self_check_fails_the_run(here, capsys, options):
    """Exit code 100, the check on the error output, and first in the table."""
    study_of(here, '"policies_of_cli:tosses", "policies_of_cli:mine"')
    assert main(["run", "study.yaml", *options]) == 100
    told = capsys.readouterr()
    assert "failed: self-check shuffled labels: the evaluation leaks: tosses decides otherwise" in told.err
    assert ("FAILED shuffled labels" in told.out) is not bool(options)


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_who_stops_reading_changes_no_exit_code(here, capsys, monkeypatch, options):
    """`| head`: a condition that holds, an incomplete study and a complete one end as they would have."""
    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["run", "study.yaml", "--budget", "0.02", *options]) == 1
    assert main(["run", "study.yaml", *options]) == 0
    assert main(["run", "study.yaml", "--fail-if", "small.quality < 100", *options]) == 100
    data = ("--data", "runs/arithmetic")
    assert main(["compare", *data, *options]) == 0
    page = here / "page.html"
    assert main(["compare", *data, *options, "--fail-if", "small.quality < 100", "--html", str(page)]) == 100
    assert page.exists()
    assert capsys.readouterr().err.count("failed: small.quality < 100") == 2


@pytest.mark.parametrize("wrong", ["policies: ['policies_of_cli:exits']", "metric: policies_of_cli:metric"])
def test_code_that_exits_is_an_error(here, capsys, wrong):
    """A policy or a metric that calls sys.exit(0) doesn't end the command as if all were well."""
    (here / "study.yaml").write_text(
        STUDY.replace("metric: simulated\n", "" if "metric" in wrong else "metric: simulated\n") + wrong
    )
    assert main(["run", "study.yaml"]) == 1
    assert "error: code that was called ended the program: SystemExit(0)" in capsys.readouterr().err
