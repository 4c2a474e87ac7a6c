"""What `escalade models` and `escalade route` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from escalade._cli_view import new_table, print_, safe
from escalade.money import Money

if TYPE_CHECKING:
    from escalade.agents._model_spec import ModelSpec
    from escalade.agents.checkup import Checked
    from escalade.registry.prices import Price


def plain_spec(spec: ModelSpec) -> dict[str, Any]:
    """One model as JSON."""
    price, source = spec.priced()
    told = spec.model_dump(mode="json", exclude={"price", "options"}, exclude_none=True)
    figures = None if price is None else {"input": str(Money(price.input)), "output": str(Money(price.output))}
    return {**told, "price": figures, "price_from": source}


def show_specs(specs: tuple[ModelSpec, ...]) -> None:
    """A table of models."""
    names = (
        "name",
        "model",
        "tier",
        "in / out per M",
        "price from",
        "context",
        "limits",
        "region",
        "key",
        "falls back to",
    )
    rows = []
    for spec in specs:
        price, source = spec.priced()
        limits = [f"{spec.rpm:,} rpm" if spec.rpm else "", f"{spec.tpm:,} tpm" if spec.tpm else ""]
        limits.append(f"lane {spec.lane}" if spec.lane else "")
        cells = (
            spec.name,
            spec.model,
            str(spec.tier or ""),
            per_million(price),
            source,
            f"{spec.context:,}" if spec.context else "",
            ", ".join(filter(None, limits)),
            spec.region,
            spec.api_key or "",
            ", ".join(spec.fallbacks),
        )
        rows.append(cells)
    said = [at for at in range(len(names)) if at < 2 or any(row[at] for row in rows)]
    table = new_table(*(names[at] for at in said))
    for row in rows:
        table.add_row(*(safe(row[at]) for at in said))
    print_(table)


def per_million(price: Price | None) -> str:
    """Dollars per million tokens, in and out."""
    return "unknown" if price is None else f"{Money(price.input)} / {Money(price.output)}"


def show_prices(rows: list[dict[str, Any]], tokens: tuple[int, int], date: str) -> None:
    """A table of what so many tokens cost."""
    table = new_table("name", "model", "tier", f"{tokens[0]:,} in + {tokens[1]:,} out", "in / out per M", "price from")
    table.columns[3].justify = "right"
    for row in rows:
        cells = (
            row["name"],
            row["model"],
            str(row["tier"] or ""),
            f"${row['cost']}" if row["cost"] else "unknown",
            row["rate"],
            row["price_from"],
        )
        table.add_row(*map(safe, cells))
    print_(table)
    print_(f"price map of {date}; list prices, as if nothing were cached")


def show_checked(found: list[Checked], budget: Money) -> None:
    """A table of what came of each."""
    table = new_table("", "name", "model", "", "seconds", "cost")
    for one in found:
        mark = "[green]ok[/]" if one.ok else f"[red]{safe(one.state)}[/]"
        table.add_row(mark, safe(one.name), safe(one.model), safe(one.said), f"{one.seconds:.2f}", str(one.cost))
    print_(table)
    spent = sum((one.cost for one in found), Money(0))
    print_(f"{sum(one.ok for one in found)} of {len(found)} answer; spent {spent} of a budget of {budget}")
