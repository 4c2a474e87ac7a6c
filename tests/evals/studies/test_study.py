"""Studies: what is asked once isn't asked again, what would be wrong is refused, and what is owed is said."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.lm15 import AuthError, BillingError, NotConfiguredError, ProviderError, UnsupportedModelError

import escalade
from escalade import Escalate, Gateway, ResponseCache, SimModel, Study, Threshold, World, load_outcomes
from escalade.errors import BadInput, DataError, UnknownName, UnknownPrice
from escalade.evals.findings import findings
from escalade.evals.studies.rundir import RunDir
from escalade.evals.studies.study import SCHEMA_FILE, study_schema

RUNGS = [("Predict", "small"), ("ChainOfThought", "small"), ("Predict", "large")]


class Bench:
    """A world, its questions, and a program on it."""

    def __init__(self, n: int = 12, models: Mapping[str, SimModel] | None = None, **gateway: Any) -> None:
        self.world = World(models, seed=3)
        self.gateway = Gateway(self.world.as_models(), name="study-bench", **gateway)
        self.examples = self.world.task(n, seed=5)

    @property
    def calls(self) -> int:
        return self.world.calls.total()

    def program(self, rungs: Any = RUNGS, signature: Any = "question -> answer") -> Escalate:
        return Escalate(signature, rungs=rungs, policy=Threshold(0.8), gateway=self.gateway)

    def study(self, **said: Any) -> Study:
        given = {"data": self.examples, "program": self.program(), "metric": self.world.metric, "latency": "none"}
        return Study.of({"name": "bench", "folds": 2, **given, **said})


def attempts(folder: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "attempts.jsonl").read_bytes().splitlines()]


# -- resumed and extended


def test_nothing_is_asked_twice(tmp_path):
    """The same study again asks nothing and comes to the same comparison, to the byte."""
    bench = Bench()
    first = bench.study().run(tmp_path)
    assert (first.done, first.owed, first.new, bench.calls) == (36, 0, 36, 36)
    again = bench.study().run(tmp_path)
    assert (again.new, bench.calls, again.spent) == (0, 36, first.spent)
    assert json.dumps(again.comparison.to_json()) == json.dumps(first.comparison.to_json())
    assert int(first.spent) == int(bench.world.cost())


def test_what_was_recorded_is_what_record_records(tmp_path):
    """A run directory holds the outcomes that `record` gives, figure by figure."""
    bench = Bench()
    found = bench.study(latency="measured").run(tmp_path).outcomes
    with escalade.scope():
        plain = escalade.record(bench.program(), bench.examples, bench.world.metric)
        kept = escalade.record(bench.program(), bench.examples, bench.world.metric, dir=tmp_path / "record")
    for other in (found, kept, load_outcomes(f"run:{tmp_path}")):
        for name in ("keys", "quality", "answer", "confidence", "cost", "price", "ceiling", "status", "form"):
            assert np.array_equal(getattr(plain, name), getattr(other, name), equal_nan=name != "keys"), name
    assert (found.spent == found.cost).all()
    assert not np.isnan(found.latency).any()


def test_more_of_everything_costs_only_what_is_new(tmp_path):
    """More rows, epochs, rungs and policies extend a study."""
    bench = Bench()
    bench.study(limit=4, program=bench.program(RUNGS[:2])).run(tmp_path)
    assert bench.calls == 8
    assert bench.study(program=bench.program(RUNGS[:2])).run(tmp_path).new == 16
    assert bench.study().run(tmp_path).new == 12
    done = bench.study(epochs=2, policies=["threshold-0.8", "oracle"]).run(tmp_path)
    assert (done.new, bench.calls) == (36, 72)
    assert done.outcomes.n == 24
    assert len(set(done.outcomes.keys)) == 12


def test_partial_rows_are_a_fair_sample(tmp_path):
    """A budget ends the run cleanly: whole questions, none begun that did not fit; the rest is told, and resumed."""
    bench = Bench(40)
    whole = bench.study().run(tmp_path / "whole").spent
    budget = str(whole.dollars / 2)
    part = bench.study(budget=budget).run(tmp_path / "part")
    assert 0 < part.spent.dollars <= whole.dollars / 2
    assert part.owed > 0
    assert part.done + part.owed == 120
    assert "left of the budget" in part.why
    assert part.rest is not None
    assert 0.7 < float(part.rest + part.spent) / float(whole) < 1.3
    assert part.outcomes.n >= 5
    with pytest.raises(DataError, match=f"{part.owed} of 120 attempts are owed"):
        load_outcomes(f"run:{tmp_path / 'part'}")
    assert load_outcomes(tmp_path / "part", missing="drop").n == part.outcomes.n
    rest = bench.study(budget="5").run(tmp_path / "part")
    assert rest.complete
    assert rest.spent == whole


def test_a_budget_is_of_all_runs_together(tmp_path):
    """What earlier runs spent counts: a budget that is used up asks nothing more."""
    bench = Bench()
    first = bench.study(limit=6).run(tmp_path)
    calls = bench.calls
    found = bench.study(budget=str(first.spent.dollars)).run(tmp_path)
    assert (found.new, bench.calls) == (0, calls)
    assert "used up" in found.why


def test_no_bound_under_a_budget_is_refused(tmp_path):
    """A rung without a price bound doesn't run under a budget: unknown is never zero."""
    bench = Bench()
    models = bench.world.as_models()
    models[0].price = None
    bench.gateway = Gateway(models, name="study-bench")
    with pytest.raises(UnknownPrice, match="Predict/small"):
        bench.study(budget="1").run(tmp_path)


