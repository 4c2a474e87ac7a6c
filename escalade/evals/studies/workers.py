"""One study in many processes: its attempts as durable runs, which any worker may execute, and take over from another.

    escalade run study.yaml --runs sqlite:///runs.sqlite        this process executes, and so does every worker there
    escalade run study.yaml --runs escalade.yaml                as this file says: workers on many hosts, PostgreSQL

    url: postgresql://app@db.example/app                        escalade.yaml, for `escalade worker` on each host
    engine: dbos
    pipelines: {study: "escalade.evals.studies.workers:shard"}

The attempts of a study are dealt out in shards; a shard is one durable run, of which each attempt is a step that is
kept when it is graded: who kills a worker loses the calls that were in flight. The process that was told to run the
study writes a shard's lines into the run directory when all of them are there, as one file, whole or not at all. Which
shard an attempt is in depends on the study alone, and lines don't depend on who made them: the result is that of one
process. A budget is an account of the ledger beside the runs, which all workers share.

Workers need the study's folder at the same path, for the Python and the data that it names.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dspy

from escalade.errors import BadInput, BudgetExceeded, DataError, RunError
from escalade.evals.studies.blocks import blocks
from escalade.evals.studies.identity import rung_digest
from escalade.evals.studies.plan import Asked, Unit, asked_of
from escalade.evals.studies.recording import Recorded, Recording
from escalade.evals.studies.rundir import ATTEMPTS, STUDY, paid
from escalade.money import Money
from escalade.pipelines.map import Map
from escalade.registry.budgets import Budget, run_account
from escalade.registry.elsewhere import elsewhere
from escalade.registry.opening import also_paid_by, scope
from escalade.scopes import KEY

if TYPE_CHECKING:
    from escalade.evals.studies.opening import Opened
    from escalade.evals.studies.rundir import RunDir
    from escalade.evals.studies.study import Study
    from escalade.pipelines.durable.runs import Runs

__all__ = ["runs_at", "shard", "spread"]

NAME = "study"
"""What runs know the pipeline by."""

SPREAD = "spread.json"
"""In a run directory: the name by which workers know it."""

SHARDS, LEAST, MOST = 32, 8, 2_000
"""A study is dealt out to so many shards, of so many attempts each, at least and at most."""


# --------------------------------------------------------------------------------------------------- where it is made


@dataclass
class _Room:
    """What a worker knows of a study: opened once in a process."""

    made: Opened
    study: Study
    digests: list[str]
    asked: dict[str, Asked]
    gates: dict[int, asyncio.Semaphore] = field(default_factory=dict)

    def gate(self) -> asyncio.Semaphore:
        """Of this event loop: so many attempts at once as the study says, whatever the number of shards."""
        return self.gates.setdefault(id(asyncio.get_running_loop()), asyncio.Semaphore(self.study.concurrency))


@functools.lru_cache(maxsize=4)
def _room(told: str, folder: str) -> _Room:
    from escalade.evals.studies.opening import opened
    from escalade.evals.studies.study import Study

    study = Study.of(json.loads(told), "study")
    study._folder = Path(folder)
    made = opened(study)
    digests = [rung_digest(made.program, rung) for rung in range(len(made.program.rungs))]
    return _Room(made, study, digests, {one.key: one for one in asked_of(made.program, made.examples)})


async def attempt(unit: list[Any], study: str, folder: str, account: str) -> str | None:
    """One attempt, made and graded: its line; None where there was no money for it. `unit`: key, digest of the rung,
    epoch. `account`: of the study's budget, "" without one. Raises DataError where this worker's program isn't the
    study's.

    Its calls aren't journalled one by one: an answer out of a journal costs nothing, and its line would say so.
    """
    key, of, epoch = unit
    room = _room(study, folder)
    if key not in room.asked or of not in room.digests:
        what = "question" if key not in room.asked else "rung"
        raise DataError(f"the study in {folder} isn't the one that was dealt out: this worker lacks a {what} of it")
    found: list[Recorded] = []
    recording = Recording(
        room.made.program,
        room.made.metric,
        [room.asked[key]],
        found.append,
        digests=room.digests,
        concurrency=1,
        texts=room.study.texts,
    )
    async with room.gate(), scope(name="attempt", optional=True) as own:
        payer = replace(also_paid_by(own, account) if account else own, journal=None)
        with dspy.context(**{KEY: payer}):
            await recording.fill([Unit(0, room.digests.index(of), epoch)])
    return found[0].line.dumped().decode() if found else None


shard = Map(attempt, over="units", item="unit")
"""The pipeline that workers execute."""


def runs_at(where: Runs | str | PathLike[str]) -> Runs:
    """Runs that know `shard`: of an address, which this process executes beside all workers there, or of a file like
    escalade.yaml. Raises BadInput.
    """
    from escalade.pipelines.durable.config import load_config
    from escalade.pipelines.durable.runs import Runs

    if isinstance(where, Runs):
        runs = where
    elif "://" not in str(where) and Path(where).suffix in {".yaml", ".yml", ".json", ".toml"}:
        runs = load_config(where).runs()
    elif "://" in str(where):
        runs = Runs(str(where), engine="dbos", pipelines={NAME: shard})
    else:
        raise BadInput(f"runs: expected sqlite:///PATH, postgresql://... or a file like escalade.yaml, got {where!r}")
    if shard not in runs.host.pipelines.values():
        runs.add(NAME, shard)
    return runs


# ------------------------------------------------------------------------------------------------ where it is dealt out


One = tuple[str, str, int]
"""An attempt, as another process knows it: key of the question, digest of the rung, epoch."""


class _Shard(NamedTuple):
    number: int
    ones: tuple[One, ...]


async def spread(
    study: Study,
    directory: RunDir,
    where: Runs | str | PathLike[str],
    every: Sequence[One],
    owed: Sequence[One],
    told: Callable[[Mapping[str, Any]], None],
) -> BudgetExceeded | None:
    """Deal a study's attempts out to workers, wait for them, and write what they made.

    `every`: all attempts of the study, in its order; `owed`: those that are to be made. `told`: is given each line as
    it is written, a shard's at once. None when all are made, else the refusal for want of money. Raises BadInput, and
    DataError for a shard that failed: a metric that raises, a rung that may not be used.
    """
    runs = runs_at(where)
    try:
        with dspy.context(**{KEY: None}):  # runs have scopes of their own, wherever they are executed
            return await _Spread(runs, study, directory, told).fill(every, owed)
    finally:
        if runs is not where:
            await elsewhere(runs.close)


@dataclass
class _Spread:
    """What is dealt out, and where."""

    runs: Runs
    study: Study
    directory: RunDir
    told: Callable[[Mapping[str, Any]], None]

    async def fill(self, every: Sequence[One], owed: Sequence[One]) -> BudgetExceeded | None:
        """Start the shards, and write each when it has ended."""
        study, folder, uid = _plain(self.study), str(self.study.folder.absolute()), self._uid()
        account = self._account(uid)
        wanted, started, made = set(owed), [], 0
        for part in _dealt(every, wanted):
            own = {"units": [list(one) for one in part.ones], "study": study, "folder": folder, "account": account}
            name = self._name(part, study, uid)
            started.append((part, name, await self.runs.astart(shard, run_id=name, **own)))
        try:
            for part, name, run in started:
                done = await run.aresult()
                made += self._written(part, name, [line for line in done.results if line is not None])
        except RunError as error:
            raise DataError(f"a worker could not go on: {error}") from error
        missing = len(wanted) - made
        return BudgetExceeded(f"{missing:,} attempts found no money in the study's budget") if missing else None

    def _uid(self) -> str:
        """Of this directory, for the names of its runs and of its account."""
        from uuid import uuid4

        known = self.directory.read(SPREAD)
        if known is None:
            known = {"uid": uuid4().hex[:12]}
            self.directory.write(SPREAD, known)
        return str(known["uid"])

    def _account(self, uid: str) -> str:
        """Who pays: an account of the ledger that has what the study's budget leaves beside what was spent without
        workers. It outlives processes and runs. "" without a budget.
        """
        if self.study.budget is None:
            return ""
        ledger = self.runs.host.ledger or self.runs.host.book
        if ledger is None:
            raise BadInput("runs: a study with a budget needs runs with a ledger: give them an address")
        here = sum(paid(line) for rows in blocks(self.directory.file(ATTEMPTS)) for line in rows)
        left = Money(max(0, int(Money.of(self.study.budget)) - here))
        account = run_account(f"{self.study.name}-{uid}")
        ledger.set_budget(Budget(account, left, warn=1.0, brake=1.0))
        return account

    def _name(self, part: _Shard, study: str, uid: str) -> str:
        """Of the run: the same for the same attempts by the same code, until their lines are written."""
        again = len(list(self.directory.path.glob(f"attempts-shard-{part.number:04d}-*.jsonl")))
        told = repr((part.ones, study, self._metric(), uid)).encode()
        return f"{self.study.name}-{blake2b(told, digest_size=6).hexdigest()}-{part.number:04d}-{again}"

    def _metric(self) -> str:
        known = self.directory.read(STUDY) or {}
        return repr(known.get("metric"))

    def _written(self, part: _Shard, name: str, lines: Sequence[str]) -> int:
        import orjson

        again = name.rpartition("-")[2]
        self.directory.put(f"attempts-shard-{part.number:04d}-{again}.jsonl", "".join(lines).encode())
        for line in lines:
            self.told(orjson.loads(line))
        return len(lines)


def _dealt(every: Sequence[One], wanted: set[One]) -> Iterator[_Shard]:
    """Shards with something to do. What is in which depends on `every` alone."""
    size = min(MOST, max(LEAST, -(-len(every) // SHARDS)))
    for number, at in enumerate(range(0, len(every), size)):
        ones = tuple(one for one in every[at : at + size] if one in wanted)
        if ones:
            yield _Shard(number, ones)


def _plain(study: Study) -> str:
    """The study as text, for another process. Raises BadInput for objects in it."""
    said = {name: getattr(study, name) for name in sorted(study.model_fields_set)} | {"budget": None}
    for name in ("data", "metric", "program"):
        value = said.get(name)
        if value is not None and not isinstance(value, str):
            raise BadInput(f"{name}: workers can't get an object of this process; name it, like module:name")
    said.pop("policies", None)  # attempts don't hang on them
    return study.of(said).model_dump_json(include=set(said))
