"""`import escalade` is cheap: applications and `escalade --help` pay only for what they use."""

from __future__ import annotations

from benchmarks import imports


def test_import_is_light() -> None:
    """It brings in neither DSPy, litellm, the OpenTelemetry SDK nor numpy."""
    assert imports.heavy_modules() == []


def test_import_is_quick() -> None:
    """It takes less than 0.2 s; the best of a few runs, since the machine may be busy."""
    assert min(imports.seconds("import escalade") for _ in range(5)) < imports.LIMIT
