"""`escalade runs`: durable runs from a terminal, and `escalade worker`, which executes them.

What the commands need is imported when they run. Exit codes: 0; 1 for a store that can't be used and for what a run
isn't in the state for; 2 for what the user can put right.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from escalade._cli_view import new_table, print_, print_json, safe
from escalade.errors import BadInput

if TYPE_CHECKING:
    from escalade.pipelines.durable.runs import Runs
    from escalade.pipelines.durable.store import CallRow, RunRow, StepRow, TicketRow

OK = 0

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
State = Literal["queued", "running", "waiting", "done", "failed", "cancelled"]
Tags = Annotated[list[State] | None, Parameter(negative=())]

app = App(name="runs", help="Durable runs of pipelines: how they are, what they did, and what shall become of them.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@app.command(name="list", sort_key=1)
def list_(
    *,
    at: str = "escalade.yaml",
    status: Tags = None,
    pipeline: str | None = None,
    tenant: str | None = None,
    since: str | None = None,
    n: Annotated[int, Parameter(name="-n")] = 20,
    json: Flag = False,
) -> int:
    """Runs, the latest first.

    Parameters
    ----------
    at
        Where they are: a file like escalade.yaml, a SQLite file, or sqlite:///PATH or postgresql://...
    status
        Only these. Can be repeated.
    pipeline
        Only runs of this one.
    tenant
        Only his.
    since
        Only those that were started at this time or later, such as 2026-01-31; UTC where no zone is named.
    n
        At most so many.
    json
        One JSON object instead of a table.
    """
    from escalade.registry.audit.reading import parse_since

    after = 0.0 if since is None else parse_since(since).timestamp()
    with _opened(at) as runs:
        rows = runs.list(status=tuple(status or ()), pipeline=pipeline, tenant=tenant, since=after, limit=n)
    if json:
        print_json({"runs": [_plain(row) for row in rows]})
    else:
        _show_list(rows)
    return OK


@app.command(sort_key=2)
def show(run: str, *, at: str = "escalade.yaml", json: Flag = False) -> int:
    """All that is known of a run: what it did, what it cost, what it waits for.

    Parameters
    ----------
    run
        Its id.
    at
        Where it is: a file like escalade.yaml, a SQLite file, or sqlite:///PATH or postgresql://...
    json
        One JSON object instead of text.
    """
    with _opened(at) as runs:
        row, store = runs.get(run).row(), runs.host.store
        kept, tickets, events = store.kept(run), store.tickets(run), store.events(run)
    if json:
        told = {
            "steps": [_step(one) for one in kept.steps],
            "calls": [_call(one) for one in kept.calls],
            "waits_for": [_ticket(one) for one in tickets],
            "events": [_read(one.told) for one in events],
        }
        print_json({**_plain(row), "inputs": _read(row.inputs), "result": _read(row.result), **told})
    else:
        _show(row, list(kept.steps), list(kept.calls), tickets, len(events))
    return OK


@app.command(sort_key=3)
def resume(run: str, *, at: str = "escalade.yaml", force: Flag = False) -> int:
    """Have a run that failed or was cancelled go on, where it stood.

    Parameters
    ----------
    run
        Its id.
    at
        Where it is: a file like escalade.yaml, a SQLite file, or sqlite:///PATH or postgresql://...
    force
        Also when its pipeline is arranged in another way now; needs a file that names its pipelines.
    """
    with _opened(at, pipelines=force) as runs:
        runs.get(run).resume(force=force)
        print_(safe(f"{run}: queued; it goes on where processes execute its runs"))
    return OK


@app.command(sort_key=4)
def cancel(run: str, *, at: str = "escalade.yaml") -> int:
    """Cancel a run. What it holds of budgets is settled.

    Parameters
    ----------
    run
        Its id.
    at
        Where it is: a file like escalade.yaml, a SQLite file, or sqlite:///PATH or postgresql://...
    """
    with _opened(at, books=True) as runs:
        status = runs.cancel(run)
    print_(safe(f"{run}: {'is being cancelled' if status == 'running' else status}"))
    return OK


@app.command(sort_key=5)
def answer(
    ticket: str,
    said: str,
    *,
    by: str,
    role: Annotated[list[str] | None, Parameter(negative=())] = None,
    tenant: str | None = None,
    edited: str | None = None,
    at: str = "escalade.yaml",
) -> int:
    """Answer a question that a run waits for. It goes on.

    Parameters
    ----------
    ticket
        The question's, as `escalade runs show` says.
    said
        approve or reject, one of the options, or words, as the question wants it.
    by
        Who answers; it is kept with the answer.
    role
        One of his roles. Can be repeated.
    tenant
        His tenant; that of the run by default.
    edited
        What may be changed, as it is to be; JSON for what is no text.
    at
        Where it is: a file like escalade.yaml, a SQLite file, or sqlite:///PATH or postgresql://...
    """
    from escalade.scopes import Principal

    with _opened(at) as runs:
        found = runs.host.store.ticket(ticket)
        whose = tenant or (runs.get(found.run_id).row().tenant if found is not None else "") or "default"
        new = None if edited is None else _edited(edited, found)
        runs.answer(ticket, said, by=Principal(by, whose, frozenset(role or ())), edited=new)
    print_(f"{safe(ticket)}: answered by {safe(by)}")
    return OK


def _edited(text: str, ticket: TicketRow | None) -> Any:
    """Words for text, JSON for anything else. Raises BadInput."""
    from json import loads

    asked = {} if ticket is None else loads(ticket.asked)
    if isinstance(asked.get("shown", {}).get(asked.get("edit", ""), ""), str):
        return text
    try:
        return loads(text)
    except ValueError:
        raise BadInput(f"--edited: expected JSON, since {asked['edit']!r} is no text, got {text!r}") from None


@app.command(sort_key=6)
def prune(*, older_than: str, at: str = "escalade.yaml", status: Tags = None) -> int:
    """Forget runs that ended long ago, with all that they did.

    Parameters
    ----------
    older_than
        How long ago, like 30d, 12h or 90m.
    at
        Where they are: a file like escalade.yaml, a SQLite file, or sqlite:///PATH or postgresql://...
    status
        Only these; done, failed and cancelled by default. Can be repeated.
    """
    from escalade.pipelines.durable.store import ENDED

    wanted = tuple(status or ENDED)
    for one in wanted:
        if one not in ENDED:
            raise BadInput(f"--status: only runs that have ended are forgotten ({', '.join(ENDED)}), not {one}")
    with _opened(at, books=True) as runs:
        count = runs.prune(older_than=_seconds(older_than), status=wanted)
    print_(f"{count:,} runs forgotten")
    return OK


@app.command(sort_key=7)
def schema() -> int:
    """The JSON schema of files like escalade.yaml, for editors."""
    from escalade.pipelines.durable.config import config_schema

    print_json(config_schema())
    return OK


def worker(
    target: str | None = None,
    *,
    concurrency: int | None = None,
    queue: Annotated[list[str] | None, Parameter(negative=())] = None,
    name: str | None = None,
    drain: float = 30.0,
    health: float = 60.0,
) -> int:
    """Execute runs until told to stop: SIGTERM or Ctrl-C, twice for at once.

    Start as many as you like, on one host over a SQLite file, on any over PostgreSQL. When one dies, the others take
    over its runs within seconds; what these had done isn't done again.

    Parameters
    ----------
    target
        A file like escalade.yaml (that of this folder by default), or MODULE:ATTRIBUTE of a Runs object.
    concurrency
        Runs at once, of each queue; what the file says by default.
    queue
        Only runs of this queue. Can be repeated.
    name
        Of this process; a free one by default. Two live processes never have the same.
    drain
        Seconds in which runs may end when it is told to stop; the rest is handed back.
    health
        Seconds between two lines about how it is; 0 for none.
    """
    from escalade.pipelines.durable.worker import Worker, leave, opened

    if concurrency is not None and concurrency < 1:
        raise BadInput(f"--concurrency: expected 1 or more, got {concurrency}")
    if drain < 0 or health < 0:
        raise BadInput("--drain, --health: expected seconds, 0 or more")
    runs = opened(target, concurrency=concurrency, queues=tuple(queue or ()), name=name)
    leave(Worker(runs, drain=drain, health=health).run())


# ---------------------------------------------------------------------------------------------------------- which runs


class _Bystander:
    """An engine that leaves it to others: they look into the store."""

    def attach(self, host: Any) -> None: ...
    def submit(self, run: Any) -> None: ...
    def cancel(self, run_id: str) -> None: ...
    def recover(self) -> int:
        return 0

    def close(self, timeout: float | None = None) -> None: ...


def _opened(at: str, *, pipelines: bool = False, books: bool = False) -> Runs:
    """The runs there. `books`: with the ledger that has their accounts. Raises BadInput."""
    from escalade.pipelines.durable.config import load_config
    from escalade.pipelines.durable.runs import Runs
    from escalade.registry.ledger import Ledger

    if Path(at).suffix in {".yaml", ".yml", ".json", ".toml"}:
        config = load_config(at)
        _check_there(config.url)
        engine = config.engine(workers=0) if config.spec.engine == "dbos" else _Bystander()
        return config.runs(engine=engine, pipelines=pipelines)
    if pipelines:
        raise BadInput("--force: which pipelines there are now stands in a file: --at escalade.yaml")
    url = at if "://" in at else f"sqlite:///{at}"
    _check_there(url)
    return Runs(url, engine=_Bystander(), ledger=None if books else Ledger())


def _check_there(url: str) -> None:
    """Raises BadInput, where a file would be made."""
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        raise BadInput(f"there are no runs at {path!r}: say --at escalade.yaml, or where the store is")


def _seconds(text: str) -> float:
    """`30d`, `12h`, `90m`, `45s`, `2w`. Raises BadInput."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if found is None:
        raise BadInput(f"--older-than: expected a time like 30d, 12h or 90m, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


# ---------------------------------------------------------------------------------------------------------- showing it


def _plain(row: RunRow) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "run": row.run_id,
        "pipeline": row.pipeline,
        "status": row.status,
        "stopping": row.stopping,
        "tenant": row.tenant,
        "principal": _read(row.principal),
        "priority": row.priority,
        "attempts": row.attempts,
        "owner": row.owner,
        "forked_from": row.forked_from,
        "created": _moment(row.created),
        "began": _moment(row.started),
        "ended": _moment(row.ended),
        "deadline": _moment(row.deadline or 0.0),
        "budget": None if row.budget is None else _dollars(row.budget),
        "spent": _dollars(row.spent),
        "error": _read(row.error),
    }


