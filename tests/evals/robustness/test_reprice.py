"""Other prices: exactly what loading the data at these prices gives, or a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals.compare import compare
from escalade.evals.loaders import load_outcomes
from escalade.evals.outcomes import Outcomes
from escalade.evals.robustness.reprice import reprice, repriced
from escalade.registry.prices import Price
from tests.evals._tables import table

OLD = {"small": Price.of("0.1", "0.3"), "large": Price.of("10", "30")}


def data(tmp_path: Path, prices: dict[str, Price], *, exact: bool = False) -> Outcomes:
    """30 questions; `exact`: with input tokens that aren't characters / 4."""
    path = tmp_path / "t.csv"
    head = "question_id,model,correct,prompt_chars,out_tokens" + (",input_tokens" if exact else "")
    lines = [
        f"{q},{model},{(q * k) % 3 % 2},{40 + 13 * q},{k * 50 + q * q}" + (f",{9 + q}" if exact else "")
        for q in range(30)
        for k, model in ((1, "small"), (2, "large"))
    ]
    path.write_text("\n".join([head, *lines]) + "\n", "utf-8")
    return load_outcomes(path, prices=prices)


RATES = st.integers(1, 40_000).map(lambda cents: str(cents / 1000))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RATES, RATES, RATES, RATES)
def test_as_if_loaded_at_these_prices(tmp_path: Path, into: str, out: str, new_in: str, new_out: str) -> None:
    """Costs and expected prices are those of the data loaded at the new prices; bounds hold."""
    old, new = Price.of(into, out), Price.of(new_in, new_out)
    changed = reprice(data(tmp_path, {"small": OLD["small"], "large": old}), {"large": new})
    true = data(tmp_path, {"small": OLD["small"], "large": new}).only_rungs(["small", "large"])
    a, b = ([rung.name for rung in one.rungs].index("large") for one in (changed, true))
    assert changed.cost[:, a].tolist() == true.cost[:, b].tolist()
    assert changed.price[:, a].tolist() == true.price[:, b].tolist()
    assert (changed.ceiling >= changed.cost).all()
    assert changed.tariff["large"].price == new


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RATES, RATES)
def test_the_same_prices_are_the_identity(tmp_path: Path, into: str, out: str) -> None:
    """Nothing changes, not even a note; there and back again is the same costs."""
    outcomes = data(tmp_path, {"small": OLD["small"], "large": Price.of(into, out)})
    assert reprice(outcomes, {"large": Price.of(into, out)}) is outcomes
    back = reprice(reprice(outcomes, {"large": OLD["large"]}), {"large": Price.of(into, out)})
    assert back.cost.tolist() == outcomes.cost.tolist()
    assert back.price.tolist() == outcomes.price.tolist()


def test_the_ladder_that_ships() -> None:
    """Real lengths: GPT-4 at another ratio of its rates, to the nano-dollar."""
    new = {"gpt-4-1106": Price.of("2.5", "10")}
    changed, true = reprice(load_outcomes(), new), load_outcomes(prices=new)
    assert changed.cost.tolist() == true.cost.tolist()
    assert changed.price.tolist() == true.price.tolist()
    assert changed.digest != load_outcomes().digest


def test_by_one_factor_no_tokens_are_needed(tmp_path: Path) -> None:
    """Half the price is half of every amount, bounds and all, though the tokens can't be told."""
    outcomes = data(tmp_path, OLD, exact=True)
    half = reprice(outcomes, {"large": Price.of("5", "15")})
    true = data(tmp_path, OLD | {"large": Price.of("5", "15")}, exact=True)
    for name in ("cost", "price", "ceiling"):
        assert getattr(half, name).tolist() == getattr(true, name).tolist()


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    """Tokens that aren't characters / 4, unless they are given; costs that were recorded; names that fit nothing."""
    outcomes, new = data(tmp_path, OLD, exact=True), {"large": Price.of("5", "20")}
    with pytest.raises(DataError, match="the tokens of large can't be told"):
        reprice(outcomes, new)
    with pytest.raises(DataError, match="the tokens of large can't be told"):
        reprice(outcomes, new, input_tokens=np.full(30, 10))
    given_tokens = reprice(outcomes, new, input_tokens=9 + np.arange(30))
    assert given_tokens.cost.tolist() == data(tmp_path, OLD | new, exact=True).cost.tolist()
    with pytest.raises(DataError, match="r0 were recorded, not reckoned"):
        reprice(table(quality=[[1.0]]), {"r0": Price.of("1", "1")})
    with pytest.raises(UnknownName, match="lrge"):
        reprice(outcomes, {"lrge": Price.of("1", "1")})


def test_verdicts_at_other_prices(tmp_path: Path) -> None:
    """With a strong rung that costs less than the cheap one, what was on the frontier for its price no longer is."""
    comparison = compare(data(tmp_path, OLD), ["small", "large", "oracle"], baselines=False)
    found = repriced(comparison, {"large": Price.of("0.01", "0.02")})
    assert "the cheapest first are large, small" in found.outcomes.notes[-1]
    by_name = {policy.name: policy for policy in found.policies}
    assert by_name["large"].new_cost_per_1k_usd == pytest.approx(
        (by_name["large"].cost_per_1k_usd or 0) / 1400, rel=0.4
    )
    assert all(policy.quality == policy.new_quality for policy in found.policies), "constants answer as before"
    assert repriced(comparison, OLD).changed == ()


@pytest.mark.parametrize("price", [(1.0, 3.0), "1/3", 5, None])
def test_what_is_no_price_is_refused_with_the_form(tmp_path: Path, price: object) -> None:
    """Wherever prices are given, by the name that they are given to."""
    told = r"price of 'large': expected Price.of\(input, output\)"
    with pytest.raises(BadInput, match=told):
        reprice(data(tmp_path, OLD), {"large": price})
    with pytest.raises(BadInput, match=told):
        data(tmp_path, {"large": price})
