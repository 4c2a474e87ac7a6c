"""Drift: a swapped model is found, and nothing is found where nothing changed, as often as promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from escalade.errors import BadInput, DataError
from escalade.evals.outcomes import Outcomes
from escalade.evals.robustness.drift import changed_at, drift, responders, swapped
from escalade.evals.studies.rundir import Line
from tests.evals._tables import table

RNG = np.random.default_rng


def world(seed: int, *, n: int = 120, right: tuple[float, float] = (0.6, 0.8), keys: str = "q") -> Outcomes:
    """Two rungs that are right with these chances, each question with its own difficulty, which keys share."""
    hard = RNG(7).random(n)[:, None] - 0.5
    rng = RNG(seed)
    quality = (rng.random((n, 2)) < np.clip(np.array(right) + 0.4 * hard, 0, 1)).astype(float)
    answer = np.where(quality > 0, 0, 1 + rng.integers(0, 3, (n, 2)))
    one = table(quality=quality.tolist(), answer=answer, keys=[f"{keys}{i}" for i in range(n)])
    return replace(one, latency=rng.gamma(2.0, 0.5, (n, 2)))


@pytest.mark.parametrize("keys", ["q", "other"])
def test_false_alarms_are_as_rare_as_said(keys: str) -> None:
    """Of 200 pairs of recordings of the same models about 5 % have any alarm, paired or on other questions."""
    alarms = sum(
        any(change.alarm for change in drift(world(2 * i, n=40), world(2 * i + 1, n=40, keys=keys), draws=399))
        for i in range(200)
    )
    assert alarms <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


@pytest.mark.parametrize(("keys", "paired"), [("q", True), ("other", False)])
def test_a_swapped_model_is_found(keys: str, *, paired: bool) -> None:
    """A rung that has lost 35 points of quality is named, with what changed; the other rung isn't."""
    changes = drift(world(1, n=300), world(2, n=300, right=(0.6, 0.45), keys=keys))
    first = next(change for change in changes if (change.rung, change.what) == ("r1", "quality"))
    assert {change.rung for change in changes if change.alarm and change.what == "quality"} == {"r1"}
    assert (first.paired, first.n) == (paired, 300)
    assert first.newer < first.older
    assert first.p <= first.p_holm <= 0.01


def test_the_same_recording_has_no_change() -> None:
    """Nothing that is equal is told as changed."""
    one = world(3)
    assert all(change.p == 1 for change in drift(one, one))


def test_epochs_and_groups_do_not_count_as_questions() -> None:
    """What one document moves is one piece of evidence: in a single group nothing can be told."""
    older, newer = world(1, n=60), world(2, n=60, right=(0.6, 0.2))
    assert any(change.alarm for change in drift(older, newer))
    grouped = [replace(one, group=("g",) * 60) for one in (older, newer)]
    assert not any(change.alarm for change in drift(*grouped))
    twice = replace(older, keys=tuple(f"q{i // 2}" for i in range(60)))
    assert drift(twice, replace(newer, keys=twice.keys))[0].n == 30


def test_what_cannot_be_compared() -> None:
    """No common rung, too few questions, too few draws."""
    one = world(1)
    with pytest.raises(DataError, match="no rung is in both"):
        drift(one, replace(one, rungs=tuple(replace(rung, name=rung.name + "x") for rung in one.rungs)))
    with pytest.raises(DataError, match="5 questions are too few"):
        drift(world(1, n=5), world(2, n=5))
    with pytest.raises(BadInput, match="99 or more"):
        drift(one, one, draws=10)


def test_change_point() -> None:
    """A level that changes after 60 of 100 values is found near there; without one 5 % are taken for one."""
    series = RNG(1).normal(0, 1, 100) + np.repeat([0.0, 1.5], [60, 40])
    found = changed_at(series)
    assert abs(found.at - 60) <= 5
    assert found.after - found.before > 1
    assert found.p < 0.01
    none = sum(changed_at(RNG(100 + i).exponential(1, 40), draws=199).p <= 0.05 for i in range(200))
    assert none <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)
    with pytest.raises(DataError, match="16 known values or more"):
        changed_at([1.0, 2.0])


def run_dir(path: Path, *models: tuple[str, str]) -> Path:
    """A run directory with one attempt of each (rung, model that answered)."""
    path.mkdir()
    (path / "study.json").write_text(json.dumps({"name": "x"}), "utf-8")
    lines = (
        Line(key=f"q{i}", rung=rung, of="d", model=model, at=float(i)).dumped()
        for i, (rung, model) in enumerate(models)
    )
    (path / "attempts.jsonl").write_bytes(b"".join(lines))
    return path


def test_who_answered(tmp_path: Path) -> None:
    """Another model behind the same name is told, within a run and between two."""
    monday = run_dir(tmp_path / "monday", ("small", "s-01"), ("large", "l-0613"), ("large", "l-0613"))
    friday = run_dir(tmp_path / "friday", ("small", "s-01"), ("large", "l-1106"))
    mixed = run_dir(tmp_path / "mixed", ("large", "l-0613"), ("large", "l-1106"))
    assert [(one.rung, one.model, one.count, one.last) for one in responders(monday)] == [
        ("large", "l-0613", 2, 2.0),
        ("small", "s-01", 1, 0.0),
    ]
    assert swapped(monday) == ()
    assert swapped(monday, friday) == ("large: answered by l-1106, before by l-0613",)
    assert swapped(mixed) == ("large: answered by l-0613 and l-1106 within one run",)
    with pytest.raises(DataError, match="not a run directory"):
        responders(tmp_path)
