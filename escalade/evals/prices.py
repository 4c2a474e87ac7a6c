"""List prices of rungs: whose, as of when, from where. Yours go before them; an unknown price stays unknown.

    yours (`--price NAME=IN/OUT`, `--prices FILE`)  ->  the data's own  ->  LIST_PRICES
    ->  the frozen price map of `registry.prices`

All are dollars per million tokens. A rung finds its price by its own name, by its model's, and by either without the
provider's prefix ("mistralai/") and without what comes after an "@" (a token budget, not a model).
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escalade.agents.climb import Rung
from escalade.errors import BadInput, DataError, UnknownName
from escalade.registry.prices import Price, PriceTable, frozen_prices


@dataclass(frozen=True, slots=True)
class Listed:
    """A price and where it comes from."""

    price: Price
    source: str


LIST_PRICES: Mapping[str, Listed] = {
    "gpt-4-1106": Listed(Price.of("10", "30"), "OpenAI's list price of gpt-4-1106-preview, 2023-11"),
    "mixtral-8x7b": Listed(Price.of("0.60", "0.60"), "Together AI's list price, 2024-08"),
    "qwen2.5-math-1.5b": Listed(
        Price.of("0.10", "0.10"), "assumed: Together AI's class of up to 4B parameters, 2024-08"
    ),
    "qwen-1.5b": Listed(Price.of("0.10", "0.10"), "assumed: Together AI's class of up to 4B parameters, 2024-08"),
}
"""By the beginning of a model's name: "gpt-4-1106" also prices "openai/gpt-4-1106-preview"."""


def parse_price(text: str) -> tuple[str, Price]:
    """(name, price) of "NAME=IN/OUT", dollars per million tokens; IN alone is both. Raises BadInput.

    >>> parse_price("gpt-4-1106=10/30")[0]
    'gpt-4-1106'
    """
    name, equals, figures = text.rpartition("=")
    if not equals or not name.strip() or not figures.strip():
        raise BadInput(f"not a price: {text!r}; write NAME=IN/OUT in dollars per million tokens, like gpt-4-1106=10/30")
    return name.strip(), _price(name, figures)


def read_prices(path: str | Path) -> PriceTable:
    """A price file: JSON or TOML, name -> "IN/OUT" or {"input": "IN", "output": "OUT"}. Raises DataError, BadInput."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, parse_float=str, parse_int=str)
    except OSError as error:
        raise DataError(f"price file {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"price file {path}: {error}") from None
    if not isinstance(table, dict) or not table:
        raise DataError(f'price file {path}: expected an object of prices like {{"gpt-4-1106": "10/30"}}')
    return PriceTable({name: _price(name, figures) for name, figures in table.items()}, source=path.name)


def prices_of(
    rungs: Sequence[Rung],
    own: Mapping[str, Price] | None = None,
    table: PriceTable | None = None,
    with_data: Mapping[str, Listed] | None = None,
) -> list[Listed | None]:
    """The price of each rung, None where it is unknown.

    `own`: each of its names has to fit a rung, otherwise UnknownName is raised; BadInput for what is no Price. `table`:
    may know more than is needed. `with_data`: prices that came with the data, by the name of a rung: they go before
    lists of ours.
    """
    own = own or {}
    for name, price in own.items():
        if not isinstance(price, Price):
            told = "expected Price.of(input, output), in dollars per million tokens as text or Decimal"
            raise BadInput(f"price of {name!r}: {told}, like Price.of('2.50', '10'); got {price!r}")
    used: set[str] = set()
    found = [_found(rung, own, table, used, with_data or {}) for rung in rungs]
    for name in own:
        if name not in used:
            raise UnknownName("rung to price", name, [rung.name for rung in rungs])
    return found


def _found(
    rung: Rung, own: Mapping[str, Price], table: PriceTable | None, used: set[str], with_data: Mapping[str, Listed]
) -> Listed | None:
    names = list(_names(rung))
    mine = [name for name in names if name in own]
    used.update(mine)
    if mine:
        return Listed(own[mine[0]], "yours")
    for name in names:
        price = table.get(name) if table is not None else None
        if price is not None:
            return Listed(price, table.source if table else "")
    if rung.name in with_data:
        return with_data[rung.name]
    for name in names:
        for start, listed in LIST_PRICES.items():
            if name.lower().startswith(start):
                return listed
    return next((listed for listed in map(_frozen, names) if listed is not None), None)


def _names(rung: Rung) -> Iterator[str]:
    """What a price may be listed under, the most particular first."""
    for name in (rung.name, rung.model):
        if name:
            yield from dict.fromkeys([name, name.split("@")[0], name.split("@")[0].rsplit("/", 1)[-1]])


def _frozen(name: str) -> Listed | None:
    """From the frozen map: by the name, or by the name that providers list it under if all of them ask the same."""
    table = frozen_prices()
    price = table.get(name)
    if price is None:
        asked = _by_last_part().get(name.lower(), set())
        price = next(iter(asked)) if len(asked) == 1 else None
    return None if price is None else Listed(price, f"{table.source}, {table.date}")


@functools.cache
def _by_last_part() -> dict[str, set[Price]]:
    found: dict[str, set[Price]] = {}
    for name, price in frozen_prices()._prices.items():
        found.setdefault(name.rsplit("/", 1)[-1].lower(), set()).add(price)
    return found


def _price(name: str, figures: Any) -> Price:
    if isinstance(figures, dict) and {"input", "output"} <= set(figures):
        return Price.of(str(figures["input"]), str(figures["output"]))
    if isinstance(figures, dict | list):
        raise BadInput(f'price of {name!r}: write "IN/OUT" or {{"input": "IN", "output": "OUT"}}')
    into, _, out = str(figures).partition("/")
    return Price.of(into, out or into)
