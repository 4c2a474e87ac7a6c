"""A long document, page by page: progress while it is read, summaries as they come, and where the time went.

    python examples/long_document.py

On a terminal the run is a live tree. The result, the events and a picture of the run are kept in files; `results=True`
hands over what each node returns as soon as it does, so there is something to show long before the end.
"""

import asyncio
import json
from pathlib import Path

import dspy
import rich

import escalade
from escalade import Chain, FanOut, Gateway, Map, SimModel, World
from escalade.pipelines.events import NodeResult, RunFinished

PAGES = [f"Page {n}: the harbour of Aveiro in the year {1900 + n}, its salt and its boats." for n in range(40)]
DOCUMENT = "\n\n".join(PAGES)
QUESTION = "What became of the harbour?"


def split(document: str) -> dict:
    """A node may say how far it is."""
    pages = document.split("\n\n")
    for number, _ in enumerate(pages, 1):
        escalade.progress(number, len(pages), message="pages found")
    return {"pages": pages}


def facts(results: list) -> dict:
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


async def read(profile: escalade.Profile) -> tuple[list[str], dspy.Prediction]:
    """Follow one run: (what there was to show before the end, the result)."""
    early = []
    with (
        escalade.live(analysis),
        escalade.JsonlEvents("document-events.jsonl") as log,
        dspy.context(lm=Gateway(world.as_models()).lm("small")),
    ):
        async with escalade.scope(budget="0.05", deadline=60, listen=[log, profile]):
            async for event in analysis.stream(document=DOCUMENT, question=QUESTION, results=True):
                if isinstance(event, NodeResult) and event.path.startswith("summaries["):
                    early.append(event.result.gist)
                elif isinstance(event, RunFinished):
                    return early, event.result
    raise AssertionError("a stream ends with the result, or by raising")


profile = escalade.profile()
early, result = asyncio.run(read(profile))
verdict = result.verdict.verdict
Path("document.json").write_text(json.dumps({"verdict": verdict, "words": result.words}), "utf-8")
analysis.draw(profile).save("document.svg")
rich.print(profile)
print(f"first of {len(early)}: {early[0]}")
print(f"verdict: {verdict} ({profile.cost}, {profile.speed_up:.0f}x at once)")
