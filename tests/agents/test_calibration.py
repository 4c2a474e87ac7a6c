"""Calibrators: monotone, honest about too few rows, equal to what scipy finds; and the measures of calibration."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

import escalade
from escalade.agents._saving import load_saved
from escalade.agents._sigmoid import fit_logistic, log_odds, sigmoid
from escalade.agents.calibration import Identity, Isotonic, Platt, Temperature, auroc, brier, ece, pooled
from escalade.agents.climb import WRONG_FORMAT
from escalade.agents.policies import Constant, Threshold
from escalade.agents.world import SimModel, World
from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals._codes import STATUSES
from escalade.evals.calibrating import calibrate, calibrated
from escalade.evals.replay import replay
from tests.evals._tables import table

KINDS = [Identity, Temperature, Platt, Isotonic]
PROBABILITY = st.floats(0, 1)
ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.33, 0.5, 0.8, 0.9, 0.99, 1.0]) | PROBABILITY, st.booleans()))


def overconfident(n: int, seed: int, bias: float = 1.5, scale: float = 2.0) -> tuple[list[float], list[float]]:
    """(stated, right): right with probability p, stated sigmoid(scale * log_odds(p) + bias)."""
    rng = random.Random(seed)
    true = [min(max(rng.betavariate(2, 2), 0.01), 0.99) for _ in range(n)]
    return [sigmoid(scale * log_odds(p) + bias) for p in true], [float(rng.random() < p) for p in true]


def log_loss(confidences, right) -> float:
    """Mean negative log likelihood."""
    return -float(np.mean([math.log(c if y else 1 - c) for c, y in zip(confidences, right, strict=True)]))


@pytest.mark.parametrize("kind", KINDS)
@given(rows=ROWS, one=PROBABILITY, other=PROBABILITY)
def test_monotone_within_bounds_and_kept_unknown(kind, rows, one, other):
    """Whatever it is fitted to: more confidence never becomes less, 0..1 stays 0..1, and unknown stays unknown."""
    rows = [*rows, *[(i / 100, i % 3 == 0) for i in range(100)]]
    calibrator = kind.fit([c for c, _ in rows], [float(y) for _, y in rows])
    low, high = sorted((one, other))
    assert 0 <= calibrator(low) <= calibrator(high) <= 1
    assert math.isnan(calibrator(math.nan))


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind):
    """A calibrator is JSON and back, and takes the same decisions."""
    fitted = kind.fit(*overconfident(300, 1))
    again = load_saved(fitted.dump(), "calibrator")
    assert again == fitted
    assert [again(i / 50) for i in range(51)] == [fitted(i / 50) for i in range(51)]


@given(st.lists(st.tuples(PROBABILITY, st.floats(0, 1)), min_size=1, unique_by=lambda row: row[0]))
def test_isotonic_is_scipys(rows):
    """Pooling adjacent violators gives what scipy's isotonic regression gives."""
    rows = sorted(rows)
    theirs = optimize.isotonic_regression([y for _, y in rows]).x
    ours = {c: y for (low, high), y in pooled(*zip(*rows, strict=True)) for c, _ in rows if low <= c <= high}
    assert [ours[c] for c, _ in rows] == pytest.approx(theirs.tolist())


def test_isotonic_takes_equal_confidences_as_one_point():
    """Many rows at 0.9, as models say it, are one point: their share of right answers."""
    fitted = Isotonic.fit([0.5] * 60 + [0.9] * 60, [0.0] * 45 + [1.0] * 15 + [1.0] * 36 + [0.0] * 24)
    assert fitted.corners == ((0.5, 0.25), (0.9, 0.6))
    assert fitted(0.7) == pytest.approx(0.425)
    assert (fitted(0.1), fitted(1.0)) == (0.25, 0.6)


