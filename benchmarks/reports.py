"""How heavy the page of a large comparison is, how long it takes to write, and how fast a browser filters it."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replay import world
from escalade.agents.policies import Agreement, PromptLength, Threshold
from escalade.evals.compare import compare
from escalade.evals.findings import Findings
from escalade.evals.reporting.page import page

QUESTIONS, RUNGS, POLICIES = 12_032, 29, 20
MOST_MB, MOST_MS = 15.0, 100.0

FILTERED = """() => {
  const search = document.getElementById("q-search"), taken = [];
  for (let i = 0; i < 20; i++) {
    const began = performance.now();
    search.value = "number 1" + i;
    search.dispatchEvent(new Event("input"));
    document.getElementById("q-table").getBoundingClientRect();
    taken.push(performance.now() - began);
  }
  return Math.min(...taken);
}"""


def run(repeats: int = 1) -> list[dict[str, Any]]:
    """Three figures; the last one needs playwright and a Chromium."""
    outcomes = world(QUESTIONS, RUNGS)
    texts = np.array([f"question number {i}, " + "and so on " * 30 for i in range(QUESTIONS)], dtype=object)
    outcomes = replace(outcomes, features={**outcomes.features, "text": texts})
    policies = [Threshold(0.5 + i / 40, (i, RUNGS - 1), f"threshold {i}") for i in range(POLICIES - 4)]
    policies += [Agreement(tuple(range(size)), RUNGS - 1, name=f"agreement {size}") for size in (2, 3)]
    policies += [PromptLength(chars, 0, RUNGS - 1, f"long from {chars}") for chars in (200, 300)]
    found = Findings(compare(outcomes, policies, baselines=False))
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        text = page(found)
        taken.append(time.perf_counter() - began)
    size = len(text.encode()) / 1e6
    what = f"{QUESTIONS:,} questions, {RUNGS} rungs, {len(found.comparison.rows)} policies"
    results = [_result("page", size, "MB", MOST_MB, what), _result("page, written", min(taken), "s", None, what)]
    fastest = _filtered(text)
    return [*results, *([] if fastest is None else [_result("a search", fastest, "ms", MOST_MS, "the fastest of 20")])]


def _result(name: str, value: float, unit: str, limit: float | None, note: str) -> dict[str, Any]:
    told = "reported" if limit is None else f"<= {limit:g} {unit}"
    ok = limit is None or value <= limit
    return {"name": f"reports: {name}", "value": value, "unit": unit, "limit": told, "ok": ok, "note": note}


def _filtered(text: str) -> float | None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        return None
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as running:
        written = Path(folder) / "page.html"
        written.write_text(text, "utf-8")
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        seen = browser.new_page()
        seen.goto(written.as_uri())
        fastest = float(seen.evaluate(FILTERED))
        browser.close()
    return fastest
