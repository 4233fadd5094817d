"""Multi-objective asynchronous successive halving (ASHA, Li et al. 2020, 1810.05934, with Pareto ranks).

At each rung a trial is compared with those that were there before it, and goes on if it is among the best 1 / eta of
them. Best first means: above the floor before below it; then by non-dominated rank; within a rank by the hypervolume
that the point adds to it. The floor keeps trials that buy speed with their robustness from filling the first rank: the
fastest of all is never dominated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..pareto import Points, above_floor, contributions, ranks

LOWEST = 4
"""Epochs before which networks of 34 layers have learnt too little to compare (digits: 10 to 25% robust after 3)."""


def rungs(epochs: int, eta: int) -> tuple[int, ...]:
    """Epochs at which trials are compared: `epochs`, `epochs / eta`, ..., at most four and none below `LOWEST`."""
    found = [epochs]
    while len(found) < 4 and found[-1] // eta >= LOWEST:
        found.append(found[-1] // eta)
    return tuple(reversed(found))


def order(points: Points) -> NDArray[np.int64]:
    """Indices of points `[n, m]`, best first; column 0 is minus robust accuracy, all are minimised, NaN comes last."""
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        return np.arange(len(points))
    below = ~above_floor(points)
    rank = np.full(len(points), len(points))
    gain = np.zeros(len(points))
    reference = points[finite].max(axis=0) + np.maximum(np.ptp(points[finite], axis=0), 1e-9) * 0.1
    for group in (finite & ~below, finite & below):
        rank[group] = ranks(points[group])
        for level in np.unique(rank[group]):
            same = group & (rank == level)
            gain[same] = contributions(points[same], reference)
    return np.lexsort((-gain, rank, below, ~finite))


def goes_on(points: Points, index: int, eta: int) -> bool:
    """Whether point `index` of the rung's records `[n, m]` is among its best 1 / eta; all are until there are eta."""
    if len(points) < eta:
        return bool(np.isfinite(points[index]).all())
    best = order(points)[: -(-len(points) // eta)]
    return bool(np.isfinite(points[index]).all() and index in best)
