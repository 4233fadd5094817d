"""Effects of an ablation's rows, with intervals and tests that are right at three seeds.

An accuracy varies for two reasons: the seed of the training, and the images that happened to be measured. Rows are
compared seed by seed and image by image, since all rows share both: of a difference D the mean over S seeds and n
images has the variance

    seeds / S + images / n + rest / (S n)                        (two-way random effects, crossed)

The spread between seeds, all measured on the same images, gives the first term and the third. For the second,
`paired_images` takes the correctness of each image. A results table holds means alone (`paired`): there the term is
bounded by the two rows' binomial variances, as if they were right on images that have nothing to do with each other.
So those intervals are as wide as 95% needs or wider: rows agree on most images, and only `paired_images` knows.

The degrees of freedom of such a sum are (S - 1) total / seeds. Satterthwaite (1946) has the square of that ratio, too
many at three seeds: at the worst ratio of the terms, 95% intervals then hold the truth in 92.0% of cases, and with the
plain ratio in 94.2 to 96.4% at any (40,000 simulations; with two seeds in 90.5% at worst). A bootstrap of three seeds
has ten resamples, and its 95% intervals hold the truth in 76% (2,000 simulations).

Every function takes any leading axes, so that a thousand simulated ablations are one call. A seed that is NaN (a trial
that failed) is left out together with its pair; fewer than two pairs give NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ..errors import UserError
from ..pareto import normalised_hypervolume

Array = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True)
class Effects:
    """Estimates with their intervals and two-sided tests against 0; all of one shape `[...]`."""

    effect: Array
    low: Array
    high: Array
    p: Array
    degrees: Array
    """Of freedom, of the t distribution behind the interval and the test; infinite where nothing varies by seed."""


def mean(values: ArrayLike, *, images: int | None = None, level: float = LEVEL) -> Effects:
    """Mean over seeds of accuracies in [0, 1] `[..., S]` on `images` images; None for what has no images (latency)."""
    array = np.asarray(values, dtype=float)
    fixed = np.zeros(array.shape[:-1]) if images is None else binomial(array, images, 2)
    return _over_seeds(array, fixed, level)


def paired(values: ArrayLike, reference: ArrayLike, *, images: int | None = None, level: float = LEVEL) -> Effects:
    """Mean difference of a row from a reference, `[..., S]` each, seed s of one paired with seed s of the other.

    Without `images` this is the paired t test. For ratios (latency), give logarithms.
    """
    one, two = np.broadcast_arrays(np.asarray(values, dtype=float), np.asarray(reference, dtype=float))
    both = np.isfinite(one) & np.isfinite(two)
    one, two = np.where(both, one, np.nan), np.where(both, two, np.nan)
    fixed = np.zeros(one.shape[:-1]) if images is None else binomial(one, images, 1) + binomial(two, images, 1)
    return _over_seeds(one - two, fixed, level)


def paired_images(correct: ArrayLike, reference: ArrayLike, *, level: float = LEVEL) -> Effects:
    """The same from the correctness of each image, in [0, 1]: `[..., S, n]`, same seeds and images in both.

    The images' term is (MS_images - MS_rest) / (S n) of the two-way layout of differences, seeds by images (Searle,
    Casella & McCulloch 1992, chapter 4). No value may be missing.

    Raises:
        UserError: there are fewer than two seeds or images.
    """
    difference = np.asarray(correct, dtype=float) - np.asarray(reference, dtype=float)
    seeds, images = difference.shape[-2:]
    if seeds < 2 or images < 2:
        raise UserError(f"effects need at least two seeds and two images, but got {seeds} and {images}")
    by_seed, by_image = difference.mean(axis=-1), difference.mean(axis=-2)
    rest = difference - by_seed[..., :, None] - by_image[..., None, :] + by_seed.mean(axis=-1)[..., None, None]
    ms_images = seeds * by_image.var(axis=-1, ddof=1)
    ms_rest = (rest**2).sum(axis=(-2, -1)) / ((seeds - 1) * (images - 1))
    return _over_seeds(by_seed, np.maximum(ms_images - ms_rest, 0.0) / (seeds * images), level)


def adjusted(p: ArrayLike) -> Array:
    """The p values `[m]` corrected for being m (Holm 1979); NaN does not count.

    It holds the probability of any false positive at the level, whatever the tests have to do with each other.
    statsmodels' `multipletests` does the same, and a full garbage collection at each call: half a second in a process
    that has imported much.
    """
    array = np.asarray(p, dtype=float)
    order = np.argsort(array)[: np.isfinite(array).sum()]  # NaN comes last
    found = np.full(array.shape, np.nan)
    found[order] = np.minimum(np.maximum.accumulate(array[order] * np.arange(len(order), 0, -1)), 1.0)
    return found


def hypervolume_effects(robust: ArrayLike, latency: ArrayLike, base: float, *, level: float = LEVEL) -> Effects:
    """What each row adds to the front of all of them: `normalised_hypervolume` with it minus without it, by seed.

    Over seeds alone: which images were measured is not in the interval. A row on no seed's front has exactly 0.

    Args:
        robust: robust accuracies `[R, S]` in [0, 1].
        latency: p50s `[R, S]`, ms.
        base: latency at which the hypervolume's range starts, ms.
        level: of the intervals.
    """
    points = np.stack([-np.asarray(robust, dtype=float), np.asarray(latency, dtype=float)], axis=-1)
    rows, seeds, _ = points.shape
    gains = np.empty((rows, seeds))
    for seed in range(seeds):
        whole = normalised_hypervolume(points[:, seed], base)
        for row in range(rows):
            gains[row, seed] = whole - normalised_hypervolume(np.delete(points[:, seed], row, axis=0), base)
    return mean(np.where(np.isfinite(points).all(axis=-1), gains, np.nan), level=level)


def combine(effect: ArrayLike, seeds: ArrayLike, degrees: ArrayLike, fixed: ArrayLike, level: float = LEVEL) -> Effects:
    """Interval and test of an estimate whose variance is `seeds`, with so many degrees of freedom, plus `fixed`.

    `fixed` is taken as known, as it comes from hundreds of images; the degrees of the sum are as above.
    """
    between = np.asarray(seeds, dtype=float)
    total = between + np.asarray(fixed, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(between > 0, np.asarray(degrees, dtype=float) * total / between, np.inf)
    return _effects(np.asarray(effect, dtype=float), total, freedom, level)


def _over_seeds(values: Array, fixed: Array, level: float) -> Effects:
    """Mean over the last axis, where `fixed` is the part of its variance that more seeds do not lessen."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    enough = np.where(count > 1, count, np.nan)
    average = np.where(known, values, 0.0).sum(axis=-1) / enough
    spread = (np.where(known, values - average[..., None], 0.0) ** 2).sum(axis=-1) / (enough - 1)
    return combine(average, spread / enough, enough - 1, fixed, level)


def _effects(effect: Array, variance: Array, degrees: Array, level: float) -> Effects:
    error = np.sqrt(variance)
    half = stats.t.ppf((1 + level) / 2, degrees) * error
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(error > 0, 2 * stats.t.sf(np.abs(effect) / error, degrees), np.where(effect == 0, 1.0, 0.0))
    half, p = np.where(error == 0, 0.0, half), np.where(np.isnan(effect) | np.isnan(error), np.nan, p)
    return Effects(effect, effect - half, effect + half, p, degrees)


def binomial(accuracy: Array, images: int, added: int) -> Array:
    """Variance of the mean over seeds of accuracies `[..., S]` because of the images, at most.

    With successes and failures `added`, so that 0 of n is not taken as certain: two of each for one accuracy (Agresti &
    Coull 1998), one of each for either side of a difference (Agresti & Caffo 2000).
    """
    known = np.isfinite(accuracy)
    count = np.where(known.any(axis=-1), known.sum(axis=-1), np.nan)
    average = np.where(known, accuracy, 0.0).sum(axis=-1) / count
    average = (images * average + added) / (images + 2 * added)
    variance: Array = average * (1 - average) / images
    return variance
