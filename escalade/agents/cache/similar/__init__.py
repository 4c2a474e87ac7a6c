"""Answers to questions that differ a little: off unless asked for, and only with a threshold that was measured.

rails       what must be the same, whatever the vectors say: numbers, names, negations, opposites, words
ngrams      vectors without a model or a download
cache       `SimilarityCache`: the index, the look-up, `calibrate`
"""

from __future__ import annotations

from escalade.agents.cache.similar.cache import Calibration, SimilarityCache

__all__ = ["Calibration", "SimilarityCache"]
