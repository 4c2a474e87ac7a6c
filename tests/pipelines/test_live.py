"""The live tree: what it shows, how little it costs, and what it shows where there is no terminal."""

from __future__ import annotations

import asyncio
import io
import re
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import escalade
from escalade import Chain, FanOut, Map, events, node, scopes
from escalade.errors import BadInput
from escalade.pipelines.events import Event, NodeFinished, NodeStarted, RunFinished, RunStarted, Settled
from escalade.pipelines.pipeline import Pipeline
from escalade.pipelines.watching._rows import Rows
from escalade.pipelines.watching.live import Live, live

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def terminal(height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, height=height, color_system=None)


def pipe() -> Console:
    """What is no terminal."""
    return Console(file=io.StringIO(), force_terminal=False, width=200)


def written(console: Console) -> str:
    return ESCAPES.sub("", console.file.getvalue())


def looks(shown: Live) -> list[str]:
    """Its lines as they are now."""
    console = Console(width=140, file=io.StringIO())
    console.print(shown)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


async def nap(seconds: float = 0.01) -> None:
    await asyncio.sleep(seconds)


def pay(amount: int) -> Any:
    def node() -> None:
        here = scopes.require()
        here.purse.reserve(amount).settle(amount)
        events.emit(here, Settled, resource="m", cost=amount)

    return node


def test_a_finished_run_is_a_tree_with_times_and_dollars() -> None:
    """All nodes under those they are in, ticked, with what they cost; the total and what is left below."""
    console = terminal()
    with live(console=console) as shown, escalade.scope(budget="1.00", deadline=60):
        Chain(a=FanOut(b=pay(2_000_000), c=Chain(d=nap)), e=pay(5_000_000))()
    lines = looks(shown)
    assert [re.sub(r"(\w\)?)\s{2,}.*", r"\1", line) for line in lines[:-1]] == [
        "✓ Chain(a, e)", "├─ ✓ a", "│  ├─ ✓ b", "│  └─ ✓ c", "│     └─ ✓ d", "└─ ✓ e",
    ]  # fmt: skip
    assert "$0.0070" in lines[0]
    assert "$0.0020" in lines[1]
    assert "$0.0070, $0.99 left of the budget" in lines[-1]
    assert "until the deadline" in lines[-1]
    assert lines[-1].endswith("2 calls")
    assert "✓ Chain(a, e)" in written(console)


def test_nodes_that_wait_are_shown_before_they_begin() -> None:
    """Of the pipelines that were named, also those whose turn never comes."""

    async def fails() -> None:
        raise ValueError("boom\nand more")

    pipeline = Chain(a=fails, b=Map(nap, over="xs"))
    with live(pipeline, console=terminal()) as shown, pytest.raises(ValueError, match="boom"):
        pipeline(xs=[])
    lines = looks(shown)
    assert lines[1].startswith("├─ ✗ a")
    assert "ValueError: boom and more" in lines[1]
    assert lines[2] == "└─ · b"


def test_a_map_is_one_line_with_a_count() -> None:
    """Its items are counted, against their number where that is known; what is in them stands under it."""
    seen: list[str] = []

    def work(x: int) -> int:
        if x == 7:
            seen.extend(looks(shown))
        return x

    with live(console=terminal()) as shown:
        Chain(m=Map(Chain(inner=work), over="xs", item="x", concurrency=1))(xs=list(range(20)))
        Map(work, over="xs")(xs=(x for x in range(100, 105)))
    assert re.search(r"^└─ . m\s+━+╌+ 7/20", seen[1])
    assert re.search(r"^   └─ . inner\s+7", seen[2])
    lines = looks(shown)
    assert re.search(r"└─ ✓ m\s+━{12} 20/20", lines[1])
    assert re.search(r"✓ Map\(worker\)\s+5\s", lines[3])


def test_an_optional_node_that_fails_is_counted_once() -> None:
    """It is skipped, and as many are done as there are."""
    rows = Rows({})

    def broken(x: int) -> int:
        raise ValueError("no")

    with escalade.scope(listen=rows.hear):
        Map(node(broken, optional=True), over="xs")(xs=[1, 2, 3])
    (root,) = rows.roots.values()
    (items,) = root.inside.values()
    assert (items.skipped, items.failed, items.ended) == (3, 0, 3)


def test_progress_of_a_node_is_a_bar() -> None:
    """What `escalade.progress` said, with its message."""
    seen: list[str] = []

    def read() -> None:
        escalade.progress(3, 12, message="page three")
        seen.extend(looks(shown))

    with live(console=terminal()) as shown:
        Chain(read=read)()
    assert "━━━╌╌╌╌╌╌╌╌╌ 3/12" in seen[1]
    assert seen[1].endswith("page three")


def test_wide_fan_outs_are_collapsed() -> None:
    """Of 2,000 branches, those that failed and some that run are shown, the others are counted."""
    seen: list[str] = []

    async def fails() -> None:
        seen.extend(looks(shown))
        raise ValueError("boom")

    with live(console=terminal()) as shown, pytest.raises(ValueError, match="boom"):
        FanOut({**{f"b{i}": nap for i in range(2000)}, "bad": fails})()
    assert len(seen) < 15
    assert "1,993 more" in seen[-2]
    after = looks(shown)
    assert len(after) < 15
    assert any(line.startswith("├─ ✗ bad") for line in after)


def test_it_is_never_higher_than_the_terminal() -> None:
    """Many nodes in many nodes: the lines that don't fit are counted."""
    console = terminal(height=20)
    with live(console=console) as shown:
        FanOut({f"f{i}": FanOut({f"g{j}": nap for j in range(10)}) for i in range(10)})()
    assert len(looks(shown)) <= 18
    assert any("more lines" in line for line in looks(shown))
    with live(console=terminal(), lines=5) as shown:
        FanOut({f"f{i}": nap for i in range(10)})()
    assert len(looks(shown)) == 5


