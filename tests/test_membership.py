"""Front membership: against closed forms and direct simulation."""

from __future__ import annotations

import math
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from robustsearch.membership import SEED_SPREAD, SEED_WEIGHT, Point, fronts, pool, probabilities, standard_error
from robustsearch.pareto import SAME_LATENCY, SPAN, is_front, normalised_hypervolume
from robustsearch.recipe import Model, Recipe


def row(trial: str, robust: float | None, latency: float | None = 2.0, **other: Any) -> dict[str, Any]:
    fields = {"role": "search", "digest": trial[:4], "epoch": 12, "n": 200, "robust": robust, "latency_p50": latency}
    return fields | {"trial": trial, "recipe": json_of(ord(trial[3]))} | other


@cache
def json_of(number: int) -> str:
    return Recipe(model=Model(depth=10 + 6 * (number % 5))).to_json()


numbers = count()


def point(robust: float, latency: float, error: float = 0.02) -> Point:
    return Point("0000", 12, 1, robust, error, latency, f"structure {next(numbers)}")


def test_a_point_is_a_recipe_at_an_epoch_over_its_seeds() -> None:
    rows = [
        row("0000", 0.80, 2.0),
        row("0000", 0.70, 2.0, epoch=6),
        row("0001", 0.50),
        row("0000-s1", 0.84, 2.2, role="repeat"),
        row("0000-s2", 0.88, 2.1, role="repeat"),
        row("baseline", 0.1, role="baseline"),
        row("0002", None),
        row("0003", 0.5, math.nan),
        row("0004-s1", 0.9, role="repeat"),
    ]
    points = pool(rows)
    assert [(found.trial, found.epoch, found.seeds) for found in points] == [
        ("0000", 12, 3),
        ("0000", 6, 1),
        ("0001", 12, 1),
    ]
    assert points[0].robust == pytest.approx(0.84)
    assert points[0].structure == points[1].structure != points[2].structure
    assert [found.latency for found in points] == [2.05, 2.05, 2.0]
    spread = (SEED_WEIGHT * SEED_SPREAD**2 + 2 * 0.04**2) / (SEED_WEIGHT + 2)
    assert points[0].error == pytest.approx(math.sqrt(0.84 * 0.16 / 200 + spread / 3))
    assert points[2].error == pytest.approx(math.sqrt(0.25 / 200 + spread))


def test_the_error_of_a_point_is_that_of_repeated_experiments() -> None:
    """Seeds move the true accuracy by `spread`; images are one draw of 200 for all seeds of a point."""
    generator, spread, seeds = np.random.default_rng(0), 0.04, 3
    means, errors = [], []
    for _ in range(200):
        rows = []
        for recipe in range(12):
            hardness = generator.random(200)  # an image is right where its hardness is below the accuracy
            for number in range(seeds):
                true = 0.8 + spread * generator.standard_normal()
                found = float((hardness < true).mean())
                rows.append(row(f"{recipe:04d}-s{number}", found, role="repeat" if number else "search"))
        points = pool(rows)
        means += [found.robust for found in points]
        errors += [found.error for found in points]
    assert float(np.mean(errors)) == pytest.approx(float(np.std(means)), rel=0.1)


def test_equal_twins_share_the_front_and_a_far_better_point_has_it_alone() -> None:
    twins = probabilities([point(0.8, 2.0), point(0.8, 2.0)], draws=5_000)
    assert twins == pytest.approx([0.75, 0.75], abs=0.02)  # off the front: slower and less robust, 1/2 x 1/2
    assert probabilities([point(0.9, 1.0), point(0.5, 5.0)]).tolist() == [1.0, 0.0]
    assert probabilities([point(0.9, 5.0), point(0.7, 1.0)]).tolist() == [1.0, 1.0]
    assert probabilities([]).tolist() == []


def test_two_points_agree_with_the_closed_form() -> None:
    """A point leaves the front where the other is both more robust and faster; both errors are independent."""
    one, other = point(0.80, 2.0, 0.03), point(0.82, 1.95, 0.02)
    found = probabilities([one, other], draws=10_000)  # a standard error of at most 0.005
    more_robust = norm.cdf(0.02 / math.hypot(0.03, 0.02))
    faster = norm.cdf(math.log(2.0 / 1.95) / (math.sqrt(2) * math.log(SAME_LATENCY) / 2))
    assert found[0] == pytest.approx(1 - more_robust * faster, abs=0.015)
    assert found[1] == pytest.approx(1 - (1 - more_robust) * (1 - faster), abs=0.015)


def test_points_left_out_for_speed_are_those_that_direct_simulation_never_sees() -> None:
    generator = np.random.default_rng(1)
    points = [point(float(generator.uniform(0.5, 0.9)), float(generator.uniform(1, 4)), 0.02) for _ in range(40)]
    found = probabilities(points, draws=2000)
    seen = np.zeros(40)
    for _ in range(2000):
        robust = np.array([p.robust for p in points]) + 0.02 * generator.standard_normal(40)
        time = np.array([p.latency for p in points]) * SAME_LATENCY ** (generator.standard_normal(40) / 2)
        better = (robust >= robust[:, None]) & (time <= time[:, None])
        seen += (better.sum(1) == 1) & (robust >= 0.5 * robust.max())
    assert np.abs(found - seen / 2000).max() < 0.06
    assert (found == 0).sum() > 5


@pytest.mark.parametrize("points", [1, 2, 7, 30])
def test_fronts_of_many_draws_are_those_of_each(points: int) -> None:
    """On few values, so that many are equal."""
    accuracy, time = np.random.default_rng(points).integers(0, 6, (2, 60, points)).astype(float)
    found = fronts(accuracy, time)
    for row, robust, seconds in zip(found, accuracy, time, strict=True):
        assert row.tolist() == is_front(np.column_stack([-robust, seconds])).tolist()


def test_points_of_one_structure_are_equally_fast_so_that_only_accuracy_decides() -> None:
    rows = [row("0000", 0.5, 1.99), row("0000", 0.8, 2.01, epoch=13), row("0005", 0.5, 1.98)]
    assert [float(chance) for chance in probabilities(pool(rows))] == [0.0, 1.0, 0.0]


def test_a_point_below_the_floor_is_on_no_front() -> None:
    assert probabilities([point(0.8, 2.0), point(0.2, 1.0)]).tolist() == [1.0, 0.0]


def test_the_standard_error_is_the_spread_of_repeated_counts() -> None:
    draws = np.random.default_rng(0).binomial(200, 0.8, size=200_000) / 200
    assert standard_error(0.8, 200) == pytest.approx(draws.std(), rel=0.01)
    assert standard_error(0.8, None) == 0
    assert standard_error(1.0, 200) == 0


def test_the_normalised_hypervolume_is_the_mean_accuracy_over_budgets() -> None:
    generator = np.random.default_rng(2)
    points = np.column_stack([-generator.random(30), generator.uniform(0.5, 40.0, 30)])
    budgets = 1.5 * SPAN ** ((np.arange(20_000) + 0.5) / 20_000)
    attained = [max((-points[points[:, 1] <= budget, 0]).max(initial=0), 0) for budget in budgets]
    assert normalised_hypervolume(points, 1.5) == pytest.approx(float(np.mean(attained)), abs=1e-3)
    assert normalised_hypervolume(np.array([[-1.0, 0.1]]), 1.0) == 1.0
    assert normalised_hypervolume(np.array([[-1.0, 10.0], [np.nan, 1.0]]), 1.0) == 0.0
