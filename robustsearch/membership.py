"""How sure it is that a point belongs to the front, from its images, its seeds and its timings.

A point is a (recipe, epoch), measured with one seed or more. Its robust accuracy is the mean over the seeds, with two
sources of error: the n images, the same ones for every seed, and the seeds. So its variance is

    p (1 - p) / n + s^2 / seeds

where s^2, the variance between seeds, is pooled over all points that have several and shrunk towards `SEED_SPREAD`: two
or three seeds of one point alone say little about it. Errors of different points are taken as independent. They share
their images, so differences between points are known better than that: a probability near 1/2 overstates the doubt.

Networks of one structure are equally fast, however they were trained: they have one latency, with one error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .devices import is_comparable, reference_device
from .pareto import FLOOR, SAME_LATENCY, above_floor, is_front

Z95 = 1.959963984540054
"""0.975 quantile of the standard normal."""

SEED_SPREAD = 0.02
"""Standard deviation of robust accuracy between seeds that is assumed before any point has two; counts as `SEED_WEIGHT`
degrees of freedom."""
SEED_WEIGHT = 4
AT_A_TIME = 10**6
"""Points times draws that are looked at together."""
WITHIN = 3.5
"""Standard errors beyond which an accuracy is taken as impossible."""

STRUCTURE = {
    "model": ("depth", "widen_factor"),
    "lwta": ("units", "gate"),
    "pni": ("where", "granularity"),
    "smoothing": ("at_inference",),
}
"""Recipe fields, beside `draws`, that a deployed network's latency depends on."""


def standard_error(robust: float, images: int | None) -> float:
    """Binomial standard error of an accuracy in [0, 1] on so many images; 0 where their number is unknown."""
    return math.sqrt(max(0.0, robust * (1 - robust)) / images) if images else 0.0


@dataclass(frozen=True)
class Point:
    """One (recipe, epoch) over its seeds."""

    trial: str
    """The trial that the sampler asked for."""
    epoch: int
    seeds: int
    robust: float
    """Mean over the seeds."""
    error: float
    """Standard error of `robust`, over images and seeds."""
    latency: float
    """Median of the p50 over all rows of its structure, ms."""
    structure: str
    """What its latency depends on."""


