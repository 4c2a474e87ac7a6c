"""May what was recorded stand for what is asked now? What differs, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from escalade.errors import DataError

__all__ = ["Facts", "Grade", "check_prices", "check_rungs", "differences", "stale", "why_stale"]

Grade = Sequence[str]
"""By what a question's answers were graded: digest of the metric, digest of its labels."""


Facts = Mapping[str, Mapping[str, str]]
"""Name of a rung -> what its attempts hang on, by name, as `identity.rung_facts` tells it."""


def check_rungs(before: Mapping[str, Any], now: Sequence[Mapping[str, Any]], where: object) -> None:
    """Raises DataError where a rung of the same name isn't what was recorded."""
    known = {rung["name"]: rung for rung in before.get("rungs", ())}
    for rung in now:
        old = known.get(rung["name"])
        if old is None or old["digest"] == rung["digest"]:
            continue
        told = _changed(old.get("facts", {}), rung["facts"])
        raise DataError(
            f"{where}: rung {rung['name']!r} isn't what was recorded there: {told or 'its digest'} changed; "
            f"undo that, give the rung another name, or run the study in another directory"
        )


def differences(were: Facts, now: Facts) -> list[str]:
    """A clause for each rung that isn't what was recorded. One that the record doesn't know passes."""
    return [
        f"rung {name!r} isn't what was recorded: {told} changed"
        for name, facts in now.items()
        if name in were and (told := _changed(were[name], facts))
    ]


def check_prices(before: Mapping[str, Any] | None, now: Mapping[str, Any], where: object) -> None:
    """Raises DataError where a model has another price than the one that attempts were recorded at."""
    for name, price in now["models"].items():
        old = (before or {}).get("models", {}).get(name)
        if (
            old is None
            or old.get("id") != price.get("id")
            or all(old.get(rate) == price.get(rate) for rate in ("input", "output", "cached", "written"))
        ):
            continue
        raise DataError(
            f"{where}: model {name!r} cost {_rates(old)} when attempts were recorded and costs {_rates(price)} now, in "
            f"dollars per million tokens; state the old price with the model, or run the study in another directory"
        )


def stale(now: Mapping[str, Grade], were: Mapping[str, Grade]) -> dict[str, Grade]:
    """The questions whose grades of before don't count now, with what they were graded by."""
    return {key: were[key] for key, grade in now.items() if key in were and list(were[key]) != list(grade)}


def why_stale(before: Mapping[str, Any], metric: Mapping[str, str], found: Mapping[str, Grade]) -> str:
    """In words. `found`: what `stale` gave, one question or more."""
    others = [grade for grade in found.values() if grade[0] != metric["digest"]]
    if not others:
        return f"{len(found)} questions have other labels than when they were graded"
    old = before.get("metric") or {}
    if old.get("digest") == metric["digest"]:
        return f"another metric graded {len(others)} of the questions"
    same = old.get("name") == metric["name"]
    return f"the metric {metric['name']!r} was {'other code' if same else repr(old.get('name'))}"


def _changed(were: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = [name for name in now if now[name] != were.get(name)]
    return ", ".join(f"{name} ({_short(were.get(name))} -> {_short(now[name])})" for name in names)


def _short(fact: object) -> str:
    text = str(fact)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _rates(price: Mapping[str, Any]) -> str:
    if price.get("input") is None:
        return "an unknown price"
    return f"{price['input'] / 1e9:g} in, {price['output'] / 1e9:g} out"
