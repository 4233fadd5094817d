"""Which points are best: non-dominated rank, hypervolume and its contributions, for any number of objectives.

Points are rows of objectives that are MINIMISED, `[n, m]` float; `objectives` turns a results table into such points.
A row with a NaN is dominated by every finite row and never counts. Computed by moocore.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import moocore
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Points = NDArray[np.float64]

OBJECTIVES = {"robust": "max", "latency_p50": "min"}
"""Column of the results table to the direction in which it is better."""


THIRD = {
    "parameters": "min",
    "macs": "min",
    "latency_p95": "min",
    "throughput": "max",
    "natural": "max",
    "robust_l2": "max",
}
"""What may be a third objective of a front, when results are looked at, and the direction in which it is better."""


def is_measured(row: Mapping[str, Any]) -> bool:
    """Whether a row of results has both objectives; that of a failure has not."""
    return all(row.get(name) is not None for name in OBJECTIVES)


def objectives(table: pa.Table, third: str | None = None) -> Points:
    """Points `[rows, 2]` of a results table: minus robust accuracy, latency p50 in ms; NaN where missing.

    With one of `THIRD` they have three columns; what is better when it is larger is negated.
    """
    columns = [
        np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=float) * (-1 if way == "max" else 1)
        for name, way in (OBJECTIVES | ({third: THIRD[third]} if third else {})).items()
    ]
    return np.column_stack(columns)


SAME_LATENCY = 1.05
"""Latencies within this ratio are equal: the timing of one network repeats within a few per cent (docs/log.md)."""

FLOOR = 0.5
"""Share of the best robust accuracy below which a point is no candidate: the fastest of all is never dominated."""


def above_floor(points: Points) -> NDArray[np.bool_]:
    """Which points `[n, m]` (minus robust accuracy, latency, ...) reach `FLOOR` times the best robust accuracy."""
    finite = np.isfinite(points).all(axis=1)
    above = np.zeros(len(points), dtype=bool)
    if finite.any():
        robust = -points[finite, 0]
        above[finite] = robust >= FLOOR * robust.max()
    return above


def is_front(points: Points) -> NDArray[np.bool_]:
    """Which points `[n, m]` no other dominates; of equal points all are on the front."""
    finite = np.isfinite(points).all(axis=1)
    front = np.zeros(len(points), dtype=bool)
    if finite.any():
        front[finite] = moocore.is_nondominated(points[finite], keep_weakly=True)
    return front


def ranks(points: Points) -> NDArray[np.int64]:
    """Non-dominated rank of each point `[n]`: 0 on the front, 1 on the front of the rest, ...; rows with NaN last."""
    finite = np.isfinite(points).all(axis=1)
    rank = np.full(len(points), len(points), dtype=np.int64)
    if finite.any():
        rank[finite] = moocore.pareto_rank(points[finite])
    return rank


def hypervolume(points: Points, reference: Points) -> float:
    """Volume dominated by the points and bounded by the reference `[m]`; 0 for no finite point."""
    points = points[np.isfinite(points).all(axis=1)]
    return float(moocore.hypervolume(points, ref=reference)) if len(points) else 0.0


SPAN = 10.0
"""The normalised hypervolume looks at latencies from the plain network's to this multiple of it."""


def normalised_hypervolume(points: Points, base: float) -> float:
    """Robust accuracy attained within a latency budget, averaged over budgets from `base` to `SPAN * base`; in [0, 1].

    Budgets are spaced evenly in the logarithm of latency: this is the hypervolume of points `[n, 2]` (minus robust
    accuracy, latency in ms) over that range, divided by its length. With `base` fixed (the plain network's p50) it
    never falls while points are added, and runs on machines of different speed can be compared.
    """
    finite = points[np.isfinite(points).all(axis=1)]
    scaled = np.column_stack([finite[:, 0], np.maximum(np.log(finite[:, 1] / base) / np.log(SPAN), 0.0)])
    return hypervolume(scaled[scaled[:, 1] < 1], np.array([0.0, 1.0]))


def contributions(points: Points, reference: Points) -> Points:
    """Hypervolume that each point `[n]` adds to all the others; 0 for NaN rows, duplicates and dominated points."""
    finite = np.isfinite(points).all(axis=1)
    gain = np.zeros(len(points))
    if finite.any():
        gain[finite] = moocore.hv_contributions(points[finite], ref=reference, ignore_dominated=False)
    return gain
