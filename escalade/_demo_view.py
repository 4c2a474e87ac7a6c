"""What the demo shows: its steps as a live tree (plain lines where nobody watches a terminal), then the account."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from escalade import events
from escalade.money import Money
from escalade.registry.journal import Journal
from escalade.registry.ledger import Account
from escalade.scopes import Entry

_ICONS = {"done": "[green]✓[/]", "failed": "[red]✗[/]", "cancelled": "[yellow]-[/]"}
_ENDS = {events.NodeFinished: "done", events.NodeFailed: "failed", events.NodeCancelled: "cancelled"}


@dataclass
class Step:
    """One node of the pipeline. `cost`: nano-dollars. `confidence`: of its newest rung. `notes`: lines of markup."""

    name: str
    status: str = "running"
    cost: int = 0
    model_calls: int = 0
    confidence: float | None = None
    notes: list[str] = field(default_factory=list)
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"), repr=False)

    def label(self) -> RenderableType:
        """Name, cost and confidence, behind a spinner while it runs."""
        calls = f", {self.model_calls} model call{'s' * (self.model_calls != 1)}" if self.model_calls else ""
        sure = "" if self.confidence is None else f", {self.confidence:.0%} sure"
        text = f"[bold]{self.name}[/]  [dim]{Money(self.cost)}{calls}{sure}[/]"
        if self.status != "running":
            return f"{_ICONS[self.status]} {text}"
        self.spinner.update(text=Text.from_markup(text))
        return self.spinner


class Story:
    """A listener that tells what happens: a live tree on a terminal, else one line per event; nothing if `quiet`.

    `broken`: why it could not go on telling, None while it can.
    """

    def __init__(self, title: str, console: Console, *, quiet: bool = False) -> None:
        self.title, self.steps = title, dict[str, Step]()
        self._console = console
        self._live = Live(get_renderable=self.tree, console=console, refresh_per_second=12)
        self.broken: OSError | None = None
        self._shown, self._plain = console.is_terminal and not quiet, not console.is_terminal and not quiet

    def __enter__(self) -> Story:
        if self._shown:
            self._live.start()
        else:
            self._say(escape(self.title))
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            self._live.stop()

    def __call__(self, event: events.Event) -> None:
        if not event.path:
            return
        step = self.steps.setdefault(event.path, Step(event.path.rsplit("/", 1)[-1]))
        match event:
            case events.NodeFinished() | events.NodeFailed() | events.NodeCancelled():
                step.status, step.cost = _ENDS[type(event)], event.cost or 0
                self._say(f"{step.name}: {step.status}, {Money(step.cost)}")
            case events.Settled():
                step.cost += event.cost
                step.model_calls += "@" not in event.resource  # a tool's name has a version
            case events.RungTried():
                step.confidence = event.confidence
                self._note(step, f"{event.rung}: {event.confidence:.0%} sure, {Money(event.cost or 0)}")
            case events.Escalated():
                self._note(step, f"[yellow]escalates to {event.to_rung}[/]: {event.why.split(';')[0]}")
            case events.ToolCalled():
                self._note(step, f"{event.tool}: {event.outcome}, {Money(event.cost or 0)}")
            case events.ToolDenied():
                self._note(step, f"[red]{event.tool} denied[/]: {event.rule}")

    def tree(self) -> Tree:
        """The steps so far."""
        root = Tree(escape(self.title), guide_style="dim")
        branches = {"": root}
        for path, step in list(self.steps.items()):
            branch = branches[path] = branches[path.rpartition("/")[0]].add(step.label())
            for note in list(step.notes):
                branch.add(note)
        return root

    def as_dicts(self) -> list[dict[str, Any]]:
        """The steps by path, for JSON; notes without markup."""
        return [
            {
                "path": path,
                "status": step.status,
                "cost_nanos": step.cost,
                "confidence": step.confidence,
                "notes": [Text.from_markup(note).plain for note in step.notes],
            }
            for path, step in sorted(self.steps.items())
        ]

    def _note(self, step: Step, note: str) -> None:
        step.notes.append(note)
        self._say(f"{step.name}: {note}")

    def _say(self, line: str) -> None:
        if self._plain and self.broken is None:
            try:
                self._console.print(line, soft_wrap=True, highlight=False)
            except OSError as error:  # a reader that went away, a full disk: the run goes on, `main` raises it
                self.broken = error


class Books:
    """The account of a run: three counts of the same money, which must agree to the nano-dollar.

    `accounts`: of the ledger, when all is over. `ran`: how often each tool really ran.
    """

    def __init__(self, journal: Journal, accounts: list[Account], ran: dict[str, int]) -> None:
        self.calls = sorted(journal.entries(), key=_who)  # by agent: how they take turns is a matter of timing
        self.denials, self.running, self.journal = journal.denials(), journal.running(), journal.settled
        self.accounts, self._ran = accounts, ran
        self.total = Money(sum(entry.cost for entry in self.calls))

    def wrong(self) -> list[str]:
        """What doesn't agree, in words; empty when all is well."""
        found = [
            f"{account.name} has {Money(account.settled + account.overrun)}, the calls came to {self.total}"
            for account in self.accounts
            if account.settled + account.overrun != self.total
        ]
        found += [f"{account.name} still holds {Money(account.held)}" for account in self.accounts if account.held]
        found += [f"the journal has {self.journal}, the calls came to {self.total}"] * (self.journal != self.total)
        found += [f"{_label(entry)} has not ended" for entry in self.running]
        return found + [
            f"{_label(entry)} was denied and ran" for entry in self.denials if self._ran.get(entry.resource)
        ]

    def table(self) -> Table:
        """Every use: who, what, the upper bound that was reserved, what it came to."""
        table = Table(box=None, pad_edge=False, header_style="bold", footer_style="bold", show_footer=True)
        table.add_column("who", "total")
        table.add_column("used", f"{len(self.calls)} calls")
        table.add_column("reserved", justify="right", style="dim")
        table.add_column("settled", f"${self.total:.9f}", justify="right")
        for entry in self.calls:
            table.add_row(_who(entry), _label(entry), f"${Money(entry.held):.9f}", f"${Money(entry.cost):.9f}")
        for entry in self.denials:
            table.add_row(_who(entry), _label(entry), "", "[red]denied[/]")
        return table

    def verdict(self) -> str:
        """The same in sentences, as markup."""
        lines = [""]
        for account in self.accounts:
            left = "" if account.left is None else f", {Money(account.left)} left of {Money(account.limit or 0)}"
            lines.append(f"ledger   {account.name}: {Money(account.settled)} settled{left}")
        lines.append(f"journal  {self.journal} in {len(self.calls)} calls")
        for entry in self.denials:
            ran = "[red]ran all the same[/]" if self._ran.get(entry.resource) else "never ran"
            lines.append(f"denied   {_label(entry)} to {_who(entry)}, {ran}: {entry.rule}")
        lines.append("[red]they differ[/]" if self.wrong() else "[green]equal to the nano-dollar[/]")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same as numbers, for JSON. `ledger_nanos`: of all tenants."""
        spent = {account.name: account.settled + account.overrun for account in self.accounts}
        return {
            "calls": [
                {**_names(e), "held_nanos": e.held, "cost_nanos": e.cost, "outcome": e.outcome} for e in self.calls
            ],
            "denied": [{**_names(e), "rule": e.rule, "ran": self._ran.get(e.resource, 0)} for e in self.denials],
            "total_nanos": int(self.total),
            "journal_nanos": int(self.journal),
            "ledger_nanos": sum(nanos for name, nanos in spent.items() if name.startswith("tenant:")),
            "accounts_nanos": spent,
        }


def _who(entry: Entry) -> str:
    return entry.principal.user


def _label(entry: Entry) -> str:
    """`trains.search@1.2.0` for a tool, `small` for a model."""
    return f"{entry.resource}@{entry.version}" if entry.version else entry.resource


def _names(entry: Entry) -> dict[str, str]:
    return {"who": _who(entry), "used": _label(entry), "kind": entry.kind}
