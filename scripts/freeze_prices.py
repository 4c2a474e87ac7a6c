"""Reduce the price map of the installed LiteLLM to escalade/registry/data/prices.json.gz: run it to refresh those.

Figures are nano-dollars per million tokens: [input, output, cached input or null], and where it is dearer than other
input, input that is written to the provider's cache (for the shortest time that it can be kept).
"""

from __future__ import annotations

import datetime as dt
import gzip
import importlib.metadata
import importlib.util
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "escalade" / "registry" / "data" / "prices.json.gz"
PER_MILLION = Decimal(10) ** 15
"""Dollars per token -> nano-dollars per million tokens."""
WRITES = re.compile(r"cache_creation_input_token_cost_above_\d+k_tokens")
OF_TEXT = {"input_cost_per_token", "output_cost_per_token", "input_cost_per_token_batches"}
"""What an embedder of texts alone has; where images or requests are billed, too, a price of tokens is no bound."""


def _nanos(dollars: Decimal | int | None) -> int | None:
    return None if dollars is None else int((Decimal(dollars) * PER_MILLION).to_integral_value())


def _of_chat(entry: dict[str, Any]) -> list[int | None] | None:
    both = _nanos(entry.get("input_cost_per_token")), _nanos(entry.get("output_cost_per_token"))
    if not both[0] or not both[1]:
        return None  # 0 in that map means that nobody filled it in, or that something else is billed
    # Above some prompt length several providers charge more. A flat price would not be an upper bound there: such
    # models take the dearer of the two.
    dear_in = [_nanos(v) or 0 for k, v in entry.items() if k.startswith("input_cost_per_token_above") and v]
    dear_out = [_nanos(v) or 0 for k, v in entry.items() if k.startswith("output_cost_per_token_above") and v]
    cached = None if dear_in else _nanos(entry.get("cache_read_input_token_cost"))
    dear_writes = [_nanos(v) or 0 for k, v in entry.items() if WRITES.fullmatch(k) and v]
    dear = max([both[0], *dear_in])
    written = max([_nanos(entry.get("cache_creation_input_token_cost")) or 0, *dear_writes])
    # Writing to a cache is never cheaper than not writing: where the map says so, it is taken for a mistake.
    return [dear, max([both[1], *dear_out]), cached, *([written] if written > dear else [])]


def _of_embedder(entry: dict[str, Any]) -> list[int | None] | None:
    price = _nanos(entry.get("input_cost_per_token"))
    texts_alone = {key for key, value in entry.items() if "_cost_" in key and value} <= OF_TEXT
    return [price, 0, None] if price and texts_alone else None


def main() -> None:
    """Read the map without importing litellm, keep chat models with both prices and embedders of texts, write the
    snapshot.
    """
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        raise SystemExit("litellm is not installed")
    text = (Path(spec.origin).parent / "model_prices_and_context_window_backup.json").read_text("utf-8")
    kinds = {"embedding": _of_embedder} | dict.fromkeys(("chat", "responses", "completion"), _of_chat)
    prices = {}
    for name, entry in json.loads(text, parse_float=Decimal).items():
        price_of = kinds.get(entry.get("mode")) if name != "sample_spec" else None
        if price_of is not None and (price := price_of(entry)) is not None:
            prices[name] = price
    table = {
        "source": f"price map of LiteLLM {importlib.metadata.version('litellm')} (MIT)",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "prices": dict(sorted(prices.items())),
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(gzip.compress(json.dumps(table, separators=(",", ":")).encode(), mtime=0))
    print(f"{len(prices)} prices -> {TARGET.name}, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
