"""The Pareto front of a run in numbers: points, staircase and hypervolume.

Latency is minimised and robust accuracy maximised; a point is a measured (trial, epoch). The baseline is
shown beside the points of the search and is never a candidate for the front.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robustsearch.errors import RunError
from robustsearch.pareto import above_floor, hypervolume, is_front, objectives
from robustsearch.results import FAILED

SLACK = 1.1
"""The hypervolume's reference point: this multiple of the slowest point's latency, at robust accuracy 0."""


def front_table(table: pa.Table) -> pa.Table:
    """The measured rows of a results table, fastest first, with two more columns.

    `on_front`: no point of the search is better in one objective and as good in the other; not the baseline, and no
    point below the floor on robust accuracy.
    `final`: the trial has no later measured epoch.

    Raises:
        RunError: no row was measured.
    """
    measured = table.filter(pa.array(np.isfinite(objectives(table)).all(axis=1)))
    if not measured.num_rows:
        failed = ", ".join(f"{count} {state}" for state, count in sorted(failures(table).items()))
        raise RunError(f"a front needs at least one measured trial, but the run has none ({failed or 'none failed'})")
    searched = np.array(measured["role"].to_pylist()) == "search"
    on_front = np.zeros(measured.num_rows, dtype=bool)
    candidates = np.where(above_floor(objectives(measured)[searched])[:, None], objectives(measured)[searched], np.nan)
    on_front[searched] = is_front(candidates)
    trials, epochs = measured["trial"].to_pylist(), measured["epoch"].to_pylist()
    last: dict[str, int] = {}
    for trial, epoch in zip(trials, epochs, strict=True):
        last[trial] = max(epoch, last.get(trial, epoch))
    final = [last[trial] == epoch for trial, epoch in zip(trials, epochs, strict=True)]
    points = measured.append_column("on_front", pa.array(on_front)).append_column("final", pa.array(final))
    return points.sort_by([("latency_p50", "ascending"), ("robust", "descending"), ("trial", "ascending")])


def front_rows(points: pa.Table) -> list[dict[str, Any]]:
    """The rows of a `front_table` that are on the front, fastest first."""
    rows: list[dict[str, Any]] = points.filter(points["on_front"]).to_pylist()
    return rows


def reference_latency(points: pa.Table) -> float:
    """Latency of the reference point in ms: `SLACK` times the slowest of all points, baseline included."""
    return SLACK * float(np.max(points["latency_p50"].to_numpy()))


def front_hypervolume(points: pa.Table) -> float:
    """Area under the staircase, in accuracy x ms: what the front dominates, up to the reference point."""
    front = points.filter(points["on_front"])
    return hypervolume(objectives(front), np.array([0.0, reference_latency(points)]))


def staircase(points: pa.Table) -> NDArray[np.float64]:
    """Corners `[k, 2]` (latency in ms, robust accuracy) of the best accuracy attained within each latency.

    It rises from accuracy 0 at the fastest point of the front, steps up at each further one and ends at the
    reference latency. Empty for an empty front.
    """
    corners: list[tuple[float, float]] = []
    height = 0.0
    for row in front_rows(points):
        corners += [(row["latency_p50"], height), (row["latency_p50"], row["robust"])]
        height = row["robust"]
    if corners:
        corners.append((reference_latency(points), height))
    return np.array(corners, dtype=float).reshape(-1, 2)


def failures(table: pa.Table) -> Counter[str]:
    """How many trials failed, by state; a failed trial may still have points from its earlier epochs."""
    trials = set(zip(table["trial"].to_pylist(), table["state"].to_pylist(), strict=True))
    return Counter(state for _, state in trials if state in FAILED)