# -- refused


def test_another_prompt_is_refused(tmp_path):
    """Attempts of another prompt aren't this rung's: the refusal says what differs."""
    bench = Bench(4)
    bench.study().run(tmp_path)
    other = bench.program(signature=dspy.Signature("question -> answer", "Think twice."))
    with pytest.raises(DataError, match=r"'Predict/small' isn't what was recorded there: prompt"):
        bench.study(program=other).run(tmp_path)


def test_another_price_is_refused(tmp_path):
    """A table of two prices of one model would be of none."""
    Bench(4).study().run(tmp_path)
    dear = Bench(4, {"small": SimModel(skill=0.5, price_in="0.20"), "medium": SimModel(), "large": SimModel()})
    with pytest.raises(DataError, match=r"model 'small' cost 0.1 in, 0.4 out when"):
        dear.study().run(tmp_path)


def half(example, prediction):
    """Another metric."""
    return 0.5


def test_another_metric_is_refused_or_grades_anew(tmp_path):
    """Where answers were kept they are graded anew, for nothing; elsewhere another metric is refused."""
    bench = Bench(4)
    bench.study().run(tmp_path / "plain")
    with pytest.raises(DataError, match=r"the metric 'half' was 'metric', and 12 of 12 answers weren't kept"):
        bench.study(metric=half).run(tmp_path / "plain")
    first = bench.study(texts=True).run(tmp_path / "texts")
    calls = bench.calls
    found = bench.study(texts=True, metric=half).run(tmp_path / "texts")
    assert (found.outcomes.quality == 0.5).all()
    assert (bench.calls, found.new, found.spent) == (calls, 0, first.spent)
    assert (found.outcomes.spent == first.outcomes.spent).all()
    assert bench.study(texts=True).run(tmp_path / "texts").outcomes.quality.tolist() == first.outcomes.quality.tolist()


def test_other_labels_are_refused(tmp_path):
    """A label that was put right changes the grade of what was recorded."""
    bench = Bench(4)
    bench.study().run(tmp_path)
    bench.examples[0] = bench.examples[0].copy(answer="7")
    with pytest.raises(DataError, match="1 questions have other labels"):
        bench.study().run(tmp_path)


def test_a_metric_with_a_mistake_costs_one_attempt(tmp_path):
    """The first answer is graded before a second one is paid for."""
    bench = Bench()
    with pytest.raises(DataError, match="metric 'broken' raised ZeroDivisionError"):
        bench.study(metric=broken).run(tmp_path)
    assert bench.calls == 1
    with pytest.raises(DataError, match="'seven' gave 7; expected a number from 0 to 1"):
        bench.study(metric=seven).run(tmp_path / "seven")
    with pytest.raises(DataError, match="'silent' gave None; expected a number from 0 to 1"):
        bench.study(metric=silent).run(tmp_path / "silent")


