"""Multi-objective asynchronous successive halving (ASHA, Li et al. 2020, 1810.05934, with Pareto ranks).

At each rung a trial is compared with those that were there before it, and goes on if it is among the best of them, one
in `one_in`. Best first means: above the floor before below it; then by non-dominated rank; within a rank by the
hypervolume that the point adds to it. The floor keeps trials that buy speed with their robustness from filling the
first rank: the fastest of all is never dominated.

Robust accuracy is an estimate from n images, and a latency repeats within a few per cent. A trial has the benefit of
that doubt: it is compared with its accuracy raised by a standard error, and with latencies that its own cannot be
told from taken as equal, so that differences inside the noise stop nobody.
"""

from __future__ import annotations

import math

import numpy as np

from ..pareto import Points, above_floor, contributions, ranks

GRACE = 4
"""Epochs before which networks of 34 layers have learnt too little to compare (digits: 10 to 25% robust after 3)."""


def rungs(epochs: int, eta: int, grace: int = GRACE) -> tuple[int, ...]:
    """Epochs at which trials are compared: `epochs`, `epochs / eta`, ..., at most four and none below `grace`."""
    found = [epochs]
    while len(found) < 4 and found[-1] // eta >= grace:
        found.append(found[-1] // eta)
    return tuple(reversed(found))


def goes_on(points: Points, index: int, one_in: int, *, error: float = 0.0, same: float = 1.0) -> bool:
    """Whether point `index` is among the best 1 / one_in of a rung's records; until there are so many, all finite are.

    Args:
        points: `[n, m]`, all minimised, column 0 minus robust accuracy; NaN rows come last and never go on.
        index: row of the trial in question.
        one_in: at least 2.
        error: by how much the trial's robust accuracy may be better than it was measured.
        same: ratio within which another trial's latency (columns 1 to m) equals the trial's own.
    """
    if not np.isfinite(points[index]).all():
        return False
    if len(points) < one_in:
        return True
    places = math.ceil(len(points) / one_in)
    finite = np.isfinite(points).all(axis=1)
    own = points[index, 1:]
    equal = (points[:, 1:] <= own * same) & (points[:, 1:] >= own / same)
    points = np.column_stack([points[:, 0], np.where(equal, own, points[:, 1:])])
    points[index, 0] -= error
    above = above_floor(points)
    if above[index]:
        group = above
    else:
        group = finite & ~above
        places -= int(above.sum())
    rank = np.full(len(points), len(points))
    rank[group] = ranks(points[group])
    places -= int((rank < rank[index]).sum())
    level = np.flatnonzero(rank == rank[index])
    if places <= 0 or len(level) <= places:
        return places > 0
    reference = points[finite].max(axis=0) + np.maximum(np.ptp(points[finite], axis=0), 1e-9) * 0.1
    gain = contributions(points[level], reference)
    return int(index) in level[np.argsort(-gain, kind="stable")[:places]]
