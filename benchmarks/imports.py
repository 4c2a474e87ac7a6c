"""What `import escalade` costs in a fresh interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT = 0.2
"""Seconds."""

HEAVY = ("dspy", "litellm", "opentelemetry.sdk", "numpy")
_ROOT = Path(__file__).resolve().parent.parent
_TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def seconds(statement: str) -> float:
    """Seconds that the statement takes in a fresh interpreter, without the interpreter's own start."""
    return float(_python(_TIMED.format(statement)))


def heavy_modules() -> list[str]:
    """Which of HEAVY are loaded after `import escalade`."""
    return _python(f"import sys, escalade; print(*(m for m in {HEAVY} if m in sys.modules))").split()


def run(repeats: int = 7) -> list[dict[str, Any]]:
    """Median import time, and the heavy modules that came along."""
    seconds("import escalade")  # writes the byte code
    ours = statistics.median(seconds("import escalade") for _ in range(repeats))
    dspys = seconds("import dspy")
    heavy = heavy_modules()
    return [
        {
            "name": "import escalade",
            "value": ours,
            "unit": "s",
            "limit": f"< {LIMIT} s",
            "ok": ours < LIMIT,
            "ratio": ours / dspys,
            "note": "ratio to import dspy",
        },
        {
            "name": "heavy modules after import",
            "value": float(len(heavy)),
            "unit": "modules",
            "limit": "0",
            "ok": not heavy,
            "ratio": None,
            "note": ", ".join(heavy) or f"none of {', '.join(HEAVY)}",
        },
    ]
