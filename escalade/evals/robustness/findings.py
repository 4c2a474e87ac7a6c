"""What a report says of robustness: decisions that typing mistakes change, where the texts of questions are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from escalade.evals.outcomes import TEXT
from escalade.evals.robustness.flips import flips_of
from escalade.evals.tables import Column, Table

if TYPE_CHECKING:
    from escalade.evals.evidence import Evidence

SHARE = 0.1
MOST_FITTED = 2_000
"""With more questions, what has to be fitted once more isn't: call `flips` for it."""

COLUMNS = (
    Column("name", "policy", "text", "The policy, as in the comparison."),
    Column(
        "share",
        "flipped",
        "share",
        "Share of the questions on which another rung was tried or answered when a tenth of the words was mistyped.",
        "share_low",
        "share_high",
    ),
    Column("quality", "quality", "share", "Mean quality of the decisions on the questions as they were."),
    Column(
        "new_quality", "mistyped", "share", "Mean quality of the decisions on the mistyped ones, by recorded answers."
    ),
    Column(
        "diff",
        "difference",
        "points",
        "Quality of the decisions on the mistyped questions minus that on the questions as they were, paired.",
        "diff_low",
        "diff_high",
    ),
    Column("cost_per_1k_usd", "$/1k", "usd", "Dollars per 1,000 questions as they were."),
    Column("new_cost_per_1k_usd", "$/1k mistyped", "usd", "Dollars per 1,000 mistyped questions, at recorded costs."),
)


def build(evidence: Evidence) -> list[Table]:
    """One table, of the policies whose decisions changed; none where the texts aren't known, or no decision did."""
    outcomes = evidence.outcomes
    if TEXT not in outcomes.features:
        return []
    everything = outcomes.n <= MOST_FITTED
    found = flips_of(evidence, share=SHARE, seed=evidence.seed, fitted=everything)
    flipped = [one for one in found if one.share > 0]
    if not flipped:
        return []
    notes = ["answers and costs stay those recorded: what a model answers to a mistyped question isn't known"]
    same = len(found) - len(flipped)
    notes += [f"{same} policies decided as before on every question"] if same else []
    notes += [] if everything else [f"more than {MOST_FITTED:,} questions: policies that are fitted are left out"]
    about = f"Which decisions change when {SHARE:.0%} of the words of a question are mistyped, and what that costs."
    return [Table.of("flips", "Typing mistakes", COLUMNS, flipped, about=about, notes=notes)]
