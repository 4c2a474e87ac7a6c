"""Calibrating a program on recorded outcomes, and calibrating the record itself: pay once, fit and judge for nothing.

    outcomes = record(qa, examples, metric)                    # without calibrators
    calibrators = calibrate(qa, outcomes, Platt, rows=train)   # sets them on the program
    replay(policy, calibrated(outcomes, calibrators), rows=test)

Fit on some rows and judge on others: on its own rows every calibrator flatters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from escalade.agents.calibration import Calibrator, Platt
from escalade.agents.climb import OK
from escalade.errors import BadInput, DataError, UnknownName
from escalade.evals._codes import STATUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from escalade.agents.escalate import Escalate
    from escalade.evals.outcomes import Outcomes

    Rows = NDArray[np.int64] | NDArray[np.bool_] | Sequence[int] | None


def calibrate(
    program: Escalate, outcomes: Outcomes, using: type[Calibrator] = Platt, *, rows: Rows = None
) -> dict[str, Calibrator]:
    """Fit a calibrator for each rung and set them on the program. Returns them by name of the rung.

    `outcomes`: recorded of this ladder, without calibrators. `rows`: indices or a mask of those to fit on, None is all.
    Only answers count, not failures; a rung whose confidence is never known gets none. Raises DataError for a rung with
    too few known confidences, BadInput for a program that is calibrated already: its record would be, too.
    """
    if program.calibrators:
        raise BadInput("the program is calibrated already: clear `calibrators`, record again, and calibrate then")
    if [rung.name for rung in program.rungs] != [rung.name for rung in outcomes.rungs]:
        raise BadInput(f"the outcomes are of rungs {[r.name for r in outcomes.rungs]}, not of the program's")
    at = np.arange(outcomes.n)[slice(None) if rows is None else np.asarray(rows)]
    fitted: dict[str, Calibrator] = {}
    for k, rung in enumerate(outcomes.rungs):
        good = at[outcomes.status[at, k] == STATUSES.index(OK)]
        said, right = outcomes.confidence[good, k], outcomes.quality[good, k]
        if np.isnan(said).all():
            continue
        try:
            fitted[rung.name] = using.fit(said.tolist(), right.tolist())
        except DataError as error:
            raise DataError(f"rung {rung.name!r}: {error}") from None
    program.calibrators.update(fitted)
    return fitted


def calibrated(outcomes: Outcomes, calibrators: Mapping[str, Calibrator]) -> Outcomes:
    """The same outcomes with calibrated confidences, for replays. `calibrators`: by name of a rung; the others stay.

    Raises UnknownName.
    """
    names = [rung.name for rung in outcomes.rungs]
    confidence = outcomes.confidence.copy()
    for name, calibrator in calibrators.items():
        if name not in names:
            raise UnknownName("rung", name, names)
        k = names.index(name)
        confidence[:, k] = [calibrator(c) for c in confidence[:, k].tolist()]
    return replace(outcomes, confidence=confidence)
