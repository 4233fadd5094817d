"""Pareto arithmetic against its definitions, spelt out: dominance pair by pair, volume cell by cell.

Points come unsorted, with duplicates and NaN, on a coarse grid (many ties) or not, in two and three objectives.
"""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from robustsearch import pareto
from robustsearch.results import SCHEMA

Points = NDArray[np.float64]

GRID = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, float("nan"), float("inf")])
REAL = st.floats(-1, 5, allow_subnormal=False)


@st.composite
def point_sets(draw: st.DrawFn) -> Points:
    """Up to nine points with two or three objectives; some repeat, some are not finite."""
    shape = draw(st.integers(0, 7)), draw(st.integers(2, 3))
    points = draw(arrays(np.float64, shape, elements=draw(st.sampled_from([GRID, REAL]))))
    again = draw(st.lists(st.integers(0, len(points) - 1), max_size=2)) if len(points) else []
    order = draw(st.permutations(range(len(points) + len(again))))
    return np.concatenate([points, points[again]])[list(order)] if again else points


def dominates(a: Points, b: Points) -> bool:
    """As good in all objectives, better in one; all are minimised."""
    return bool(np.all(a <= b) and np.any(a < b))


def ranks_by_peeling(points: Points) -> NDArray[np.int64]:
    """Take away the points that no other dominates, count, repeat."""
    rank = np.full(len(points), len(points))
    left = [i for i in range(len(points)) if np.isfinite(points[i]).all()]
    for step in itertools.count():
        if not left:
            return rank
        best = [i for i in left if not any(dominates(points[j], points[i]) for j in left)]
        rank[best] = step
        left = [i for i in left if i not in best]
    raise AssertionError


def volume_by_cells(points: Points, reference: Points) -> float:
    """Cut the space at every coordinate; add up the cells that some point dominates."""
    points = points[np.isfinite(points).all(axis=1)]
    points = points[(points < reference).all(axis=1)]
    cuts = [np.unique([*points[:, axis], edge]) for axis, edge in enumerate(reference)]
    total = 0.0
    for cell in itertools.product(*(range(len(cut) - 1) for cut in cuts)):
        low = np.array([cut[i] for cut, i in zip(cuts, cell, strict=True)])
        high = np.array([cut[i + 1] for cut, i in zip(cuts, cell, strict=True)])
        if (points <= low).all(axis=1).any():
            total += float(np.prod(high - low))
    return total


@settings(max_examples=300, deadline=None, derandomize=True)
@given(point_sets())
def test_ranks_and_front_by_peeling(points: Points) -> None:
    expected = ranks_by_peeling(points)
    np.testing.assert_array_equal(pareto.ranks(points), expected)
    np.testing.assert_array_equal(pareto.is_front(points), (expected == 0) & np.isfinite(points).all(axis=1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(point_sets(), st.sampled_from([2.0, 4.0, 6.0]))
def test_hypervolume_and_contributions_by_cells(points: Points, edge: float) -> None:
    reference = np.full(points.shape[1], edge)
    volume = volume_by_cells(points, reference)
    assert pareto.hypervolume(points, reference) == pytest.approx(volume, abs=1e-9)
    lost = [volume - volume_by_cells(np.delete(points, i, axis=0), reference) for i in range(len(points))]
    np.testing.assert_allclose(pareto.contributions(points, reference), lost, atol=1e-9)


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_many_points_in_any_order(seed: int, objectives: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 12, (60, objectives)).astype(float)
    points[rng.random(60) < 0.1, rng.integers(objectives)] = np.nan
    rank = pareto.ranks(points)
    np.testing.assert_array_equal(rank, ranks_by_peeling(points))
    order = rng.permutation(60)
    np.testing.assert_array_equal(pareto.ranks(points[order]), rank[order])


def test_a_dominated_point_takes_from_the_contribution_of_the_one_above_it() -> None:
    points = np.array([[2.0, 2.0], [1.0, 1.0]])
    np.testing.assert_allclose(pareto.contributions(points, np.array([3.0, 3.0])), [0, 4 - 1])


def test_equal_points_share_rank_and_front_and_add_nothing() -> None:
    points = np.array([[1.0, 1.0], [0.0, 2.0], [1.0, 1.0]])
    assert pareto.is_front(points).all()
    assert (pareto.ranks(points) == 0).all()
    np.testing.assert_allclose(pareto.contributions(points, np.array([3.0, 3.0])), [0, 1, 0])


def rows(*values: tuple[str, str, float | None, float | None]) -> pa.Table:
    """A results table from (trial, role, robust accuracy, latency in ms)."""
    names = ("trial", "role", "robust", "latency_p50")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in values], schema=SCHEMA)


def test_objectives_are_minimised() -> None:
    table = rows(("1", "search", 0.5, 2.0), ("2", "search", None, 1.0), ("3", "search", float("nan"), None))
    nan = float("nan")
    np.testing.assert_array_equal(pareto.objectives(table), [[-0.5, 2.0], [nan, 1.0], [nan, nan]])


def test_the_floor_is_half_of_the_best_robust_accuracy() -> None:
    points = np.array([[-0.39, 1.0], [-0.8, 9.0], [np.nan, 0.1], [-0.4, 2.0], [-0.9, np.nan]])
    np.testing.assert_array_equal(pareto.above_floor(points), [False, True, False, True, False])
    assert not pareto.above_floor(points[2:3]).any()
    assert pareto.above_floor(np.array([[0.0, 1.0], [0.0, 2.0]])).all()
