"""Fitted elsewhere, and a rung that is added: what is lost by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals.loaders import load_outcomes
from escalade.evals.outcomes import Outcomes
from escalade.evals.robustness.transfer import added, transfer
from tests.evals._tables import table


def sure(seed: int, cut: float, *, n: int = 400, keys: str = "q") -> Outcomes:
    """Two rungs: the cheap one is right where it is surer than `cut`, the dear one always."""
    confidence = np.random.default_rng(seed).random(n).round(2)
    rows = [[value, 1.0] for value in confidence]
    quality = [[float(value > cut), 1.0] for value in confidence]
    return table(quality=quality, confidence=rows, cost=[1, 9], keys=[f"{keys}{i}" for i in range(n)])


def test_fitted_elsewhere_and_at_home() -> None:
    """A threshold of a world in which low confidence is enough fails in one where it isn't; at home it holds."""
    found = transfer(sure(1, 0.2), sure(2, 0.8, keys="p"), ["threshold-fitted"])
    moved = found.policies[0]
    assert moved.quality == pytest.approx(0.4, abs=0.1)
    assert moved.home_quality >= 0.96
    assert moved.diff == pytest.approx(moved.quality - moved.home_quality)
    assert moved.diff_low < moved.diff < moved.diff_high < 0
    assert moved.verdict == "worse"
    assert (moved.cost_per_1k_usd or 0) < (moved.home_cost_per_1k_usd or 0)
    assert found.overlap.share == 0


def test_the_same_world_transfers() -> None:
    """In the same world nothing is lost, and the ladder's order in the second data set doesn't matter."""
    test = sure(2, 0.5, keys="p")
    moved = transfer(sure(1, 0.5), test, ["threshold-fitted"]).policies[0]
    assert abs(moved.diff) < 0.03
    turned = {name: getattr(test, name)[:, ::-1] for name in ("quality", "answer", "confidence", "cost", "price")}
    turned |= {name: getattr(test, name)[:, ::-1] for name in ("ceiling", "latency", "status")}
    again = replace(test, rungs=test.rungs[::-1], **turned)
    assert transfer(sure(1, 0.5), again, ["threshold-fitted"]).policies[0] == moved


def test_questions_in_both_are_told() -> None:
    """What was fitted on the very questions that it is judged on is no transfer: the overlap says so."""
    one = sure(1, 0.5)
    assert transfer(one, one, ["threshold-fitted"]).overlap.share == 1


def test_what_cannot_be_transferred() -> None:
    """Policies that aren't fitted, and data sets without two common rungs."""
    one = sure(1, 0.5)
    with pytest.raises(BadInput, match="threshold-0.8 isn't fitted"):
        transfer(one, one, ["threshold-0.8"])
    with pytest.raises(DataError, match="0 rungs in common"):
        transfer(one, load_outcomes())


def test_a_rung_is_added() -> None:
    """Without fitting anew a policy is what it was; fitted anew it may gain by the better rung."""
    rng = np.random.default_rng(3)
    confidence = rng.random(300).round(2)
    quality = [[float(value > 0.5), float(rng.random() < 0.6), 1.0] for value in confidence]
    rows = [[value, value, 1.0] for value in confidence]
    outcomes = table(quality=quality, confidence=rows, cost=[1, 5, 6])
    before = outcomes.only_rungs(["r0", "r1"])
    moved = next(one for one in added(outcomes, "r2", ["threshold-fitted"]) if one.name == "threshold-fitted")
    alone = transfer(before, before, ["threshold-fitted"]).policies[0]
    assert moved.quality == pytest.approx(alone.home_quality)
    assert moved.home_quality > moved.quality
    assert moved.diff_high < 0
    with pytest.raises(UnknownName, match="r7"):
        added(outcomes, "r7")
    with pytest.raises(DataError, match="there is one rung"):
        added(before, "r1")
