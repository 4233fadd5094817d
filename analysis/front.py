"""The Pareto front of a run in numbers: points, staircase and hypervolume.

Latency is minimised and robust accuracy maximised; a point is a measured (trial, epoch), over the seeds that its recipe
was trained with. The baseline is shown beside the points of the search and is never a candidate for the front.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robustsearch.errors import RunError
from robustsearch.membership import Z95, by_point, pool, probabilities
from robustsearch.pareto import THIRD, above_floor, hypervolume, is_front, objectives
from robustsearch.results import FAILED

ACCURACIES = ("natural", "fgsm", "pgd", "cw", "robust_l2")
"""What a point shows beside its robust accuracy."""

SLACK = 1.1
"""The hypervolume's reference point: this multiple of the slowest point's latency, at robust accuracy 0."""


def front_table(table: pa.Table, third: str | None = None) -> pa.Table:
    """The points of a results table, fastest first, with four more columns.

    A point with repeats has the mean of its accuracies over the seeds, an interval that covers images and seeds, and
    the median of its latencies; the repeats themselves are no points.

    `on_front`: no point of the search is better in one objective and as good in the other, or in all others where there
    is a `third` (one of `robustsearch.pareto.THIRD`); not the baseline, no point below the floor on robust accuracy,
    and none above the run's limit on latency.
    `front_probability`: how probable that is, over what images, seeds and timings leave open; null for the baseline.
    `seeds`: how many there are.
    `final`: the trial has no later measured epoch.

    Raises:
        RunError: no row was measured.
    """
    measured = table.filter(pa.array(np.isfinite(objectives(table)).all(axis=1)))
    if not measured.num_rows:
        failed = ", ".join(f"{count} {state}" for state, count in sorted(failures(table).items()))
        raise RunError(f"a front needs at least one measured trial, but the run has none ({failed or 'none failed'})")
    rows = _points(measured.to_pylist(), third)
    points = pa.Table.from_pylist(rows, schema=measured.schema)
    candidates = np.array([row["role"] == "search" and row["feasible"] is not False for row in rows], dtype=bool)
    values = np.where(candidates[:, None], objectives(points, third), np.nan)
    on_front = is_front(np.where(above_floor(values)[:, None], values, np.nan))
    last: dict[str, int] = {}
    for row in rows:
        last[row["trial"]] = max(row["epoch"], last.get(row["trial"], row["epoch"]))
    more = {
        "on_front": pa.array(on_front),
        "front_probability": pa.array([row["front_probability"] for row in rows], type=pa.float64()),
        "seeds": pa.array([row["seeds"] for row in rows], type=pa.int32()),
        "final": pa.array([last[row["trial"]] == row["epoch"] for row in rows]),
    }
    for name, column in more.items():
        points = points.append_column(name, column)
    return points.sort_by([("latency_p50", "ascending"), ("robust", "descending"), ("trial", "ascending")])


def _points(measured: list[dict[str, Any]], third: str | None) -> list[dict[str, Any]]:
    """One row a point of the search, and the rows of the baseline."""
    groups = by_point(measured)
    candidates = [row for row in measured if row["feasible"] is not False]
    estimates = pool(candidates)
    exact = None
    if third:
        sign = -1 if THIRD[third] == "max" else 1
        values = [groups[point.trial, point.epoch][0][third] for point in estimates]
        exact = np.array([np.nan if value is None else sign * value for value in values], dtype=float)
    chance = {
        (point.trial, point.epoch): (float(probability), point.error)
        for point, probability in zip(estimates, probabilities(estimates, third=exact), strict=True)
    }
    rows = []
    for group in groups.values():
        first = dict(group[0])
        probability, error = chance.get((first["trial"], first["epoch"]), (0.0, None))
        if len(group) > 1:
            for name in (*ACCURACIES, "robust"):
                values = [row[name] for row in group]
                first[name] = None if None in values else float(np.mean(values))
            if error is not None:
                first["robust_low"] = max(0.0, first["robust"] - Z95 * error)
                first["robust_high"] = min(1.0, first["robust"] + Z95 * error)
            for name in ("latency_p50", "latency_p95"):
                values = [row[name] for row in group]
                first[name] = None if None in values else float(np.median(values))
        rows.append(first | {"front_probability": probability, "seeds": len(group)})
    others = [row for row in measured if row["role"] not in ("search", "repeat")]
    return rows + [row | {"front_probability": None, "seeds": 1} for row in others]


def front_rows(points: pa.Table) -> list[dict[str, Any]]:
    """The rows of a `front_table` that are on the front, fastest first."""
    rows: list[dict[str, Any]] = points.filter(points["on_front"]).to_pylist()
    return rows


def reference_latency(points: pa.Table) -> float:
    """Latency of the reference point in ms: `SLACK` times the slowest of all points, baseline included."""
    return SLACK * float(np.max(points["latency_p50"].to_numpy()))


def front_hypervolume(points: pa.Table, third: str | None = None) -> float:
    """Area under the staircase, in accuracy x ms: what the front dominates, up to the reference point.

    With a third objective it is a volume, also in that one's unit, up to its `reference_third`.
    """
    front = points.filter(points["on_front"])
    reference = [0.0, reference_latency(points), *([reference_third(points, third)] if third else [])]
    return hypervolume(objectives(front, third), np.array(reference))


def reference_third(points: pa.Table, third: str) -> float:
    """The reference point's third coordinate: `SLACK` times the largest where small is good, else 0."""
    return SLACK * max(points[third].drop_null().to_pylist(), default=0.0) if THIRD[third] == "min" else 0.0


def staircase(points: pa.Table) -> NDArray[np.float64]:
    """Corners `[k, 2]` (latency in ms, robust accuracy) of the best accuracy attained within each latency.

    It rises from accuracy 0 at the fastest point of the front, steps up at each further one and ends at the
    reference latency. Empty for an empty front.
    """
    steps = [(row["latency_p50"], row["robust"]) for row in front_rows(points)]
    return corners(steps, reference_latency(points))


def corners(steps: Sequence[tuple[float, float]], end: float) -> NDArray[np.float64]:
    """Corners `[k, 2]` of the line that rises from 0 to each step's height at its place, and ends at `end`.

    `steps` are (latency in ms, robust accuracy), ascending in the first; one that is no higher than those before it,
    as a third objective keeps some, is no step. Empty for none.
    """
    found: list[tuple[float, float]] = []
    height = 0.0
    for latency, robust in steps:
        if robust <= height:
            continue
        found += [(latency, height), (latency, robust)]
        height = robust
    if found:
        found.append((end, height))
    return np.array(found, dtype=float).reshape(-1, 2)


def failures(table: pa.Table) -> Counter[str]:
    """How many trials failed, by state; a failed trial may still have points from its earlier epochs."""
    trials = set(zip(table["trial"].to_pylist(), table["state"].to_pylist(), strict=True))
    return Counter(state for _, state in trials if state in FAILED)
