"""Prices of models: dollars per million tokens, unknown is unknown.

The frozen table (`frozen_prices()`) is a dated snapshot of the public price map of LiteLLM (MIT), reduced to figures by
`scripts/freeze_prices.py`; it never phones home. Your own prices go before it.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any

from escalade.errors import BadInput
from escalade.money import Money

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """List price of a model, nano-dollars per million tokens. `cached`: of input tokens read from the provider's cache;
    `written`: of those written to it, which some providers charge more for. None: as other input.

    >>> Price.of("0.15", "0.60").cost(1000, 500)
    Money.of('0.00045')
    """

    input: int
    output: int
    cached: int | None = None
    written: int | None = None

    @classmethod
    def of(cls, input: object, output: object, cached: object = None, written: object = None) -> Price:  # noqa: A002 - the field's own word
        """From dollars per million tokens, as `Money.of` takes them. Raises BadInput, also below zero."""
        rates = (None if rate is None else int(Money.of(rate)) for rate in (cached, written))
        price = cls(int(Money.of(input)), int(Money.of(output)), *rates)
        if min(price.input, price.output, price.cached or 0, price.written or 0) < 0:
            raise BadInput(f"a price can't be below zero: {input!r} in, {output!r} out")
        return price

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0, written_tokens: int = 0) -> Money:
        """Of one call; `cached_tokens` and `written_tokens` are parts of `input_tokens`. Fractions of a nano-dollar
        round up.
        """
        plain = input_tokens - cached_tokens - written_tokens
        read = self.input if self.cached is None else self.cached
        written = self.input if self.written is None else self.written
        nanos = plain * self.input + cached_tokens * read + written_tokens * written + output_tokens * self.output
        return Money(-(-nanos // MILLION))

    def most(self, input_tokens: int, output_tokens: int) -> Money:
        """Upper bound of `cost`, whatever the provider's cache does: all input at its dearest."""
        dearest = max(self.input, self.cached or 0, self.written or 0)
        return Money(-(-(input_tokens * dearest + output_tokens * self.output) // MILLION))


class PriceTable:
    """Model name -> Price. Looks for the full name, then without the provider's prefix.

    `source`: where the figures come from; `date`: of the snapshot.
    """

    def __init__(self, prices: Mapping[str, Price], *, source: str = "yours", date: str = "") -> None:
        self._prices, self.source, self.date = dict(prices), source, date

    def get(self, model: str) -> Price | None:
        """The price of the model, None when it is unknown (never zero)."""
        found = self._prices.get(model)
        return self._prices.get(model.split("/", 1)[1]) if found is None and "/" in model else found

    def __len__(self) -> int:
        return len(self._prices)

    def over(self, other: PriceTable) -> PriceTable:
        """These prices, and the other's where these know none."""
        return PriceTable(
            {**other._prices, **self._prices}, source=f"{self.source}, then {other.source}", date=other.date
        )


def listed_price(model: str, kind: str = "chat") -> Price | None:
    """That of the snapshot. What only turns texts into vectors has no price of answers, and none as a chat model."""
    price = frozen_prices().get(model)
    return price if price is None or price.output or kind == "embedding" else None


@functools.cache
def frozen_prices() -> PriceTable:
    """The snapshot that ships with the package."""
    packed = resources.files("escalade.registry").joinpath("data/prices.json.gz").read_bytes()
    table: dict[str, Any] = json.loads(gzip.decompress(packed), parse_float=Decimal)
    prices = {name: Price(*figures) for name, figures in table["prices"].items()}
    return PriceTable(prices, source=table["source"], date=table["date"])
