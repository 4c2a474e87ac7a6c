"""Saved outcomes: what is read again is what was written, figure by figure."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given

import escalade
from escalade.agents.climb import Rung
from escalade.cli import main
from escalade.errors import DataError
from escalade.evals.compare import compare
from escalade.evals.loaders import load_outcomes
from escalade.evals.outcomes import Outcomes
from escalade.money import Money
from tests.evals._tables import outcomes, table


def same(one: Outcomes, two: Outcomes) -> bool:
    """All columns equal, nan being equal to nan, with their types; and all that isn't a column."""
    for field in fields(Outcomes):
        a, b = getattr(one, field.name), getattr(two, field.name)
        pairs = [(a[n], b[n]) for n in a] if isinstance(a, dict) and list(a) == list(b) else [(a, b)]
        for x, y in pairs:
            if isinstance(x, np.ndarray):
                assert x.dtype == y.dtype, field.name
                np.testing.assert_array_equal(x, y, field.name)
            else:
                assert x == y, field.name
    return True


@given(outcomes())
def test_what_is_saved_is_loaded(found: Outcomes) -> None:
    """Random tables with unknown figures, failures, prices, duplicate keys and tiny amounts come back equal."""
    assume(found.n)
    found = replace(
        found,
        keys=tuple(key or "empty" for key in found.keys),
        category=("a", *("b",) * (found.n - 1)),
        rungs=(Rung("r0", "Predict", "m", Money(7)), *found.rungs[1:]),
        notes=("one", "two"),
        labels="metric",
        features=dict(found.features) | {"hour": np.arange(found.n) / 3, "vip": np.arange(found.n) % 2 == 0},
    )
    with TemporaryDirectory() as folder:
        path = found.save(Path(folder) / "mine.jsonl.gz")
        assert same(load_outcomes(path), found)
        assert load_outcomes(path).digest == found.digest


def test_what_was_really_paid_is_kept() -> None:
    """Money spent beside the list price, 0 after a cache, is saved and cut to rungs; data that doesn't say has None."""
    found = table(quality=[[0, 1], [1, 1]], cost=[[5, 50]] * 2)
    assert found.spent is None
    paid = replace(found, spent=np.array([[5, 0], [-1, 50]]))
    with TemporaryDirectory() as folder:
        again = load_outcomes(paid.save(Path(folder) / "mine.jsonl"))
    assert again.spent is not None
    assert again.spent.tolist() == [[5, 0], [-1, 50]]
    assert again.cost.tolist() == paid.cost.tolist()
    only = again.only_rungs(["r1"]).spent
    assert only is not None
    assert only.tolist() == [[0], [50]]


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["recorded", "regraded"])
def test_ladder_that_ships(tmp_path, labels) -> None:
    """Gradings, categories and the prices of the bundled data survive, and so does every figure of the comparison."""
    found = load_outcomes(labels=labels)
    again = load_outcomes(found.save(tmp_path / "again.jsonl"))
    assert same(again, found)
    assert compare(again).to_json() == compare(found).to_json()
    other = {"recorded": "regraded", "regraded": "recorded"}[labels]
    assert same(load_outcomes(tmp_path / "again.jsonl", labels=other), load_outcomes(labels=other))


def test_saved_files_are_reproducible(tmp_path) -> None:
    """The same outcomes give the same bytes, gzipped too."""
    found = load_outcomes(limit=20)
    one, two = (found.save(tmp_path / name).read_bytes() for name in ("a.jsonl.gz", "b.jsonl.gz"))
    assert one == two


def test_record_now_compare_later(tmp_path, capsys) -> None:
    """What `record` gave is compared in another process by the command, on some of its rungs too."""
    world = escalade.World(seed=7)
    qa = escalade.Escalate(
        "question -> answer",
        rungs=[("Predict", "small"), ("ChainOfThought", "small"), ("ChainOfThought", "large")],
        policy=escalade.Threshold(0.8),
        gateway=escalade.Gateway(world.as_models()),
    )
    with escalade.scope(budget="1"):
        found = escalade.record(qa, world.task(12, seed=1), world.metric)
    path = found.save(tmp_path / "mine.jsonl", texts=True)
    loaded = load_outcomes(path)
    assert same(loaded, found)
    assert compare(loaded).rows == compare(found).rows
    assert main(["compare", "--data", str(path), "--rungs", "Predict/small,ChainOfThought/large", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [rung["name"] for rung in told["rungs"]] == ["Predict/small", "ChainOfThought/large"]
    assert told["labels"] == "metric"


def test_own_prices_change_nothing(tmp_path) -> None:
    """A saved file has costs, and says so to who sets prices."""
    path = load_outcomes(limit=5).save(tmp_path / "mine.jsonl")
    loaded = load_outcomes(path, prices={"gpt-4-1106": escalade.Price.of("1", "1")})
    assert (loaded.cost == load_outcomes(limit=5).cost).all()
    assert "costs are as recorded: --price changes nothing" in loaded.notes


@pytest.mark.parametrize("name", ["mine.csv", "nowhere/mine.jsonl"])
def test_files_that_cannot_be(tmp_path, name) -> None:
    """Another kind of file, and a folder that isn't there, are refused in one line."""
    with pytest.raises(DataError):
        table(quality=[[1]]).save(tmp_path / name)
