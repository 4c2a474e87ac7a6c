"""The commands. Each is one call into the rooms; what they need is imported when they run."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

import escalade
from escalade import _cli_access, _cli_audit, _cli_budget, _cli_models, _cli_runs, _cli_serve, _cli_sources, _cli_tools
from escalade.errors import BadInput, EscaladeError

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes

app = App(
    name="escalade",
    help="DSPy agents that climb to a dearer rung only when it pays.",
    version=f"escalade {escalade.__version__}",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)

app.command(_cli_tools.app)
app.command(_cli_models.app)
app.command(_cli_models.route)
_cli_tools.app.command(_cli_serve.serve, sort_key=11)
_cli_tools.app.command(_cli_sources.sources, sort_key=9)
_cli_tools.app.command(_cli_sources.accept, sort_key=10)
app.command(_cli_access.access)
app.command(_cli_access.approvals)
app.command(_cli_audit.app)
app.command(_cli_budget.app)
app.command(_cli_runs.app)
app.command(_cli_runs.worker)

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""


@app.command(sort_key=1)
def compare(
    *,
    data: str | None = None,
    rungs: str | None = None,
    labels: Literal["recorded", "regraded"] | None = None,
    policies: str | None = None,
    baseline: str | None = None,
    margin: float = 0.02,
    seed: int = 0,
    folds: int = 5,
    limit: int | None = None,
    missing: Literal["refuse", "drop"] = "refuse",
    contaminated: Literal["keep", "drop"] | None = None,
    price: Annotated[list[str] | None, Parameter(negative=())] = None,
    prices: str | None = None,
    per_request: str | None = None,
    per_run: str | None = None,
    metrics: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    json: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> int:
    """Compare routing policies on recorded outcomes: quality and cost, on paired data.

    Without options it replays the line-up on the data that ships with escalade: 1,319 questions of GSM8K, answered by
    a 1.5B model at four token budgets, Mixtral-8x7B and GPT-4. No key, no network.

    Parameters
    ----------
    data
        PATH or LOADER:PATH, with loader routellm (CSV or folder), long (CSV, TSV) or jsonl; guessed where not named.
    rungs
        The rungs that are the ladder, separated by commas; all of the data by default.
    labels
        Which grading to trust, where the data has two; the recorded one by default.
    policies
        Names, separated by commas: a rung, oracle, random-0.3, random@POLICY, prompt-length, threshold-0.9,
        threshold-0.8/3 (three rungs), threshold-fitted, agreement-3, agreement-models; learned on the other folds:
        gain, nearest, answer-in-view, cascade-routing, bandit, guaranteed-0.05; NAME+budget.
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
        Refuse data in which a rung lacks outcomes, or drop these questions.
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
    metrics
        Show APGR and CPT of the policies that have a score, too; always shown on RouteLLM's files.
    json
        One JSON object instead of a table.
    """
    from escalade.evals.compare import compare as run
    from escalade.evals.loaders import loader_of

    choices = {"labels": labels, "missing": missing, "contaminated": contaminated, "limit": limit}
    outcomes = _load(data, price or [], prices, rungs=_names(rungs), **choices)
    comparison = run(
        outcomes,
        _names(policies),
        baseline=baseline,
        margin=margin,
        seed=seed,
        folds=folds,
        per_request=per_request,
        per_run=per_run,
        metrics=metrics or (data is not None and loader_of(data) == "routellm"),
    )
    if json:
        from json import dumps

        sys.stdout.write(dumps(comparison.to_json(), indent=2, allow_nan=False) + "\n")
    else:
        comparison.show()
    return OK


@app.command(sort_key=2)
def demo(
    *,
    seed: int = 7,
    fast: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    slow: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    json: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> int:
    """Three agents, two governed tools, one budget: offline, in a few seconds.

    Parameters
    ----------
    seed
        Of the simulated world.
    fast
        Models answer at once.
    slow
        Models take their time.
    json
        One JSON object instead of the show.
    """
    from escalade.demo import main as run

    return run(seed=seed, json=json, fast=fast, slow=slow)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 2 for what the user can put right, 1 for any other failure."""
    try:
        result = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (CycloptsError, BadInput) as error:
        return _told(str(error), BAD_INPUT)
    except EscaladeError as error:
        return _told(str(error), FAILED)
    except BrokenPipeError:  # the reader has seen enough (`| head`)
        _silence()
        return OK
    except OSError as error:  # a full disk
        _silence()
        return _told(f"can't go on: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _told("interrupted", INTERRUPTED)
    return result if isinstance(result, int) else OK


def _load(data: str | None, price: list[str], prices: str | None, **choices: Any) -> Outcomes:
    from escalade.evals.loaders import load_outcomes
    from escalade.evals.prices import parse_price, read_prices

    own = dict(parse_price(text) for text in price)
    table = None if prices is None else read_prices(prices)
    return load_outcomes(data, prices=own, price_table=table, **choices)


def _names(text: str | None) -> list[str] | None:
    """What stands between the commas."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _silence() -> None:
    """Python flushes its output once more when it exits, and would complain then."""
    with contextlib.suppress(OSError, ValueError):  # what isn't a file has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _told(message: str, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code
