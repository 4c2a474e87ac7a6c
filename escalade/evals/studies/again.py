"""The study that a run directory was made by: program, examples and metric again, for whoever runs them live."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput
from escalade.evals.studies.rundir import STUDY, RunDir
from escalade.evals.studies.study import Study

if TYPE_CHECKING:
    from escalade.evals.studies.opening import Opened

__all__ = ["opened_again", "study_again"]


def study_again(directory: str | PathLike[str], **changes: Any) -> Study:
    """The study of a run directory. `changes`: fields in place of its own. Raises BadInput for one that names none."""
    said = RunDir(directory).read(STUDY)
    if said is None:
        raise BadInput(f"{directory}: no run directory; say which program, examples and metric are meant")
    fields: dict[str, Any] = {name: said.get(name) for name in Study.model_fields if said.get(name) is not None}
    fields["rungs"], metric = said.get("ladder"), said.get("metric")
    fields["metric"] = metric.get("said") if isinstance(metric, Mapping) else metric
    fields |= {name: value for name, value in changes.items() if value is not None}
    if changes.get("program") is not None:
        fields["rungs"] = None
    study = Study.of({name: value for name, value in fields.items() if value is not None}, str(directory))
    study._folder = Path(said.get("folder", "."))
    return study


def opened_again(directory: str | PathLike[str] | None, **changes: Any) -> Opened:
    """Program, examples and metric: of a run directory, but for what is said in `changes` (program, data, metric); of
    these alone where there is none. Raises BadInput.
    """
    from escalade.evals.studies.opening import opened

    if directory is not None:
        return opened(study_again(directory, **changes))
    missing = [name for name in ("program", "data", "metric") if changes.get(name) is None]
    if missing:
        raise BadInput(
            f"a live run needs {', '.join(missing)}, where the outcomes aren't a run directory that has them"
        )
    return opened(Study.of({name: value for name, value in changes.items() if value is not None}, "live"))
