"""How much each field of the recipe moves an objective, with what resamples leave open; and how, level by level.

The measure is the first term of a functional ANOVA: the share of an objective's variance that one field explains alone,
Var(E[y | field]) / Var(y), also called first-order Sobol' index. y is the objective's rank, so that one slow network
does not outweigh all others, and E[y | field] the mean of a level, or within a fifth of a scale. It is over the trials
as the search placed them, needs no model of the objective, and takes fields that are off in some trials as they are.

Optuna's estimators do not fit recipes. Its fANOVA leaves out each field that is off in some trial. Its PED-ANOVA
(Watanabe et al. 2023, 2304.10255) divides a Parzen density over the best trials by another over all; where
probabilities of the mix are 0 in many trials these differ in bandwidth, and a share came to 9 times the whole variance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from robustsearch.errors import RunError
from robustsearch.pareto import OBJECTIVES, objectives

from .fields import Field

Values = NDArray[np.float64]

PARTS = 5
"""A scale is cut at its quantiles into this many parts, or fewer where a value is as common as several of them."""

FEWEST = 40
"""Trials needed: half of them, as a resample has, still put four into each fifth of a scale."""

RESAMPLES = 200
"""Half-samples behind the intervals, and permutations behind the noise level, of one objective."""

SCHEMA = pa.schema(
    [
        ("objective", pa.string()),
        ("field", pa.string()),
        ("trials", pa.int64()),
        ("explained", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("noise", pa.float64()),
    ]
)


def comparable(table: pa.Table, epoch: int | None = None) -> pa.Table:
    """The sampler's trials at one rung, one row each: at `epoch`, else at the last of those with most trials.

    At the last rung stand the survivors of a selection by the very objectives that are asked about.

    Raises:
        RunError: fewer than `FEWEST` trials were measured there.
    """
    measured = np.isfinite(objectives(table)).all(axis=1)
    searched = np.array([role == "search" for role in table["role"].to_pylist()], dtype=bool)
    rows = table.filter(pa.array(measured & searched))
    counts = Counter(rows["epoch"].to_pylist())
    if epoch is None:
        epoch = max(counts, key=lambda rung: (counts[rung], rung), default=0)
    if counts[epoch] < FEWEST:
        found = ", ".join(f"{count} after epoch {rung}" for rung, count in sorted(counts.items()))
        raise RunError(
            f"importance needs at least {FEWEST} trials measured after the same epoch, but this run has "
            f"{found or 'none'}"
        )
    return rows.filter(pa.array([row == epoch for row in rows["epoch"].to_pylist()]))


def importance(rows: pa.Table, fields: Sequence[Field], seed: int = 0) -> pa.Table:
    """What each field explains of each objective (`SCHEMA`); the fields in falling order of their larger share.

    `trials`: how many have it on. `explained`: its share of the variance, see `explained`.
    `low`, `high`: 95% interval, 1.96 standard errors from `RESAMPLES` half-samples either way (delete-half jackknife,
    Shao & Wu 1989), within [0, 1].
    `noise`: what the best of all fields stays below in 95% of permutations of the objective (Westfall & Young 1993); a
    share above it is unlikely to be luck, however many fields are looked at.
    """
    from scipy.stats import rankdata

    codes = [parts(one)[0] for one in fields]
    found: dict[str, list[dict[str, Any]]] = {one.name: [] for one in fields}
    for column in OBJECTIVES:
        rng = np.random.default_rng(seed)
        y = rankdata(rows[column].to_numpy())
        shares = np.array([explained(y, code) for code in codes])
        halves, luck = [], []
        for _ in range(RESAMPLES):
            half = rng.permutation(len(y))[: len(y) // 2]
            halves.append([explained(y[half], code[half]) for code in codes])
            shuffled = rng.permutation(y)
            luck.append(max((explained(shuffled, code) for code in codes), default=0.0))
        noise = float(np.quantile(luck, 0.95))
        for one, share, error in zip(fields, shares, np.std(halves, axis=0), strict=True):
            found[one.name].append(
                {
                    "objective": column,
                    "field": one.name,
                    "trials": int((~one.off).sum()),
                    "explained": share,
                    "low": float(np.clip(share - 1.96 * error, 0, 1)),
                    "high": float(np.clip(share + 1.96 * error, 0, 1)),
                    "noise": noise,
                }
            )
    ranked = sorted(found.values(), key=lambda both: -max(row["explained"] for row in both))
    return pa.Table.from_pylist([row for both in ranked for row in both], schema=SCHEMA)


def explained(y: Values, code: NDArray[np.int64]) -> float:
    """Share of the variance of y `[n]` between the groups of `code` `[n]`, where -1 is in none; at least 0.

    (SS_between - (k - 1) MS_within) / SS_total: Kelley's epsilon squared (1935), 0 on average for groups at random. The
    sums of squares between and within are over the trials that are in a group, the total is over all.
    """
    total = float(((y - y.mean()) ** 2).sum())
    inside = y[code >= 0]
    _, group, sizes = np.unique(code[code >= 0], return_inverse=True, return_counts=True)
    if len(sizes) < 2 or len(inside) <= len(sizes) or not total:
        return 0.0
    means = np.bincount(group, inside) / sizes
    within = float(((inside - means[group]) ** 2).sum()) / (len(inside) - len(sizes))
    between = float((sizes * (means - inside.mean()) ** 2).sum())
    return max(0.0, (between - (len(sizes) - 1) * within) / total)


def parts(field: Field) -> tuple[NDArray[np.int64], list[Any]]:
    """Which part of a field each trial `[n]` is in, -1 where it is off; and what each part is called.

    Parts are the levels; of a scale what lies between its quantiles, called by the median of its values.
    """
    code = np.full(len(field.values), -1)
    if field.levels is not None:
        place = {level: index for index, level in enumerate(field.levels)}
        code[~field.off] = [place[value] for value in field.values if value is not None]
        return code, list(field.levels)
    values = np.array([value for value in field.values if value is not None], dtype=float)
    edges = np.unique(np.quantile(values, np.arange(1, PARTS) / PARTS))
    _, code[~field.off] = np.unique(np.searchsorted(edges, values), return_inverse=True)
    return code, [float(np.median(values[code[~field.off] == part])) for part in range(code.max() + 1)]


@dataclass(frozen=True)
class Group:
    """The trials in one part of a field, and an objective over them."""

    level: Any
    """What `parts` calls it; None where the field is off."""
    n: int
    median: float
    interval: tuple[float, float] | None
    """At least 95%, whatever the distribution (order statistics); None below six trials."""


def groups(field: Field, objective: Values) -> list[Group]:
    """An objective `[n]` over the parts of a field; the trials without it first."""
    code, names = parts(field)
    found = [_group(None, objective[field.off])] if field.off.any() else []
    return found + [_group(name, objective[code == part]) for part, name in enumerate(names)]


def _group(level: Any, objective: Values) -> Group:
    from scipy.stats import binom

    ordered = np.sort(objective)
    first = int(binom.ppf(0.025, len(ordered), 0.5))  # of n values, this many below the median with P <= 2.5%
    interval = (float(ordered[first - 1]), float(ordered[-first])) if first else None
    return Group(level, len(ordered), float(np.median(ordered)), interval)
