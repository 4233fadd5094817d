"""Effects against simulated ablations with known truth, closed forms and other libraries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests

from robustsearch.ablation.statistics import (
    Effects,
    adjusted,
    combine,
    hypervolume_effects,
    mean,
    paired,
    paired_images,
)
from robustsearch.errors import UserError

SIMULATIONS = 1000
CLOSE = 0.02
"""Three standard errors of a coverage of 95% in 1,000 simulations."""


def coverage(effects: Effects, truth: float) -> float:
    return float(((effects.low <= truth) & (truth <= effects.high)).mean())


def accuracies(
    rng: np.random.Generator, accuracy: float, spread: float, seeds: int, images: int | None, count: int = SIMULATIONS
) -> NDArray[np.float64]:
    """Accuracies `[count, seeds]`: normal between seeds, around what a sample of images happens to give."""
    centre = np.full((count, 1), accuracy) if images is None else rng.binomial(images, accuracy, (count, 1)) / images
    return np.clip(centre + spread * rng.standard_normal((count, seeds)), 0, 1)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [0.005, 0.02, 0.04])
@pytest.mark.parametrize("images", [None, 200])
def test_intervals_of_means_hold_the_truth_as_often_as_they_say(seeds: int, spread: float, images: int | None) -> None:
    rng = np.random.default_rng(2)
    row, reference = (accuracies(rng, accuracy, spread, seeds, images) for accuracy in (0.5, 0.4))
    found = paired(row, reference, images=images)
    assert coverage(found, 0.1) == pytest.approx(0.95, abs=CLOSE)
    assert coverage(mean(row, images=images), 0.5) == pytest.approx(0.95, abs=CLOSE)
    assert coverage(paired(row, reference, images=images, level=0.8), 0.1) == pytest.approx(0.8, abs=2 * CLOSE)


@pytest.mark.parametrize("accuracy", [0.0, 0.005, 0.02, 0.98])
def test_intervals_near_the_ends_are_careful(accuracy: float) -> None:
    rng = np.random.default_rng(1)
    row, reference = (accuracies(rng, accuracy, 0.002, 3, 200) for _ in range(2))
    assert coverage(paired(row, reference, images=200), 0.0) > 0.95 - CLOSE
    assert coverage(mean(row, images=200), accuracy) > 0.95 - CLOSE


# Correctness of an image: Bernoulli of the logistic of row + seed + image's ease + row's own taste for the image.
EASE, TASTE, SEED = 1.5, 0.5, 0.1


def images_of(rng: np.random.Generator, heights: tuple[float, ...], seeds: int, images: int) -> Iterator[list[NDArray]]:
    """One simulated ablation after another: for each row, correctness `[seeds, images]` of the same images."""
    for _ in range(SIMULATIONS):
        ease = EASE * rng.standard_normal(images)
        yield [
            (
                rng.random((seeds, images))
                < 1
                / (
                    1
                    + np.exp(
                        -(height + ease + TASTE * rng.standard_normal(images) + SEED * rng.standard_normal((seeds, 1)))
                    )
                )
            ).astype(float)
            for height in heights
        ]


def expected(height: float) -> float:
    """Accuracy in the long run: the logistic's mean over a normal of all three variances, by quadrature."""
    scale = np.sqrt(EASE**2 + TASTE**2 + SEED**2)
    value, _ = integrate.quad(lambda z: stats.norm.pdf(z) / (1 + np.exp(-(height + scale * z))), -9, 9)
    return float(value)


@pytest.mark.parametrize("seeds", [3, 5])
def test_with_images_intervals_are_right_and_those_of_means_alone_only_wider(seeds: int) -> None:
    images, heights = 200, (0.5, 0.0)
    rng = np.random.default_rng(seeds)
    rows = np.array(list(images_of(rng, heights, seeds, images)))
    truth = expected(heights[0]) - expected(heights[1])
    exact = paired_images(rows[:, 0], rows[:, 1])
    means = paired(rows[:, 0].mean(-1), rows[:, 1].mean(-1), images=images)
    assert coverage(exact, truth) == pytest.approx(0.95, abs=CLOSE)
    assert coverage(means, truth) > 0.95
    assert np.allclose(exact.effect, means.effect)
    assert np.median(exact.high - exact.low) < 0.8 * np.median(means.high - means.low)