def test_a_program_that_raises_is_told_with_its_rung(tmp_path):
    """The error is raised as it is, with the rung and the question; what was recorded before is kept."""

    class Picky(dspy.Module):
        def forward(self, question):
            raise KeyError("no such thing")

    bench = Bench(3)
    rungs = [("Predict", "small"), (Picky(), "large")]
    with pytest.raises(KeyError, match="no such thing") as raised:
        bench.study(program=bench.program(rungs)).run(tmp_path)
    (note,) = raised.value.__notes__
    assert note.startswith("rung 'Picky/large', question ")
    assert note.endswith(f"kept in {tmp_path}")


def test_a_metric_that_always_says_the_same_is_told(tmp_path):
    """Nothing that is compared by it means anything."""
    done = Bench(30).study(metric=nothing, policies=["threshold-0.8"]).run(tmp_path)
    told = " ".join(findings(done.comparison, only=["checks"]).sentences)
    assert "Every answer of every rung has the quality 0: look at the metric" in told


def silent(example, prediction):
    return None


def broken(example, prediction):
    return 1 / 0


def seven(example, prediction):
    return 7


def test_two_writers_are_refused(tmp_path):
    """While one process writes to a run directory, another one is told so."""
    bench = Bench(4)
    with RunDir(tmp_path).writer(), pytest.raises(BadInput, match="another process writes there"):
        bench.study().run(tmp_path)


# -- lines


def test_a_torn_line_is_owed_again(tmp_path):
    """The last line of a file that was cut anywhere is made again, and the file is whole after it."""
    bench = Bench(4)
    whole = bench.study().run(tmp_path)
    path = tmp_path / "attempts.jsonl"
    for cut in (lambda line: 1, lambda line: 40, len):
        last = path.read_bytes().splitlines()[-1]
        os.truncate(path, path.stat().st_size - cut(last))
        again = bench.study().run(tmp_path)
        assert again.new == 1
        assert again.comparison == whole.comparison
        assert len(attempts(tmp_path)) == 12


def test_lines_hold_no_text(tmp_path):
    """Neither what was asked nor what was answered is in the directory, unless that is wanted."""
    bench = Bench(4)
    bench.study().run(tmp_path / "plain")
    found = b"".join(path.read_bytes() for path in (tmp_path / "plain").iterdir())
    assert not any(one.question.encode() in found for one in bench.examples)
    bench.study(texts=True).run(tmp_path / "texts")
    assert bench.examples[0].question in (tmp_path / "texts" / "questions.jsonl").read_text("utf-8")
    assert all(line["outputs"]["answer"] for line in attempts(tmp_path / "texts"))


def test_a_line_says_what_happened(tmp_path):
    """Tokens, the model that answered, why it stopped, when: for drift and for bills."""
    bench = Bench(2)
    bench.study().run(tmp_path)
    line = attempts(tmp_path)[0]
    assert line["model"].startswith("sim/")
    assert line["finish"] == "stop"
    assert line["input"] > 100 > line["output"] > 1
    assert line["cost"] == line["spent"] > 0
    assert line["at"] > 1.7e9


def test_epochs_are_asked_again(tmp_path):
    """No cache answers an epoch with the answer of another one."""
    bench = Bench(3, cache=ResponseCache())
    done = bench.study(epochs=3).run(tmp_path)
    assert bench.calls == 27
    assert {line["epoch"] for line in attempts(tmp_path)} == {0, 1, 2}
    assert done.outcomes.n == 9