def by_point(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """The measured rows of the search by point: (trial, epoch), with those of the trial's repeats behind its own.

    Rows that were timed on another device than the reference (`devices`) are left out.
    """
    rows = list(rows)
    reference = reference_device(rows)
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    leaders: dict[str, str] = {}
    repeats = []
    for row in rows:
        if not all(_finite(row.get(name)) for name in ("robust", "latency_p50")) or not is_comparable(row, reference):
            continue
        if row["role"] == "search":
            leaders.setdefault(row["digest"], row["trial"])
            groups[row["trial"], row["epoch"]] = [row]
        elif row["role"] == "repeat":
            repeats.append(row)
    for row in repeats:
        if group := groups.get((leaders.get(row["digest"], ""), row["epoch"])):
            group.append(row)
    return groups


def pool(rows: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The points of measured rows, as `by_point` finds them; a row's `recipe` (JSON) tells its structure."""
    groups = by_point(rows)
    structures = {key: _structure(group[0]) for key, group in groups.items()}
    times: dict[str, list[float]] = {}
    for key, group in groups.items():
        times.setdefault(structures[key], []).extend(row["latency_p50"] for row in group)
    latencies = {structure: float(np.median(found)) for structure, found in times.items()}
    freedom, squares = float(SEED_WEIGHT), SEED_WEIGHT * SEED_SPREAD**2
    for group in groups.values():
        robust = [row["robust"] for row in group]
        freedom, squares = freedom + len(robust) - 1, squares + float(np.var(robust)) * len(robust)
    points = []
    for (trial, epoch), group in groups.items():
        mean = float(np.mean([row["robust"] for row in group]))
        error = math.hypot(standard_error(mean, group[0].get("n")), math.sqrt(squares / freedom / len(group)))
        structure = structures[trial, epoch]
        points.append(Point(trial, epoch, len(group), mean, error, latencies[structure], structure))
    return points


def probabilities(
    points: list[Point], *, third: NDArray[np.float64] | None = None, draws: int = 2000, seed: int = 0
) -> NDArray[np.float64]:
    """Probability of each point `[n]` to be on the front, by Monte Carlo over what the points may truly be.

    A `third` objective `[n]`, minimised, is taken as known exactly; a NaN in it is never on the front.

    An accuracy is normal around its mean, cut at 0 and 1; a latency log-normal, with two standard deviations at
    `SAME_LATENCY`. A draw counts as on the front what no other dominates and what lies above the floor.
    """
    robust = np.array([point.robust for point in points])
    error = np.array([point.error for point in points])
    latency = np.array([point.latency for point in points])
    alone = np.zeros(len(points)) if third is None else third
    possible = np.flatnonzero(_possible(robust, error, latency, third) & np.isfinite(alone))
    counts = np.zeros(len(points))
    if not len(possible):
        return counts
    generator = np.random.default_rng(seed)
    shape = (draws, len(possible))
    accuracies = np.clip(robust[possible] + error[possible] * generator.standard_normal(shape), 0, 1)
    _, kinds = np.unique([points[index].structure for index in possible], return_inverse=True)
    noise = generator.standard_normal((draws, kinds.max() + 1))[:, kinds]
    times = latency[possible] * np.exp(math.log(SAME_LATENCY) / 2 * noise)
    if third is None:
        at_a_time = max(1, AT_A_TIME // len(possible))
        for start in range(0, draws, at_a_time):
            block = slice(start, start + at_a_time)
            above = accuracies[block] >= FLOOR * accuracies[block].max(axis=1, keepdims=True)
            counts[possible] += (fronts(accuracies[block], times[block]) & above).sum(axis=0)
        return counts / draws
    for accuracy, time in zip(accuracies, times, strict=True):
        draw = np.column_stack([-accuracy, time, alone[possible]])
        counts[possible] += is_front(np.where(above_floor(draw)[:, None], draw, np.nan))
    return counts / draws


def fronts(accuracy: NDArray[np.float64], time: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other of their row dominates, `[draws, points]`: `is_front` of many draws at once.

    By rising time, of equal times by falling accuracy: what no one before beats in accuracy, and no one faster equals.
    """
    order = np.lexsort((-accuracy, time), axis=1)
    ordered, at = (np.take_along_axis(values, order, axis=1) for values in (accuracy, time))
    before = np.maximum.accumulate(ordered, axis=1)[:, :-1]
    rises = np.column_stack([np.ones(len(order), dtype=bool), ordered[:, 1:] > before])
    best = np.maximum.accumulate(np.where(rises, np.arange(order.shape[1]), 0), axis=1)
    same = [values == np.take_along_axis(values, best, axis=1) for values in (ordered, at)]
    found = np.empty(order.shape, dtype=bool)
    np.put_along_axis(found, order, same[0] & same[1], axis=1)
    return found


def _possible(
    robust: NDArray[np.float64],
    error: NDArray[np.float64],
    latency: NDArray[np.float64],
    third: NDArray[np.float64] | None,
) -> NDArray[np.bool_]:
    """Which points no other surely dominates: only they need draws."""
    possible: NDArray[np.bool_]
    if third is not None:
        sure = robust - WITHIN * error
        fast = latency / SAME_LATENCY**WITHIN
        beaten = [
            bool(((sure > best) & (latency < time) & (third <= size)).any())
            for best, time, size in zip(robust + WITHIN * error, fast, third, strict=True)
        ]
        return ~np.array(beaten, dtype=bool)
    order = np.argsort(latency, kind="stable")
    surely = np.maximum.accumulate((robust - WITHIN * error)[order])
    rivals = np.searchsorted(latency[order], latency / SAME_LATENCY**WITHIN)  # those that are surely faster
    best = np.where(rivals > 0, surely[np.maximum(rivals - 1, 0)], -np.inf)
    possible = robust + WITHIN * error >= best
    return possible


def _structure(row: Mapping[str, Any]) -> str:
    """What the latency of a row's network depends on, of its recipe, of what pruning has left, and of the machine."""
    recipe = json.loads(row["recipe"] or "{}")
    found: dict[str, Any] = {"draws": recipe.get("draws")} | {name: row.get(name) for name in ("blocks_kept", "device")}
    for section, names in STRUCTURE.items():
        part = recipe.get(section)
        found[section] = part and [part.get(name) for name in names]  # another version may lack some
    return json.dumps(found)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
