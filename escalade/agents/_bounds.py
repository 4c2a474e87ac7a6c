"""What bounds the price of a request before it is sent, and what nothing bounds.

A reservation has to be an upper bound. Text is bounded by its bytes and an answer by `max_tokens`; some things that a
request may ask for aren't bounded by either. Under a budget they are refused: what nobody can bound, is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from escalade.errors import UnknownPrice

if TYPE_CHECKING:
    from dspy.lm15 import Request

    from escalade.agents.models import Model
    from escalade.scopes import Scope

_MEDIA = frozenset({"image", "audio", "video", "document", "binary"})

_HARMLESS = frozenset({"logit_bias", "metadata", "verbosity", "moderation", "reasoning_format", "prompt_caching"})
"""Provider-specific settings that can't make an answer longer, several, or another model's."""

_TIERS = frozenset({None, "auto", "default", "flex", "standard_only"})
"""Service tiers that cost the list price or less."""

_THINKING = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 24_576, "max": 32_768}
"""Tokens of thinking by effort, at least as many as any route asks for where thinking isn't part of `max_tokens`."""


def media(request: Request) -> int:
    """Images, recordings and documents in it. What they are counted at, neither their bytes nor their address says."""
    return sum(part.type in _MEDIA for part in _parts(request))


def thinking(request: Request) -> int:
    """Output tokens that come on top of `max_tokens`: Claude's budget for thinking is added to it on the wire."""
    reasoning = request.config.reasoning
    if reasoning is None or reasoning.effort == "off":
        return 0
    if reasoning.thinking_budget is not None:
        return int(reasoning.thinking_budget)
    return _THINKING.get(reasoning.effort, _THINKING["max"]) if "claude" in request.model.lower() else 0


def open_ended(request: Request, model: Model) -> str:
    """What in this request has a price without a bound, "" if nothing has."""
    extra = sorted(set(request.config.extensions or ()) - _HARMLESS)
    if extra:
        return f"the provider's own setting {extra[0]!r}"
    if any(tool.type == "builtin" for tool in request.tools or ()):
        return "a tool that the provider runs and bills"
    if request.config.service_tier not in _TIERS:
        return f"service tier {request.config.service_tier!r}"
    if model.media_tokens is None and media(request):
        return "an image, recording or document (Model(media_tokens=...) says how many tokens one is at most)"
    return ""


def check_bounded(request: Request, model: Model, scope: Scope) -> None:
    """Raises UnknownPrice for a request without an upper bound under a budget."""
    if scope.purse.limited and (what := open_ended(request, model)):
        raise UnknownPrice(f"nothing bounds the price of {what}, and the scope of model {model.name!r} has a budget")


def _parts(request: Request) -> Iterator[Any]:
    system = request.system
    for part in () if system is None or isinstance(system, str) else system:
        yield part
    for message in request.messages:
        for part in message.parts:
            yield part
            if part.type == "tool_result":
                yield from part.content
