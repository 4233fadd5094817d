"""Fixed choices of images that keep the shares of the classes.

The choice depends on the labels alone: no run seed enters, so that every trial of every run sees the same
splits. The random keys are raw output of PCG64, a stream that numpy promises never to change (NEP 19).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .dataset import Split

KEY_SEED = 20101001
"""Seed of the random keys. Another number would give other splits, and results that cannot be compared."""


def stratified_order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of `labels` `[N]` in a random order, every prefix of which has the class shares of the whole.

    First one image of each class; then by Webster's rule of apportionment, under which image r = 0, 1, ...
    of a class of n has its turn at (r + 1/2) / n. Prefixes are nested: a smaller choice is part of a larger
    one.
    """
    keys = np.random.PCG64(KEY_SEED).random_raw(len(labels))
    by_class = np.lexsort((keys, labels))
    counts = np.bincount(labels)
    size = np.repeat(counts, counts)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    turn = np.where(rank == 0, 0, (rank + 0.5) / size)
    return by_class[np.lexsort((keys[by_class], turn))]


def divide(split: Split, size: int) -> tuple[Split, Split]:
    """A stratified choice of `size` images, or one a class if that is more, and the rest; in file order."""
    order = stratified_order(split.labels)
    size = max(size, len(np.unique(split.labels)))
    return split.take(np.sort(order[:size])), split.take(np.sort(order[size:]))


def validation_size(images: int) -> int:
    """How many training images are held out: a tenth; if that is below 300, up to a fifth; at most 5000."""
    tenth, fifth = -(-images // 10), -(-images // 5)
    return min(5000, max(tenth, min(300, fifth)))
