"""`escalade models` and `escalade route`: what a file of models has, what tokens cost, whether each answers; and which
tier should answer a text.

What the commands need is imported when they run. Exit codes: 0; 2 for what the user can put right; 100 when a check
found something.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from escalade import _models_view as _view
from escalade._cli_view import print_, print_json, safe, tell
from escalade.errors import BadInput, UnknownName
from escalade.money import Money

if TYPE_CHECKING:
    from escalade.agents._model_spec import ModelSpec

OK, FOUND = 0, 100
"""Exit codes; `cli.main` has 2 for bad input."""

DEFAULT_FILE = "models.yaml"

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]

app = App(name="models", help="Models of a file: look at them, price them, check that they answer.")


@app.command(name="list", sort_key=1)
def list_(*files: str, tier: int | None = None, json: Flag = False) -> int:
    """The models, and all that is wrong in the files. Exits with 100 when something is.

    Parameters
    ----------
    files
        YAML, JSON or TOML; later ones override. models.yaml by default.
    tier
        Only of this one, 1 to 4.
    json
        One JSON object instead of a table.
    """
    from escalade.agents.models_file import read_models

    said, problems = read_models(*_files(files))
    specs = tuple(spec for spec in said.models if tier in {None, spec.tier})
    if json:
        print_json({"models": [_view.plain_spec(spec) for spec in specs], "problems": [str(one) for one in problems]})
    else:
        _view.show_specs(specs)
        for problem in problems:
            print_(f"[red]problem[/]  {safe(str(problem))}")
    return FOUND if problems else OK


@app.command(sort_key=2)
def price(
    *files: str,
    input: Annotated[int, Parameter(name=["--input", "-i"])] = 1000,  # noqa: A002 - the option's name
    output: Annotated[int, Parameter(name=["--output", "-o"])] = 200,
    model: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: Flag = False,
) -> int:
    """What so many tokens cost on each model, cheapest first, with the date of the price map. Exits with 100 for a
    `--model` that the map doesn't have.

    Parameters
    ----------
    files
        YAML, JSON or TOML; later ones override. models.yaml by default.
    input
        Tokens of the prompt.
    output
        Tokens of the answer.
    model
        A provider's name, like openai/gpt-4o-mini, whatever the files say. Can be repeated.
    json
        One JSON object instead of a table.
    """
    from escalade.registry.prices import frozen_prices

    if min(input, output) < 0:
        raise BadInput(f"expected tokens of 0 or more, got {input} in, {output} out")
    rows = _named_prices(model, input, output) if model else _file_prices(_files(files), input, output)
    rows.sort(key=lambda row: (row["cost"] is None, Money.of(row["cost"] or "0")))
    if json:
        date = frozen_prices().date
        print_json({"input": input, "output": output, "price_map": date, "models": rows})
    else:
        _view.show_prices(rows, (input, output), frozen_prices().date)
    unknown = [row["model"] for row in rows if row["cost"] is None] if model else []
    for name in unknown:
        tell(f"the price map has no model {name!r}: look at its provider's name, or price it in a file of models")
    return FOUND if unknown else OK


@app.command(sort_key=3)
def check(
    *files: str,
    only: Annotated[list[str] | None, Parameter(negative=())] = None,
    budget: str = "0.05",
    timeout: float = 20.0,
    json: Flag = False,
) -> int:
    """Ask each model one cheap question, and say what is wrong. Exits with 100 when something is.

    Parameters
    ----------
    files
        YAML, JSON or TOML; later ones override. models.yaml by default.
    only
        A model's alias. Can be repeated.
    budget
        Dollars that all calls together may cost.
    timeout
        Seconds for one answer, at most.
    json
        One JSON object instead of a table.
    """
    from asyncio import run

    from escalade.agents.checkup import MAX_TOKENS, check_models
    from escalade.agents.models_file import load_file, load_models

    if not timeout > 0:
        raise BadInput(f"timeout: expected seconds > 0, got {timeout!r}")
    paths, money = _files(files), Money.of(budget)
    pairs = _chosen(load_file(*paths).models, load_models(*paths)[0], only)
    if not json:
        print_(f"one call to each of {len(pairs)} models, {MAX_TOKENS} tokens of answer, a budget of {money} for all")
    found = run(check_models(*zip(*pairs, strict=True), budget=money, patience=timeout))
    if json:
        print_json({"budget": str(money), "models": [_plain(one) for one in found]})
    else:
        _view.show_checked(found, money)
    return OK if all(one.ok for one in found) else FOUND


@app.command(sort_key=4)
def schema() -> int:
    """The JSON schema of files of models, for editors."""
    from escalade.agents.models_file import models_schema

    print_json(models_schema())
    return OK


def route(
    text: str,
    *,
    segment: str = "standard",
    routing: str | None = None,
    models: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: Flag = False,
) -> int:
    """Which tier should answer a text, and why: complexity, intent, segment, and the rule that decides.

    Parameters
    ----------
    text
        As a user writes it.
    segment
        Of the user, such as vip.
    routing
        A routing table, or a file of models with one; the table that ships by default.
    models
        A file of models: also says which of them it would be. Can be repeated; later ones override.
    json
        One JSON object instead of lines.
    """
    from escalade.agents.routing.router import Router

    router = Router() if routing is None else Router.load(routing)
    routed = router.route(text, segment=segment)
    model = None if not models else _cheapest(tuple(models), routed.tier)
    if json:
        facts = {"tier": routed.tier, "complexity": routed.complexity, "intent": routed.intent}
        print_json({**facts, "segment": routed.segment, "path": list(routed.path), "model": model})
    else:
        print_(safe(routed.explain()))
        print_(f"[bold]tier {routed.tier}[/]{'' if model is None else f', {safe(model)}'}")
    return OK


# ----------------------------------------------------------------------------------------------------------- reading


def _cheapest(files: tuple[str, ...], tier: int) -> str:
    """The alias of the model that `Routed.model` would take."""
    from escalade.agents.models_file import load_file
    from escalade.agents.routing.router import cheapest

    priced = [(spec.name, spec.tier, spec.priced()[0]) for spec in load_file(*files).models]
    return cheapest(priced, tier)


def _files(files: tuple[str, ...]) -> tuple[str, ...]:
    if not files and not Path(DEFAULT_FILE).exists():
        raise BadInput(f"expected a file of models; there is no {DEFAULT_FILE} here")
    return files or (DEFAULT_FILE,)


def _chosen(specs: tuple[ModelSpec, ...], models: tuple[Any, ...], only: list[str] | None) -> list[tuple[Any, Any]]:
    names = [spec.name for spec in specs]
    for name in only or ():
        if name not in names:
            raise UnknownName("model", name, names)
    return [pair for pair in zip(specs, models, strict=True) if not only or pair[0].name in only]


def _file_prices(files: tuple[str, ...], given: int, made: int) -> list[dict[str, Any]]:
    from escalade.agents.models_file import load_file

    return [_row(spec.name, spec.model, spec.tier, spec.priced(), given, made) for spec in load_file(*files).models]


def _named_prices(names: list[str], given: int, made: int) -> list[dict[str, Any]]:
    from escalade.registry.prices import frozen_prices

    table = frozen_prices()
    found = ((name, table.get(name)) for name in names)
    return [
        _row("", name, None, (one, f"map of {table.date}" if one else "unknown"), given, made) for name, one in found
    ]


def _row(name: str, model: str, tier: int | None, priced: Any, given: int, made: int) -> dict[str, Any]:
    price, source = priced
    cost = None if price is None else format(price.cost(given, made).dollars, "f")
    rate = _view.per_million(price)
    return {"name": name, "model": model, "tier": tier, "cost": cost, "rate": rate, "price_from": source}


def _plain(one: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "model": one.model,
        "ok": one.ok,
        "state": one.state,
        "said": one.said,
        "seconds": round(one.seconds, 3),
        "cost": format(one.cost.dollars, "f"),
    }