@pytest.mark.parametrize("seed", range(4))
def test_platt_is_the_least_loss_against_his_targets(seed):
    """Slope and bias are those that scipy's minimiser finds."""
    confidences, right = overconfident(200, seed)
    x = np.array([log_odds(c) for c in confidences])
    good = sum(right)
    targets = np.where(np.array(right) > 0, (good + 1) / (good + 2), 1 / (len(right) - good + 2))

    def loss(ab: np.ndarray) -> float:
        z = ab[0] * x + ab[1]
        return float(np.sum(np.logaddexp(0, z) - targets * z))

    found = optimize.minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    fitted = Platt.fit(confidences, right)
    assert (fitted.slope, fitted.bias) == pytest.approx(tuple(found.x), abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_temperature_is_the_least_loss(seed):
    """The temperature is the one that scipy's minimiser finds."""
    confidences, right = overconfident(200, seed, bias=0.0)
    found = optimize.minimize_scalar(
        lambda t: log_loss([sigmoid(log_odds(c) / t) for c in confidences], right), bounds=(0.05, 50), method="bounded"
    )
    assert Temperature.fit(confidences, right).temperature == pytest.approx(found.x, rel=1e-3)


def test_a_misleading_confidence_becomes_one_constant():
    """Where the surest answers are the wrong ones, a monotone calibrator can only say how many are right."""
    confidences, right = overconfident(400, 2)
    fitted = Platt.fit([1 - c for c in confidences], right)
    assert fitted.slope == 0
    assert fitted(0.1) == fitted(0.9) == pytest.approx(sum(right) / 400, abs=0.01)


@pytest.mark.parametrize(("kind", "least"), [(Temperature, 20), (Platt, 30), (Isotonic, 100)])
def test_too_few_rows_are_refused_with_their_number(kind, least):
    """The message says how many are needed, how many there are, and how many of them were unknown."""
    with pytest.raises(DataError, match=f"{kind.kind} needs at least {least} rows.*got {least - 1} \\(7 more are"):
        kind.fit([0.5] * (least - 1) + [math.nan] * 7, [1.0] * (least + 6))
    kind.fit([i / least for i in range(least)], [i % 2 for i in range(least)])


@pytest.mark.parametrize(
    ("confidences", "right"), [([0.5] * 200, [1.0] * 199), ([1.5] * 200, [1.0] * 200), ([0.5] * 200, [2.0] * 200)]
)
def test_rows_that_make_no_sense_are_refused(confidences, right):
    """Columns of unequal length and values that are no probabilities."""
    with pytest.raises(DataError):
        Isotonic.fit(confidences, right)


def test_all_right_is_nothing_to_fit():
    """Platt's targets keep the one constant that fits below certainty; a temperature and a logistic fit refuse."""
    assert Platt.fit([i / 50 for i in range(50)], [1.0] * 50)(0.5) == pytest.approx(51 / 52)
    with pytest.raises(DataError, match="all 50 rows are right"):
        Temperature.fit([i / 50 for i in range(50)], [1.0] * 50)
    with pytest.raises(DataError, match="all 50 rows are right"):
        fit_logistic([[0.1]] * 50, [1.0] * 50)


@pytest.mark.parametrize("make", [lambda: Temperature(0), lambda: Platt(-1), lambda: Isotonic(((0, 1), (1, 0)))])
def test_calibrators_that_are_none_are_refused(make):
    """A temperature of 0, a falling line, a falling curve."""
    with pytest.raises(BadInput):
        make()


@pytest.mark.parametrize("kind", [Platt, Isotonic])
def test_calibration_improves_held_out_rows(kind):
    """Fitted on one half, the other half is calibrated: ECE from above 0.15 to below 0.05; the order is kept."""
    fit, test = overconfident(4000, 5), overconfident(4000, 6)
    calibrator = kind.fit(*fit)
    after = [calibrator(c) for c in test[0]]
    assert ece(*test) > 0.15
    assert ece(after, test[1]) < 0.05
    assert brier(after, test[1]) < brier(*test) - 0.02
    assert auroc(after, test[1]) == pytest.approx(auroc(*test), abs=0.01)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]) | PROBABILITY, st.booleans()), min_size=1))
def test_auroc_is_mann_whitneys(rows):
    """Ties count half; nan when all are right or all wrong."""
    c, y = [c for c, _ in rows], [float(r) for _, r in rows]
    good, bad = [a for a, r in rows if r], [a for a, r in rows if not r]
    if good and bad:
        assert auroc(c, y) == pytest.approx(stats.mannwhitneyu(good, bad).statistic / (len(good) * len(bad)))
    else:
        assert math.isnan(auroc(c, y))


def test_ece_and_brier_by_hand():
    """Two bins and an unknown confidence, which is left out."""
    confidences, right = [0.9, 0.9, 0.2, math.nan, 1.0], [1.0, 0.0, 0.0, 1.0, 1.0]
    assert ece(confidences, right) == pytest.approx((abs(0.9 + 0.9 + 1.0 - 2) + 0.2) / 4)
    assert brier(confidences, right) == pytest.approx((0.01 + 0.81 + 0.04 + 0.0) / 4)
    with pytest.raises(DataError):
        ece([math.nan], [1.0])