def test_events_come_quickly_and_pictures_slowly() -> None:
    """100,000 items take the memory of one; an event costs little, however many there are; ten pictures a second."""
    console, n = terminal(), 50_000
    head: dict[str, Any] = {"seq": 1, "time": 1.0, "run_id": "r", "call": 1}
    drawn = 0
    with Live(console=console) as shown:
        shown(RunStarted(path="", pipeline="Map(worker)", **head))
        began = time.perf_counter()
        for i in range(n):
            path = f"[{i}]"
            shown(NodeStarted(path=path, of=n, **head))
            shown(NodeFinished(path=path, seconds=0.1, cost=3, **head))
        took = time.perf_counter() - began
        shown(RunFinished(path="", result=None, seconds=1.0, **head))
    drawn = written(console).count("Map(worker)")
    assert took / n / 2 < 100e-6  # 9 us on a quiet machine
    assert drawn <= 10 * took + 5
    assert len(shown._rows._known) == 2


def test_without_a_terminal_there_are_lines() -> None:
    """One per node that ends, with what failed; of a map and of a wide fan-out one a second, not one per item."""
    console = pipe()
    with live(console=console), escalade.scope(budget="1"):
        Chain(a=pay(1_000_000), m=Map(nap, over="xs", item="seconds"), w=FanOut({f"b{i}": nap for i in range(100)}))(
            xs=[0.0] * 500
        )
    lines = [line.split("  ", 1)[-1].split(" s  ", 1)[-1].strip() for line in written(console).splitlines()]
    assert lines[0] == "Chain(a, m, w): begins"
    assert re.fullmatch(r"a: done in .*, \$0\.0010", lines[1])
    assert "m: 500/500" in lines
    assert lines[-1].startswith("Chain(a, m, w): done in ")
    assert len(lines) < 15
    assert "\x1b" not in console.file.getvalue()


def test_a_reader_of_the_lines_may_leave() -> None:
    """A closed pipe ends the lines and not the run."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    class Raising(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    with live(console=Raising(file=Closed())):
        assert Chain(a=lambda: 1)().a == 1


def test_as_a_listener_it_begins_and_ends_with_the_runs() -> None:
    """Handed to a scope it needs no block of its own, and no thread stays behind."""
    console = pipe()
    before = threading.active_count()
    with escalade.scope(listen=live(console=console)):
        Chain(a=nap)()
        Chain(b=nap)()
    text = written(console)
    assert "a: done in" in text
    assert "b: done in" in text
    assert threading.active_count() <= before + 1  # a thread that waits for the next blocking node
    assert not [t for t in threading.enumerate() if t.name == "escalade-live"]


async def test_it_watches_async_runs() -> None:
    """`async with`, and runs at once, which share the rows of their nodes."""
    async with live(console=terminal()) as shown:
        chain = Chain(a=nap)
        await asyncio.gather(*[chain.acall() for _ in range(5)])
    assert re.search(r"✓ Chain\(a\)\s+5", looks(shown)[0])
    assert re.search(r"└─ ✓ a\s+5", looks(shown)[1])


def test_who_listens_twice_hears_once() -> None:
    """By a block and to the scope in it: nothing is counted twice."""
    profile = escalade.profile()
    with live(console=terminal()) as shown, profile, escalade.scope(budget="1", listen=[shown, profile]):
        Chain(a=pay(5_000_000))()
    assert "$0.0050" in looks(shown)[1]
    assert profile.cost == 5_000_000
    assert profile.calls == 1


def test_a_second_one_on_the_same_terminal() -> None:
    """Blocks in blocks show their runs, whoever began first."""
    console = terminal()
    with live(console=console) as outer, live(console=console) as inner:
        Chain(a=nap)()
    assert looks(outer)[1].startswith("└─ ✓ a")
    assert looks(inner)[1].startswith("└─ ✓ a")


def test_what_can_not_be_watched_is_refused() -> None:
    """A function, or room for no line at all."""
    with pytest.raises(BadInput, match="expected pipelines"):
        live(lambda: 1)
    with pytest.raises(BadInput, match="4 or more"):
        live(lines=1)


graphs = st.recursive(
    st.just("leaf"),
    lambda inner: st.tuples(st.sampled_from(["chain", "fan", "map"]), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=8,
)


def _built(graph: Any, failing: bool) -> Any:
    if graph == "leaf":
        return (lambda: 1 // 0) if failing else (lambda: 1)
    kind, parts = graph
    nodes = {f"n{i}": _built(part, failing and i == len(parts) - 1) for i, part in enumerate(parts)}
    if kind == "map":
        return Chain(make=lambda: {"xs": [1, 2]}, m=Map(Chain(**nodes), over="xs", item="x"))
    return Chain(**nodes) if kind == "chain" else FanOut(nodes)


@settings(max_examples=20, deadline=None)
@given(graph=graphs, failing=st.booleans())
def test_every_graph_can_be_shown_at_any_time(graph: Any, failing: bool) -> None:
    """After each event it can be drawn, within its lines; at the end nothing runs, and each node has one line."""
    pipeline: Pipeline = Chain(whole=_built(graph, failing))
    shown = Live(pipeline, console=pipe(), lines=12)
    heights = []

    def draw(event: Event) -> None:
        if event.seq % 5 == 0:
            heights.append(len(looks(shown)))

    try:
        with escalade.scope(listen=[shown, draw]):
            pipeline()
    except ZeroDivisionError:
        assert failing
    assert max(heights, default=0) <= 12
    assert not any(row.running for row in shown._rows._known.values())
    paths = [path for _, path in shown._rows._known]
    assert len(paths) == len(set(paths))
