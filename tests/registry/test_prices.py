"""Prices: what a call costs, and what it can cost at the most, whatever the provider's cache does."""

from __future__ import annotations

import pytest
from dspy.lm15 import Usage
from hypothesis import given
from hypothesis import strategies as st

from escalade import LM15, Model, Price
from escalade.errors import BadInput
from escalade.registry.prices import frozen_prices

CLAUDE = Price.of("3", "15", "0.30", "3.75")
tokens = st.integers(0, 10**6)
rates = st.integers(0, 10**11)


def test_what_is_written_to_the_cache_costs_its_own_rate() -> None:
    """Of 1,000 tokens 200 were read from the provider's cache and 500 written to it; 100 came out."""
    assert CLAUDE.cost(1000, 100, 200, 500) == CLAUDE.cost(300, 100) + Price.of("0.30", "0").cost(200, 0) + Price.of(
        "3.75", "0"
    ).cost(500, 0)
    assert Price.of("3", "15").cost(1000, 0, 0, 500) == Price.of("3", "15").cost(1000, 0)


@given(rates, rates, st.none() | rates, st.none() | rates, tokens, tokens, tokens, tokens)
def test_most_is_an_upper_bound(
    given_: int, made: int, read: int | None, written: int | None, plain: int, cached: int, kept: int, out: int
) -> None:
    """However the input divides into what is read, written and neither."""
    price = Price(given_, made, read, written)
    assert price.cost(plain + cached + kept, out, cached, kept) <= price.most(plain + cached + kept, out)


def test_a_bill_counts_what_was_written() -> None:
    """A model's bill has the provider's count of tokens written to its cache, and its ceiling covers them."""
    model = Model("claude", "anthropic/claude", LM15(), price=CLAUDE)
    usage = Usage(
        input_tokens=1000, output_tokens=100, total_tokens=1100, cache_read_tokens=200, cache_write_tokens=500
    )
    assert model.bill(usage) == int(CLAUDE.cost(1000, 100, 200, 500))
    assert model.ceiling(1000, 100) == int(CLAUDE.most(1000, 100)) > int(CLAUDE.cost(1000, 100))


def test_the_frozen_table_knows_dearer_writes() -> None:
    """Where the map has a rate for writing to the cache, it is dearer than other input."""
    prices = frozen_prices()
    price = prices.get("claude-haiku-4-5")
    assert price is not None
    assert price.written is not None
    assert price.written > price.input


def test_no_rate_is_below_zero() -> None:
    """Not that of the cache either."""
    with pytest.raises(BadInput, match="below zero"):
        Price.of("1", "1", written="-1")
