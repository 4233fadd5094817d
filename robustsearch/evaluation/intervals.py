"""The interval of an accuracy."""

from __future__ import annotations

import math

from ..membership import Z95


def wilson(mean: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval (1927) for a mean of `n` values in [0, 1].

    Exact in form for correct/incorrect; for correctness averaged over draws it is conservative, because such values
    vary less than coin flips of the same mean.
    """
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
