"""Other prices for the same attempts: costs, expected prices and bounds, to the nano-dollar or not at all.

    cheaper = reprice(outcomes, {"gpt-4-1106": Price.of("5", "15")})
    repriced(comparison, {"gpt-4-1106": Price.of("5", "15")}).changed

Outcomes have costs and the tariff that they were reckoned with, no tokens. Tokens follow from both where

    - both rates change by the same factor: then they aren't needed. Exact where a token costs whole nano-dollars;
    - input tokens were estimated as characters / 4: then each cost leaves whole output tokens, and the expected prices
      have to be those of the same tokens, to the nano-dollar, on every row;
    - you have them: `input_tokens`, of each question, (n,) or (n, k). They are held to the same costs.

Anything else is refused. What can't be seen is an offset that all questions share, such as a system prompt that counts
as input and isn't in the characters: it would pass for output. Give `input_tokens` where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from escalade.errors import BadInput, DataError
from escalade.evals._draft import tokens_of
from escalade.evals._names import listed
from escalade.evals.outcomes import UNKNOWN
from escalade.evals.prices import prices_of
from escalade.registry.prices import MILLION, Price

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from escalade.evals._rows import Row
    from escalade.evals.compare import Comparison
    from escalade.evals.outcomes import Outcomes

    Ints = NDArray[np.int64]

__all__ = ["PriceChange", "Repriced", "reprice", "repriced"]

COLUMNS = ("cost", "price", "ceiling")
YOURS = "yours"


@dataclass(frozen=True, slots=True)
class PriceChange:
    """What other prices make of one policy. Dollars per 1,000 questions, None for unknown."""

    name: str
    cost_per_1k_usd: float | None
    new_cost_per_1k_usd: float | None
    quality: float
    new_quality: float
    verdict: str
    new_verdict: str
    frontier: bool
    new_frontier: bool


@dataclass(frozen=True)
class Repriced:
    """The outcomes at the new prices, and each policy of the comparison played on them."""

    outcomes: Outcomes
    policies: tuple[PriceChange, ...]

    @property
    def changed(self) -> tuple[PriceChange, ...]:
        """Those with another verdict, or another place on or off the frontier."""
        return tuple(p for p in self.policies if p.verdict != p.new_verdict or p.frontier != p.new_frontier)


def reprice(outcomes: Outcomes, prices: Mapping[str, Price], *, input_tokens: ArrayLike | None = None) -> Outcomes:
    """The same outcomes at other prices; rungs that aren't named keep theirs, and the ladder keeps its order.

    `prices`: by name of a rung or model. Raises UnknownName for a name that fits no rung, DataError where a cost was
    recorded and not reckoned from a price, or where its tokens can't be told.
    """
    if not prices:
        raise BadInput("no price to change; name a rung or a model, as in {'gpt-4-1106': Price.of('5', '15')}")
    new = [found if found and found.source == YOURS else None for found in prices_of(outcomes.rungs, prices)]
    columns = {name: getattr(outcomes, name).copy() for name in COLUMNS}
    tariff, notes = dict(outcomes.tariff), []
    for rung, found in enumerate(new):
        name = outcomes.rungs[rung].name
        if found is None:
            continue
        old = tariff.get(name)
        if old is None:
            told = f"the costs of {name} were recorded, not reckoned from a price"
            raise DataError(f"{outcomes.name}: {told}; load the data with lengths and --price instead")
        if old.price == found.price:
            continue
        widened = _put(outcomes, rung, old.price, found.price, columns, input_tokens)
        tariff[name] = found
        notes.append(f"repriced: {_said(name, found.price)} instead of {_said('', old.price)}")
        notes += [f"the price bounds of {name} are wider than they had to be"] if widened else []
    if not notes:
        return outcomes
    notes += _order(outcomes, columns["cost"])
    return replace(outcomes, tariff=tariff, notes=(*outcomes.notes, *notes), **columns)


def repriced(comparison: Comparison, prices: Mapping[str, Price], *, input_tokens: ArrayLike | None = None) -> Repriced:
    """Every policy of a comparison again, at other prices. What is fitted is fitted anew; budgets stay.

    Raises BadInput for a comparison without evidence, and as `reprice` does.
    """
    from escalade.evals._rows import evidence_of, rows_of

    evidence = comparison.evidence
    if evidence is None:
        raise BadInput("repriced: this comparison was made by hand; make it with compare(), which keeps the evidence")
    outcomes = reprice(evidence.outcomes, prices, input_tokens=input_tokens)
    base, lineup = evidence.entry(evidence.baseline), evidence.lineup.on(outcomes)
    again = rows_of(evidence_of(list(evidence.entries), base, lineup, evidence.folds))
    after = {row.name: row for row in again}
    return Repriced(outcomes, tuple(_change(row, after[row.name]) for row in comparison.rows if row.name in after))


def _change(row: Row, now: Row) -> PriceChange:
    return PriceChange(
        name=row.name,
        cost_per_1k_usd=row.cost_per_1k_usd,
        new_cost_per_1k_usd=now.cost_per_1k_usd,
        quality=row.quality,
        new_quality=now.quality,
        verdict=row.verdict,
        new_verdict=now.verdict,
        frontier=row.frontier,
        new_frontier=now.frontier,
    )


def _put(
    outcomes: Outcomes, rung: int, old: Price, new: Price, columns: Mapping[str, Ints], given: ArrayLike | None
) -> bool:
    """Fill in the columns of this rung; were its bounds widened? Raises DataError."""
    cost = outcomes.cost[:, rung]
    if (cost == UNKNOWN).any():
        raise DataError(f"{outcomes.name}: some costs of {outcomes.rungs[rung].name} are unknown; they stay so")
    factor = _factor(old, new)
    if factor is not None and old.input % MILLION == 0 == old.output % MILLION:
        for column in columns.values():
            column[:, rung] = _scaled(column[:, rung], factor)
        return False
    into = _input(outcomes, rung, given)
    out = None if into is None else _output(cost, into, old)
    if into is None or out is None or not _fits(outcomes, rung, old, into, out):
        name = outcomes.rungs[rung].name
        told = f"the tokens of {name} can't be told from its costs at {_said('', old)}"
        raise DataError(f"{outcomes.name}: {told}; give input_tokens, or change both rates by one factor")
    mean = np.full_like(out, _mean(out))
    columns["cost"][:, rung] = _cost(new, into, out)
    columns["price"][:, rung] = _cost(new, into, mean)
    widest = max(Fraction(new.input, old.input or 1), Fraction(new.output, old.output or 1))
    columns["ceiling"][:, rung] = _scaled(outcomes.ceiling[:, rung], widest)
    return True


def _factor(old: Price, new: Price) -> Fraction | None:
    """By which all rates change; None where they change by different ones."""
    both = ((old.input, new.input), (old.output, new.output), (old.cached, new.cached), (old.written, new.written))
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    if any((a is None) != (b is None) or a == 0 for a, b in both):
        return None
    factors = {Fraction(b, a) for a, b in pairs}
    return factors.pop() if len(factors) == 1 else None


def _scaled(amounts: Ints, factor: Fraction) -> Ints:
    """Rounded up; in Python's integers, which don't overflow. UNKNOWN stays."""
    known = [a if a == UNKNOWN else -(-a * factor.numerator // factor.denominator) for a in amounts.tolist()]
    return np.array(known, dtype=np.int64)


def _input(outcomes: Outcomes, rung: int, given: ArrayLike | None) -> Ints | None:
    if given is not None:
        tokens = np.asarray(given, dtype=np.int64)
        if tokens.shape not in {(outcomes.n,), (outcomes.n, outcomes.k)}:
            raise BadInput(f"input_tokens: expected shape ({outcomes.n},) or ({outcomes.n}, {outcomes.k})")
        return tokens if tokens.ndim == 1 else tokens[:, rung]
    chars = outcomes.features.get("prompt_chars")
    return None if chars is None else tokens_of(np.asarray(chars, dtype=np.float64)).astype(np.int64)


def _output(cost: Ints, into: Ints, old: Price) -> Ints | None:
    """Whole tokens that make up the rest of each cost; None where there are none."""
    if not old.output:
        return None
    out = (cost * MILLION - into * old.input) // old.output
    return out if (out >= 0).all() and (_cost(old, into, out) == cost).all() else None


def _fits(outcomes: Outcomes, rung: int, old: Price, into: Ints, out: Ints) -> bool:
    """Are the expected prices those of the same tokens?"""
    return bool((_cost(old, into, np.full_like(out, _mean(out))) == outcomes.price[:, rung]).all())


def _mean(out: Ints) -> int:
    """Rounded up, as when costs are reckoned."""
    return int(np.ceil(out.mean()))


def _cost(price: Price, into: Ints, out: Ints) -> Ints:
    nanos: Ints = -(-(into * price.input + out * price.output) // MILLION)
    return nanos


def _order(outcomes: Outcomes, cost: Ints) -> list[str]:
    if (cost == UNKNOWN).any() or (np.diff(cost.mean(axis=0)) >= 0).all():
        return []
    cheapest = [outcomes.rungs[i].name for i in np.argsort(cost.mean(axis=0), kind="stable")]
    return [f"the ladder keeps its order; at these prices the cheapest first are {listed(cheapest)}"]


def _said(name: str, price: Price) -> str:
    figures = f"${price.input / 10**9:g} in, ${price.output / 10**9:g} out"
    return f"{name} at {figures}" if name else figures
