"""One run of a study: what is there, what is owed, the attempts that the budget allows, and the comparison."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, BudgetExceeded, DataError, EscaladeError
from escalade.evals.studies import beforehand, changes, writing
from escalade.evals.studies.identity import metric_name
from escalade.evals.studies.opening import Opened, opened, policies_of, recorded_of
from escalade.evals.studies.plan import Asked, Unit, asked_of, seeded
from escalade.evals.studies.reading import Filled, outcomes_of, untimed, whole_rows
from escalade.evals.studies.recording import Recorded, Recording
from escalade.evals.studies.regrading import grades_of, keep_grades, regrade
from escalade.evals.studies.rundir import PRICES, QUESTIONS, STUDY, VERSIONS, Line, Lines, RunDir, paid
from escalade.evals.studies.telling import Telling
from escalade.evals.studies.unanswered import check_retried, unanswered
from escalade.money import Money
from escalade.registry.opening import scope
from escalade.registry.privacy.outlets import error_line

if TYPE_CHECKING:
    from escalade.evals.compare import Comparison
    from escalade.evals.outcomes import Outcomes
    from escalade.evals.studies.study import Study

__all__ = ["Done", "StudyRun", "compared", "done_of", "run"]

FEWEST = 10
"""Complete rows that a comparison takes at least while attempts are owed."""


@dataclass(frozen=True)
class StudyRun:
    """What came of a study so far.

    `outcomes`: of the rows that are complete, None without any; `comparison`: on them, None where they are too few.
    `done`, `owed`: attempts; `new`: of them made by this run. `failed`: those that nobody answered (limits, timeouts, a
    provider's error), which may be made again. `failures`: name of a rung -> kind of error -> attempts that ended
    so, whoever is to blame; they count as wrong.
    `spent`: by all runs together. `rest`: what the attempts that are owed may be expected to cost, None for unknown.
    `why`: why attempts are owed, "" for none.
    """

    directory: Path
    study: Study
    outcomes: Outcomes | None = field(repr=False)
    comparison: Comparison | None = field(repr=False)
    done: int = 0
    owed: int = 0
    new: int = 0
    failed: int = 0
    failures: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    spent: Money = field(default_factory=lambda: Money(0))
    rest: Money | None = None
    why: str = ""

    @property
    def complete(self) -> bool:
        """Is nothing owed?"""
        return not self.owed

    def show(self) -> None:
        """Print the comparison, as `escalade run` does."""
        if self.comparison is not None:
            self.comparison.show()


@dataclass
class Done:
    """What the lines of a directory come to. `status`: identity of an attempt -> the error that it ended with, None
    for an answer. `spent`: nano-dollars by all of them. `costs`: nano-dollars at list price by rung, and how many.
    """

    status: dict[tuple[str, str, int], str | None] = field(default_factory=dict)
    spent: int = 0
    costs: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        """One line, later ones over earlier ones."""
        self.status[line["key"], line["of"], line["epoch"]] = line.get("error")
        self.spent += paid(line)
        if line.get("regraded"):
            return
        total, count = self.costs.get(line["of"], (0, 0))
        self.costs[line["of"]] = total + line.get("cost", 0), count + 1


def done_of(directory: RunDir) -> Done:
    """All attempts that are there. Raises DataError."""
    done = Done()
    for line in directory.lines():
        done.add(line)
    return done


async def run(
    study: Study,
    path: Path,
    *,
    retry_failed: bool | str = False,
    shown: bool = False,
    cached: bool = True,
    compares: bool = True,
    runs: Any = None,
) -> StudyRun:
    """Make what is owed, and compare. `retry_failed`: as in `Study.run`. `cached`: may a cache answer? `runs`: where
    workers execute it, see `workers.runs_at`; None is here.
    """
    if isinstance(retry_failed, str):
        check_retried(retry_failed)
    directory = RunDir(path)
    if study.program is None and study.rungs is None:
        return _replayed(study, directory)
    made = opened(study)
    beforehand.check(study, made)
    with directory.writer() as lines:
        one = _Run(study, directory, made, lines, retry_failed=retry_failed, shown=shown, cached=cached)
        one.runs = runs
        return await one.finished(compares=compares)


def _replayed(study: Study, directory: RunDir) -> StudyRun:
    """A study of recorded outcomes: nothing is asked."""
    outcomes = recorded_of(study)
    told = writing.study_json(study, recorded=outcomes.digest)
    before = directory.read(STUDY)
    if before is not None and before.get("recorded") != outcomes.digest:
        raise DataError(f"{directory.path}: another study's directory, or its data have changed; name another one")
    directory.write(STUDY, told)
    directory.write(VERSIONS, writing.versions(directory.read(VERSIONS), study.folder))
    return StudyRun(directory.path, study, outcomes, compared(study, outcomes), done=outcomes.n * outcomes.k)


class _Run:
    """One run; `lines` is ours alone as long as it takes."""

    def __init__(
        self,
        study: Study,
        directory: RunDir,
        made: Opened,
        lines: Lines,
        *,
        retry_failed: bool | str,
        shown: bool,
        cached: bool,
    ) -> None:
        self.study, self.directory, self.made, self.lines = study, directory, made, lines
        self.retry_failed, self.shown, self.cached = retry_failed, shown, cached
        self.new = 0
        self.runs: Any = None

    async def finished(self, *, compares: bool) -> StudyRun:
        study, done = self.study, done_of(self.directory)
        async with _paid(study, done.spent) as allowed:
            asked, notes = self._asked()
            told = writing.study_json(study, program=self.made.program, metric=self.made.metric, notes=notes)
            await self._agreed(told, asked)
            units = self._owed(told, asked, done)
            telling = Telling(study.name, len(asked) * len(told["rungs"]) * study.epochs, shown=self.shown)
            telling.begin(len(units), done.spent)
            refusal = await self._fill(asked, units, told, done, telling) if allowed else _spent(study)
            telling.end()
        filled = outcomes_of(self.directory)  # what it holds and no more, so that it says the same whoever asks it
        self._ended(told, done, filled)
        found = self._told(filled, done, units, told, refusal)
        return self._judged(found, filled) if compares else found

    def _asked(self) -> tuple[list[Asked], list[str]]:
        """The questions, each once, and what has to be said of them."""
        asked = asked_of(self.made.program, self.made.examples)
        once: dict[str, Asked] = {}
        for one in asked:
            once.setdefault(one.key, one)
        twice = len(asked) - len(once)
        told = f"{twice} of {len(asked)} examples have the inputs of another one and are left out"
        return list(once.values()), [told] if twice else []

    async def _agreed(self, told: dict[str, Any], asked: Sequence[Asked]) -> None:
        """What was recorded stands, or is graded anew, or refused; then the directory says what holds now."""
        directory, before = self.directory, self.directory.read(STUDY)
        prices = writing.prices_json(self.made.program, directory.read(PRICES))
        rows = writing.question_rows(asked, self.study)
        now = {row["key"]: (told["metric"]["digest"], row["labels"]) for row in rows}
        grades = {} if before is None else grades_of(directory, before)
        if before is not None:
            if "rungs" not in before:
                raise DataError(f"{directory.path}: a study of recorded outcomes was run there; name another directory")
            changes.check_rungs(before, told["rungs"], directory.path)
            changes.check_prices(directory.read(PRICES), prices, directory.path)
            if stale := changes.stale(now, grades):
                why = changes.why_stale(before, told["metric"], stale)
                again = [one for one in asked if one.key in stale]
                await regrade(directory, self.lines, self.made.metric, again, why, grades)
        keep_grades(directory, grades | now)
        directory.put(QUESTIONS, writing.lines_of(rows))
        directory.write(PRICES, prices)
        directory.write(VERSIONS, writing.versions(directory.read(VERSIONS), self.study.folder))
        directory.write(STUDY, told)

    def _owed(self, told: Mapping[str, Any], asked: Sequence[Asked], done: Done) -> list[Unit]:
        digests = [rung["digest"] for rung in told["rungs"]]
        known = {
            Unit(i, rung, epoch)
            for i, one in enumerate(asked)
            for rung, digest in enumerate(digests)
            for epoch in range(self.study.epochs)
            if (identity := (one.key, digest, epoch)) in done.status and not self._again(done.status[identity])
        }
        keys = [one.key for one in asked]
        return seeded(keys, len(digests), self.study.epochs, self.study.seed, without=known)

    def _again(self, error: str | None) -> bool:
        only = self.retry_failed if isinstance(self.retry_failed, str) else None
        return bool(self.retry_failed) and unanswered(error, only)

    async def _fill(
        self, asked: Sequence[Asked], units: list[Unit], told: Mapping[str, Any], done: Done, telling: Telling
    ) -> BudgetExceeded | None:
        if self.runs is not None:
            return await self._spread(asked, units, told, done)

        def keep(one: Recorded) -> None:
            self.lines.add(one.line.dumped())
            self.new += 1
            done.add({"cost": 0, **one.line.told()})
            telling.add(one)

        def lost(line: Line) -> None:
            self.lines.add(line.dumped())
            done.add({"cost": 0, **line.told()})

        recording = Recording(
            self.made.program,
            self.made.metric,
            asked,
            keep,
            digests=[rung["digest"] for rung in told["rungs"]],
            concurrency=self.study.concurrency,
            cached=self.cached,
            texts=self.study.texts,
            lines=self.lines,
            lost=lost,
        )
        try:
            return await recording.fill(units)
        except EscaladeError:
            raise
        except Exception as error:
            if not recording.grading:
                error.add_note(self._where(recording.failed_at, told))
                raise
            raise DataError(
                f"metric {metric_name(self.made.metric)!r} raised {error_line(error)}; what was recorded "
                f"until then is kept in {self.directory.path}"
            ) from error
        finally:
            telling.end()

    def _where(self, failed: Unit | None, told: Mapping[str, Any]) -> str:
        """Beside a mistake in the program, which is raised as it is."""
        at = "" if failed is None else f"rung {told['rungs'][failed.rung]['name']!r}, question {failed.question + 1}: "
        return f"{at}no attempt, so the study ends; what was recorded until then is kept in {self.directory.path}"

    async def _spread(
        self, asked: Sequence[Asked], units: list[Unit], told: Mapping[str, Any], done: Done
    ) -> BudgetExceeded | None:
        """By workers."""
        from escalade.evals.studies.workers import spread

        def keep(line: Mapping[str, Any]) -> None:
            self.new += 1
            done.add({"cost": 0, **line})

        digests = [rung["digest"] for rung in told["rungs"]]
        every = seeded([one.key for one in asked], len(digests), self.study.epochs, self.study.seed)
        named = {unit: (asked[unit.question].key, digests[unit.rung], unit.epoch) for unit in every}
        owed = [named[unit] for unit in units]
        return await spread(self.study, self.directory, self.runs, [*named.values()], owed, keep)

    def _ended(self, told: Mapping[str, Any], done: Done, filled: Filled) -> None:
        """A summary for whoever lists directories."""
        total = filled.outcomes.n * filled.outcomes.k
        writing.summarise(self.directory, told, done=total - filled.owed, owed=filled.owed, spent=done.spent)

    def _told(
        self, filled: Filled, done: Done, units: Sequence[Unit], told: Mapping[str, Any], refusal: BudgetExceeded | None
    ) -> StudyRun:
        total, left = filled.outcomes.n * filled.outcomes.k, units[self.new :]
        failures = _failures(done, told, set(filled.outcomes.keys))
        return StudyRun(
            directory=self.directory.path,
            study=self.study,
            outcomes=whole_rows(filled) if filled.complete.any() else None,
            comparison=None,
            done=total - filled.owed,
            owed=filled.owed,
            new=self.new,
            failed=sum(count for kinds in failures.values() for kind, count in kinds.items() if unanswered(kind)),
            failures=failures,
            spent=Money(done.spent),
            rest=_rest(left, told, done),
            why="" if refusal is None else str(refusal),
        )

    def _judged(self, found: StudyRun, filled: Filled) -> StudyRun:
        """With the comparison, where there are enough complete rows for one."""
        enough = not filled.owed or int(filled.complete.sum()) >= max(FEWEST, 2 * self.study.folds)
        if found.outcomes is None or not enough:
            return found
        return replace(found, comparison=compared(self.study, found.outcomes))


def _failures(done: Done, told: Mapping[str, Any], keys: Collection[str]) -> dict[str, dict[str, int]]:
    """Name of a rung -> kind of error -> attempts of this study that ended so, the most frequent first."""
    counts = Counter(
        (of, error)
        for (key, of, epoch), error in done.status.items()
        if error is not None and key in keys and epoch < told["epochs"]
    )
    found: dict[str, dict[str, int]] = {}
    for rung in told["rungs"]:
        kinds = {error: count for (of, error), count in counts.most_common() if of == rung["digest"]}
        if kinds:
            found[rung["name"]] = kinds
    return found


def _rest(units: Sequence[Unit], told: Mapping[str, Any], done: Done) -> Money | None:
    """What these attempts may be expected to cost: as those of the same rung did; None where there is none yet."""
    total = 0.0
    for unit in units:
        cost, count = done.costs.get(told["rungs"][unit.rung]["digest"], (0, 0))
        if not count:
            return None
        total += cost / count
    return Money(round(total))


def compared(study: Study, outcomes: Outcomes) -> Comparison:
    """The comparison that the study asks for. Raises BadInput."""
    from escalade.evals.compare import compare

    if study.latency == "none":
        outcomes = untimed(outcomes)
    return compare(
        outcomes,
        policies_of(study),
        baseline=study.baseline,
        margin=study.margin,
        seed=study.seed,
        folds=study.folds,
        per_request=study.per_request,
        per_run=study.per_run,
    )


def _spent(study: Study) -> BudgetExceeded:
    return BudgetExceeded(f"the study's budget of ${study.budget} is used up")


@contextlib.asynccontextmanager
async def _paid(study: Study, spent: int) -> AsyncIterator[bool]:
    """Within a scope that has what is left of the study's budget; False where that is nothing."""
    left = None if study.budget is None else int(Money.of(study.budget)) - spent
    if left is not None and int(Money.of(study.budget or "0")) <= 0:
        raise BadInput("budget: expected dollars, more than 0")
    budget = None if left is None else Money(max(left, 1))
    entered: Any = scope(budget=budget, name=f"study {study.name}", optional=True)
    async with entered:
        yield left is None or left > 0
