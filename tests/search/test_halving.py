"""Which trials go on: against brute force, on unsorted points."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustsearch.pareto import FLOOR
from robustsearch.search.halving import goes_on, order, rungs


def slow_order(points: list[tuple[float, float]]) -> list[tuple[float, ...]]:
    """Sort key of each of `points` (minus robust, latency), from the definitions: below floor, rank, minus gain."""
    best = max(-robust for robust, _ in points)
    below = [-robust < FLOOR * best for robust, _ in points]

    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    def ranked(group: list[int]) -> dict[int, int]:
        ranks, rest, level = {}, list(group), 0
        while rest:
            front = [i for i in rest if not any(dominates(points[j], points[i]) for j in rest)]
            ranks |= dict.fromkeys(front, level)
            rest, level = [i for i in rest if i not in front], level + 1
        return ranks

    ranks = ranked([i for i in range(len(points)) if not below[i]]) | ranked(
        [i for i in range(len(points)) if below[i]]
    )
    reference = [
        max(p[k] for p in points) + 0.1 * max(max(p[k] for p in points) - min(p[k] for p in points), 1e-9)
        for k in (0, 1)
    ]

    def volume(group: list[tuple[float, float]]) -> float:
        """Area between the staircase of points and the reference, strip by strip."""
        xs = sorted({p[0] for p in group} | {reference[0]})
        area = 0.0
        for left, right in pairwise(xs):
            reached = [p[1] for p in group if p[0] <= left]
            area += (right - left) * max(0.0, reference[1] - min(reached)) if reached else 0.0
        return area

    keys = []
    for i in range(len(points)):
        same = [j for j in range(len(points)) if below[j] == below[i] and ranks[j] == ranks[i]]
        gain = volume([points[j] for j in same]) - volume([points[j] for j in same if j != i])
        keys.append((float(below[i]), float(ranks[i]), -gain))
    return keys


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12))
def test_order_agrees_with_the_definitions(pairs: list[tuple[int, int]]) -> None:
    points = [(-robust / 12, 1.0 + latency) for robust, latency in pairs]
    keys = slow_order(points)
    ordered = [keys[i] for i in order(np.array(points))]
    for one, other in pairwise(ordered):
        assert one[:2] < other[:2] or (one[:2] == other[:2] and one[2] <= other[2] + 1e-9)


def test_nan_comes_last_and_never_goes_on() -> None:
    points = np.array([[-0.2, 3.0], [np.nan, 1.0], [-0.9, 2.0], [-0.5, np.nan]])
    assert set(order(points)[:2]) == {0, 2}
    assert not goes_on(points, 1, 2)
    assert goes_on(points, 2, 2)
    assert not goes_on(np.array([[np.nan, 1.0]]), 0, 2)
    assert not goes_on(np.full((4, 2), np.nan), 0, 2)


def test_the_fastest_without_robustness_is_below_the_floor() -> None:
    points = np.array([[-0.1, 1.0], [-0.8, 4.0], [-0.7, 3.0], [-0.6, 2.0]])
    assert order(points)[-1] == 0
    assert not goes_on(points, 0, 2)


def test_all_go_on_until_there_are_eta() -> None:
    points = np.array([[-0.9, 1.0], [-0.1, 9.0], [-0.5, 5.0]])
    assert goes_on(points[:2], 1, 3)
    assert not goes_on(points, 1, 3)


def test_an_aligned_rung_keeps_exactly_the_best() -> None:
    """With both objectives aligned the best third of 30 goes on, wherever it stands (where Syne Tune errs)."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        quality = generator.permutation(30)
        points = np.column_stack([-0.6 - quality / 100, 5.0 - quality / 10])
        going = [index for index in range(30) if goes_on(points, index, 3)]
        assert sorted(quality[going]) == list(range(20, 30))


@pytest.mark.parametrize(
    ("epochs", "eta", "expected"),
    [(12, 2, (6, 12)), (1, 2, (1,)), (7, 2, (7,)), (30, 3, (10, 30)), (100, 2, (12, 25, 50, 100))],
)
def test_rungs_are_powers_of_eta_below_the_epochs(epochs: int, eta: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs, eta) == expected
