"""Budgets in a file, `budgets.yaml`, or the same as JSON or TOML.

    version: 1
    budgets:
      - {account: everything, limit: "500", period: month}
      - {account: "tenant:*", limit: "25.00", period: day}
      - {account: "tenant:acme", limit: "100.00", period: day, warn: 0.7, brake: 0.9}
      - {account: "user:acme/*", limit: "2.50", period: day}
      - {account: request, limit: "0.50"}

Dollars are quoted: YAML would make floats of them. `data/budgets.schema.json` describes the form, for
editors; `escalade budget schema` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from escalade.errors import BadInput
from escalade.registry.access.files import read_file
from escalade.registry.budgets import Budget
from escalade.registry.places import Place, Problem, key_of, lines_of

SCHEMA_FILE = Path(__file__).with_name("data") / "budgets.schema.json"
"""JSON schema of files of budgets, as it was published with this version."""

_TOP = ("$schema", "version", "budgets")
_FIELDS = ("account", "limit", "period", "warn", "brake")


def load_budgets(path: str | PathLike[str]) -> tuple[Budget, ...]:
    """The budgets of the file. Raises BadInput: `FILE:LINE: KEY: what is wrong`."""
    file = Path(path)
    text, written = read_file(file)
    lines = lines_of(file, text)

    def wrong(place: Place, what: object) -> BadInput:
        return BadInput(str(Problem(str(file), lines(place), key_of(place), str(what))))

    if not isinstance(written, Mapping) or not isinstance(written.get("budgets"), list):
        raise wrong((), "expected a mapping with the key 'budgets', and a list of budgets in it")
    for key in written:
        if key not in _TOP:
            raise wrong((str(key),), f"unknown key (known: {', '.join(_TOP[1:])})")
    if written.get("version", 1) != 1:
        raise wrong(("version",), f"version {written['version']!r} is not known (known: 1)")
    found: dict[str, Budget] = {}
    for i, said in enumerate(written["budgets"]):
        try:
            budget = _budget(said)
        except BadInput as error:
            raise wrong(("budgets", i), error) from None
        if budget.account in found:
            raise wrong(("budgets", i), f"account {budget.account!r} is there twice")
        found[budget.account] = budget
    return tuple(found.values())


def _budget(said: Any) -> Budget:
    if not isinstance(said, Mapping) or not {"account", "limit"} <= said.keys():
        raise BadInput('expected a mapping with account and limit, like {account: everything, limit: "500"}')
    for key in said:
        if key not in _FIELDS:
            raise BadInput(f"unknown key {key!r} (known: {', '.join(_FIELDS)})")
    limit = said["limit"]
    if isinstance(limit, bool) or not isinstance(limit, str | int):
        raise BadInput(f'limit: expected dollars in quotes, like "{limit}", got {limit!r}')
    for key in ("warn", "brake"):
        if not isinstance(said.get(key, 1.0), int | float) or isinstance(said.get(key), bool):
            raise BadInput(f"{key}: expected a share between 0 and 1, got {said[key]!r}")
    if not isinstance(said["account"], str):
        raise BadInput(f"account: expected text, got {said['account']!r}")
    return Budget(**{**said, "limit": str(limit)})


def budgets_schema() -> dict[str, Any]:
    """The JSON schema of files of budgets."""
    share = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    dollars = {
        "anyOf": [{"type": "string", "pattern": r"^\$?[0-9][0-9_]*(\.[0-9]+)?$"}, {"type": "integer", "minimum": 0}]
    }
    account = r"^(everything|request|tenant:(\*|[^*/]+)|user:(\*/\*|[^*/]+/\*|[^*/]+/[^*]+))$"
    fields = {
        "account": {"type": "string", "pattern": account, "description": "Whose money; a star is an account of each."},
        "limit": {**dollars, "description": "Dollars, in quotes."},
        "period": {"enum": ["none", "day", "month"], "default": "none", "description": "Calendar periods in UTC."},
        "warn": {**share, "default": 0.8, "description": "Share of the limit at which listeners are warned."},
        "brake": {**share, "default": 0.95, "description": "Share of the limit at which escalation stops."},
    }
    budget = {"type": "object", "required": ["account", "limit"], "additionalProperties": False, "properties": fields}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Budgets of escalade",
        "type": "object",
        "required": ["budgets"],
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string"},
            "version": {"const": 1},
            "budgets": {"type": "array", "items": budget},
        },
    }
