"""What a report says of the data before any number: duplicates, and twins on both sides of a fold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from escalade.evals.folds import assign_folds
from escalade.evals.loading.leaks import Duplicates, duplicates
from escalade.evals.tables import Column, Table

if TYPE_CHECKING:
    from escalade.evals.evidence import Evidence
    from escalade.evals.findings import Check

SHOWN = 50
"""The table names so many groups and pairs; its note counts the rest."""

COLUMNS = (
    Column(
        "kind", "kind", "text", "The same text but for case, white space and punctuation, or a few words of difference."
    ),
    Column("one", "question", "text", "Key of a question."),
    Column("other", "other", "text", "Key of a question that is the same, or nearly."),
    Column(
        "similarity",
        "similarity",
        "share",
        "Jaccard similarity of the three-word shingles of both texts, without case and punctuation; 100 % is the same.",
    ),
    Column("numbers", "numbers only", "yes", "They differ in numbers alone: their answers may differ, too."),
)


def data(evidence: Evidence) -> list[Table | Check | str]:
    """The builder: checks on duplicates and on twins across folds, and a table of what was found."""
    from escalade.evals.findings import Check

    outcomes = evidence.outcomes
    found = duplicates(outcomes)
    if not found.by_text:
        told = "the texts of the questions aren't known: only rows of one key are taken for the same question"
        return [Check("duplicates", None, told)]
    none = f"no two of {found.n:,} questions have nearly the same text"
    checks = [Check("duplicates", not found.found, "; ".join(found.said) or none), _across(evidence, found)]
    return [*checks, *_tables(found)]


def _across(evidence: Evidence, found: Duplicates) -> Check:
    """Are there twins of which one is fitted on and the other judged on?"""
    from escalade.evals.findings import Check

    outcomes = evidence.outcomes
    fitted = [entry.name for entry in evidence.entries if entry.fitted]
    if not fitted:
        return Check("twins across folds", True, "nothing is fitted in this comparison, so nothing can leak into it")
    fold = assign_folds(outcomes.keys, evidence.folds, evidence.seed, group=outcomes.group).tolist()
    of = dict(zip(outcomes.keys, fold, strict=True))
    twins = [set(keys) for keys in found.exact] + [{pair.one, pair.other} for pair in found.near]
    torn: set[str] = set().union(*(keys for keys in twins if len({of[key] for key in keys}) > 1))
    told = f"{len(torn):,} of {found.n:,} questions have a twin in another fold"
    held = "; policies that are fitted may know them; give twins a group" if torn else ""
    return Check("twins across folds", not torn, told + held)


def _tables(found: Duplicates) -> Iterator[Table]:
    rows = [
        {"kind": "same text", "one": keys[0], "other": other, "similarity": 1.0, "numbers": False}
        for keys in found.exact
        for other in keys[1:]
    ]
    rows += [
        {
            "kind": "nearly the same",
            "one": pair.one,
            "other": pair.other,
            "similarity": pair.similarity,
            "numbers": pair.numbers,
        }
        for pair in found.near
    ]
    if rows:
        notes = [f"the first {SHOWN} of {len(rows):,}"] if len(rows) > SHOWN else []
        about = "Which questions are the same, or nearly, by their texts."
        yield Table.of("duplicates", "Duplicates", COLUMNS, rows[:SHOWN], about=about, notes=notes)
