"""What attempts cost, were expected to cost, and can cost at most: as recorded, or from lengths and list prices."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np

from escalade.evals._names import listed as together
from escalade.evals.outcomes import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from escalade.evals._draft import Draft
    from escalade.evals.prices import Listed
    from escalade.registry.prices import Price

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

BYTES_PER_CHAR = 4
"""UTF-8 never takes more: bounds the bytes of a prompt of which only the characters are known."""


UNORDERED = "not every price is known: rungs are ordered by mean quality, the weakest first"


def money(draft: Draft, prices: list[Listed | None]) -> tuple[Ints, Ints, Ints]:
    """(expected price, ceiling, cost), `(n, k)` nano-dollars, UNKNOWN where unknown.

    Expected: input tokens at list price, and for the output the mean of the rung, the same for all its questions, in
    whole tokens: what a row's own answer adds to that is less than it shows. Ceiling: a token for each byte of the
    prompt, and for the output what the rung can't exceed (its limit; where none is known, the power of two above its
    longest answer). Where costs were recorded: their mean, and their maximum. A rung that was not asked cost nothing
    that anybody knows.
    """
    expected, ceilings, costs = (np.full(draft.quality.shape, UNKNOWN, dtype=np.int64) for _ in range(3))
    everywhere = draft.asked
    for rung, found in enumerate(prices):
        asked = everywhere[:, rung]
        recorded, out = draft.cost[asked, rung], draft.output_tokens[asked, rung]
        if not len(recorded):
            continue
        if (recorded != UNKNOWN).all():
            costs[asked, rung] = recorded
            expected[:, rung], ceilings[:, rung] = -(-int(recorded.sum()) // len(recorded)), recorded.max()
        elif found is not None and not np.isnan(out).any() and not np.isnan(_input(draft, rung)).any():
            longest = int(out.max())
            bound = max(draft.max_output[rung] or 1 << max(0, longest - 1).bit_length(), longest)
            into = _input(draft, rung).astype(np.int64)
            costs[asked, rung] = _cost(found.price, into[asked], out.astype(np.int64))
            expected[:, rung] = _cost(found.price, into, np.full_like(into, int(np.ceil(out.mean()))))
            ceilings[:, rung] = _cost(found.price, _prompt_bound(draft, into), np.full_like(into, bound))
    return expected, ceilings, costs


def _input(draft: Draft, rung: int) -> Floats:
    """Input tokens of this rung, `(n,)`: of the question, or as this rung counted them."""
    return draft.input_tokens if draft.input_tokens.ndim == 1 else draft.input_tokens[:, rung]


def _prompt_bound(draft: Draft, tokens: Ints) -> Ints:
    """Upper bound of the input tokens, `(n,)`: one for each byte."""
    if draft.prompt_bytes is not None:
        return np.maximum(tokens, draft.prompt_bytes)
    return tokens if draft.prompt_chars is None else np.maximum(tokens, draft.prompt_chars * BYTES_PER_CHAR)


def _cost(price: Price, into: Ints, out: Ints) -> Ints:
    """As `Price.cost`, in columns."""
    nanos: Ints = -(-(into * price.input + out * price.output) // 1_000_000)
    return nanos


def cheapest_first(draft: Draft, prices: list[Listed | None]) -> list[int]:
    """Indices of the rungs; equal ones stay in the order of the data. Where prices are unknown, the weakest first."""
    rungs = range(len(draft.rungs))
    asked = draft.asked
    if _recorded(draft) and asked.any(axis=0).all():
        means = [float(draft.cost[asked[:, rung], rung].mean()) for rung in rungs]
        return sorted(rungs, key=means.__getitem__)
    if all(found is not None for found in prices):
        return sorted(rungs, key=[f.price.input + f.price.output for f in prices if f].__getitem__)
    if not (~np.isnan(draft.quality)).any(axis=0).all():
        return list(rungs)  # a rung without a single quality: in the order of the data
    return sorted(rungs, key=np.nanmean(draft.quality, axis=0).tolist().__getitem__)


def tariff(draft: Draft, prices: list[Listed | None]) -> dict[str, Listed]:
    """The list prices by rung; none where costs were recorded."""
    recorded = ((draft.cost != UNKNOWN) | ~draft.asked).all(axis=0).tolist()
    return {
        rung.name: found
        for rung, found, is_known in zip(draft.rungs, prices, recorded, strict=True)
        if found and not is_known
    }


def price_notes(draft: Draft, prices: list[Listed | None]) -> list[str]:
    """One line for each price, and for what is unknown."""
    if _recorded(draft):
        return ["costs are as recorded in the data"]
    unordered = [] if all(prices) else [UNORDERED]
    lacking = list(_lacking(draft))
    if lacking:
        return [*unordered, f"cost unknown: some or all lines have neither cost nor {' nor '.join(lacking)}"]
    by_source: dict[tuple[str, str], list[str]] = {}
    unknown = []
    for rung, found in zip(draft.rungs, prices, strict=True):
        if found is None:
            unknown.append(rung.name)
        else:
            figures = f"${_dollars(found.price.input)} in, ${_dollars(found.price.output)} out"
            by_source.setdefault((figures, found.source), []).append(rung.name)
    notes = unordered + [
        f"price per million tokens of {together(names)}: {f} ({source})" for (f, source), names in by_source.items()
    ]
    if unknown:
        notes.append(f"price unknown: {together(unknown)}; set it with --price NAME=IN/OUT")
    return notes


def _lacking(draft: Draft) -> Iterator[str]:
    """Which columns the costs would take."""
    if np.isnan(draft.input_tokens).any():
        yield "prompt_chars (or input_tokens)"
    if np.isnan(draft.output_tokens[draft.asked]).any():
        yield draft.output_column


def _recorded(draft: Draft) -> bool:
    """Is the cost of every attempt there, and are there any?"""
    asked = draft.asked
    return bool(asked.any()) and bool((draft.cost[asked] != UNKNOWN).all())


def _dollars(nanos: int) -> str:
    return format((Decimal(nanos) / 10**9).normalize(), "f")
