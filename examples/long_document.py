"""A long document, page by page: progress while it is read, summaries as they come, and where the time went.

    python examples/long_document.py

On a terminal the run is a live tree. The events and a picture of the run are kept in files; `results=True` hands over
what each node returns as soon as it does, so there is something to show long before the end. Then the same pipeline
runs as a durable one, which is stopped in the middle and goes on; its result is found again by its id.
"""

import asyncio
import time

import dspy
import rich

import escalade
from escalade import Chain, FanOut, Gateway, Map, Runs, SimModel, World
from escalade.pipelines.events import NodeResult, RunFinished

PAGES = [f"Page {n}: the harbour of Aveiro in the year {1900 + n}, its salt and its boats." for n in range(40)]
DOCUMENT = "\n\n".join(PAGES)
QUESTION = "What became of the harbour?"


def split(document: str) -> dict[str, list[str]]:
    """A node may say how far it is."""
    pages = document.split("\n\n")
    for number, _ in enumerate(pages, 1):
        escalade.progress(number, len(pages), message="pages found")
    return {"pages": pages}


def facts(results: list[dspy.Prediction]) -> dict[str, list[str]]:
    """A function is a node, too."""
    return {"facts": [result.gist for result in results]}


analysis = Chain(
    split=split,
    summaries=Map(dspy.Predict("page -> gist"), over="pages", item="page", concurrency=8),
    facts=facts,
    views=FanOut(
        verdict=dspy.ChainOfThought("question, facts -> verdict"),
        words=lambda facts: len(" ".join(facts).split()),
    ),
)

world = World(
    {"small": SimModel(skill=1.0, price_in="0.10", price_out="0.40", latency=0.05)},
    tasks={
        **{page: f"{page.partition(':')[0]}: salt and boats" for page in PAGES},
        QUESTION: "It went on trading salt.",
    },
)
analysis.set_lm(Gateway(world.as_models()).lm("small"))


async def read(profile: escalade.Profile) -> tuple[list[str], dspy.Prediction]:
    """Follow one run: (what there was to show before the end, the result)."""
    early = []
    with (
        escalade.live(analysis),
        escalade.JsonlEvents("document-events.jsonl") as log,
    ):
        async with escalade.scope(budget="0.05", deadline=60, listen=[log, profile]):
            async for event in analysis.stream(document=DOCUMENT, question=QUESTION, results=True):
                if isinstance(event, NodeResult) and event.path.startswith("summaries["):
                    early.append(event.result.gist)
                elif isinstance(event, RunFinished):
                    return early, event.result
    raise AssertionError("a stream ends with the result, or by raising")


def opened() -> Runs:
    """The store of all analyses, as each process opens it."""
    return Runs("sqlite:///documents.sqlite", pipelines={"analysis": analysis})


def start(runs: Runs) -> escalade.Run:
    """The analysis of the document: a new run, or the one of this id."""
    return runs.start("analysis", run_id="harbour-1900", budget="0.05", document=DOCUMENT, question=QUESTION)


profile = escalade.profile()
early, result = asyncio.run(read(profile))
analysis.draw(profile).save("document.svg")
rich.print(profile)
print(f"first of {len(early)}: {early[0]}")
print(f"verdict: {result.verdict.verdict} ({profile.cost}, {profile.speed_up:.0f}x at once)")

with opened() as runs:  # … and stopped, as by a deployment, when a few pages have been read
    interrupted = start(runs)
    while len(interrupted.calls()) < 8:
        time.sleep(0.01)

with opened() as runs:
    run = start(runs)
    there = len(run.calls())
    kept = run.result(timeout=60)
    print(f"stopped after {there} answers of {len(run.calls())}; those were not paid again: {kept.verdict.verdict}")

asked = world.calls["small"]
with opened() as runs:  # another day
    found = start(runs).result()
    print(f"found again: {found.verdict.verdict}, {found.words} words, {world.calls['small'] - asked} calls of models")
