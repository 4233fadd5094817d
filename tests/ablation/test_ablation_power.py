"""Power against statsmodels and against simulated ablations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from robustsearch.ablation.power import power, seeds_needed
from robustsearch.ablation.statistics import paired


@pytest.mark.parametrize(("resolution", "comparisons"), [(0.02, 1), (0.03, 7), (0.01, 1)])
def test_without_images_it_is_the_paired_t_tests(resolution: float, comparisons: int) -> None:
    theirs = TTestPower().solve_power(effect_size=resolution / 0.02, alpha=0.05 / comparisons, power=0.8)
    assert seeds_needed(resolution, 0.02, comparisons=comparisons) == math.ceil(theirs)


@pytest.mark.parametrize(("seeds", "images", "spread"), [(3, 200, 0.03), (5, 1000, 0.03), (3, 1000, 0.06)])
def test_it_is_how_often_a_difference_is_found(seeds: int, images: int, spread: float) -> None:
    rng = np.random.default_rng(0)
    trials, difference = 4000, 0.12
    own = spread / math.sqrt(2) * rng.standard_normal((2, trials, seeds))
    rows = [rng.binomial(images, a, (trials, 1)) / images + own[i] for i, a in enumerate((0.5 + difference, 0.5))]
    found = (paired(rows[0], rows[1], images=images).p < 0.05).mean()
    assert power(difference, spread, seeds, images=images) == pytest.approx(found, abs=0.04)


def test_more_seeds_do_not_make_up_for_few_images() -> None:
    assert seeds_needed(0.05, 0.02, images=200) is None
    needed = seeds_needed(0.05, 0.02, images=5000)
    assert needed is not None
    assert power(0.05, 0.02, needed, images=5000) >= 0.8 > power(0.05, 0.02, needed - 1, images=5000)


def test_ends() -> None:
    assert power(0.05, 0.0, 2) == 1
    assert power(0.0, 0.02, 4) == pytest.approx(0.05)
    assert power(0.1, 0.0, 2, images=200) == pytest.approx(power(0.1, 1e-9, 2, images=200))
