"""The commands. Each is one call into the rooms; what they need is imported when they run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

import escalade
from escalade import (
    _cli_access,
    _cli_audit,
    _cli_budget,
    _cli_live,
    _cli_models,
    _cli_reports,
    _cli_runs,
    _cli_serve,
    _cli_sources,
    _cli_studies,
    _cli_tools,
)
from escalade._cli_chosen import Chosen, compared, names
from escalade._cli_view import printing, silence, tell
from escalade.errors import BadInput, EscaladeError

app = App(
    name="escalade",
    help="DSPy agents that climb to a dearer rung only when it pays.",
    version=f"escalade {escalade.__version__}",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)

app.command(_cli_tools.app)
app.command(_cli_models.app)
app.command(_cli_models.route)
_cli_tools.app.command(_cli_serve.serve, sort_key=11)
_cli_tools.app.command(_cli_sources.sources, sort_key=9)
_cli_tools.app.command(_cli_sources.accept, sort_key=10)
app.command(_cli_access.access)
app.command(_cli_access.approvals)
app.command(_cli_audit.app)
app.command(_cli_budget.app)
app.command(_cli_runs.app)
app.command(_cli_runs.worker)
app.command(_cli_studies.run)
app.command(_cli_studies.record)
app.command(_cli_studies.ls)
app.command(_cli_live.confirm)
app.command(_cli_reports.show)
app.command(_cli_reports.plot)
app.command(_cli_reports.export)

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""


@app.command(sort_key=1)
def compare(
    *,
    data: str | None = None,
    chosen: Chosen = _cli_reports.EVERYTHING,
    metrics: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    tables: str | None = None,
    html: str | None = None,
    markdown: str | None = None,
    fail_if: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    live: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    policy: str | None = None,
    how: _cli_live.Live = _cli_live.USUAL,
) -> int:
    """Compare routing policies on recorded outcomes: quality and cost, on paired data.

    Without options it replays the line-up on the data that ships with escalade: 1,319 questions of GSM8K, answered by
    a 1.5B model at four token budgets, Mixtral-8x7B and GPT-4. No key, no network. Exit code 100 where a --fail-if
    holds or a self-check fails.

    Parameters
    ----------
    data
        A run directory, PATH or LOADER:PATH, with loader routellm (CSV or folder), long (CSV, TSV) or jsonl; guessed
        where not named.
    metrics
        Show APGR and CPT of the policies that have a score, too; always shown on RouteLLM's files.
    tables
        Further tables, by their names or those of rooms that make some, separated by commas; `escalade show` has all.
    html
        Write everything as one page to this file, as `escalade plot` does.
    markdown
        Write a report for a pull request to this file.
    fail_if
        What must not be, like "policy.quality < baseline - 2", where policy stands for each of --policies; qualities in
        points, cost in dollars per 1,000 questions. Can be repeated.
    json
        One JSON object instead of a table.
    live
        Run --policy live, too, and say whether it lies in the interval of its replay; exit code 100 if not, 101
        if it can't be told. What follows says how, as for `escalade confirm`.
    policy
        The policy that is run live; the one of --policies by default.
    """
    if live:
        _cli_live.check(data, policy or chosen.policies)
    comparison = compared(data, chosen, metrics=metrics)
    if live:
        return _cli_live.compared_live(data, comparison, policy or chosen.policies, how, json=json)
    reports = _cli_reports.Reports(comparison, fail_if or (), names(chosen.policies), tables)
    with printing():
        if json:
            sys.stdout.write(reports.json())
        else:
            reports.show()
    with printing():
        reports.write(html=html, markdown=markdown)
    return reports.code()


@app.command(sort_key=2)
def demo(
    *,
    seed: int = 7,
    fast: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    slow: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    json: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> int:
    """Three agents, two governed tools, one budget: offline, in a few seconds.

    Parameters
    ----------
    seed
        Of the simulated world.
    fast
        Models answer at once.
    slow
        Models take their time.
    json
        One JSON object instead of the show.
    """
    from escalade.demo import main as run

    return run(seed=seed, json=json, fast=fast, slow=slow)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 2 for what the user can put right, 1 for any other failure."""
    try:
        result = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (CycloptsError, BadInput) as error:
        return _told(str(error), BAD_INPUT)
    except EscaladeError as error:
        return _told(str(error), FAILED)
    except BrokenPipeError:  # the reader has seen enough (`| head`)
        silence()
        return OK
    except OSError as error:  # a full disk
        silence()
        return _told(f"can't go on: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _told("interrupted", INTERRUPTED)
    except SystemExit as error:  # no command ends so: a policy, a metric or a module that was named did
        result = _told(f"code that was called ended the program: SystemExit({error})", FAILED)
    return result if isinstance(result, int) else OK


def _told(message: str, code: int) -> int:
    tell(f"error: {' '.join(message.split())}")
    return code
