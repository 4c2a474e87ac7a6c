"""One study in many processes: its attempts as durable runs, which any worker may execute, and take over from another.

    escalade run study.yaml --runs sqlite:///runs.sqlite        this process executes, and so does every worker there
    escalade run study.yaml --runs escalade.yaml                as this file says: workers on many hosts, PostgreSQL

    url: postgresql://app@db.example/app                        escalade.yaml, for `escalade worker` on each host
    engine: dbos
    pipelines: {study: "escalade.evals.studies.workers:shard"}

The questions of a study are dealt out in shards; a shard is one durable run, of which each question is a step that is
kept when its attempts are graded: who kills a worker loses the questions that were under way. The process that was told
to run the study writes a shard's lines into the run directory when all of them are there, as one file, whole or not at
all. Which shard a question is in depends on the study alone, and lines don't depend on who made them: where all are
made, the result is that of one process.

A budget is an account of the ledger beside the runs, which all workers share. Beside it stands another one, of the same
limit, of what questions may cost while they are under way, and of what they did when they have ended. A question begins
when all that it may cost fits there, so that none is broken off, whoever else is at work; one that doesn't fit waits
for those that may give something back. Workers begin their shards in the study's order, each its own.

Workers need the study's folder at the same path, for the Python and the data that it names.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import dspy

from escalade.errors import BadInput, BudgetExceeded, DataError, RunError
from escalade.evals.studies.attempts import attempts
from escalade.evals.studies.identity import rung_digest
from escalade.evals.studies.plan import Asked, Unit, asked_of
from escalade.evals.studies.recording import Recorded, Recording
from escalade.evals.studies.rundir import ATTEMPTS, STUDY, paid
from escalade.money import Money
from escalade.pipelines.map import Map
from escalade.registry.budgets import Budget, run_account
from escalade.registry.elsewhere import elsewhere
from escalade.registry.ledger import LedgerPurse, Reservation
from escalade.registry.opening import account_of, also_paid_by, scope
from escalade.scopes import KEY, Scope

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

PAUSE = 0.05
"""Seconds between two looks whether another process has given something back."""


# --------------------------------------------------------------------------------------------------- where it is made


One = tuple[str, str, int]
"""An attempt, as another process knows it: key of the question, digest of the rung, epoch."""

T = TypeVar("T")
Of = WeakKeyDictionary[asyncio.AbstractEventLoop, T]


@dataclass
class _Room:
    """What a worker knows of a study: opened once in a process.

    `gates`, `queues`: of each event loop. `short`: by account, what was left in nano-dollars when a question didn't fit
    and nothing was under way. Whoever finds no more is refused as well: what a small remainder would pay for is cheap
    questions, which are no fair sample.
    """

    made: Opened
    study: Study
    digests: list[str]
    asked: dict[str, Asked]
    gates: Of[asyncio.Semaphore] = field(default_factory=WeakKeyDictionary)
    queues: Of[asyncio.Lock] = field(default_factory=WeakKeyDictionary)
    short: dict[str, int] = field(default_factory=dict)

    def gate(self) -> asyncio.Semaphore:
        """Of this event loop: so many attempts at once as the study says, whatever the number of shards."""
        return self.gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.study.concurrency))

    def found(self, units: list[One]) -> tuple[Asked, list[int]]:
        """The question of these attempts and their rungs. Raises DataError."""
        key = units[0][0]
        if key not in self.asked or not {of for _, of, _ in units} <= set(self.digests):
            what, folder = "question" if key not in self.asked else "rung", self.study.folder
            raise DataError(f"the study in {folder} isn't the one that was dealt out: this worker lacks a {what} of it")
        return self.asked[key], [self.digests.index(of) for _, of, _ in units]

    async def promised(self, purse: LedgerPurse, account: str, bound: int) -> Reservation | None:
        """Set `bound` aside, as soon as it fits; None when it can't. One stands in line behind the other."""
        async with self.queues.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            while True:
                left, held = await elsewhere(partial(_standing, purse))
                if left + held <= self.short.get(account, -1):
                    return None
                if bound <= left:
                    with contextlib.suppress(BudgetExceeded):  # another process was quicker
                        return await elsewhere(partial(purse.reserve, bound, "a question"), undo=Reservation.release)
                elif held:
                    await asyncio.sleep(PAUSE)
                else:
                    self.short[account] = left


@functools.lru_cache(maxsize=4)
def _room(told: str, folder: str) -> _Room:
    from escalade.evals.studies.opening import opened
    from escalade.evals.studies.study import Study

    study = Study.of(json.loads(told), "study")
    study._folder = Path(folder)
    made = opened(study)
    digests = [rung_digest(made.program, rung) for rung in range(len(made.program.rungs))]
    return _Room(made, study, digests, {one.key: one for one in asked_of(made.program, made.examples)})