def _step(row: StepRow) -> dict[str, Any]:
    from escalade.pipelines.durable.run import shown

    return {"path": shown(row.path), "result": _read(row.value)}


def _call(row: CallRow) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "resource": row.resource,
        "state": row.state,
        "cost": _dollars(row.cost),
        "at": _moment(row.at),
    }


def _ticket(row: TicketRow) -> dict[str, Any]:
    return {"ticket": row.ticket, "asked": _read(row.asked), "until": _moment(row.expires or 0.0)}


def _read(text: str | bytes | None) -> Any:
    from json import loads

    return None if not text else loads(text)


def _dollars(nanos: int) -> str:
    from escalade.money import Money

    return format(Money(nanos).dollars, "f")


def _moment(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None


_COLOURS = {"done": "green", "failed": "red", "cancelled": "yellow", "waiting": "cyan", "running": "bold"}


def _coloured(status: str) -> str:
    colour = _COLOURS.get(status)
    return status if colour is None else f"[{colour}]{status}[/]"


def _show_list(rows: list[RunRow]) -> None:
    if not rows:
        print_("no runs")
        return
    table = new_table("run", "pipeline", "status", "tenant", "started", "took", "attempts", "spent", "")
    for row in rows:
        took = "" if not (row.started and row.ended) else f"{row.ended - row.started:,.1f} s"
        why = "" if row.error is None else str(_read(row.error).get("message", ""))
        texts = (row.tenant, _moment(row.created) or "", took, str(row.attempts), f"${_dollars(row.spent)}", why)
        table.add_row(safe(row.run_id), safe(row.pipeline), _coloured(row.status), *map(safe, texts))
    table.columns[0].overflow = "fold"  # what one has to copy is never cut
    print_(table)


def _show(row: RunRow, steps: list[StepRow], calls: list[CallRow], tickets: list[TicketRow], events: int) -> None:
    facts = {name: value for name, value in _plain(row).items() if value not in (None, "", False)}
    print_(f"[bold]{safe(row.run_id)}[/]  {_coloured(row.status)}")
    table = new_table("", "")
    for name, value in facts.items():
        if name not in {"run", "status", "error"}:
            table.add_row(f"[bold]{name.replace('_', ' ')}[/]", safe(str(value)))
    print_(table)
    _show_steps(steps)
    _show_calls(calls)
    for ticket in tickets:
        asked = _read(ticket.asked)
        print_(f"[cyan]waits[/] for an answer to {safe(ticket.ticket)}: {safe(asked['question'])}")
        if asked["shown"]:
            print_(f"  about {safe(_short(asked['shown']))}")
        print_(f"  to be answered by {safe(_wanted(asked))}")
    if events:
        print_(f"{events:,} events; --json shows them")
    if row.error is not None:
        print_(f"[red]failed[/]: {safe(str(_read(row.error).get('message', '')))}")
    elif row.result is not None:
        print_(f"[green]result[/]: {safe(_short(_read(row.result)))}")


def _show_steps(steps: list[StepRow]) -> None:
    if not steps:
        return
    table = new_table("step", "result")
    for one in map(_step, steps):
        table.add_row(safe(one["path"]), safe(_short(one["result"])))
    print_(table)


def _show_calls(calls: list[CallRow]) -> None:
    if not calls:
        return
    table = new_table("call", "of", "state", "cost", "at")
    for one in map(_call, calls):
        table.add_row(one["kind"], safe(one["resource"]), one["state"], f"${one['cost']}", one["at"] or "")
    print_(table)


def _wanted(asked: dict[str, Any]) -> str:
    """What may be said to a question, and by whom."""
    said = "words" if asked["text"] else " or ".join(asked["options"] or ("approve", "reject"))
    return f"{said}, by one with the role {asked['role']}" if asked["role"] else said


def _bare(value: Any) -> Any:
    """What was kept, as people read it: a Prediction is its fields, whatever else has a kind is what is in it."""
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {name: _bare(one) for name, one in value.items()}
    inner = value.get("v")
    return _bare(inner["store"] if isinstance(inner, dict) and "store" in inner else inner)


def _short(value: Any) -> str:
    from json import dumps

    text = value if isinstance(value, str) else dumps(_bare(value), ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:99]}…"
