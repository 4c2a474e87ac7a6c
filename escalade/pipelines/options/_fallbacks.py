"""Fallbacks of a pipeline's nodes: kept by the pipeline, so that DSPy finds their predictors, saves and copies them.

`fallbacks["answer"]` is the one of the node `answer`, `fallbacks["answer/fallback"]` that one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from escalade.pipelines import _node
from escalade.pipelines._node import Node, Options, Prepared

SEGMENT = "fallback"
"""The path of a fallback in its node."""


def adopt(options: dict[str, Options]) -> dict[str, Any]:
    """Take the fallbacks out of the options, which keep their names and options. Raises BadInput."""
    fallbacks: dict[str, Any] = {}
    for name, own in list(options.items()):
        if own.fallback is not None and own.fallback.target is not None:
            options[name] = _without(own, name, fallbacks)
    return fallbacks


def _without(own: Options, key: str, fallbacks: dict[str, Any]) -> Options:
    fallback = own.fallback
    if fallback is None:
        return own
    _node.check_target(fallback.target, f"fallback of node {key!r}")
    fallbacks[key] = fallback.target
    inner = _without(fallback.options, f"{key}/{SEGMENT}", fallbacks)
    return replace(own, fallback=Node(None, fallback.name, inner))


def restored(own: Options, key: str, fallbacks: Mapping[str, Any]) -> Options:
    """The options with the fallbacks in them again, for another pipeline to adopt."""
    if own.fallback is None:
        return own
    inner = restored(own.fallback.options, f"{key}/{SEGMENT}", fallbacks)
    return replace(own, fallback=Node(fallbacks[key], own.fallback.name, inner))


def look(prepared: Prepared, key: str, fallbacks: Mapping[str, Any]) -> None:
    """Give a node its fallback, looked at, and that one its own. Raises BadInput."""
    own = prepared.options.fallback
    if own is not None:
        look(_node.stand_in(key, prepared, fallbacks[key], own), f"{key}/{SEGMENT}", fallbacks)


def current(prepared: Prepared, key: str, fallbacks: Mapping[str, Any]) -> bool:
    """Is each fallback still the one that was looked at?"""
    fallback = prepared.fallback
    if fallback is None:
        return True
    return fallback.target is fallbacks[key] and current(fallback, f"{key}/{SEGMENT}", fallbacks)