def test_warm_cache(tmp_path):
    """A run in a fresh directory with the cache warm shows the same list price, and spends nothing now."""
    bench = Bench(cache=ResponseCache())
    cold = bench.study(epochs=2).run(tmp_path / "cold")
    calls = bench.calls
    warm = bench.study(epochs=2).run(tmp_path / "warm")
    assert bench.calls == calls
    assert int(cold.spent) == int(bench.world.cost()) > 0
    assert int(warm.spent) == 0
    assert (warm.outcomes.cost == cold.outcomes.cost).all()
    assert (warm.outcomes.spent == 0).all()
    assert [row.cost_per_1k_usd for row in warm.comparison.rows] == [
        row.cost_per_1k_usd for row in cold.comparison.rows
    ]
    assert np.isnan(warm.outcomes.latency).all()


def test_failed_for_a_reason_that_passes(tmp_path):
    """Attempts that a server in trouble failed are in the table as failed, and told by rung and kind; they are made
    again when that is wanted, all or those of a kind.
    """
    from dspy import lm15

    trouble = lm15.ServerError("overloaded", provider="simulated", status=503)
    bad = {"small": SimModel(faults=lambda call: trouble), "large": SimModel(skill=0.9)}
    bench = Bench(6, bad, retry=escalade.Retry(retries=0))
    rungs = [("Predict", "small"), ("Predict", "large")]
    done = bench.study(program=bench.program(rungs)).run(tmp_path)
    assert done.complete
    assert done.failed == 6
    assert done.failures == {"Predict/small": {"LMServerError": 5, "CircuitOpen": 1}}
    assert (done.outcomes.quality[:, 0] == 0).all()
    well = Bench(6, {"small": SimModel(), "large": SimModel(skill=0.9)})
    assert well.study(program=well.program(rungs)).run(tmp_path).new == 0
    assert well.study(program=well.program(rungs)).run(tmp_path, retry_failed="LMTimeoutError").new == 0
    part = well.study(program=well.program(rungs)).run(tmp_path, retry_failed="CircuitOpen")
    assert (part.new, part.failures) == (1, {"Predict/small": {"LMServerError": 5}})
    again = well.study(program=well.program(rungs)).run(tmp_path, retry_failed=True)
    assert (again.new, again.failed, again.failures) == (5, 0, {})
    assert (again.outcomes.status == 0).all()
    with pytest.raises(BadInput, match="AdapterParseError.*asking a model until it is right"):
        well.study().run(tmp_path, retry_failed="AdapterParseError")


LOCKED_OUT = {
    "a wrong key": (AuthError("Incorrect API key provided: sk-proj-abcdefghij0123456789abcd"), "put its key right"),
    "a bill": (BillingError("You exceeded your current quota"), "see to its quota or its bill"),
    "no key": (NotConfiguredError("no key"), "give it its key"),
    "no such model": (UnsupportedModelError("The model does not exist"), "name a model that the provider has"),
}


@pytest.mark.parametrize(("error", "told"), LOCKED_OUT.values(), ids=LOCKED_OUT)
@pytest.mark.parametrize("first", [0, 20])
def test_who_answers_nobody_ends_the_run(tmp_path, error, told, first):
    """A wrong key, or a quota that ends in the middle, is no answer of the model: the run ends and says what to do, no
    attempt counts as wrong for it, and when it is put right, what is owed is made.
    """
    models = {"small": SimModel(faults=lambda call: error if call > first else None), "large": SimModel()}
    bench = Bench(30, models, retry=escalade.Retry(retries=0))
    rungs = [("Predict", "small"), ("Predict", "large")]
    study = bench.study(program=bench.program(rungs))
    with pytest.raises(
        BadInput, match=rf"'Predict/small': model 'small' \(sim/small\) can't answer: .*; {told}"
    ) as found:
        study.run(tmp_path)
    assert "sk-proj-abcdef" not in str(found.value)
    there = attempts(tmp_path)
    assert all(line["status"] == "ok" for line in there)
    assert sum(line["rung"] == "Predict/small" for line in there) == first
    assert bench.calls <= len(there) + 16
    well = Bench(30, {"small": SimModel(), "large": SimModel()})
    done = well.study(program=well.program(rungs)).run(tmp_path)
    assert (done.new, done.owed, done.failures) == (60 - len(there), 0, {})


