"""The front in numbers, against sums by hand and against its definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm

from robustsearch.analysis import front
from robustsearch.analysis.load import Run
from robustsearch.errors import RunError
from robustsearch.membership import SEED_SPREAD, SEED_WEIGHT
from robustsearch.pareto import FLOOR
from robustsearch.recipe import Recipe
from robustsearch.results import SCHEMA


def test_the_front_of_the_hand_made_run(hand_run: Run) -> None:
    points = front.front_table(hand_run.table)
    found = [(row["trial"], row["epoch"], row["on_front"], row["final"]) for row in points.to_pylist()]
    assert found == [
        ("0001", 4, True, True),
        ("0001", 2, False, False),
        ("0002", 4, True, True),
        ("0002", 2, False, False),
        ("0003", 4, False, True),
        ("0003", 2, False, False),
        ("baseline", 4, False, True),
    ]


def test_reference_hypervolume_and_staircase_by_hand(hand_run: Run) -> None:
    points = front.front_table(hand_run.table)
    assert front.reference_latency(points) == pytest.approx(5.5)  # 1.1 x the baseline's 5 ms
    assert front.front_hypervolume(points) == pytest.approx(0.5 * (2 - 1) + 0.6 * (5.5 - 2))
    steps = [(1, 0), (1, 0.5), (2, 0.5), (2, 0.6), (5.5, 0.6)]
    np.testing.assert_allclose(front.staircase(points), steps)


@pytest.mark.parametrize("seed", range(20))
def test_the_staircase_is_the_best_accuracy_within_each_latency(seed: int, make_row) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        make_row(f"{trial:04d}", epoch, float(rng.integers(1, 9)) / 10, float(rng.integers(1, 7)))
        for trial in range(rng.integers(1, 9))
        for epoch in (1, 2)
    ]
    rng.shuffle(rows)
    points = front.front_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    corners = front.staircase(points)
    slowest = front.SLACK * max(row["latency_p50"] for row in rows)
    area = 0.0
    grid = np.unique([row["latency_p50"] for row in rows] + [slowest])
    floor = FLOOR * max(row["robust"] for row in rows)
    for start, end in pairwise(grid):
        middle = (start + end) / 2
        attained = max(
            (row["robust"] for row in rows if row["latency_p50"] <= middle and row["robust"] >= floor), default=0
        )
        level = corners[corners[:, 0] <= middle][-1, 1] if (corners[:, 0] <= middle).any() else 0
        assert level == pytest.approx(attained)
        area += attained * (end - start)
    assert front.front_hypervolume(points) == pytest.approx(area)
    assert corners[-1, 0] == pytest.approx(slowest)
    assert np.all(np.diff(corners, axis=0) >= 0)


def test_a_point_below_the_floor_is_no_candidate_however_fast(make_row) -> None:
    rows = [make_row("0001", 1, 0.3, 0.5), make_row("0002", 1, 0.8, 3.0), make_row("0003", 1, 0.4, 1.0)]
    points = front.front_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    assert [row["trial"] for row in front.front_rows(points)] == ["0003", "0002"]


def test_equal_points_are_both_on_the_front_and_count_once(make_row) -> None:
    rows = [make_row("0001", 1, 0.5, 1.0), make_row("0002", 1, 0.5, 1.0)]
    points = front.front_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    assert [row["trial"] for row in front.front_rows(points)] == ["0001", "0002"]
    assert front.front_hypervolume(points) == pytest.approx(0.5 * 0.1)


def test_a_run_with_only_a_baseline_has_an_empty_front(make_row) -> None:
    table = pa.Table.from_pylist([make_row("baseline", 1, 0.1, 2.0, role="baseline")], schema=SCHEMA)
    points = front.front_table(table)
    assert points.num_rows == 1
    assert front.front_rows(points) == []
    assert front.front_hypervolume(points) == 0
    assert front.staircase(points).shape == (0, 2)


def test_failures_count_trials_by_state(make_row) -> None:
    rows = [
        make_row("0001", 1, 0.5, 1.0, state="running"),
        make_row("0001", 1, None, None, state="crashed"),
        make_row("0002", 0, None, None, state="crashed"),
        make_row("0003", 0, None, None, state="diverged"),
        make_row("0004", 1, 0.5, 1.0, state="stopped"),
    ]
    assert front.failures(pa.Table.from_pylist(rows, schema=SCHEMA)) == {"crashed": 2, "diverged": 1}


def test_a_run_without_a_measured_row_has_no_front(make_row) -> None:
    table = pa.Table.from_pylist([make_row("0001", 0, None, None, state="diverged")], schema=SCHEMA)
    with pytest.raises(RunError, match=r"at least one measured trial, but the run has none \(1 diverged\)"):
        front.front_table(table)


def test_repeats_are_seeds_of_their_point_and_no_points_of_their_own(make_row) -> None:
    rows = [
        make_row("0001", 4, 0.50, 1.0, natural=0.8),
        make_row("0001-s1", 4, 0.56, 1.2, natural=0.7, role="repeat", seed=1),
        make_row("0001-s2", 4, 0.59, 1.1, natural=0.6, role="repeat", seed=2),
        make_row("0002", 4, 0.45, 3.0, recipe=Recipe.of({"model": {"depth": 10}})),
        make_row("baseline", 4, 0.65, 5.0, role="baseline"),
    ]
    points = front.front_table(pa.Table.from_pylist(rows, schema=SCHEMA)).to_pylist()
    assert [(row["trial"], row["seeds"], row["on_front"]) for row in points] == [
        ("0001", 3, True),
        ("0002", 1, False),
        ("baseline", 1, False),
    ]
    point = points[0]
    assert point["robust"] == pytest.approx(0.55)
    assert point["natural"] == pytest.approx(0.7)
    assert point["latency_p50"] == 1.1
    spread = (SEED_WEIGHT * SEED_SPREAD**2 + 2 * np.var([0.5, 0.56, 0.59], ddof=1)) / (SEED_WEIGHT + 2)
    error = np.sqrt(0.55 * 0.45 / 400 + spread / 3)
    assert point["robust_high"] - point["robust"] == pytest.approx(norm.ppf(0.975) * error)
    assert point["robust"] - point["robust_low"] == pytest.approx(norm.ppf(0.975) * error)
    assert point["front_probability"] == 1.0
    assert points[1]["robust_low"] == pytest.approx(0.41)  # of one seed, as measured
    assert points[2]["front_probability"] is None


def test_what_is_above_the_limit_on_latency_is_no_candidate(make_row) -> None:
    rows = [
        make_row("0001", 4, 0.50, 1.0, feasible=True),
        make_row("0002", 4, 0.90, 3.0, recipe=Recipe.of({"model": {"depth": 10}}), feasible=False),
    ]
    points = front.front_table(pa.Table.from_pylist(rows, schema=SCHEMA)).to_pylist()
    assert [(row["on_front"], row["front_probability"]) for row in points] == [(True, 1.0), (False, 0.0)]


def third_table(make_row, values: list[tuple[float, float, int | None]]) -> pa.Table:
    rows = [
        make_row(f"{index:04d}", 1, robust, latency, parameters=parameters)
        for index, (robust, latency, parameters) in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_a_third_objective_by_hand(make_row) -> None:
    table = third_table(make_row, [(0.6, 1.0, 100), (0.5, 2.0, 50), (0.5, 2.0, 200), (0.7, 2.0, None), (0.2, 0.5, 1)])
    points = front.front_table(table, "parameters")
    assert {row["trial"] for row in front.front_rows(points)} == {"0000", "0001"}
    assert {row["trial"] for row in front.front_rows(front.front_table(table))} == {"0000", "0003"}
    # Boxes to (0, 2.2 ms, 220), the worst times 1.1; their common part is counted once.
    expected = 0.6 * 1.2 * 120 + 0.5 * 0.2 * 170 - 0.5 * 0.2 * 120
    assert front.front_hypervolume(points, "parameters") == pytest.approx(expected)
    np.testing.assert_allclose(front.staircase(points), [(1, 0), (1, 0.6), (2.2, 0.6)])
    larger = front.front_table(table, "natural")  # the same as robust, here, but for a constant
    assert larger["on_front"].to_pylist() == front.front_table(table)["on_front"].to_pylist()


@pytest.mark.parametrize("seed", range(10))
def test_the_front_of_three_objectives_is_what_none_dominates(make_row, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = [(rng.integers(5, 9) / 10, float(rng.integers(1, 5)), int(rng.integers(1, 5))) for _ in range(12)]
    points = front.front_table(third_table(make_row, values), "parameters").to_pylist()

    def beats(one: dict, other: dict) -> bool:
        pairs = [(-one["robust"], -other["robust"])]
        pairs += [(one[name], other[name]) for name in ("latency_p50", "parameters")]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    for row in points:
        assert row["on_front"] == (not any(beats(other, row) for other in points))


def test_the_probability_of_membership_counts_the_third_objective(make_row) -> None:
    values = [(0.6, 1.0, 100), (0.55, 1.0, 100), (0.59, 3.0, 100), (0.35, 9.0, 50)]
    table = third_table(make_row, values)
    two, three, same = (
        {row["trial"]: row["front_probability"] for row in front.front_table(one, name).to_pylist()}
        for one, name in (
            (table, None),
            (table, "parameters"),
            (third_table(make_row, [(robust, latency, 7) for robust, latency, _ in values]), "parameters"),
        )
    )
    assert same == pytest.approx(two, abs=0.05)  # an objective in which all are equal changes nothing
    assert three["0003"] > 0.8 > 0.1 > two["0003"]  # it is the smallest, and well above the floor
    for name in ("0000", "0001", "0002"):
        assert three[name] == pytest.approx(two[name], abs=0.05)
