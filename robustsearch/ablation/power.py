"""How many seeds an ablation needs, before it is run."""

from __future__ import annotations

import math

from scipy import stats

MOST_SEEDS = 1000


def power(
    resolution: float,
    spread: float,
    seeds: int,
    *,
    images: int | None = None,
    accuracy: float = 0.5,
    level: float = 0.05,
) -> float:
    """Probability that `statistics.paired` finds a true difference significant at this level.

    Args:
        resolution: the difference.
        spread: standard deviation between seeds of the difference of two rows.
        seeds: trials of each row.
        images: images behind each accuracy; None for what has none.
        accuracy: about that of both rows, for the images' part; 0.5 is the most careful.
        level: two-sided. For the first of m comparisons by Holm: 0.05 / m.
    """
    between = spread**2 / seeds
    total = between + (2 * accuracy * (1 - accuracy) / images if images else 0.0)
    if total == 0:
        return 1.0
    degrees = (seeds - 1) * total / between if between else math.inf
    shift = abs(resolution) / math.sqrt(total)
    if degrees > 1e4:
        critical = stats.norm.isf(level / 2)
        return float(stats.norm.sf(critical - shift) + stats.norm.cdf(-critical - shift))
    critical = stats.t.isf(level / 2, degrees)
    found = float(stats.nct.sf(critical, degrees, shift) + stats.nct.cdf(-critical, degrees, shift))
    return 1.0 if math.isnan(found) else found  # scipy's answer where the shift is far above any critical value


def seeds_needed(
    resolution: float,
    spread: float,
    *,
    images: int | None = None,
    accuracy: float = 0.5,
    comparisons: int = 1,
    level: float = 0.05,
    wanted: float = 0.8,
) -> int | None:
    """The fewest seeds with which a difference of `resolution` is found with probability `wanted`.

    It must pass the hardest of Holm's tests, at `level / comparisons`. The other arguments are those of `power`.

    Returns:
        At least 2; None where no number up to `MOST_SEEDS` does: what is in doubt then is the images.
    """
    for seeds in range(2, MOST_SEEDS + 1):
        found = power(resolution, spread, seeds, images=images, accuracy=accuracy, level=level / comparisons)
        if found >= wanted:
            return seeds
    return None


def detectable(
    spread: float,
    seeds: int,
    *,
    images: int | None = None,
    accuracy: float = 0.5,
    comparisons: int = 1,
    level: float = 0.05,
    wanted: float = 0.8,
) -> float:
    """The smallest difference in (0, 1) that so many seeds find with probability `wanted`; 1 where they find none.

    The arguments are those of `seeds_needed`.
    """
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        found = power(middle, spread, seeds, images=images, accuracy=accuracy, level=level / comparisons)
        low, high = (low, middle) if found >= wanted else (middle, high)
    return high