def test_a_body_that_is_none_is_nobodys_answer(tmp_path):
    """What a provider sends in place of an answer can be asked for again; a form that the model got wrong can't."""
    trouble = ProviderError("not JSON", provider="simulated")
    bad = {"small": SimModel(faults=lambda call: trouble if call < 4 else None), "large": SimModel()}
    bench = Bench(6, bad, retry=escalade.Retry(retries=0))
    rungs = [("Predict", "small"), ("Predict", "large")]
    done = bench.study(program=bench.program(rungs)).run(tmp_path)
    assert done.failures["Predict/small"]["LMProviderError"] == done.failed == 3
    assert bench.study(program=bench.program(rungs)).run(tmp_path, retry_failed=True).failures == {}


# -- written down


YAML = """\
name: arithmetic
data: simulated:12
metric: simulated
rungs:
  signature: question -> answer
  models: simulated
  rungs: [small, [ChainOfThought, small], large]
budget: "1.00"
folds: 2
seed: 7
"""


def test_a_study_in_yaml(tmp_path):
    """A study of the simulated world needs a file of ten lines, no key and no network."""
    (tmp_path / "study.yaml").write_text(YAML)
    done = Study.load(tmp_path / "study.yaml").run(tmp_path / "run")
    assert done.complete
    assert done.outcomes.n == 12
    told = json.loads((tmp_path / "run" / "study.json").read_text())
    assert [rung["name"] for rung in told["rungs"]] == ["Predict/small", "ChainOfThought/small", "Predict/large"]
    prices = json.loads((tmp_path / "run" / "prices.json").read_text())
    assert prices["map"]["date"]
    assert prices["models"]["small"]["input"] == 100_000_000
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["dspy"].startswith("3.")
    assert versions["escalade"] == escalade.__version__


def test_references_are_beside_the_file(tmp_path):
    """`module:name` is looked for beside the study, whatever the current folder is."""
    (tmp_path / "mine_of_a_study.py").write_text(
        "import dspy\nfrom escalade import Escalate, Gateway, Threshold, World\n"
        "world = World(seed=1)\n"
        "data = world.task(5, seed=1)\n"
        "def qa():\n"
        "    return Escalate('question -> answer', rungs=['small', 'large'], policy=Threshold(0.8),\n"
        "                    gateway=Gateway(world.as_models(), name='mine'))\n"
        "grade = world.metric\n"
    )
    said = {"data": "mine_of_a_study:data", "program": "mine_of_a_study:qa", "metric": "mine_of_a_study:grade"}
    (tmp_path / "study.json").write_text(json.dumps({**said, "policies": ["oracle"]}))
    assert Study.load(tmp_path / "study.json").run(tmp_path / "run").done == 10


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"buget": "1"}, "unknown field"),
        ({"epochs": 0}, "epochs: "),
        ({"name": ".."}, "name: expected letters.* not dots alone, got '..'"),
        ({"name": "../up"}, "name: expected letters"),
        ({"budget": "inf"}, "budget: not an amount of dollars"),
        ({"budget": 0.5}, 'budget: quote it: "0.5"'),
        ({"metric": "no_such_module_of_mine:x"}, "metric: 'no_such_module_of_mine:x' can't be imported"),
        ({"metric": "json:nothing"}, "has no 'nothing'"),
        ({"metric": None}, "metric: expected module:name"),
        ({"program": "json:dumps"}, "program: json:dumps raised TypeError"),
        ({"rungs": {"signature": "question -> answer", "rungs": ["small"]}}, "expected one of them"),
        ({"data": "simulated:many"}, "write simulated:200"),
    ],
)
def test_bad_studies(tmp_path, said, told):
    """One clear line says which field is wrong, and how."""
    bench = Bench(3)
    with pytest.raises(BadInput, match=told):
        bench.study(**said).run(tmp_path)


@pytest.mark.parametrize("said", [{"budget": "inf"}, {"name": "."}, {"nope": 1}, {"epochs": "many"}])
def test_a_bad_study_in_python_is_bad_input(said):
    """One line, of the tree of errors, whoever makes the study: no other library's."""
    with pytest.raises(BadInput, match=next(iter(said))) as found:
        Study(data="questions.jsonl", **said)
    assert "\n" not in str(found.value)


