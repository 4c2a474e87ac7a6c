"""A profile as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from escalade.pipelines.watching import _words
from escalade.pipelines.watching._timeline import above

if TYPE_CHECKING:
    from escalade.pipelines.watching.profile import NodeProfile, Profile

BARS = 8
"""Characters of a full bar."""


def table(profile: Profile) -> Table:
    """One line per node, and the whole as the last one. Columns with nothing to tell are left out."""
    nodes = profile.nodes
    whole = sum(node.critical for node in nodes) or 1.0
    columns = [
        ("runs", "", [_words.count(node.runs) for node in nodes]),
        ("time", _words.seconds(profile.seconds), [_words.seconds(node.seconds) for node in nodes]),
        ("p50", "", [_percentile(node, 0.5) for node in nodes]),
        ("p95", "", [_percentile(node, 0.95) for node in nodes]),
        ("queue", _some(profile.queued), [_some(node.waited + node.queued) for node in nodes]),
        ("models", _some(sum(node.models for node in nodes)), [_some(node.models) for node in nodes]),
        ("tools", _some(sum(node.tools for node in nodes)), [_some(node.tools) for node in nodes]),
        ("cost", _words.dollars(int(profile.cost)), [_words.dollars(node.cost) if node.cost else "" for node in nodes]),
    ]
    columns = [column for column in columns if any(column[2])]
    shown = Table(box=None, pad_edge=False, header_style="bold", show_footer=True, footer_style="bold")
    shown.add_column("node", f"{profile.calls} call{'s' * (profile.calls != 1)}", no_wrap=True, overflow="ellipsis")
    for name, foot, cells in columns:
        width = max(map(len, (name, foot, *cells)))
        shown.add_column(name, foot, justify="right", no_wrap=True, min_width=width)
    speed_up = f"{profile.speed_up:.1f}x at once" if profile.seconds else ""
    shown.add_column("critical path", speed_up, no_wrap=True, min_width=BARS + 5)
    if notes := [_notes(node) for node in nodes if _notes(node)]:
        shown.add_column("", style="dim", no_wrap=True, overflow="ellipsis", max_width=max(map(len, notes)))
    for number, (name, node) in enumerate(zip(_names(nodes), nodes, strict=True)):
        cells = [column[2][number] for column in columns]
        shown.add_row(escape(name), *cells, _bar(node.critical / whole), *([escape(_notes(node))] if notes else []))
    return shown


def _names(nodes: list[NodeProfile]) -> list[str]:
    """The last segments of the paths, indented as deep as the nodes are."""
    depths: dict[str, int] = {"": 0}
    names = []
    for node in nodes:
        around = above(node.path)
        while around not in depths:
            around = above(around)
        depths.setdefault(node.path, depths[around] + 1)
        names.append("  " * depths[node.path] + (node.path.removeprefix(around).lstrip("/") or "(all)"))
    return names


def html(profile: Profile) -> str:
    """The table for notebooks."""
    import io

    from rich.console import Console

    console = Console(record=True, width=140, file=io.StringIO(), force_jupyter=False)
    console.print(table(profile))
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _percentile(node: NodeProfile, share: float) -> str:
    return _words.seconds(node.percentile(share)) if node.runs > 1 else ""


def _some(seconds: float) -> str:
    return _words.seconds(seconds) if seconds > 0 else ""


def _bar(share: float) -> str:
    full = round(share * BARS)
    return f"[yellow]{'━' * full}[/][dim]{'╌' * (BARS - full)}[/] {share:4.0%}" if share > 0.0005 else ""


def _notes(node: NodeProfile) -> str:
    bad = {status: times for status, times in node.statuses.items() if status != "ok"}
    return ", ".join(f"{times} {what}" for what, times in {**bad, **node.counts}.items())
