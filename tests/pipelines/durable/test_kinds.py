"""Branches and loops in durable runs: what was decided stays decided, and a round that was finished isn't run again."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from escalade import Branch, Chain, Loop, Runs
from escalade.errors import RunError


class Course:
    """A loop of a branch, whose chooser draws lots. `broken`: the round that fails."""

    def __init__(self, broken: int) -> None:
        self.ran: list[str] = []
        self.broken = broken
        self.lots = random.Random(5)

        async def choose(n: int) -> bool:
            self.ran.append(f"choose {n}")
            return self.lots.random() < 0.5

        async def up(n: int) -> dict[str, int]:
            return self._step("up", n)

        async def more(n: int) -> dict[str, int]:
            return self._step("more", n)

        async def enough(n: int) -> bool:
            self.ran.append(f"enough {n}")
            return n >= 6

        loop = Loop(Branch(choose, true=up, false=more), until=enough, most=9)
        self.chain = Chain(count=loop, last=lambda n: {"n": n, "ran": len(self.ran)})

    def _step(self, name: str, n: int) -> dict[str, int]:
        if n == self.broken:
            raise ValueError("broken")
        self.ran.append(f"{name} {n}")
        return {"n": n + 1}


@pytest.mark.parametrize("kept", ["memory", "file"])
def test_rounds_and_choices_are_kept(kept: str, tmp_path: Path) -> None:
    """A run that failed in its fourth round goes on there: no chooser, case or predicate of a round before runs twice,
    and each round has a place of its own in the journal.
    """
    course = Course(broken=3)
    url: Any = None if kept == "memory" else f"sqlite:///{tmp_path}/runs.sqlite"
    with Runs(url, pipelines={"count": course.chain}) as runs:
        run = runs.start("count", run_id="one", n=0)
        with pytest.raises(RunError):
            run.result(10)
        before = list(course.ran)
        assert [one for one in before if one.startswith("enough")] == ["enough 1", "enough 2", "enough 3"]
        course.broken = -1
        assert run.resume().result(10).n == 6
    after = course.ran[len(before) :]
    assert not [one for one in after if one in before]
    assert sorted(one for one in course.ran if one.startswith("enough")) == [f"enough {n}" for n in range(1, 7)]
    assert sum(one.startswith("choose") for one in course.ran) == 6
    assert sum(one.startswith(("up", "more")) for one in course.ran) == 6


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    """What a loop knows of its rounds, and a branch of its case, is read again from the store."""

    async def step(n: int) -> dict[str, int]:
        return {"n": n + 1}

    loop = Loop(Branch("kind", up=step), until=lambda n: n == 3, most=5)
    url = f"sqlite:///{tmp_path}/runs.sqlite"
    with Runs(url, pipelines={"loop": loop}) as runs:
        runs.start("loop", run_id="one", n=0, kind="up").result(10)
    with Runs(url, pipelines={"loop": loop}) as runs:
        result = runs.get("one").result(10)
    assert (result.n, result.rounds, result.ended, result.taken) == (3, 3, "until", "up")
