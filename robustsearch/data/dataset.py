"""What a dataset is: three splits of uint8 images with their labels, and the conventions that go with them.

Plain numpy: a dataset is pickled once, kept in a node's shared memory, and read through read-only views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels."""

    images: NDArray[np.uint8]
    """`[N, H, W, C]`, 0 to 255, C-contiguous."""
    labels: NDArray[np.int64]
    """`[N]`, 0 to classes - 1."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Split:
        """A copy of the images at `indices` `[n]`, in that order."""
        return Split(np.ascontiguousarray(self.images[indices]), self.labels[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """One classification task with the conventions of its attacks and of its augmentation."""

    name: str
    """One of `DATASETS`, or the file name of a FILE.npz."""
    train: Split
    """Images to train on."""
    validation: Split
    """Images to choose by; held out from the training images."""
    test: Split
    """Images to report on, used by no search."""
    classes: int
    """Number of classes."""
    class_names: tuple[str, ...]
    """Their names, in the order of the labels."""
    mean: tuple[float, ...]
    """Mean of each channel over the training split, pixel units of [0, 1]."""
    std: tuple[float, ...]
    """Standard deviation of the same, at least 1/255."""
    epsilon: float
    """Default l_inf radius of an evaluation, pixel units of [0, 1]."""
    epsilon_l2: float
    """Default l_2 budget of an evaluation, pixel units of [0, 1]."""
    crop_padding: int
    """Augmentation: zero pixels added on each side before a random crop back to `[H, W]`; 0 is no crop."""
    flip: bool
    """Augmentation: mirror half of the images left to right."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one image."""
        height, width, channels = self.train.images.shape[1:]
        return channels, height, width


def channel_moments(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, at least 1/255, of each channel of `[N, H, W, C]`, pixel units of [0, 1].

    The sums are exact: of integers, and below 2**53.
    """
    axes = (0, 1, 2)
    mean = images.mean(axis=axes, dtype=np.float64)
    mean_square = np.square(images, dtype=np.uint16).mean(axis=axes, dtype=np.float64)
    std = np.sqrt(np.maximum(mean_square - mean**2, 1.0))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
