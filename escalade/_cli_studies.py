"""`escalade run`, `escalade record` and `escalade ls`: studies from a terminal.

What the commands need is imported when they run. Progress goes to standard error, tables and JSON to the output. Exit
codes: 0; 1 for what failed on the way, also a budget that ended before all attempts were made; 2 for bad input; 100
where a --fail-if holds or a self-check fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from escalade._cli_view import new_table, print_, print_json, printing, safe, tell
from escalade.errors import BadInput

if TYPE_CHECKING:
    from escalade.evals.studies.study import Study, StudyRun

OK, INCOMPLETE = 0, 1

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


def run(
    study: str | None = None,
    *,
    dir: str | None = None,  # noqa: A002 - the option's name
    budget: str | None = None,
    retry_failed: Flag = False,
    retry_kind: str | None = None,
    runs: str | None = None,
    fail_if: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: Flag = False,
    schema: Flag = False,
) -> int:
    """Run a study, or go on with it: ask what is owed, within its budget, and compare.

    Nothing that was paid for is paid for again. What a study names as module:name is Python beside its file, and runs.

    Parameters
    ----------
    study
        A YAML, JSON or TOML file.
    dir
        The run directory; runs/NAME by default.
    budget
        Dollars that the whole study may cost, instead of what the file says.
    retry_failed
        Make attempts again that nobody answered: limits, timeouts, a provider's error.
    retry_kind
        Only those that failed so, like LMTimeoutError.
    runs
        Have workers make the attempts, as durable runs at sqlite:///PATH or postgresql://..., or as a file like
        escalade.yaml says; this process takes part. The result is the same.
    fail_if
        What must not be, as for `escalade compare`; policy stands for each of the study's. Can be repeated.
    json
        One JSON object instead of a table.
    schema
        Print the JSON schema of files of studies, for editors.
    """
    from escalade.evals.reporting.conditions import check_read
    from escalade.evals.studies.study import Study, study_schema

    if schema:
        print_json(study_schema())
        return OK
    if study is None:
        raise BadInput("run: expected a study, like study.yaml")
    check_read(fail_if or ())
    asked = Study.load(study)
    if budget is not None:
        asked = asked.with_(budget=budget)
    return _ran(asked, dir, retry_failed=retry_kind or retry_failed, json=json, runs=runs, fail_if=fail_if or ())


def record(
    program: str,
    data: str,
    *,
    metric: str,
    dir: str | None = None,  # noqa: A002 - the option's name
    budget: str | None = None,
    name: str | None = None,
    inputs: str | None = None,
    epochs: int = 1,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int | None = None,
    texts: Flag = False,
    retry_failed: Flag = False,
    retry_kind: str | None = None,
    json: Flag = False,
) -> int:
    """Try every rung of a program on every example, once for all comparisons: `escalade compare --data DIR` is free.

    Run again with the same directory it goes on where it stopped.

    Parameters
    ----------
    program
        module:name of an Escalate, or of a function that makes one.
    data
        Examples: a file (JSON lines, CSV, TSV, Parquet), dspy:NAME, module:name, or simulated:200.
    metric
        module:name of a function (example, prediction) -> 0..1, or the name of a grader.
    dir
        The run directory; runs/NAME by default.
    budget
        Dollars that it may cost, all runs together.
    name
        Of the outcomes; that of the program by default.
    inputs
        Fields that are inputs, separated by commas; those of the program by default.
    epochs
        How often each question is asked.
    limit
        Only the first so many questions.
    seed
        Of the order of attempts.
    concurrency
        Attempts at once; 16 by default.
    texts
        Keep texts of questions and answers, so that a new metric can grade them.
    retry_failed
        Make attempts again that nobody answered: limits, timeouts, a provider's error.
    retry_kind
        Only those that failed so, like LMTimeoutError.
    json
        One JSON object instead of lines.
    """
    from escalade.evals.studies.study import Study

    said: dict[str, Any] = {"name": name or program.partition(":")[2] or "recorded", "program": program, "data": data}
    said |= {"metric": metric, "budget": budget, "epochs": epochs, "limit": limit, "seed": seed, "texts": texts}
    if inputs is not None:
        said["inputs"] = tuple(one.strip() for one in inputs.split(",") if one.strip())
    if concurrency is not None:
        said["concurrency"] = concurrency
    return _ran(Study.of(said, "record"), dir, retry_failed=retry_kind or retry_failed, json=json, table=False)


def ls(
    folder: str = "runs",
    *,
    json: Flag = False,
) -> int:
    """Run directories, the latest first: attempts done and owed, dollars spent.

    Parameters
    ----------
    folder
        Where they are, or one of them.
    json
        One JSON object instead of a table.
    """
    from datetime import UTC, datetime

    from escalade.evals.studies.listing import listed

    found = listed(Path(folder))
    if json:
        told = ("name", "done", "owed", "at", "wrong")
        rows = [
            {"path": str(one.path), **{n: getattr(one, n) for n in told}, "spent": _plain(one.spent)} for one in found
        ]
        print_json({"runs": rows})
        return OK
    table = new_table("name", "done", "owed", "spent", "last", "directory")
    for one in found:
        when = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M") if one.at else ""
        spent = "" if one.spent is None else str(one.spent)
        table.add_row(safe(one.name), f"{one.done:,}", f"{one.owed:,}", spent, when, safe(one.wrong or str(one.path)))
    print_(table if found else f"no run directories in {safe(folder)}")
    return OK


def _ran(
    study: Study,
    where: str | None,
    *,
    retry_failed: bool | str,
    json: bool,
    table: bool = True,
    runs: str | None = None,
    fail_if: Sequence[str] = (),
) -> int:
    from escalade._cli_reports import Reports, said

    found = study.run(where, retry_failed=retry_failed, progress=True, runs=runs)
    for line in _said(found):
        tell(line)
    judged = Reports(found.comparison, fail_if) if table and found.comparison is not None else None
    with printing():
        if json:
            print_json(_json(found, table=table))
        elif judged is not None:
            said(judged.comparison)
        elif not table:
            told = f"{found.done:,} attempts of {found.done + found.owed:,}, {found.spent} spent"
            print_(safe(f"{found.directory}: {told}"))
    wrong = OK if judged is None else judged.code()
    return wrong or (OK if found.complete else INCOMPLETE)


def _said(found: StudyRun) -> list[str]:
    """What is owed, what failed, and what to do about it."""
    from escalade.agents.climb import usd

    said = []
    if found.owed:
        rest = (
            "what they will cost isn't known yet"
            if found.rest is None
            else f"about {usd(found.rest)} at what others cost"
        )
        said.append(f"{found.owed:,} attempts are owed ({rest}); run it again with a higher budget: {found.why}")
        if found.comparison is None:
            said.append("too few questions are complete for a comparison")
    for rung, kinds in found.failures.items():
        listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        said.append(f"{rung}: {sum(kinds.values()):,} attempts failed and count as wrong: {listed}")
    if found.failed:
        said.append(f"{found.failed:,} of them nobody answered; --retry-failed makes them again")
    return said


def _json(found: StudyRun, *, table: bool) -> dict[str, Any]:
    run = {
        "directory": str(found.directory),
        "done": found.done,
        "owed": found.owed,
        "failed": found.failed,
        "failures": found.failures,
        "spent_usd": _plain(found.spent),
        "rest_usd": _plain(found.rest),
        "why": found.why,
    }
    if not table or found.comparison is None:
        return {"run": run}
    from escalade._cli_reports import as_object

    return {**as_object(found.comparison), "run": run}


def _plain(money: Any) -> float | None:
    return None if money is None else float(money.dollars)
