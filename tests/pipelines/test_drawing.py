"""Pictures: valid, readable, complete, for any graph."""

from __future__ import annotations

import io
import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import escalade
from escalade import Branch, Chain, FanOut, Loop, Map, Race, node
from escalade.errors import BadInput
from escalade.pipelines.drawing.figure import figure_of
from escalade.pipelines.drawing.layout import Block, Box, layout, width
from escalade.pipelines.drawing.mermaid import mermaid, quoted
from escalade.pipelines.pipeline import Pipeline
from escalade.pipelines.shape import shape_of

SVG = "{http://www.w3.org/2000/svg}"


def xml(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - it is our own


def one() -> int:
    return 1


async def same(x: int = 1) -> int:
    return x


class Taking(dspy.Module):
    """A module that takes whatever there is."""

    async def aforward(self, **_: Any) -> int:
        return 1


def steps(nodes: dict[str, Any]) -> Chain:
    return Chain(**nodes, inputs=["x", "xs"])


BUILD: dict[str, Any] = {
    "chain": steps,
    "fan": FanOut,
    "quorum": lambda nodes: FanOut(nodes, quorum=1),
    "join": lambda nodes: FanOut(nodes, join=lambda **results: results),
    "map": lambda nodes: Map(steps(nodes), over="xs", item="x", concurrency=3),
    "branch": lambda nodes: Branch("x", nodes, otherwise=same),
    "chosen": lambda nodes: Branch(same, nodes),
    "loop": lambda nodes: Loop(steps(nodes), most=7, until=lambda: True),
    "race": lambda nodes: Race(**nodes),
    "fallback": lambda nodes: Chain(a=node(steps(nodes), fallback=nodes.get("n1", Taking())), inputs=["x", "xs"]),
}


def build(graph: Any) -> Any:
    """A node for a random graph: ("chain", [...]) and so on, else a leaf."""
    if isinstance(graph, str):
        return {"f": same, "p": Taking(), "o": node(same, timeout=2.5, retry=3)}[graph]
    kind, parts = graph
    return BUILD[kind]({f"n{i}": build(part) for i, part in enumerate(parts)})


graphs = st.recursive(
    st.sampled_from("fpo"),
    lambda inner: st.tuples(st.sampled_from(sorted(BUILD)), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=10,
)


def pipeline_of(graph: Any) -> Pipeline:
    built: Pipeline = Chain(whole=build(graph), inputs=["x", "xs"])
    return built


def everything() -> Chain:
    """All kinds in one."""
    return Chain(
        read=node(one, timeout=5, retry=2),
        agents=FanOut(
            search=dspy.Predict("question -> train"),
            booking=Chain(x=same, y=same),
            analysis=node(same, fallback=same),
            join=lambda **results: {"text": "t"},
        ),
        choose=Branch(lambda text: "long", long=same, short=FanOut(u=same, v=same), otherwise=same),
        pages=Map(Chain(p=same, q=same), over="xs", item="x", concurrency=4),
        refine=Loop(same, until=lambda x: x > 0, most=5),
        race=Race(fast=same, slow=one),
        wide=FanOut({f"b{i}": same for i in range(40)}),
    )


# ----------------------------------------------------------------------------------------------------------- layout


def inside(box: Box, other: Box) -> bool:
    return (
        other.x <= box.x
        and other.y <= box.y
        and box.x + box.w <= other.x + other.w
        and box.y + box.h <= other.y + other.h
    )


def apart(a: Box, b: Box, space: float = 1.0) -> bool:
    beside = a.x + a.w + space <= b.x or b.x + b.w + space <= a.x
    return beside or a.y + a.h + space <= b.y or b.y + b.h + space <= a.y


def through(block: Block, box: Box) -> list[Any]:
    """Lines that cross a box, more than they touch it."""
    found = []
    for line in block.lines:
        for (ax, ay), (bx, by) in itertools.pairwise(line.points):
            left, right, top, bottom = min(ax, bx), max(ax, bx), min(ay, by), max(ay, by)
            if right > box.x + 1 and left < box.x + box.w - 1 and bottom > box.y + 1 and top < box.y + box.h - 1:
                found.append((line, box))
    return found


@settings(max_examples=60, deadline=None)
@given(graph=graphs)
def test_nothing_overlaps(graph: Any) -> None:
    """Boxes are apart, or one is in the other as the nodes are; texts fit their boxes; no line crosses a leaf, and
    labels of lines stand free.
    """
    figure = figure_of(shape_of(pipeline_of(graph)))
    picture = layout(figure)
    below = {id(f): {id(inner) for inner in f.walk()} for f in figure.walk()}
    for a, b in itertools.combinations(picture.boxes, 2):
        if id(b.figure) in below[id(a.figure)] and a.figure.cluster and a.figure.fallback is not b.figure:
            assert inside(b, a) or _in_fallback(b, a)
        else:
            assert apart(a, b), (a.figure.path, b.figure.path)
    for box in picture.boxes:
        assert max(map(width, box.words)) <= box.w
        assert len(box.words) * 16 <= box.h
        assert box.x >= 0
        assert box.x + box.w <= picture.w
        assert box.y + box.h <= picture.h
    leaves = [box for box in picture.boxes if not box.figure.cluster]
    assert not [crossed for box in leaves for crossed in through(picture, box)]
    for line in picture.lines:
        if line.label:
            w = width(line.label)
            label = Box(figure, line.at[0] - w / 2, line.at[1] - 7, w, 14)
            assert all(apart(label, box, 0.0) for box in leaves)
            assert label.x >= 0
            assert label.x + w <= picture.w
        assert all(0 <= x <= picture.w and 0 <= y <= picture.h for x, y in line.points)


def _in_fallback(box: Box, around: Box) -> bool:
    """A fallback stands beside its node, not in it."""
    stands_in = around.figure.fallback
    return stands_in is not None and any(inner is box.figure for inner in stands_in.walk()) and apart(box, around)


@settings(max_examples=25, deadline=None)
@given(graph=graphs)
def test_every_node_is_on_every_picture(graph: Any) -> None:
    """SVG is well-formed XML without ids or scripts; each node is a group with its path, once; Mermaid has its own
    node, and each arrow goes between nodes that are there.
    """
    pipeline = pipeline_of(graph)
    figure, drawing = figure_of(shape_of(pipeline)), pipeline.draw()
    root = xml(drawing.svg)
    assert root.tag == f"{SVG}svg"
    assert not [e for e in root.iter() if "id" in e.attrib or e.tag.endswith(("script", "style"))]
    tips = [group.find(f"{SVG}title") for group in root.iter(f"{SVG}g")]
    told = [tip.text.split("\n")[0] for tip in tips if tip is not None and tip.text]
    drawn = [one for one in figure.walk() if one is not figure]
    assert sorted(told) == sorted(one.full.split("\n")[0] for one in drawn)
    names, arrows = parsed(drawing.mermaid)
    assert {one.key for one in figure.walk()} <= names
    assert {end for arrow in arrows for end in arrow} <= names
    leaves = {one.key for one in figure.walk() if not one.cluster}
    assert leaves <= {end for arrow in arrows for end in arrow} | {"begin"}
    assert len(str(drawing).splitlines()) == len(list(figure.walk()))


# ---------------------------------------------------------------------------------------------------------- Mermaid

TEXT = r'"(?:[^"#<>&`\\\n]|#\w+;|<br/>)*"'
LINES = [
    r"flowchart TD",
    rf"subgraph (?P<sub>\w+)\[{TEXT}\]",
    r"direction TB",
    r"end",
    rf"(?P<node>\w+)(?:\[{TEXT}\]|\({TEXT}\)|\(\[{TEXT}\]\)|\(\({TEXT}\)\)|\{{{TEXT}\}})",
    rf"(?P<start>\w+) (?:-->|-\.->)(?:\|{TEXT}\|)? (?P<end>\w+)",
    r"classDef \w+ [\w:#,.\- ]+",
    r"class \w+ \w+",
    r"linkStyle \d+(?:,\d+)* [\w:#,\-]+",
]


def parsed(text: str) -> tuple[set[str], list[tuple[str, str]]]:
    """(ids, arrows) of a flowchart in the part of Mermaid's grammar that we use; each line has to be in it."""
    names, arrows, depth, styled = set[str](), list[tuple[str, str]](), 0, -1
    lines = text.splitlines()
    assert lines[0] == "flowchart TD"
    for line in lines:
        found = next((m for rule in LINES if (m := re.fullmatch(rule, line.strip()))), None)
        assert found is not None, line
        groups = found.groupdict()
        name = groups.get("sub") or groups.get("node")
        if name:
            assert name not in names
            assert name not in ("end", "graph", "subgraph", "class", "click", "style", "default")
            names.add(name)
        depth += line.strip().startswith("subgraph") - (line.strip() == "end")
        assert depth >= 0
        if groups.get("start"):
            arrows.append((groups["start"], groups["end"]))
        if line.strip().startswith("linkStyle"):
            styled = max(map(int, line.split()[1].split(",")))
    assert depth == 0
    assert styled < len(arrows)
    return names, arrows


@given(st.text(max_size=60))
def test_any_text_is_quoted(text: str) -> None:
    """Whatever a node is called, it ends no text and begins no markup."""
    assert re.fullmatch(TEXT, quoted(text))
    xml(Chain(a=Escaped(text)).draw().svg)


class Escaped(dspy.Module):
    """A module whose question is any text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.question = type("Question", (), {"text": text})()

    async def aforward(self) -> int:
        return 1


def test_a_branch_is_labelled_and_a_loop_leads_back() -> None:
    """Cases by what the chooser says, the way back by its bound, a race by whom it waits for."""
    text = everything().draw().mermaid
    _, arrows = parsed(text)
    assert re.search(r'\w+c -->\|"long"\| \w+', text)
    assert re.search(r'\w+c -->\|"otherwise"\| \w+', text)
    assert re.search(r'\w+ -\.->\|"at most 5 rounds"\| \w+', text)
    assert re.search(r'\w+ -\.->\|"fails"\| \w+', text)
    assert '(("first"))' in text
    assert len(arrows) < 70  # wide next to wide is joined by dots, not by each with each
    words = "\n".join(element.text or "" for element in xml(everything().draw().svg).iter())
    for said in ("long", "otherwise", "again", "first", "fails", "loop, at most 5 rounds", "… 31 more"):
        assert said in words, said


# ------------------------------------------------------------------------------------------------------- with a run


def test_the_last_run_is_on_the_picture(tmp_path: Path) -> None:
    """Times and costs on the nodes, counts and percentiles of a map, the critical path marked, what never ran faint."""

    async def slow() -> None:
        import asyncio

        await asyncio.sleep(0.03)

    pipeline = Chain(
        agents=FanOut(slow=slow, quick=one),
        choose=Branch(lambda: "a", a=one, b=one),
        pages=Map(same, over="xs", item="x"),
    )
    with escalade.JsonlEvents(tmp_path / "e.jsonl") as log, escalade.profile() as run, escalade.scope(listen=log):
        pipeline(xs=range(20))
    drawing = pipeline.draw(run)
    figures = {figure.path: figure for figure in drawing.figure.walk()}
    assert re.fullmatch(r"[\d.]+ m?s", figures["agents/slow"].run)
    assert re.fullmatch(r"20 x .*s, p95 .*s", figures["pages[*]"].run)
    assert figures["agents/slow"].critical
    assert figures["agents"].critical
    assert not figures["agents/quick"].critical
    assert figures["choose/a"].ran
    assert figures["choose/b"].ran is False
    parsed(drawing.mermaid)
    assert "linkStyle" in drawing.mermaid
    assert f"class {figures['choose/b'].key} idle" in drawing.mermaid
    assert f'-->|"{figures["agents/slow"].run}"|' in drawing.mermaid
    root = xml(drawing.svg)
    assert "#d9730d" in drawing.svg
    assert [g for g in root.iter(f"{SVG}g") if g.get("opacity")]
    again = pipeline.draw(escalade.read_events(tmp_path / "e.jsonl"))
    assert again.svg == drawing.svg
    assert "●" in str(drawing)
    assert "#d9730d" not in pipeline.draw().svg


def test_it_is_saved_in_the_form_of_its_name(tmp_path: Path) -> None:
    """SVG, Mermaid, a page, a tree; another name is refused, and nothing is written."""
    drawing = everything().draw()
    assert drawing.save(tmp_path / "a.svg").read_text("utf-8") == drawing.svg == drawing._repr_svg_()
    assert drawing.save(tmp_path / "a.mmd").read_text("utf-8") == drawing.mermaid
    assert drawing.save(str(tmp_path / "a.md")).read_text("utf-8").startswith("```mermaid\nflowchart TD\n")
    assert drawing.save(tmp_path / "a.txt").read_text("utf-8").startswith("Chain\n├── read  ")
    with pytest.raises(BadInput, match=r"\.svg, \.mmd"):
        drawing.save(tmp_path / "a.png")
    for wrong in (5, "run", [5]):
        with pytest.raises(BadInput, match="expected the events of a run, got"):
            everything().draw(wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "a.png").exists()


def test_it_is_drawn_as_it_is_now(tmp_path: Path) -> None:
    """An optimiser put another module in a node's place: the next picture has it; drawing changes nothing."""
    chain = Chain(a=dspy.Predict("q -> draft"), b=dspy.Predict("draft -> answer"))
    assert "Predict: q -#gt; draft" in chain.draw().mermaid
    chain.steps["a"] = dspy.ChainOfThought("q -> draft")
    assert "ChainOfThought: q -#gt; " in chain.draw().mermaid
    state = chain.dump_state()
    chain.draw().save(tmp_path / "a.svg")
    assert chain.dump_state() == state


def test_a_tree_for_the_terminal() -> None:
    """By rich, one line per node, with what there is to know of it."""
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(everything().draw())
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Chain"
    assert lines[1].rstrip() == "├── read  function one, 5 s at most, 2 retries"
    assert "│   │   └── fallback: same  function" in [line.rstrip() for line in lines]


def test_long_names_are_cut_and_wide_letters_take_two_places() -> None:
    """A box never gets wider than a line may be; who points at it sees all."""
    signature = ", ".join(f"field_number_{i}" for i in range(40)) + " -> answer"
    figure = figure_of(shape_of(Chain(**{"x" * 80: dspy.Predict(signature), "日本語": one})))
    picture = layout(figure)
    assert picture.w < 480
    assert figure.inside[0].title == "x" * 35 + "…"
    assert "field_number_39" in figure.inside[0].full
    assert width("日本語") == 6 * width("a")


def test_a_chain_of_a_thousand_is_drawn_by_its_ends() -> None:
    """Long chains and wide fan-outs keep their first and last, and say how many are left out."""
    figure = figure_of(shape_of(Chain(**{f"s{i}": one for i in range(1000)})))
    titles = [part.title for part in figure.inside]
    assert titles[0] == "s0"
    assert titles[-2:] == ["… 971 more", "s999"]
    assert sum(part.left_out or 1 for part in figure.inside) == 1000
    assert len(mermaid(figure)) < 5000


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here to look at a picture with")
def test_a_browser_agrees(tmp_path: Path) -> None:
    """Chromium draws the picture in its full size, and no text is wider than the box that it stands in."""
    page = tmp_path / "page.html"
    page.write_text(f"<meta charset=utf-8><body>{everything().draw().svg}<script>{MEASURE}</script>", "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--disable-quic", f"--user-data-dir={tmp_path / 'p'}"]
    try:
        seen = subprocess.run(
            ["chromium", *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"chromium does not run here: {error}")
    found = re.search(r"<pre>(\d+) boxes, (\d+) texts, too wide: (.*?)</pre>", seen)
    assert found is not None, seen[-500:]
    assert int(found[1]) > 30
    assert int(found[2]) > 60
    assert found[3] == ""


MEASURE = """
let wide = [], boxes = 0, texts = 0;
for (const g of document.querySelectorAll("svg g")) {
  const rect = g.querySelector(":scope > rect"); if (!rect) continue;
  boxes++;
  const frame = rect.getBBox();
  for (const text of g.querySelectorAll(":scope > text")) {
    texts++;
    const box = text.getBBox();
    if (box.x < frame.x || box.x + box.width > frame.x + frame.width || box.y < frame.y ||
        box.y + box.height > frame.y + frame.height) wide.push(text.textContent);
  }
}
const told = document.createElement("pre");
told.textContent = boxes + " boxes, " + texts + " texts, too wide: " + wide.join("; ");
document.body.append(told);
"""
