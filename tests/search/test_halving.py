"""Which trials go on: against brute force, on unsorted points, for two and three objectives."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustsearch.membership import standard_error
from robustsearch.pareto import FLOOR
from robustsearch.search.halving import goes_on, rungs

Point = tuple[float, ...]


def volume(group: list[Point], reference: list[float]) -> float:
    """Hypervolume by inclusion and exclusion over cells of the grid that the points span."""
    axes = [sorted({point[k] for point in group} | {reference[k]}) for k in range(len(reference))]
    total = 0.0
    for cell in product(*[range(len(axis) - 1) for axis in axes]):
        low = [axis[i] for axis, i in zip(axes, cell, strict=True)]
        if any(all(a <= b for a, b in zip(point, low, strict=True)) for point in group):
            total += math.prod(axis[i + 1] - axis[i] for axis, i in zip(axes, cell, strict=True))
    return total


def slow_keys(points: list[Point]) -> list[tuple[float, ...]]:
    """Sort key of each point, from the definitions: NaN last, below the floor, rank, minus the volume it adds."""
    finite = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]
    best = max(-points[i][0] for i in finite)
    below = {i: -points[i][0] < FLOOR * best for i in finite}

    def dominates(a: Point, b: Point) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    rank, level = {}, 0
    rest = list(finite)
    while rest:
        same = [j for j in rest if below[j] == below[rest[0]]]
        front = [i for i in same if not any(dominates(points[j], points[i]) for j in same)]
        rank |= dict.fromkeys(front, level)
        rest, level = [i for i in rest if i not in front], level + 1
    reference = []
    for k in range(len(points[0])):
        values = [points[i][k] for i in finite]
        reference.append(max(values) + 0.1 * max(max(values) - min(values), 1e-9))
    keys: list[tuple[float, ...]] = []
    for i, _ in enumerate(points):
        if i not in rank:
            keys.append((2.0, 0.0, 0.0))
            continue
        same = [points[j] for j in finite if below[j] == below[i] and rank[j] == rank[i]]
        without = list(same)
        without.remove(points[i])
        gain = volume(same, reference) - (volume(without, reference) if without else 0.0)
        keys.append((float(below[i]), float(rank[i]), -gain))
    return keys


def check_against_definitions(points: list[Point], eta: int) -> None:
    """A point goes on if fewer than `places` are surely better, and not if that many are at least as good."""
    keys = slow_keys(points)
    places = math.ceil(len(points) / eta)
    for i, key in enumerate(keys):
        going = goes_on(np.array(points), i, eta)
        if key[0] == 2.0:
            assert not going
            continue
        if len(points) < eta:
            assert going
            continue
        coarse = key[:2]
        better = sum(other[:2] < coarse or (other[:2] == coarse and other[2] < key[2] - 1e-9) for other in keys)
        as_good = sum(other[:2] < coarse or (other[:2] == coarse and other[2] <= key[2] + 1e-9) for other in keys)
        if as_good <= places:
            assert going
        if better >= places:
            assert not going
    going = [goes_on(np.array(points), i, eta) for i in range(len(points))]
    if len(points) >= eta:
        assert sum(going) == min(places, sum(key[0] < 2 for key in keys))


values = st.one_of(st.integers(0, 12).map(float), st.just(math.nan))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=12), st.integers(2, 4))
def test_two_objectives_agree_with_the_definitions(pairs: list[tuple[float, float]], eta: int) -> None:
    points: list[Point] = [(-robust / 12, 1.0 + latency) for robust, latency in pairs]
    if any(all(map(math.isfinite, point)) for point in points):
        check_against_definitions(points, eta)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=9), st.integers(2, 4))
def test_three_objectives_agree_with_the_definitions(triples: list[tuple[float, float, float]], eta: int) -> None:
    points: list[Point] = [(-robust / 12, 1.0 + latency, size) for robust, latency, size in triples]
    if any(all(map(math.isfinite, point)) for point in points):
        check_against_definitions(points, eta)


def test_nan_never_goes_on() -> None:
    points = np.array([[-0.2, 3.0], [np.nan, 1.0], [-0.9, 2.0], [-0.5, np.nan]])
    assert [goes_on(points, i, 2) for i in range(4)] == [True, False, True, False]
    assert not goes_on(np.array([[np.nan, 1.0]]), 0, 2)
    assert not goes_on(np.full((4, 2), np.nan), 0, 2)


def test_the_fastest_without_robustness_is_below_the_floor() -> None:
    points = np.array([[-0.1, 1.0], [-0.8, 4.0], [-0.7, 3.0], [-0.6, 2.0]])
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


def test_a_difference_inside_the_noise_stops_nobody() -> None:
    """Four trials alike but for two images in 200: without doubt two go on, with it all do; a bad one never does."""
    points = np.array([[-0.80, 2.0], [-0.81, 2.0], [-0.80, 1.99], [-0.81, 2.02], [-0.60, 1.98], [-0.60, 9.0]])
    assert [goes_on(points, i, 3) for i in range(6)].count(True) == 2
    doubtful = [goes_on(points, i, 3, error=standard_error(-points[i, 0], 200), same=1.05) for i in range(6)]
    assert doubtful == [True, True, True, True, False, False]


def test_trials_of_a_sampler_that_learns_are_stopped_too() -> None:
    """On average each is better than those before: of 180, one in two stops few, one in four more."""
    noise = 0.05 * np.random.default_rng(0).standard_normal(200)
    points = np.column_stack([-0.3 - 0.001 * np.arange(200) - noise, np.full(200, 2.0)])
    stopped = {share: sum(not goes_on(points[: i + 1], i, share) for i in range(20, 200)) for share in (2, 4)}
    assert 0 < stopped[2] < 0.25 * 180
    assert stopped[4] > 0.3 * 180


@pytest.mark.parametrize(
    ("epochs", "eta", "grace", "expected"),
    [
        (12, 2, 4, (6, 12)),
        (1, 2, 4, (1,)),
        (7, 2, 4, (7,)),
        (30, 3, 4, (10, 30)),
        (100, 2, 4, (12, 25, 50, 100)),
        (12, 3, 1, (1, 4, 12)),
    ],
)
def test_rungs_are_powers_of_eta_from_grace_to_the_epochs(
    epochs: int, eta: int, grace: int, expected: tuple[int, ...]
) -> None:
    assert rungs(epochs, eta, grace) == expected