def test_no_false_positives_beyond_the_level() -> None:
    """Eight rows alike, seven comparisons with the first: Holm holds the chance that any of them is found at 5%."""
    rng = np.random.default_rng(4)
    rows = np.stack([accuracies(rng, 0.4, 0.03, 3, 200) for _ in range(8)], axis=1)
    p = paired(rows[:, 1:], rows[:, :1], images=200).p
    assert p.shape == (SIMULATIONS, 7)
    allowed = 0.05 + 2.3 * np.sqrt(0.05 * 0.95 / SIMULATIONS)  # 99%
    assert all((p[:, row] < 0.05).mean() <= allowed for row in range(7))
    assert [adjusted(row).min() for row in p[:4]] == pytest.approx(np.minimum(7 * p[:4].min(axis=1), 1))
    assert (7 * p.min(axis=1) < 0.05).mean() <= allowed
    assert (p.min(axis=1) < 0.05).mean() > 0.12  # without the correction


def test_pairing_by_seed_takes_out_what_seeds_share() -> None:
    rng = np.random.default_rng(5)
    shared = 0.1 * rng.standard_normal(4)
    row, reference = 0.5 + shared + 0.01 * rng.standard_normal(4), 0.4 + shared
    theirs = stats.ttest_rel(row, reference)
    ours = paired(row, reference)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert ours.degrees == 3


def test_a_failed_seed_is_left_out_with_its_pair() -> None:
    row, reference = np.array([0.5, np.nan, 0.6, 0.55]), np.array([0.4, 0.1, 0.45, np.nan])
    theirs = stats.ttest_rel([0.5, 0.6], [0.4, 0.45])
    ours = paired(row, reference)
    assert ours.effect == pytest.approx(0.125)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert paired(row, reference, images=50).p == paired(row[[0, 2]], reference[[0, 2]], images=50).p
    alone = paired(row[:2], reference[:2])
    assert np.isnan([alone.effect, alone.low, alone.high, alone.p]).all()


def test_what_never_varies_is_certain_only_without_images() -> None:
    same, other = paired([3.0, 3.0], [3.0, 3.0]), paired([3.0, 3.0], [2.0, 2.0])
    assert (same.effect, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert (other.effect, other.low, other.high, other.p) == (1, 1, 1, 0)
    nothing = mean([0.0, 0.0, 0.0], images=200)
    assert 0.01 < nothing.high < 0.03  # the rule of three says 0.015
    assert nothing.degrees == np.inf


@pytest.mark.parametrize("images_part", [0.1, 0.5, 1.0, 5.0])
def test_at_three_seeds_no_ratio_of_the_two_parts_breaks_the_interval(images_part: float) -> None:
    """Normal differences: one part that seeds share and whose variance is known, and one of each seed's own."""
    rng = np.random.default_rng(8)
    count = 20 * SIMULATIONS
    values = rng.standard_normal((count, 3)) + np.sqrt(images_part / 3) * rng.standard_normal((count, 1))
    found = combine(values.mean(1), values.var(1, ddof=1) / 3, 2, images_part / 3)
    assert coverage(found, 0.0) == pytest.approx(0.95, abs=CLOSE)


def test_paired_images_need_two_of_each() -> None:
    with pytest.raises(UserError, match="at least two seeds and two images, but got 1 and 5"):
        paired_images(np.ones((1, 5)), np.ones((1, 5)))


def test_holm_by_hand() -> None:
    found = adjusted([0.01, np.nan, 0.04, 0.03])
    assert found == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(adjusted([np.nan])).all()


def test_holm_is_statsmodels_s() -> None:
    for p in np.random.default_rng(6).random((5, 9)) ** 3:
        assert adjusted(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_effect_on_the_front_by_hand() -> None:
    """Base 1 ms, range to 10 ms: the slow row adds its rise over half of the range in logarithms, the worst nothing."""
    half = 10**0.5
    robust, latency = [[0.4, 0.4], [0.6, 0.7], [0.3, 0.3]], [[1, 1], [half, half], [half, half]]
    found = hypervolume_effects(robust, latency, base=1.0)
    # Without the fast row nothing is attained in the fast half; without the slow one 0.4 in the slow half.
    assert found.effect == pytest.approx([0.4 / 2, (0.2 + 0.3) / 2 / 2, 0.0])
    assert found.p[2] == 1
    assert found.low[1] < 0.125 < found.high[1]
