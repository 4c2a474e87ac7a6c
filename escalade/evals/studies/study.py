"""A study: which questions, on which rungs, graded how, compared by which policies, for how much at most.

    name: arithmetic                     study = Study.load("study.yaml")
    data: questions.jsonl                done = study.run("runs/arithmetic")
    metric: grading:exact                print(done.comparison)
    rungs:
      signature: question -> answer
      models: models.yaml
      rungs: [small, [ChainOfThought, small], big]
    budget: "5.00"

Run again in the same directory it goes on where it stopped: nothing that was paid for is paid for again, and more rows,
epochs, rungs or policies only cost what is new. What would make the recorded attempts wrong (another prompt, model or
metric under the same name) is refused, with what differs. `module:name` imports Python beside the study's file: run no
study of a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, WithJsonSchema

from escalade.errors import BadInput
from escalade.evals.studies.recording import CONCURRENCY
from escalade.evals.studies.running import StudyRun, run
from escalade.evals.studies.spec import Ladder, Split
from escalade.money import Money
from escalade.pipelines._bridge import run_sync

if TYPE_CHECKING:
    from escalade.pipelines.durable.runs import Runs

__all__ = ["SCHEMA_FILE", "Study", "StudyRun", "study_schema"]

SCHEMA_FILE = Path(__file__).parents[1] / "data" / "study.schema.json"
"""JSON schema of files of studies, as it was published with this version."""


def _dollars(value: object) -> object:
    if isinstance(value, float):
        raise ValueError(f'quote it: "{value}"')  # noqa: TRY004 - pydantic collects these
    return None if value is None else str(Money.of(str(value)).dollars)


_TEXT = {"type": "string"}
Dollars = Annotated[str | None, BeforeValidator(_dollars)]
Object = Annotated[Any, WithJsonSchema(_TEXT)]
Policies = Annotated[tuple[Any, ...] | None, WithJsonSchema({"type": "array", "items": _TEXT})]


class Study(BaseModel):
    """What is to be found out. In Python `data`, `metric`, `program` and `policies` may be objects, too.

    Without `program` and `rungs` the data are recorded outcomes, and nothing is asked: the study is a replay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = Field(default="study", pattern=r"^[\w.-]*[\w-][\w.-]*$", description="Of its directory and its tables.")
    data: Object = Field(
        description="Examples: a file (JSON lines, CSV, TSV, Parquet), dspy:NAME, module:name, or simulated:200. "
        "Without program and rungs: recorded outcomes, PATH or LOADER:PATH."
    )
    inputs: tuple[str, ...] | None = Field(
        default=None, description="Fields that are inputs; those of the program by default."
    )
    category: str | None = Field(default=None, description="The field that has the category of a question.")
    group: str | None = Field(
        default=None, description="The field that names what questions have in common, like a document."
    )
    limit: int | None = Field(default=None, ge=1, description="Only the first so many questions.")
    split: Split | None = Field(default=None, description="Only one side of a split.")
    metric: Object = Field(
        default=None, description="module:name of a function (example, prediction) -> 0..1, or the name of a grader."
    )
    program: Object = Field(default=None, description="module:name of an Escalate, or of a function that makes one.")
    rungs: Ladder | None = Field(default=None, description="The ladder, written down in place of a program.")
    policies: Policies = Field(
        default=None, description="Names, or module:name; the default line-up where none is named."
    )
    baseline: str | None = Field(
        default=None, description="What differences are against; the strongest rung by default."
    )
    margin: float = Field(default=0.02, ge=0, lt=1, description="How much worse is still as good: 0.02 is two points.")
    seed: int = Field(default=0, description="Of the order of attempts, of folds and of random draws.")
    folds: int = Field(default=5, ge=2, description="What is fitted is judged on other folds than it was fitted on.")
    epochs: int = Field(default=1, ge=1, description="How often each question is asked; epochs are averaged.")
    budget: Dollars = Field(default=None, description="Dollars that the whole study may cost, all its runs together.")
    per_request: Dollars = Field(
        default=None, description="Dollars: the hard budget per request of the +budget policies."
    )
    per_run: Dollars = Field(default=None, description="Dollars: their hard budget for all questions together.")
    concurrency: int = Field(
        default=CONCURRENCY, ge=1, description="Attempts at once; lanes of the models may let fewer run."
    )
    latency: Literal["measured", "none"] = Field(
        default="measured", description="none: latencies don't count, so that equal answers print equal tables."
    )
    texts: bool = Field(
        default=False, description="Keep texts of questions and answers, so that a new metric can grade them."
    )

    _folder: Path = PrivateAttr(default=Path())

    def __init__(self, **said: Any) -> None:
        """Raises BadInput, with the field and what is wrong."""
        try:
            super().__init__(**said)
        except ValidationError as error:
            raise BadInput(_wrong(error)) from None

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Study:
        """A study from a YAML, JSON or TOML file; what it names is looked for beside it. Raises BadInput."""
        from escalade.registry.access.files import read_file

        _, written = read_file(Path(path))
        if not isinstance(written, Mapping):
            raise BadInput(f"{path}: expected a mapping with data, metric, and program or rungs")
        written = {name: value for name, value in written.items() if name != "$schema"}
        study = cls.of(written, str(path))
        study._folder = Path(path).parent
        return study

    @classmethod
    def of(cls, said: Mapping[str, Any], where: str = "study") -> Study:
        """A study from plain values. Raises BadInput, with `where`, the field and what is wrong."""
        try:
            return cls(**said)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None

    @property
    def folder(self) -> Path:
        """Where references and paths begin: that of its file, else the current one."""
        return self._folder

    def with_(self, **changes: Any) -> Study:
        """The same study with other values. Raises BadInput."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        study = self.of(said | changes)
        study._folder = self._folder
        return study

    def run(
        self,
        directory: str | PathLike[str] | None = None,
        *,
        retry_failed: bool | str = False,
        progress: bool = False,
        runs: Runs | str | PathLike[str] | None = None,
    ) -> StudyRun:
        """Make the attempts that are owed and compare. `directory`: `runs/NAME` by default.

        `retry_failed`: attempts that nobody answered (limits, timeouts, a provider's error) are made again; a kind of
        error, as "LMTimeoutError": only those. `progress`: show it on standard error. `runs`: where workers make them,
        many at once (`workers.py`): sqlite:///PATH, postgresql://..., or a file like escalade.yaml; the result is the
        same. A budget that ends ends the run, not the study: `StudyRun.owed` says what is missing. Raises BadInput,
        also for a model that answers nobody (its key, its bill), and what the metric raises.
        """
        return run_sync(lambda: self.arun(directory, retry_failed=retry_failed, progress=progress, runs=runs))

    async def arun(
        self,
        directory: str | PathLike[str] | None = None,
        *,
        retry_failed: bool | str = False,
        progress: bool = False,
        runs: Runs | str | PathLike[str] | None = None,
    ) -> StudyRun:
        """As `run`."""
        where = Path(directory or Path("runs") / self.name)
        return await run(self, where, retry_failed=retry_failed, shown=progress, runs=runs)


def _wrong(found: ValidationError) -> str:
    """The first problem: the field, and what is wrong with it."""
    first = found.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    more = f" (and {found.error_count() - 1} more)" if found.error_count() > 1 else ""
    message = " ".join(first["msg"].removeprefix("Value error, ").split())
    if first["type"] == "extra_forbidden":
        message = f"unknown field (known: {', '.join(Study.model_fields)})"
    if first["type"] == "string_pattern_mismatch":
        message = f"expected letters, digits, '_', '-' and dots, not dots alone, got {first['input']!r}"
    return f"{f'{place}: ' if place else ''}{message}{more}"


def study_schema() -> dict[str, Any]:
    """JSON schema of files of studies."""
    found = Study.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["properties"]["$schema"] = {"type": "string"}
    return found