async def question(units: list[One], study: str, folder: str, account: str) -> list[str]:
    """A question on its rungs, one after the other, made and graded: its lines; none where there was no money for it.
    `account`: of the study's budget, "" without one. Raises DataError where this worker's program isn't the study's.

    Its calls aren't journalled one by one: an answer out of a journal costs nothing, and its line would say so.
    """
    room = _room(study, folder)
    asked, rungs = room.found(units)
    found: list[Recorded] = []
    recording = Recording(
        room.made.program,
        room.made.metric,
        [asked],
        found.append,
        digests=room.digests,
        concurrency=1,
        texts=room.study.texts,
    )
    bound = sum(asked.view.ceilings[rung] or 0 for rung in rungs)
    async with room.gate(), scope(name="question", optional=True) as own, _begun(room, own, account, bound) as begun:
        payer = replace(also_paid_by(own, account) if account else own, journal=None)
        if begun:
            with dspy.context(**{KEY: payer}):
                await recording.fill([Unit(0, rung, one[2]) for rung, one in zip(rungs, units, strict=True)])
    return [one.line.dumped().decode() for one in found]


@asynccontextmanager
async def _begun(room: _Room, own: Scope, account: str, bound: int) -> AsyncIterator[bool]:
    """Around a question that may cost `bound`: may it begin? What it didn't cost is given back at the end."""
    if not account:
        yield True
        return
    promise = await room.promised(account_of(own, promises(account)), account, bound)
    try:
        yield promise is not None
    finally:
        if promise is not None:
            await elsewhere(partial(promise.settle, own.purse.spent))


def _standing(purse: LedgerPurse) -> tuple[int, int]:
    """What is left, and what was held at that moment: reckoned from what is settled a moment later, so that a question
    that ends in between counts as still under way, and never as one that left nothing.
    """
    left = purse.left() or 0
    return left, (purse.account.limit or 0) - left - purse.account.settled


def promises(account: str) -> str:
    """The account of what questions may cost, beside the one that pays."""
    return f"{account}:begun"


shard = Map(question, over="questions", item="units")
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


class _Shard(NamedTuple):
    """`questions`: of each, the attempts that are to be made."""

    number: int
    questions: tuple[tuple[One, ...], ...]


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
            own = {
                "questions": [[list(one) for one in ones] for ones in part.questions],
                "study": study,
                "folder": folder,
                "account": account,
            }
            name = self._name(part, study, uid)
            started.append((part, name, await self.runs.astart(shard, run_id=name, **own)))
        try:
            for part, name, run in started:
                done = await run.aresult()
                made += self._written(part, name, [line for lines in done.results for line in lines])
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
        here = sum(paid(line) for rows in attempts(self.directory.file(ATTEMPTS)) for line in rows)
        left = Money(max(0, int(Money.of(self.study.budget)) - here))
        account = run_account(f"{self.study.name}-{uid}")
        by = f"study {self.study.name}"
        ledger.set_budget(Budget(account, left, warn=1.0, brake=1.0), by=by)
        paying, promised = ledger.account(account), ledger.account(promises(account))
        known = 0 if promised is None else promised.used  # questions of dead workers, too: their rest is free again
        free = 0 if paying is None else paying.left or 0
        ledger.set_budget(Budget(promises(account), Money(known + free), warn=1.0, brake=1.0), by=by)
        return account

    def _name(self, part: _Shard, study: str, uid: str) -> str:
        """Of the run: the same for the same attempts by the same code, until their lines are written."""
        again = len(list(self.directory.path.glob(f"attempts-shard-{part.number:04d}-*.jsonl")))
        told = repr((part.questions, study, self._metric(), uid)).encode()
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
    """Shards with something to do, of whole questions. What is in which depends on `every` alone."""
    whole = [tuple(ones) for _, ones in itertools.groupby(every, lambda one: (one[0], one[2]))]
    attempts_each = min(MOST, max(LEAST, -(-len(every) // SHARDS)))
    size = max(1, attempts_each * len(whole) // max(1, len(every)))
    for number, at in enumerate(range(0, len(whole), size)):
        owed = (tuple(one for one in ones if one in wanted) for ones in whole[at : at + size])
        questions = tuple(filter(None, owed))
        if questions:
            yield _Shard(number, questions)


def _plain(study: Study) -> str:
    """The study as text, for another process. Raises BadInput for objects in it."""
    said = {name: getattr(study, name) for name in sorted(study.model_fields_set)} | {"budget": None}
    for name in ("data", "metric", "program"):
        value = said.get(name)
        if value is not None and not isinstance(value, str):
            raise BadInput(f"{name}: workers can't get an object of this process; name it, like module:name")
    said.pop("policies", None)  # attempts don't hang on them
    return study.of(said).model_dump_json(include=set(said))
