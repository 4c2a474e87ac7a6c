"""Measured figures, each with its limit and, where there is one, its ratio to a peer in the same run.

A module here takes part when it has `run(repeats=5) -> list[dict]` with items
`{"name", "value", "unit", "limit", "ok", "ratio", "note"}`; `python -m benchmarks --help` tells the rest.
"""
