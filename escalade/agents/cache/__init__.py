"""Answers that are there already: a cache of responses by tenant, under the gateway.

    gateway = Gateway(models, cache=ResponseCache("answers"))

Nothing is in DSPy's own slot (`dspy.cache`): that one is for the whole process, and knows neither tenants nor gateways.
`response.py` is the cache, `answering.py` the way of one call through it; `kinds.py` how long what is kept, `_key.py`
for whom, `_record.py` as what; `parsing.py` takes back what could not be parsed.
"""

from __future__ import annotations

from escalade.agents.cache.response import ResponseCache
from escalade.agents.cache.similar import Calibration, SimilarityCache
from escalade.agents.cache.usage import CacheStats, CacheUsage

__all__ = ["CacheStats", "CacheUsage", "Calibration", "ResponseCache", "SimilarityCache"]
