"""Outcomes with holes: what was never asked is never a zero, and who stays clear of the holes is judged as always."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._logs import population
from escalade.agents.policies import Constant, Threshold
from escalade.errors import Censored, DataError
from escalade.evals.compare import compare
from escalade.evals.findings import findings
from escalade.evals.inference.censored import censored
from escalade.evals.loaders import load_outcomes
from escalade.evals.outcomes import NO_ANSWER, UNKNOWN, Outcomes
from escalade.evals.replay import oracle, replay, replay_one
from escalade.registry.prices import Price
from tests.evals._tables import KINDS, outcomes, policies


def without(data: Outcomes, asked: np.ndarray) -> Outcomes:
    """The same outcomes, as if these were all that was asked."""
    return replace(
        data,
        quality=np.where(asked, data.quality, np.nan),
        answer=np.where(asked, data.answer, NO_ANSWER),
        confidence=np.where(asked, data.confidence, np.nan),
        cost=np.where(asked, data.cost, UNKNOWN),
        latency=np.where(asked, data.latency, np.nan),
        status=np.where(asked, data.status, 0).astype(np.int8),
    )


@pytest.fixture(scope="module")
def whole() -> Outcomes:
    """Three rungs of the simulated world."""
    return population(800)


@pytest.fixture(scope="module")
def live(whole) -> Outcomes:
    """What a live cascade at 0.8 leaves of them."""
    return without(whole, replay(Threshold(0.8), whole).tried)


def test_inside_nothing_changes(whole, live) -> None:
    """The policy that ran and one that escalates less come to the same, to the nano-dollar, with and without holes."""
    for policy in (Threshold(0.8), Threshold(0.6), Constant(0)):
        a, b = replay(policy, whole), replay(policy, live)
        assert (a.quality == b.quality).all()
        assert (a.cost == b.cost).all()


def test_outside_is_refused(whole, live) -> None:
    """One that escalates more is refused, with the share of the questions that lack what it takes; never a zero."""
    beyond = (replay(Threshold(0.9), whole).tried & ~live.asked).any(axis=1)
    with pytest.raises(Censored, match="was not asked there") as refused:
        replay(Threshold(0.9), live)
    assert refused.value.share == pytest.approx(beyond.mean())
    first = int(np.flatnonzero(beyond)[0])
    with pytest.raises(Censored, match="was not asked question"):
        replay_one(Threshold(0.9), live, first)
    with pytest.raises(Censored, match="every rung"):
        oracle(live)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(data=st.data())
def test_refused_or_the_same(kind: type, data: st.DataObject) -> None:
    """For any table, holes and policy: what the whole table says, or refused; refused only where it goes in."""
    full = data.draw(outcomes())
    full = replace(full, latency=np.ones(full.quality.shape))  # so that each attempt leaves a trace
    cells = full.n * full.k
    asked = np.array(data.draw(st.lists(st.booleans(), min_size=cells, max_size=cells)), dtype=bool)
    asked = asked.reshape(full.quality.shape)
    holes, policy = without(full, asked), data.draw(policies(full.k, kinds=[kind], deep=0))
    expected = replay(policy, full)
    if (expected.tried & ~asked).any():
        with pytest.raises(Censored):
            replay(policy, holes)
    else:
        found = replay(policy, holes)
        assert (found.chosen == expected.chosen).all()
        assert (found.quality == expected.quality).all()
        assert (found.cost == expected.cost).all()


def test_what_has_no_grade_is_refused(whole) -> None:
    """An attempt that was made and not graded may be on the way, and can't be the answer."""
    quality = whole.quality.copy()
    quality[:5, 0] = np.nan
    ungraded = replace(whole, quality=quality)
    assert ungraded.asked.all()
    with pytest.raises(Censored, match="nobody graded"):
        replay(Constant(0), ungraded)
    always = Threshold(1.0, (0, 1))
    assert (replay(always, ungraded).quality == replay(always, whole).quality).all()


def test_the_pattern_is_found(whole, live) -> None:
    """A threshold is told as such, with its cut; holes by chance aren't called anything else."""
    middle, large = censored(live)
    assert (middle.rung, middle.by, large.by) == ("middle", "small", "middle")
    assert middle.cut == pytest.approx(0.8, abs=0.02)
    assert middle.missing == int((~live.asked[:, 1]).sum())
    assert "aren't missing by chance" in middle.said
    asked = np.ones(whole.quality.shape, dtype=bool)
    asked[:, 2] = np.random.default_rng(5).random(whole.n) < 0.7
    (hole,) = censored(without(whole, asked))
    assert (hole.by, hole.cut) == (None, None)
    assert censored(whole) == ()


def test_compare_judges_those_that_stay_inside(whole, live, tmp_path) -> None:
    """Loaded with `missing="keep"`: the others are named with the reason, and the baseline is one that can be."""
    path = live.save(tmp_path / "live.jsonl")
    with pytest.raises(DataError, match="--missing keep"):
        load_outcomes(path)
    kept = load_outcomes(path, missing="keep")
    assert (kept.asked == live.asked).all()
    found = compare(kept, ["threshold-0.8/3", "threshold-0.9/3", "large", "gain", "random"])
    assert {row.name for row in found.rows} == {"threshold-0.8/3", "small"}
    assert found.baseline == "small"
    assert {one.name for one in found.refused} == {"threshold-0.9/3", "large", "gain", "random"}
    assert all(one.why.startswith(one.name) and one.share > 0 for one in found.refused)
    assert any(note.startswith("not judged: large") for note in found.notes)
    assert found.row("threshold-0.8/3").quality == pytest.approx(
        compare(whole, ["threshold-0.8/3"]).row("threshold-0.8/3").quality
    )
    holes = [check for check in findings(found, only=["inference"]).checks if check.name == "holes"]
    assert [check.held for check in holes] == [False, False]
    with pytest.raises(Censored, match="large"):
        compare(kept, ["threshold-0.8/3"], baseline="large")
    with pytest.raises(DataError, match="no policy stays within"):
        compare(kept.only_rungs(["middle", "large"]), ["large"])


def test_costs_of_what_was_asked(tmp_path) -> None:
    """Prices reach the attempts that were made; a hole has no cost, and an expected price all the same."""
    both = '{"low": {"quality": 0, "output_tokens": 10}, "high": {"quality": 1, "output_tokens": 20}}'
    lines = [
        '{"escalade": "outcomes/1", "name": "x", "rungs": [{"name": "low"}, {"name": "high"}]}',
        '{"key": "a", "prompt_chars": 40, "outcomes": {"low": {"quality": 1, "output_tokens": 10}}}',
        f'{{"key": "b", "prompt_chars": 40, "outcomes": {both}}}',
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    prices = {"low": Price.of("1", "1"), "high": Price.of("10", "10")}
    found = load_outcomes(path, missing="keep", prices=prices)
    assert found.cost.tolist() == [[20_000, UNKNOWN], [20_000, 300_000]]
    assert (found.price[:, 1] == 300_000).all()
