"""A study that workers make comes to what one process makes of it, whoever is killed meanwhile."""

from __future__ import annotations

import json
import textwrap
import threading

import pytest

from escalade.errors import BadInput, DataError
from escalade.evals.loaders import load_outcomes
from escalade.evals.studies.study import Study
from escalade.evals.studies.workers import runs_at, shard
from escalade.money import Money
from escalade.pipelines.durable.runs import Runs
from escalade.registry.ledger import Ledger
from tests.pipelines.durable.workers import WorkerProcess, until

RUNGS = {"signature": "question -> answer", "models": "simulated", "rungs": ["small", "large"]}
SAID = {"name": "arithmetic", "data": "simulated:24", "metric": "simulated", "rungs": RUNGS, "latency": "none"}


def study(**changes):
    return Study.of(SAID | changes)


def inline(**options):
    return Runs(pipelines={"study": shard}, ledger=Ledger(), **options)


def table(done):
    return json.dumps(done.comparison.to_json(), indent=1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same study by one process."""
    return study().run(tmp_path_factory.mktemp("alone"))


def test_the_result_is_that_of_one_process(alone, tmp_path):
    """Byte for byte, with a budget and more than one epoch, too; run again, nothing is made again."""
    runs = inline()
    spread = study().run(tmp_path / "one", runs=runs)
    assert table(spread) == table(alone)
    assert (spread.new, spread.owed, spread.spent) == (48, 0, alone.spent)
    again = study().run(tmp_path / "one", runs=runs)
    assert (again.new, table(again)) == (0, table(alone))
    more = study(epochs=2, budget="1").run(tmp_path / "one", runs=runs)
    assert (more.new, more.owed) == (48, 0)
    whole = study(epochs=2).run(tmp_path / "whole")
    assert table(more) == table(whole)
    assert load_outcomes(f"run:{tmp_path}/one").n == 48


def test_what_workers_began_here_goes_on_alone_and_the_other_way_round(alone, tmp_path):
    """Lines are lines, whoever wrote them: half of the questions first, by one of them, then all by the other."""
    half = study(limit=12).run(tmp_path / "a", runs=inline())
    rest = study().run(tmp_path / "a")
    assert (half.new, rest.new, table(rest)) == (24, 24, table(alone))
    study(limit=12).run(tmp_path / "b")
    rest = study().run(tmp_path / "b", runs=inline())
    assert (rest.new, table(rest)) == (24, table(alone))


def test_one_budget_is_for_all_shards_and_all_runs(alone, tmp_path):
    """It is never passed, what is owed is said, and a larger one goes on where it ended."""
    budget = Money(int(alone.spent) * 2 // 3)
    runs = inline()
    some = study(budget=str(budget.dollars)).run(tmp_path, runs=runs)
    assert 0 < some.new < 48
    assert some.owed == 48 - some.new
    assert int(some.spent) <= int(budget)
    assert "budget" in some.why
    done = study(budget="1").run(tmp_path, runs=runs)
    assert (done.new, done.owed, table(done)) == (some.owed, 0, table(alone))
    assert done.spent == alone.spent


def begun(directory):
    """Rungs by key of the question, of all attempts that are there."""
    found = {}
    for part in directory.glob("attempts*.jsonl"):
        for line in map(json.loads, part.read_text().splitlines()):
            found.setdefault(line["key"], set()).add(line["rung"])
    return found


def test_a_budget_ends_between_questions(alone, tmp_path):
    """Each is whole, with as many of them as one process has, but for what the last ones may have cost; and the first
    ones of the study's order, so that they are a fair sample.
    """
    budget = str(Money(int(alone.spent) * 2 // 3).dollars)
    study(budget=budget).run(tmp_path / "one")
    study(budget=budget).run(tmp_path / "spread", runs=inline())
    one, spread = begun(tmp_path / "one"), begun(tmp_path / "spread")
    assert all(len(rungs) == 2 for rungs in spread.values())
    assert 0 < len(spread) < 24
    assert set(spread) <= set(one)
    assert len(spread) >= len(one) - 3


def test_what_dead_workers_had_set_aside_is_free_when_the_study_goes_on(alone, tmp_path):
    """What their questions might have cost is booked in full when they die, and wasn't paid: the next run has it."""
    runs = inline()
    some = study(budget="0.02").run(tmp_path, runs=runs)
    (account,) = [name for name in runs.host.ledger._named if name.endswith(":begun")]
    promised = runs.host.ledger.account(account)
    runs.host.ledger._reserve((promised,), promised.left, "a question").settle(promised.left)
    done = study(budget="0.035").run(tmp_path, runs=runs)
    assert some.new > 0
    assert done.owed == 0, "this budget has what the study costs and what one question may"


def test_what_a_dead_process_did_not_write_is_not_paid_again(alone, tmp_path):
    """The process that dealt it out is gone before it wrote anything: the next one takes what workers made."""
    runs = inline()
    study().run(tmp_path, runs=runs)
    for part in tmp_path.glob("attempts-shard-*.jsonl"):
        part.unlink()
    before = {row.run_id for row in runs.list(limit=None)}
    done = study().run(tmp_path, runs=runs)
    assert {row.run_id for row in runs.list(limit=None)} == before
    assert (done.new, table(done)) == (48, table(alone))


def test_what_fails_in_a_worker_is_told(tmp_path):
    """A metric with a mistake, with its message; what workers can't get is refused before anything is asked."""
    (tmp_path / "grading.py").write_text("def broken(example, got):\n    raise KeyError('answr')\n")
    (tmp_path / "study.yaml").write_text(json.dumps(SAID | {"metric": "grading:broken"}))
    with pytest.raises(DataError, match="worker.*KeyError.*answr"):
        Study.load(tmp_path / "study.yaml").run(tmp_path / "run", runs=inline())
    with pytest.raises(BadInput, match="metric.*module:name"):
        study(metric=lambda example, got: 1.0).run(tmp_path / "other", runs=inline())
    with pytest.raises(BadInput, match="sqlite:///PATH"):
        runs_at("somewhere")


WORKERS = """
    engine: dbos
    url: sqlite:///runs.sqlite
    workers: 0
    pipelines: {study: 'escalade.evals.studies.workers:shard'}
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_workers_under_a_budget_that_ends(tmp_path, monkeypatch):
    """They ask whole questions, about as many as one process, and go on with a larger budget."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "escalade.yaml").write_text(textwrap.dedent(WORKERS))
    small, large = (study(data="simulated:60", budget=budget) for budget in ("0.03", "1"))
    small.run(tmp_path / "one")
    with (
        WorkerProcess("", tmp_path, target="escalade.yaml") as one,
        WorkerProcess("", tmp_path, target="escalade.yaml") as other,
    ):
        one.ready()
        other.ready()
        some = small.run(tmp_path / "spread", runs="escalade.yaml")
        asked, would = begun(tmp_path / "spread"), begun(tmp_path / "one")
        done = large.run(tmp_path / "spread", runs="escalade.yaml")
        for worker in (one, other):
            worker.signal()
            assert worker.ended() == 0
    assert all(len(rungs) == 2 for rungs in asked.values())
    assert int(some.spent) <= int(Money.of("0.03"))
    assert len(would) - 6 <= len(asked) < 60
    assert (done.owed, done.new) == (0, some.owed)


APP = """
    import os
    from dataclasses import replace
    from escalade import Escalate, Gateway
    from escalade.agents.policies import Constant
    from escalade.agents.transports.simulated import Simulated
    from escalade.agents.world import LADDER, World

    CALLS = os.path.join(os.path.dirname(__file__), "calls")

    class Counted(Simulated):
        async def acomplete(self, request):
            with open(CALLS, "a") as file:
                file.write("call\\n")
            return await super().acomplete(request)

    def qa():
        world = World({name: replace(sim, latency=0.05) for name, sim in LADDER.items()}, seed=4)
        models = [replace(model, transport=Counted(world)) for model in world.as_models()]
        return Escalate("question -> answer", rungs=["small", "large"], policy=Constant(0), gateway=Gateway(models))
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_one_of_two_workers_is_killed(tmp_path, monkeypatch):
    """The other one takes over: the table and the JSON are those of one process, and no question is asked again but
    those that were under way.
    """
    monkeypatch.chdir(tmp_path)
    at_once, kinds = 4, 2
    (tmp_path / "counted.py").write_text(textwrap.dedent(APP))
    said = {name: value for name, value in SAID.items() if name != "rungs"}
    said |= {"program": "counted:qa", "data": "simulated:60", "concurrency": at_once, "budget": "1"}
    (tmp_path / "study.yaml").write_text(json.dumps(said))
    (tmp_path / "escalade.yaml").write_text(textwrap.dedent(WORKERS))
    calls = tmp_path / "calls"
    found = []
    asked = Study.load(tmp_path / "study.yaml")
    with (
        WorkerProcess("", tmp_path, "--concurrency", "2", target="escalade.yaml") as one,
        WorkerProcess("", tmp_path, "--concurrency", "2", target="escalade.yaml") as other,
    ):
        dealing = threading.Thread(target=lambda: found.append(asked.run(tmp_path / "spread", runs="escalade.yaml")))
        dealing.start()
        one.ready()
        other.ready()
        until(lambda: calls.exists() and len(calls.read_bytes()) > 5 * 30)
        one.kill()
        dealing.join(60)
        assert found, (one.lines, other.lines)
        other.signal()
        assert other.ended() == 0
    with Runs("sqlite:///runs.sqlite") as kept:
        rows = kept.list(limit=None)
    assert {row.status for row in rows} == {"done"}
    assert any(row.attempts > 1 for row in rows)  # some were taken over
    made = calls.read_text().count("call")
    alone = asked.run(tmp_path / "alone")
    spread = found[0]
    assert (spread.new, spread.owed) == (120, 0)
    assert 120 <= made <= 120 + at_once * kinds
    assert table(spread) == table(alone)
    assert spread.spent == alone.spent
