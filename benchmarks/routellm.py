"""RouteLLM's table of GSM8K again: its random and oracle rows, and ours beside its published routers.

    python -m benchmarks routellm

Mixtral-8x7B and GPT-4 on 1,307 questions, with RouteLLM's recorded verdicts and with the same answers graded again (its
grader takes the last run of digits, so that "$20.00" became 0). *Published* are figures of RouteLLM (Ong et al. 2024,
arXiv 2406.18665), whose routers we can't run here: BERT, a causal language model, matrix factorisation, similarity-
weighted ranking. They stand for the recorded labels; nobody published them on others. All else is *measured* here:
"deciles" is RouteLLM's formula, 11 cut points and trapezoids, the value itself the exact curve (`evals.curves`), with
the 95 % bootstrap interval over questions. Fitted routers are judged out of fold. Whether an interval lies above a
published figure is no paired test: how sure that figure is, isn't known here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.policies import FOUR, GPT4, MIXTRAL, ONE, RESPONSES, gsm8k
from escalade.agents.learned.gain import Gain
from escalade.agents.policies import RandomMix
from escalade.evals.curves import Sweep, oracle_sweep, sweep_of
from escalade.evals.inference.bootstrap import Interval, bootstrap_many
from escalade.evals.inference.resampled import Swept
from escalade.evals.learned import FittedAnswers, FittedRouter
from escalade.evals.replay import FittedPromptLength

if TYPE_CHECKING:
    from collections.abc import Iterator

    from escalade.evals.outcomes import Outcomes

PUBLISHED = {"BERT": 0.531, "causal LLM": 0.622, "matrix factorisation": 0.565, "SW ranking": 0.568}
"""APGR of RouteLLM's routers on GSM8K, as published."""

ROWS = {("recorded", "random"): 0.50, ("recorded", "oracle"): 1.115, ("regraded", "oracle"): 0.885}
"""By RouteLLM's formula: rows that have to come out again."""

CLOSE = 0.01


def deciles(sweep: Sweep) -> float:
    """APGR by RouteLLM's formula: a tenth of the questions more to the strong model at each of 11 points.

    Questions of one score cross in any order there; here they count at the mean of all orders.
    """
    swept = Swept.of(sweep)
    drawn, gained = (np.add.reduceat(column, swept.starts) for column in (np.ones(len(swept.gain)), swept.gain))
    reached, gain = np.append(0.0, np.cumsum(drawn)), np.append(0.0, np.cumsum(gained))
    points = np.linspace(0.0, 1.0, 11)
    recovered = np.interp(points * reached[-1], reached, gain) / gain[-1]
    return float(np.trapezoid(recovered, points))


def routers(data: Outcomes) -> Iterator[tuple[str, Sweep]]:
    """Ours, and the two that bound them."""
    plays: dict[str, Any] = {
        "random": RandomMix(0.5, MIXTRAL, GPT4),
        "prompt length": FittedPromptLength(MIXTRAL, GPT4, at_share=0.5),
    }
    if "text" in data.features:
        plays["gain (question alone)"] = FittedRouter(Gain, MIXTRAL, GPT4)
    plays["answer-in-view (one 1.5B answer)"] = FittedAnswers(ONE, GPT4)
    plays["answer-in-view (four 1.5B answers)"] = FittedAnswers(FOUR, GPT4)
    for name, play in plays.items():
        sweep = sweep_of(play, data)
        assert sweep is not None
        yield name, sweep
    yield "oracle", oracle_sweep(data, MIXTRAL, GPT4)


def run(repeats: int = 1) -> list[dict[str, Any]]:  # noqa: ARG001 - all of it is exact or seeded
    """One line for each router: APGR on the exact curve. `repeats` changes nothing."""
    if not RESPONSES.is_file():
        print(f"routellm: {RESPONSES} is not there: without the router that reads questions", file=sys.stderr)
    data = gsm8k()
    results = []
    for labels in ("recorded", "regraded"):
        graded = data.graded(labels)
        found = [(name, sweep, _interval(sweep)) for name, sweep in routers(graded)]
        results += [_measured(labels, name, sweep, interval, graded.n) for name, sweep, interval in found]
        if labels == "recorded":
            results += [_published(name, value, found) for name, value in PUBLISHED.items()]
    return results


def _interval(sweep: Sweep) -> Interval:
    swept = Swept.of(sweep)
    return bootstrap_many(swept.figures, len(swept.order))[0]


def _measured(labels: str, name: str, sweep: Sweep, interval: Interval, n: int) -> dict[str, Any]:
    by_deciles, wanted = deciles(sweep), ROWS.get((labels, name))
    ok = wanted is None or abs(by_deciles - wanted) <= CLOSE
    limit = "-" if wanted is None else f"{wanted:.3f} +- {CLOSE:g} (deciles)"
    note = f"measured; deciles {by_deciles:.3f}; 95 % {interval.low:.3f} to {interval.high:.3f}; {n:,} questions"
    return _figure(f"GSM8K, {labels}: {name}", interval.value, limit, note, ok=ok)


def _published(name: str, value: float, found: list[tuple[str, Sweep, Interval]]) -> dict[str, Any]:
    """Beside it, those of ours whose whole interval lies above it."""
    above = [ours for ours, _, interval in found if interval.low > value and ours not in {"random", "oracle"}]
    note = "published, not measured here; all of the interval lies above it: " + (", ".join(above) or "none of ours")
    return _figure(f"GSM8K, recorded: RouteLLM {name}", value, "-", note, ok=True)


def _figure(name: str, value: float, limit: str, note: str, *, ok: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "APGR", "limit": limit, "ok": ok, "ratio": None, "note": note}
