"""The options that say what is compared, of all commands that compare."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison
    from escalade.evals.outcomes import Outcomes

__all__ = ["Chosen", "as_studied", "compared", "names"]

STUDIED = ("baseline", "margin", "seed", "folds", "per_request", "per_run")
"""What a study says, too."""


@Parameter(name="*")
@dataclass(frozen=True)
class Chosen:
    """What is compared.

    Parameters
    ----------
    rungs
        The rungs that are the ladder, separated by commas; all of the data by default.
    labels
        Which grading to trust, where the data has two; the recorded one by default.
    policies
        Names, separated by commas: a rung, oracle, random-0.3, random@POLICY, prompt-length, threshold-0.9,
        threshold-0.8/3 (three rungs), threshold-fitted, agreement-3, agreement-models; learned on the other folds:
        best-single, category-mean, gain, nearest, answer-in-view, cascade-routing, bandit, guaranteed-0.05;
        NAME+budget.
    only
        Compare only what --policies names, without what is brought along to hold it against: every rung, the best
        single one, matched random, prompt length, category mean, nearest neighbours and the oracles.
    baseline
        What differences are against; the strongest rung by default.
    margin
        How much worse is still "as good": 0.02 is two points.
    seed
        Of folds, of the order in which budgets are spent, and of random draws.
    folds
        What is fitted is fitted on all folds but the one that it is judged on.
    limit
        Only the first so many questions.
    missing
        Refuse data in which a rung lacks outcomes, drop these questions, or keep them and judge only policies that
        never go where nothing was recorded.
    contaminated
        Keep or drop questions that are marked as leaked; RouteLLM's files drop them by default, all others keep them.
    price
        NAME=IN/OUT, dollars per million tokens. Can be repeated.
    prices
        A JSON or TOML file of them.
    per_request
        Dollars: the hard budget per request of the +budget rows.
    per_run
        Dollars: their hard budget for all questions together, spent in a random order.
    """

    rungs: str | None = None
    labels: Literal["recorded", "regraded"] | None = None
    policies: str | None = None
    only: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    baseline: str | None = None
    margin: float = 0.02
    seed: int = 0
    folds: int = 5
    limit: int | None = None
    missing: Literal["refuse", "drop", "keep"] = "refuse"
    contaminated: Literal["keep", "drop"] | None = None
    price: Annotated[list[str] | None, Parameter(negative=())] = None
    prices: str | None = None
    per_request: str | None = None
    per_run: str | None = None


def compared(data: str | None, chosen: Chosen, *, metrics: bool = False) -> Comparison:
    """The comparison of these policies on the data; None is the data that ships. Raises BadInput and its kin."""
    from escalade.evals.compare import compare
    from escalade.evals.loaders import loader_of

    loader = None if data is None else loader_of(data)
    chosen = chosen if data is None or loader != "run" else as_studied(Path(data.removeprefix("run:")), chosen)
    return compare(
        _loaded(data, chosen),
        names(chosen.policies),
        baseline=chosen.baseline,
        margin=chosen.margin,
        seed=chosen.seed,
        folds=chosen.folds,
        per_request=chosen.per_request,
        per_run=chosen.per_run,
        baselines=not chosen.only,
        metrics=metrics or loader == "routellm",
    )


def as_studied(path: Path, chosen: Chosen) -> Chosen:
    """What nobody chose is as the study of this run directory says. Policies that it names in Python are left out: to
    show a directory runs no code of it.
    """
    from escalade.evals.studies.references import is_reference
    from escalade.evals.studies.rundir import STUDY, RunDir

    told = RunDir(path).read(STUDY) or {}
    said = {name: told.get(name) for name in STUDIED}
    named = [one for one in told.get("policies") or () if isinstance(one, str) and not is_reference(one)]
    said["policies"] = ",".join(named) or None
    free = {name: value for name, value in said.items() if getattr(chosen, name) == getattr(Chosen, name)}
    return replace(chosen, **{name: value for name, value in free.items() if value is not None})


def names(text: str | None) -> list[str] | None:
    """What stands between the commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _loaded(data: str | None, chosen: Chosen) -> Outcomes:
    from escalade.evals.loaders import load_outcomes
    from escalade.evals.prices import parse_price, read_prices

    choices: dict[str, Any] = {
        "rungs": names(chosen.rungs),
        "labels": chosen.labels,
        "missing": chosen.missing,
        "contaminated": chosen.contaminated,
        "limit": chosen.limit,
        "prices": dict(parse_price(text) for text in chosen.price or []),
        "price_table": None if chosen.prices is None else read_prices(chosen.prices),
    }
    return load_outcomes(data, **choices)
