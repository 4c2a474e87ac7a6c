"""Back-pressure: 100,000 items in flat memory, in a process of its own, whose memory is nobody else's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests._house import ROOT

SCRIPT = """
import asyncio, gc, json, sys
from escalade.pipelines.map import Map

ITEMS, BASE = int(sys.argv[2]), 5_000
drawn = taken = most_ahead = 0
sizes = []


def rss():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096


async def source():
    global drawn
    for number in range(ITEMS):
        drawn += 1
        yield f"{number:01000}"  # a kilobyte each: 100 MB in all


async def work(text):
    return text[::-1]


async def broken(text):
    raise ValueError(text)


def look():
    global taken, most_ahead
    taken += 1
    most_ahead = max(most_ahead, drawn - taken)
    if taken == BASE or (taken > BASE and taken % 10_000 == 0):
        gc.collect()
        sizes.append(rss())


async def read(many):
    async for _ in many.as_completed(xs=source()):
        look()
        if taken % 50 == 0:
            await asyncio.sleep(0)  # a slow reader: all others have a turn


async def fold():
    await Map(work, over="xs", concurrency=50, reduce=lambda *_: look()).acall(xs=source())


asyncio.run({
    "read": lambda: read(Map(work, over="xs", concurrency=50)),
    "failures": lambda: read(Map(broken, over="xs", concurrency=50, errors="keep")),
    "fold": fold,
}[sys.argv[1]]())
print(json.dumps({"taken": taken, "ahead": most_ahead, "grown": (max(sizes) - sizes[0]) / 1e6}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize(("how", "items"), [("read", 100_000), ("failures", 20_000), ("fold", 30_000)])
def test_items_of_any_number_take_flat_memory(how: str, items: int) -> None:
    """Read as they finish by a slow reader, failures among them, or folded: no more than a few hundred items are ahead
    of the reader, and memory doesn't grow with their number.
    """
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, str(items)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["taken"] == items
    assert found["ahead"] <= 160  # 50 at work, 50 finished and not taken, 50 waiting to hand over
    assert found["grown"] < 8  # MB, of 100