def test_logistic_regression_of_several_signals():
    """Its coefficients are those of scipy's minimiser, also with a signal that is twice there."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 2))
    right = (rng.random(300) < 1 / (1 + np.exp(-(0.5 + 2 * x[:, 0] - x[:, 1])))).astype(float)

    def loss(w: np.ndarray) -> float:
        z = w[0] + x @ w[1:]
        return float(np.sum(np.logaddexp(0, z) - right * z) + 0.5e-3 * (w[1:] ** 2).sum())

    bias, coefficients = fit_logistic(x.tolist(), right.tolist())
    assert (bias, *coefficients) == pytest.approx(tuple(optimize.minimize(loss, np.zeros(3)).x), abs=1e-4)
    _, twice = fit_logistic([[a, a] for a, _ in x.tolist()], right.tolist())
    assert twice[0] == pytest.approx(twice[1])


def _overconfident_program(world):
    return escalade.Escalate(
        "question -> answer",
        rungs=["small", "big"],
        policy=Threshold(0.8),
        gateway=escalade.Gateway(world.as_models()),
    )


@pytest.mark.slow
def test_a_program_is_calibrated_on_its_record():
    """An overconfident model escalates more once it is calibrated; the record, calibrated too, says so beforehand."""
    world = World(
        {"small": SimModel(0.5, calibration="overconfident"), "big": SimModel(0.95, price_in="2", price_out="8")},
        seed=4,
    )
    qa = _overconfident_program(world)
    examples = world.task(400, seed=9)
    with escalade.scope():
        outcomes = escalade.record(qa, examples, world.metric)
        before = qa(question=examples[300].question)
    calibrators = calibrate(qa, outcomes, rows=range(300))
    assert qa.calibrators == calibrators
    again = calibrated(outcomes, calibrators)
    rest = np.arange(300, 400)
    assert ece(outcomes.confidence[rest, 0], outcomes.quality[rest, 0]) > 0.15
    assert ece(again.confidence[rest, 0], outcomes.quality[rest, 0]) < 0.12
    assert replay(qa.policy, again, rows=rest).quality.mean() > replay(qa.policy, outcomes, rows=rest).quality.mean()
    with escalade.scope():
        after = qa(question=examples[300].question)
    assert after.climb.attempts[0].raw == before.climb.attempts[0].confidence
    assert after.confidence == after.attempt.confidence == calibrators[after.rung.name](after.attempt.raw)


def test_calibrating_refuses_what_makes_no_sense():
    """Twice, on another ladder, on too few rows, for a rung that isn't there: each is said."""
    world = World(seed=1)
    qa = _overconfident_program(World({"small": SimModel(), "big": SimModel()}))
    with escalade.scope():
        few = escalade.record(qa, world.task(5), world.metric)
    with pytest.raises(DataError, match="rung 'Predict/small': platt needs at least 30 rows"):
        calibrate(qa, few)
    with pytest.raises(BadInput, match="not of the program's"):
        calibrate(qa, few.only_rungs(["Predict/small"]))
    with pytest.raises(UnknownName, match="Predict/huge"):
        calibrated(few, {"Predict/huge": Identity()})
    qa.calibrators["Predict/huge"] = Identity()
    with pytest.raises(BadInput, match="calibrated already"):
        calibrate(qa, few)
    with escalade.scope(), pytest.raises(UnknownName, match="Predict/huge"):
        qa(question="q")


def test_failures_and_unknown_confidences_are_not_fitted_on():
    """An attempt that failed says nothing of the confidence of those that answered."""
    n = 60
    found = table(
        quality=[[i % 2, 1] for i in range(n)] + [[0, 0]] * n,
        confidence=[[i / n, math.nan] for i in range(n)] + [[1.0, math.nan]] * n,
        status=[[0, 0]] * n + [[STATUSES.index(WRONG_FORMAT), 0]] * n,
    )
    qa = escalade.Escalate(
        "question -> answer",
        rungs=[escalade.Rung(rung.name, "Predict", "small") for rung in found.rungs],
        policy=Constant(0),
        gateway=escalade.Gateway(World().as_models()),
    )
    fitted = calibrate(qa, found)
    assert list(fitted) == [found.rungs[0].name]
    assert fitted[found.rungs[0].name] == Platt.fit([i / n for i in range(n)], [float(i % 2) for i in range(n)])
