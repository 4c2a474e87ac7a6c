"""Quality against cost: one figure for a policy, or for a family of policies, in the plane of both.

Cost is in any unit that is the same for all points, quality in 0..1.

    hull        RouterBench (Hu et al. 2024, arXiv 2403.12031), "non-decreasing convex hull": what random mixes of some
                points reach, never falling as more is spent; of the constants alone it is their "zero router"
    aiq         RouterBench: the mean height of that hull between two costs, 1 / (b - a) times its integral. There a
                and b are those of the router's own points; here they are given, the same for all that are compared
    area        the same mean of a curve as it is, without its hull: the quality of a family whose money is spread
                evenly from a to b. Nobody's standard: published "AUC" differ in their axes and ranges
    ibc         AutoMix (Aggarwal et al. 2023, arXiv 2310.12963): incremental benefit per cost, (P - P_slm)/(C - C_slm)
    delta_ibc   AutoMix: (ibc - ibc of always the large model) / the latter; 0.5 is "50 %" there. Above 0, a dollar
                buys more than on the line from the small to the large model
    perf_gain   LLMRouterBench (Li et al. 2026, arXiv 2601.07206): quality relative to the best single model's, less 1
    cost_save   LLMRouterBench: the share of the best single model's cost that is saved by a policy which is at least as
                good; None where it isn't. The paper takes the best, the cheapest of a router's settings; here each
                policy is one setting. That is known from summaries of the paper, its formulas may differ in detail
    pareto_distances   LLMRouterBench names a distance to the Pareto frontier. Here: Euclidean, to the nearest point of
                the frontier, cost and quality both scaled to 0..1 by the least and the greatest of the points that are
                compared; so it depends on what is compared. The paper's scaling may be another
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from escalade.errors import BadInput
from escalade.evals.curves import frontier

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["aiq", "area", "cost_save", "delta_ibc", "hull", "ibc", "pareto_distances", "perf_gain", "reached"]


def hull(cost: ArrayLike, quality: ArrayLike) -> tuple[Floats, Floats]:
    """Costs and qualities of the corners, cheapest first, both rising strictly; beyond the last one it is level.

    Left of the first corner there is nothing: no mix is cheaper than the cheapest point. Raises BadInput.
    """
    x, y = _points(cost, quality)
    order = np.lexsort((-y, x))
    corners: list[tuple[float, float]] = []
    for a, b in zip(x[order].tolist(), y[order].tolist(), strict=True):
        if corners and b <= corners[-1][1]:
            continue
        while len(corners) > 1 and _bends_up(corners[-2], corners[-1], (a, b)):
            corners.pop()
        corners.append((a, b))
    return np.array([a for a, _ in corners]), np.array([b for _, b in corners])


def reached(at: ArrayLike, cost: ArrayLike, quality: ArrayLike) -> Floats:
    """The quality of the hull of these points at other costs; nan below the cheapest one. Raises BadInput."""
    x, y = hull(cost, quality)
    where = np.asarray(at, dtype=np.float64)
    return np.where(where < x[0], np.nan, np.interp(where, x, y))


def aiq(cost: ArrayLike, quality: ArrayLike, a: float, b: float) -> float | None:
    """Average quality on the hull from cost `a` to `b`; None where `b` isn't above `a`, or the hull begins later."""
    x, y = hull(cost, quality)
    return None if x[0] > a else area(x, y, a, b)


def area(cost: ArrayLike, quality: ArrayLike, a: float, b: float) -> float | None:
    """Mean height from `a` to `b` of the line through these points, whose costs don't fall; level beyond its ends.

    None where `b` isn't above `a`. Raises BadInput.
    """
    x, y = _points(cost, quality)
    if bool((np.diff(x) < 0).any()):
        raise BadInput("a curve's points are in the order of their costs")
    if not b > a:
        return None
    inside = (x > a) & (x < b)
    grid = np.concatenate(([a], x[inside], [b]))
    height = np.concatenate(([np.interp(a, x, y)], y[inside], [np.interp(b, x, y)]))
    return float(np.trapezoid(height, grid) / (b - a))


def ibc(quality: float, cost: float, small_quality: float, small_cost: float) -> float | None:
    """Benefit for each unit of cost over the small model's; None where it costs no more than that."""
    return (quality - small_quality) / (cost - small_cost) if cost > small_cost else None


def delta_ibc(quality: float, cost: float, small: tuple[float, float], large: tuple[float, float]) -> float | None:
    """`small`, `large`: (quality, cost) of the two models. None where one of the benefits is unknown, or the large
    model's isn't above 0: there is nothing to be relative to.
    """
    own, line = ibc(quality, cost, *small), ibc(*large, *small)
    return None if own is None or line is None or line <= 0 else own / line - 1.0


def perf_gain(quality: float, best_quality: float) -> float | None:
    """Relative to the best single model's; None where that is 0."""
    return quality / best_quality - 1.0 if best_quality > 0 else None


def cost_save(quality: float, cost: float, best_quality: float, best_cost: float) -> float | None:
    """Share of the best single model's cost that is saved, negative where it costs more; None where it is worse."""
    return 1.0 - cost / best_cost if best_cost > 0 and quality >= best_quality else None


def pareto_distances(cost: ArrayLike, quality: ArrayLike) -> Floats:
    """(m,) distance of each point to the nearest one of their frontier, 0 for those on it; nan where it is unknown."""
    x, y = np.asarray(cost, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    on = frontier(x, y)
    if not on.any():
        return np.full(len(x), np.nan)
    x, y = _scaled(x), _scaled(y)
    far = np.hypot(x[:, None] - x[on][None, :], y[:, None] - y[on][None, :])
    nearest: Floats = far.min(axis=1)
    return nearest


def _bends_up(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Does b lie on or below the line from a to c?"""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def _scaled(values: Floats) -> Floats:
    known = values[~np.isnan(values)]
    span = float(known.max() - known.min()) if len(known) else 0.0
    return (values - known.min()) / span if span > 0 else np.where(np.isnan(values), np.nan, 0.0)


def _points(cost: ArrayLike, quality: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(cost, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not len(x) or bool((np.isnan(x) | np.isnan(y)).any()):
        raise BadInput(f"need costs and qualities of 1 point or more, all of them known; got {x.shape} and {y.shape}")
    return x, y
