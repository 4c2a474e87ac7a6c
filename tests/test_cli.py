"""The command: thin, quick, and well-behaved in a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import escalade
from escalade import cli
from escalade.errors import BudgetExceeded
from tests._house import ROOT

FULL = Path("/dev/full")


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository, with its output in pipes."""
    command = [sys.executable, *arguments]
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=kept | env, encoding="utf-8"
    )


def test_json_is_json(capsys) -> None:
    """`--json` prints one object and nothing else."""
    assert cli.main(["compare", "--limit", "80", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dataset"] == {"name": "gsm8k-ladder", "n": 80}
    assert {check["name"] for check in found["checks"]} >= {"shuffled labels", "errors", "duplicates"}
    assert any("always escalates" in sentence for sentence in found["sentences"])


def test_json_has_the_tables_that_are_asked_for(capsys) -> None:
    """`--tables` beside `--json` adds those, and no others."""
    assert (
        cli.main(["compare", "--limit", "80", "--only", "--policies", "agreement-3", "--tables", "gap", "--json"]) == 0
    )
    assert set(json.loads(capsys.readouterr().out)["tables"]) == {"gap"}


def test_options_arrive(capsys) -> None:
    """What is asked for on the command line is what is compared."""
    options = [
        "--policies",
        "agreement=2+budget, random=0.3",
        "--baseline",
        "mixtral-8x7b",
        "--per-request",
        "0.05",
        "--only",
    ]
    options += ["--price", "gpt-4-1106=5/15", "--price", "mixtral-8x7b=1", "--labels", "regraded", "--margin", "0.05"]
    assert cli.main(["compare", "--limit", "80", "--seed", "3", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in found["policies"]} == {"agreement-2+budget", "random-0.3", "mixtral-8x7b"}
    assert (found["labels"], found["baseline"], found["margin"], found["seed"]) == ("regraded", "mixtral-8x7b", 0.05, 3)
    assert any("gpt-4-1106: $5 in, $15 out (yours)" in note for note in found["notes"])


def test_prices_from_a_file(tmp_path, capsys) -> None:
    """`--prices` reads a file that may know more models than the data has."""
    path = tmp_path / "prices.toml"
    path.write_text('gpt-4-1106 = "1/1"\nother = "2/2"\n')
    assert cli.main(["compare", "--limit", "40", "--prices", str(path), "--json"]) == 0
    assert "gpt-4-1106: $1 in, $1 out (prices.toml)" in capsys.readouterr().out


@pytest.mark.slow
def test_two_runs_print_the_same_bytes() -> None:
    """In two processes with other hash seeds the report is the same to the byte."""
    one, two = (python("-m", "escalade", "compare", PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert one.returncode == two.returncode == 0, one.stderr
    assert one.stdout == two.stdout
    assert max(map(len, one.stdout.splitlines())) <= 100


def test_compare_needs_no_dspy() -> None:
    """Comparing imports neither DSPy nor litellm, and help not even numpy."""
    heavy = "print([m for m in {} if m in sys.modules], file=sys.stderr)"
    run = "import sys; from escalade.cli import main; main({}); " + heavy
    assert python("-c", run.format(["compare", "--limit", "20"], ("dspy", "litellm"))).stderr.strip() == "[]"
    assert python("-c", run.format(["compare", "--help"], ("dspy", "litellm", "numpy"))).stderr.strip() == "[]"


@pytest.mark.slow
def test_compare_is_quick() -> None:
    """The whole command, with the start of Python, takes less than 5 s of a processor; the better of two. What other
    processes take away meanwhile is theirs.
    """

    def seconds() -> float:
        began = os.times()
        python("-m", "escalade", "compare")
        ended = os.times()
        return ended.children_user + ended.children_system - began.children_user - began.children_system

    assert min(seconds(), seconds()) < 5


def test_version_and_help(capsys) -> None:
    """`--version` and `--help` answer and leave with 0."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"escalade {escalade.__version__}"
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "compare" in text
    assert "demo" in text


def test_demo_runs(capsys) -> None:
    """`escalade demo` hands its options on and its exit code back."""
    assert cli.main(["demo", "--fast", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "said"), [((), 0, ""), (("--fail-if", "oracle.quality > 0"), 100, "failed")]
)
def test_closed_pipe(options: tuple[str, ...], code: int, said: str) -> None:
    """A reader that stops reading (`| head -1`) causes no traceback, and turns no failure into a success."""
    command = [sys.executable, "-m", "escalade", "compare", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stderr
        run.stdout.close()
        assert run.stderr.read().partition(":")[0] == said
        assert run.wait(timeout=60) == code


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_demo_in_a_closed_pipe(options: tuple[str, ...]) -> None:
    """`escalade demo | head -2` ends quietly, although its story is told from within the run."""
    command = [sys.executable, "-m", "escalade", "demo", "--fast", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stderr
        run.stdout.readline()
        run.stdout.close()
        assert not run.stderr.read()
        assert run.wait(timeout=60) == 0


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="this system has no full disk to write on")
@pytest.mark.parametrize("command", [("compare", "--limit", "20"), ("compare", "--limit", "20", "--json"), ("demo",)])
def test_full_disk(command: tuple[str, ...]) -> None:
    """What can't be written is one line on stderr and exit code 1."""
    whole = [sys.executable, "-m", "escalade", *command]
    with FULL.open("w") as full:
        run = subprocess.run(whole, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "error: can't go on: No space left on device\n"


def test_some_rungs_and_metrics(capsys) -> None:
    """`--rungs` makes the ladder, `--metrics` adds the table of APGR and CPT."""
    rungs = "qwen-1.5b@320,gpt-4-1106"
    assert cli.main(["compare", "--limit", "80", "--rungs", rungs, "--metrics"]) == 0
    text = capsys.readouterr().out
    assert "mixtral" not in text.split("\n\n")[1]
    assert "APGR" in text


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(BudgetExceeded("used up"), 1, "error: used up\n"), (KeyboardInterrupt(), 130, "error: interrupted\n")],
)
def test_other_failures(monkeypatch, capsys, error, code, told) -> None:
    """A failure that isn't bad input leaves with 1, an interruption with 130: one line each."""

    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("escalade.evals.loaders.load_outcomes", failing)
    assert cli.main(["compare"]) == code
    assert capsys.readouterr().err == told