def test_what_was_raised_is_told_without_secrets(tmp_path):
    """A key in the message of a metric or of a policy gets neither into an error nor into a table."""
    key = "sk-proj-abcdefghij0123456789ABCD"

    def metric(example, got):
        raise RuntimeError(f"refused {key}")

    with pytest.raises(DataError, match="RuntimeError: refused <api_key>"):
        Bench(3).study(metric=metric).run(tmp_path / "metric")

    class Flaky:
        name = "flaky"

        def decide(self, view):
            raise RuntimeError(f"refused {key}")

    found = Bench().study(policies=[Flaky()]).run(tmp_path / "policy").comparison
    assert found.evidence.played["flaky"].replayed.error == "RuntimeError: refused <api_key>"
    assert key not in json.dumps(found.to_json())


def test_unknown_names_are_refused(tmp_path):
    """A policy that there isn't is refused with those that there are."""
    with pytest.raises(UnknownName, match="treshold"):
        Bench(4).study(policies=["treshold"]).run(tmp_path)


def test_the_schema_is_published():
    """The schema in the package is that of this version."""
    assert json.loads(SCHEMA_FILE.read_text("utf-8")) == study_schema()


def test_a_replay_is_a_study_too(tmp_path):
    """Without a program the data are outcomes: nothing is asked, and the directory is data again."""
    bench = Bench()
    outcomes = bench.study().run(tmp_path / "run").outcomes
    path = outcomes.save(tmp_path / "mine.jsonl")
    done = Study.of({"data": str(path), "policies": ["threshold-0.8", "oracle"]}).run(tmp_path / "again")
    assert done.comparison.row("oracle").quality == outcomes.quality.max(axis=1).mean()
    assert load_outcomes(f"run:{tmp_path / 'again'}").digest == load_outcomes(path).digest
    path.write_text(path.read_text().replace('"quality": 0.0', '"quality": 1.0', 1))
    with pytest.raises(DataError, match="have changed"):
        load_outcomes(tmp_path / "again")


