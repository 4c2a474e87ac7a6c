"""What must not be: read, judged, and refused where it can't be told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.errors import BadInput, DataError, EscaladeError, UnknownName
from escalade.evals.compare import Comparison, compare
from escalade.evals.loaders import load_outcomes
from escalade.evals.reporting.conditions import FIGURES, WORDS, check, checks
from tests.evals._tables import table

ONE = compare(load_outcomes(limit=40), ["threshold-0.8", "agreement-3"], baselines=False)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """A few policies of the data that ships; GPT-4, the baseline, has 85.7 points."""
    names = ["threshold-0.8", "agreement-3", "qwen-1.5b@96", "random@agreement-3"]
    return compare(policies=names, baselines=False)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("threshold-0.8.quality < baseline - 2", True),
        ("threshold-0.8.quality<baseline-2", True),
        ("threshold-0.8.quality < baseline - 40", False),
        ("threshold-0.8.quality_high < baseline.quality - 2", True),
        ("agreement-3.quality < threshold-0.8.quality + 1", False),
        ("agreement-3.cost > baseline * 0.6", False),
        ("agreement-3.cost < baseline", True),
        ("agreement-3.cost_ratio >= 1", False),
        ("agreement-3.errors > 100000", False),
        ("agreement-3.violations != 0", False),
        ("agreement-3.verdict == worse", False),
        ("threshold-0.8.verdict == worse", True),
        ('agreement-3.verdict != "as good"', False),
        ("agreement-3.verdict == as good", True),
        ("baseline.quality < 80", False),
        ("baseline.verdict == baseline", True),
        ("agreement-3.verdict == too few", False),
        ("qwen-1.5b@96.beats_random == yes", None),
        ('"threshold-0.8".quality < 1e2', True),
        ("threshold=0.8.quality < 100", True),
        ("policy.quality < baseline - 2", True),
        ("policy.cost > baseline", False),
    ],
)
def test_holds(comparison, text, holds) -> None:
    """Figures, words, the baseline's and other rows' figures; what is unknown is refused."""
    if holds is None:
        with pytest.raises(DataError, match="unknown"):
            check(comparison, text)
    else:
        assert bool(check(comparison, text)) is holds
        assert comparison.check(text).holds is holds


def test_policy_stands_for_those_asked_for(comparison) -> None:
    """It holds where it holds for one of them, and says for whom."""
    text = "policy.quality < baseline - 2"
    assert not check(comparison, text, ["agreement-3", "gpt-4-1106"])
    found = check(comparison, text, ["agreement-3", "threshold-0.8"])
    assert found
    assert found.said.startswith("threshold-0.8.quality is ")
    assert "agreement-3" not in found.said


def test_agrees_with_the_rows(comparison) -> None:
    """Each metric is the row's field, in points where it is a share."""
    row = comparison.row("agreement-3")
    for metric, (field, times) in FIGURES.items():
        value = getattr(row, field)
        if value is not None:
            assert check(comparison, f"agreement-3.{metric} >= {value * times - 1e-9!r}")
            assert not check(comparison, f"agreement-3.{metric} < {value * times - 1e-9!r}")
    assert {"verdict", "frontier", "beats_random"} == set(WORDS)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("treshold-0.8.quality < 2", "did you mean 'threshold-0.8'"),
        ("threshold-0.8.qualty < 2", "did you mean 'quality'"),
        ("threshold-0.8.verdict == wrose", "did you mean 'worse'"),
        ("threshold-0.8.quality < agreement.quality", "agreement-3"),
    ],
)
def test_misspelt_names(text, named) -> None:
    """The error names what there is."""
    with pytest.raises(UnknownName, match=named):
        check(ONE, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quality",
        "threshold-0.8.quality",
        "threshold-0.8.quality < ",
        "threshold-0.8.quality = 2",
        "threshold-0.8.quality < __import__('os')",
        "threshold-0.8.quality < 1 + 1",
        "threshold-0.8.verdict < worse",
        "threshold-0.8.quality < baseline / 0",
        "threshold-0.8.quality < 0.8",  # a share, where points are meant
    ],
)
def test_nonsense(comparison, text) -> None:
    """What isn't of this little language is bad input."""
    with pytest.raises(BadInput):
        check(comparison, text)


def test_one_that_can_not_be_read_spoils_all(comparison) -> None:
    """Nothing is judged before all are read."""
    with pytest.raises(BadInput):
        checks(comparison, ["threshold-0.8.quality < 2", "nonsense"])


def test_unknown_is_not_passed_over(comparison) -> None:
    """A latency that nobody measured can't be below a limit, nor above it."""
    with pytest.raises(DataError, match="p95 is unknown"):
        check(comparison, "threshold-0.8.p95 > 3")


def test_no_policy_to_stand_for(comparison) -> None:
    """Where nothing chooses between rungs, `policy` has no meaning."""
    only = replace(comparison, rows=tuple(row for row in comparison.rows if row.name in {"gpt-4-1106", "qwen-1.5b@96"}))
    with pytest.raises(BadInput, match="stands for"):
        check(only, "policy.quality < 2")


@given(st.text(alphabet="policy.quality<>=!baseline-+*02 \"'()\n", max_size=40))
def test_never_anything_else(text) -> None:
    """Any text is either judged or refused as bad input."""
    try:
        assert check(ONE, text).holds in {True, False}
    except EscaladeError as error:
        assert isinstance(error, BadInput)


def test_a_policy_of_unknown_cost_is_not_passed_over() -> None:
    """`policy` stands for all that choose between rungs, whether their cost is known or not."""
    n = 40
    right = [[float(i % 3 > 0), 1.0] for i in range(n)]
    cost = [[1, -1 if i == 0 else 9] for i in range(n)]
    found = compare(table(quality=right, confidence=[[0.2 if i == 0 else 0.9, 0.9] for i in range(n)], cost=cost))
    assert found.row("threshold-0.8").cost_per_1k_usd is None
    assert "threshold-0.8.quality" in found.check("policy.quality < 100").said
