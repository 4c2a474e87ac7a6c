"""What a study says wrongly is told before anything is paid: names of policies, and fields that no example has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from escalade.errors import BadInput
from escalade.evals.studies.opening import policies_of

if TYPE_CHECKING:
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.studies.opening import Opened
    from escalade.evals.studies.study import Study

__all__ = ["check"]


def check(study: Study, made: Opened) -> None:
    """Raises BadInput for a field that no example has, and what the names of policies raise, as in `compare`.

    A name that this lets pass may still be refused after the recording: what data has is known then.
    """
    for said, field in (("category", study.category), ("group", study.group)):
        if field is not None and made.examples and not any(field in example for example in made.examples):
            known = ", ".join(sorted(made.examples[0].keys()))
            raise BadInput(f"{said}: no example has a field {field!r}; they have {known}")
    _check_names(study, made)


def _check_names(study: Study, made: Opened) -> None:
    from escalade.evals.compare import _baseline, _entries
    from escalade.evals.lineup import Lineup

    lineup = Lineup(_likely(study, made))
    _baseline(lineup, _entries(lineup, policies_of(study), study.folds), study.baseline)


def _likely(study: Study, made: Opened) -> Outcomes:
    """Two questions of which everything is known that outcomes of this study may say, so that no name fails on it."""
    import numpy as np

    from escalade.agents.climb import OK
    from escalade.evals.outcomes import STATUSES, Outcomes

    shape = 2, len(made.program.rungs)
    whole, ones = np.ones(shape, dtype=np.int64), np.ones(shape)
    return Outcomes(
        name=study.name,
        rungs=tuple(made.program.rungs),
        keys=("1", "2"),
        features={"prompt_chars": np.ones(2)},
        quality=ones,
        answer=whole,
        confidence=ones,
        cost=whole,
        price=whole,
        ceiling=whole,
        latency=ones,
        status=np.full(shape, STATUSES.index(OK), dtype=np.int8),
        category=None if study.category is None else ("", ""),
    )