def test_a_file_of_examples(tmp_path):
    """Inputs are those of the program; category and group go with the question; the same inputs are one question."""
    bench = Bench(20)
    rows = [
        {"question": one.question, "answer": one.answer, "topic": f"t{i % 2}", "book": f"b{i % 5}"}
        for i, one in enumerate(bench.examples)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    said = {"data": str(path), "category": "topic", "group": "book"}
    outcomes = bench.study(**said).run(tmp_path / "run").outcomes
    assert outcomes.n == 20
    assert outcomes.category == tuple(row["topic"] for row in rows)
    assert outcomes.group == tuple(row["book"] for row in rows)
    assert "1 of 21 examples have the inputs of another one and are left out" in outcomes.notes


def test_a_split_keeps_groups_and_moves_nothing(tmp_path):
    """The sides share no group, together they are all, and more rows move no question."""
    bench = Bench(40)
    for i, one in enumerate(bench.examples):
        one.book = f"b{i % 8}"
    sides = {}
    for use in ("test", "train"):
        study = bench.study(group="book", split={"test": 0.4, "use": use, "seed": 1})
        sides[use] = study.run(tmp_path / use).outcomes
    assert sides["test"].n + sides["train"].n == 40
    assert not set(sides["test"].group) & set(sides["train"].group)
    few = bench.study(group="book", data=bench.examples[:32], split={"test": 0.4, "seed": 1}).run(tmp_path / "few")
    assert set(few.outcomes.keys) <= set(sides["test"].keys)


def test_examples_without_a_comparison(tmp_path):
    """Examples without a program are no outcomes: the error says what is missing."""
    with pytest.raises(BadInput, match="needs a program, or rungs, and a metric"):
        Study.of({"data": Bench(2).examples}).run(tmp_path)


# -- what was left out for a while, and what was lost


def nothing(example, prediction):
    return 0.0


def relabelled(bench: Bench, since: int) -> list[Any]:
    return [
        dspy.Example(question=one.question, answer=one.answer if at < since else "?").with_inputs("question")
        for at, one in enumerate(bench.examples)
    ]


def test_questions_that_come_back_are_graded_as_the_others(tmp_path):
    """A metric that changed while a limit left questions out grades them when they are there again."""
    bench = Bench(8)
    bench.study(metric=nothing, texts=True).run(tmp_path)
    bench.study(metric=half, texts=True, limit=4).run(tmp_path)
    assert (bench.study(metric=half, texts=True).run(tmp_path).outcomes.quality == 0.5).all()
    assert bench.calls == 24


def test_labels_of_questions_that_come_back(tmp_path):
    """Labels that changed while a limit left their questions out are seen when those are there again."""
    bench = Bench(8)
    bench.study().run(tmp_path)
    bench.study(limit=4).run(tmp_path)
    with pytest.raises(DataError, match="4 questions have other labels"):
        bench.study(data=relabelled(bench, 4)).run(tmp_path)


def test_a_grading_that_was_broken_off_is_made_again(tmp_path):
    """Killed while answers were graded anew, the directory has grades of two metrics: none of them counts as one."""
    bench = Bench(4)
    bench.study(texts=True, metric=nothing).run(tmp_path)
    bench.study(texts=True, metric=nothing).run(tmp_path)
    told = (tmp_path / "study.json").read_bytes()
    grades = json.loads((tmp_path / "grades.json").read_bytes())
    bench.study(texts=True, metric=half).run(tmp_path)
    lines = (tmp_path / "attempts.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "attempts.jsonl").write_bytes(b"".join(lines[:-5]))
    (tmp_path / "study.json").write_bytes(told)
    (tmp_path / "grades.json").write_text(json.dumps(dict.fromkeys(grades, ("", ""))), "utf-8")
    assert (bench.study(texts=True, metric=nothing).run(tmp_path).outcomes.quality == 0).all()


def test_a_price_that_changed_while_its_model_was_left_out(tmp_path):
    """Attempts at the old price don't stand beside those at the new one."""
    bench, dear = (Bench(4, {"small": SimModel(price_in=at), "large": SimModel()}) for at in ("0.10", "9.00"))
    both = [("Predict", "small"), ("Predict", "large")]
    bench.study(program=bench.program(both)).run(tmp_path)
    dear.study(program=dear.program(both[1:])).run(tmp_path)
    with pytest.raises(DataError, match="'small' cost 0.1 in"):
        dear.study(program=dear.program(both)).run(tmp_path)


def test_what_a_failing_metric_cost_is_counted(tmp_path):
    """An attempt that couldn't be graded is owed again, and what it cost counts as spent."""
    bench = Bench(12)

    def moody(example, prediction):
        if example.question == bench.examples[3].question:
            raise ValueError("no")
        return 1.0

    for _ in range(3):
        with pytest.raises(DataError, match="ValueError: no"):
            bench.study(metric=moody).run(tmp_path)
    assert sum(line["spent"] for line in attempts(tmp_path)) == int(bench.world.cost())


def test_a_grade_out_of_range_is_refused_when_grading_anew(tmp_path):
    """As it is when recording."""
    bench = Bench(4)
    bench.study(texts=True).run(tmp_path)
    with pytest.raises(DataError, match=r"gave 7; expected a number from 0 to 1"):
        bench.study(texts=True, metric=seven).run(tmp_path)


def test_a_replay_tells_of_duplicates_whoever_asks(tmp_path):
    """Questions that are there twice are told of by the study, and by whatever reads its directory later."""
    lines = ["question_id,model,correct,cost,prompt_chars,text"]
    for i in range(40):
        lines += [
            f"q{i},{m},{i % 2},{cost},{i},how many pears are {i // 2} and seven"
            for m, cost in (("a", 0.001), ("b", 0.01))
        ]
    (tmp_path / "twice.csv").write_text("\n".join(lines) + "\n")
    done = Study(name="twice", data=str(tmp_path / "twice.csv"), policies=["prompt-length"]).run(tmp_path / "run")
    notes = load_outcomes(f"run:{tmp_path / 'run'}").notes
    assert any("have the text of another one" in note for note in notes)
    assert set(notes) <= set(done.comparison.notes)
